from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from spr import Config
from spr.errors import ConfigError
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL = '[entity_types]\npeople = { edge_type = "connection" }\nhashtag = { edge_type = "follow", top_k = 3 }\n'
COUNTS = "[entity_types]\nnewsletter = {{ edge_type = 'subscribe', response = 'count', aggregation = '{}' }}\n"


def test_config_minimal_has_defaults() -> None:
    config = Config.parse(MINIMAL)
    assert config.edge_types == ("connection", "follow")
    assert config.top_k == 6
    assert config.labels.downstream_window == timedelta(days=7)
    assert config.random_effects[0].features == ("entity_type", "edge_type")


def test_config_aggregation_of_counts_is_a_mean_unless_given() -> None:
    given = "[entity_types]\na = { edge_type = 'x', response = 'count' }\nb = { edge_type = 'x' }\n"
    config = Config.parse(given + "c = { edge_type = 'x', response = 'continuous', aggregation = 'max' }\n")
    assert [kind.aggregation for kind in config.entity_types.values()] == ["slot_weighted_mean", "noisy_or", "max"]
    assert config.responses == {"a": "count", "b": "binary", "c": "continuous"}
    assert Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", ["network", "lastfm"])
def test_config_shipped_round_trips_with_same_hash(name: str) -> None:
    config = Config.named(name)
    again = Config.from_dict(config.to_dict())
    assert again == config
    assert again.hash == config.hash


