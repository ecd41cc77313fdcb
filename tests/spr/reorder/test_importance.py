from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.errors import ConfigError
from spr.reorder import ImportanceFactors


def test_importance_factors_take_arrays_and_lists():
    factors = ImportanceFactors.of({"connection": 1.4, "subscribe": 0.8})
    expected = [0.8, 1.0, 1.4]
    assert factors.at(["subscribe", "follow", "connection"]).tolist() == expected
    at = factors.at(np.array(["subscribe", "follow", "connection"]))
    assert at.tolist() == expected
    assert at.dtype == np.float64


def test_importance_factors_from_parts_divide_value_by_probability():
    factors = ImportanceFactors.from_parts(
        {"connection": 2.0, "follow": 0.5, "subscribe": 0.9},
        {"connection": 0.4, "follow": 0.2, "subscribe": 0.3},
        reference="follow",
    )
    assert dict(factors.factor) == pytest.approx({"connection": 2.0, "follow": 1.0, "subscribe": 1.2})
    # probability * factor is then V per edge formed, up to one constant
    gain = {
        t: factors.probability_downstream[t] * factors.factor[t] / factors.value_per_edge[t] for t in factors.factor
    }
    assert np.ptp(list(gain.values())) < 1e-12


def test_importance_factors_survive_json():
    factors = ImportanceFactors.from_parts(
        {"connection": 2.0, "follow": 0.5},
        {"connection": 0.4, "follow": 0.2},
        reference="follow",
        interval={"connection": (1.5, 2.5)},
    )
    again = ImportanceFactors.from_dict(json.loads(json.dumps(factors.to_dict())))
    assert again == factors
    assert again.version == factors.version
    assert again.interval["connection"] == (1.5, 2.5)


def test_importance_factors_version_follows_the_content_and_not_the_order():
    one = ImportanceFactors.of({"a": 1.0, "b": 2.0})
    assert one.version == ImportanceFactors.of({"b": 2.0, "a": 1.0}).version
    assert one.version != ImportanceFactors.of({"a": 1.0, "b": 2.1}).version
    assert one.version != ImportanceFactors.of({"a": 1.0, "b": 2.0}, reference="a").version


def test_importance_factors_cannot_be_changed():
    given_factors = {"a": 1.5}
    factors = ImportanceFactors.of(given_factors)
    given_factors["a"] = 9.0
    assert factors.factor["a"] == 1.5
    with pytest.raises(TypeError):
        factors.factor["a"] = 2.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=3), st.floats(0.01, 100), st.integers(0, 2**32 - 1))
def test_importance_factors_times_a_constant_give_the_same_order(factor, scale, seed):
    rng = np.random.default_rng(seed)
    names = np.array(["a", "b", "c"])
    edge, probability = rng.choice(names, 20), rng.random(20)
    one = probability * ImportanceFactors.of(dict(zip(names, factor, strict=True))).at(edge)
    other = probability * ImportanceFactors.of({n: f * scale for n, f in zip(names, factor, strict=True)}).at(edge)
    assert np.argsort(one).tolist() == np.argsort(other).tolist()


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_importance_factors_refuse_what_is_not_positive(factor):
    with pytest.raises(ConfigError, match="factor of edge type 'a'"):
        ImportanceFactors.of({"a": factor})


def test_importance_factors_refuse_contradictions():
    with pytest.raises(ConfigError, match="reference 'a' is 2"):
        ImportanceFactors.of({"a": 2.0}, reference="a")
    with pytest.raises(ConfigError, match="interval of 'a'"):
        ImportanceFactors({"a": 1.0}, interval={"a": (2.0, 1.0)})
    with pytest.raises(ConfigError, match="same edge types"):
        ImportanceFactors.from_parts({"a": 1.0}, {"b": 0.5}, reference="a")
    with pytest.raises(ConfigError, match="at most 1"):
        ImportanceFactors.from_parts({"a": 1.0}, {"a": 1.5}, reference="a")


def test_importance_factors_refuse_altered_content():
    content = ImportanceFactors.of({"a": 1.0}).to_dict()
    content["factor"] = {"a": 3.0}
    with pytest.raises(ConfigError, match="remove the version"):
        ImportanceFactors.from_dict(content)
    with pytest.raises(ConfigError, match="'factor' is required"):
        ImportanceFactors.from_dict({"factors": {"a": 1.0}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"factor": {"a": "x"}}, "factor of edge type 'a' is 'x'; allowed: a number"),
        ({"factor": {"a": True}}, "is True; allowed: a number"),
        ({"factor": [1.0]}, r"factor is \[1.0\]; allowed: a table by edge type"),
        ({"factor": {"a": 1.0}, "interval": {"a": [1]}}, r"interval of 'a' is \[1\]"),
        ({"factor": {"a": 1.0}, "interval": {"a": ["x", "y"]}}, "allowed: two numbers"),
        ({"factor": {"a": 1.0}, "interval": {"a": 3}}, "allowed: two numbers"),
        ({"factor": {"a": 1.0}, "interval": {"b": [1, 2]}}, "interval names 'b', which has no factor"),
        ({"factor": {"a": 1.0}, "source": "q4"}, "source is 'q4'"),
        ({"factor": {"a": 1.0}, "reference": 7}, "reference is 7"),
    ],
)
def test_factors_written_by_hand_are_checked(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImportanceFactors.from_dict(content)