def test_config_hash_changes_with_content() -> None:
    assert Config.parse(MINIMAL).hash != Config.parse("seed = 8\n" + MINIMAL).hash


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "entity_types: Field required"),
        ("sead = 3\n" + MINIMAL, "unknown key 'sead'.*Did you mean 'seed'"),
        (MINIMAL + "[labels]\nresponse_window = '3 parsecs'", "'3 parsecs' is not a duration"),
        (MINIMAL + "[importance]\nconection = 2.0", "unknown edge type 'conection'.*Did you mean 'connection'"),
        (MINIMAL + "[importance]\nconnection = 0.0", "importance.*'connection' is 0.0; allowed: positive"),
        (MINIMAL + "[importance]\nconnection = nan", "finite"),
        (MINIMAL + "[importance]\nconnection = [2.0]", "importance: .*allowed: a number"),
        ("importance = 3\n" + MINIMAL, "importance: .*3 is no table"),
        (MINIMAL + "[importance]\nfile = 'no.json'", r"\[importance\].*no.json cannot be read"),
        (MINIMAL + "[importance]\nfile = 'no.json'\nfollow = 2.0", "file = 'no.json' and numbers for follow; keep one"),
        (MINIMAL + "[[guarantees]]\nname = 'g'\nminimum = 1", "names none; name exactly one"),
        (
            MINIMAL + "[[guarantees]]\nname = 'g'\nedge_type = 'follow'\nminimum = 1\nshare = 0.2",
            "one of minimum, sh",
        ),
        (MINIMAL + "[[guarantees]]\nname = 'g'\nedge_type = 'follow'\nminimum = 11", "minimum=11"),
        (MINIMAL + "[[guarantees]]\nname = 'g'\nentity_type = 'hashtags'\nminimum = 1", "Did you mean 'hashtag'"),
        (MINIMAL + "[[random_effects]]\nname = 'fixed'", "names of their own; taken: fixed"),
        (COUNTS.format("noisy_or"), "aggregation 'noisy_or' needs probabilities.*use 'slot_weighted_mean'"),
        (COUNTS.format("mean") + "p = { edge_type = 'x', response = 'rate' }", "entity_types.p.response"),
        ("[entity_types]\np = { edge_type = 'x', response = 'count', negative_sampling_rate = 0.5 }", "binary"),
        ("[entity_types]\np = { edge_type = 'x', negative_sampling_rate = 0.0 }", "negative_sampling_rate"),
        (MINIMAL + "[calibration]\nmethod = 'platt'", "calibration.method.*'sigmoid'"),
        (MINIMAL + "[calibration]\nsegment = 'slot'", "'slot' is a column of the impressions table"),
        ("[entity_types", "not TOML"),
    ],
)
def test_config_bad_input_names_the_key(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Config.parse(text)


def test_config_shares_above_one_are_refused() -> None:
    shares = "".join(
        f"[[guarantees]]\nname = '{edge}'\nedge_type = '{edge}'\nshare = 0.6\n" for edge in ("connection", "follow")
    )
    with pytest.raises(ConfigError, match="sum"):
        Config.parse(MINIMAL + shares)


def test_config_unknown_name_lists_what_is_shipped() -> None:
    with pytest.raises(ConfigError, match=r"known: lastfm, network.*Did you mean 'network'"):
        Config.named("netwrok")


def test_config_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration at .*absent\.toml"):
        Config.read(tmp_path / "absent.toml")


FACTORS = ImportanceFactors(
    {"connection": 1.5, "follow": 1.0},
    "follow",
    interval={"connection": (0.9, None), "follow": (1.0, 1.0)},
    value_per_edge={"connection": 0.6, "follow": 0.2},
    probability_downstream={"connection": 0.5, "follow": 0.25},
    estimate={"connection": 1.6, "follow": 1.0},
    decision={"connection": "use", "follow": "use"},
    source={"experiment": "spring"},
)


def test_config_numbers_are_factors_and_stay_numbers() -> None:
    config = Config.parse(MINIMAL + "[importance]\nconnection = 2")
    assert dict(config.importance.factor) == {"connection": 2.0}
    assert config.to_dict()["importance"] == {"connection": 2.0}
    assert config.hash == "38b369947530"  # of this text, before factors could come from a file


def test_config_factors_of_a_file_stand_in_for_it(tmp_path: Path) -> None:
    FACTORS.save(tmp_path / "experiments" / "factors.json")
    (tmp_path / "network.toml").write_text(MINIMAL + "[importance]\nfile = 'experiments/factors.json'")
    config = Config.read(tmp_path / "network.toml")
    assert config.importance == FACTORS
    (tmp_path / "experiments" / "factors.json").unlink()
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert (again.hash, again.importance.version) == (config.hash, FACTORS.version)
    assert config.hash != Config.parse(MINIMAL + "[importance]\nconnection = 1.5\nfollow = 1.0").hash


def test_config_hash_covers_the_content_of_the_file(tmp_path: Path) -> None:
    hashes = set()
    for high in (2.0, 3.0):
        factors = ImportanceFactors({"connection": 1.5}, interval={"connection": (0.9, high)})
        factors.save(tmp_path / "factors.json")
        hashes.add(Config.parse(MINIMAL + "[importance]\nfile = 'factors.json'", folder=tmp_path).hash)
    assert len(hashes) == 2


def test_config_file_of_factors_with_an_unknown_edge_type_is_refused(tmp_path: Path) -> None:
    ImportanceFactors.of({"subscribe": 2.0}).save(tmp_path / "factors.json")
    with pytest.raises(ConfigError, match=r"unknown edge type 'subscribe' in config, \[importance\]"):
        Config.parse(MINIMAL + "[importance]\nfile = 'factors.json'", folder=tmp_path)


def test_config_of_a_manifest_reads_no_file(tmp_path: Path) -> None:
    FACTORS.save(tmp_path / "factors.json")
    content = Config.parse(MINIMAL).to_dict() | {"importance": {"file": str(tmp_path / "factors.json")}}
    with pytest.raises(ConfigError, match="is read with TOML text only"):
        Config.from_dict(content)


def test_config_edge_type_may_be_called_file_or_factor() -> None:
    text = (
        "[entity_types]\na = { edge_type = 'file' }\nb = { edge_type = 'factor' }\n[importance]\nfile = 2\nfactor = 3"
    )
    assert dict(Config.parse(text).importance.factor) == {"file": 2.0, "factor": 3.0}
