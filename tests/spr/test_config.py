from __future__ import annotations

from datetime import timedelta

import pytest

from spr import Config
from spr.errors import ConfigError

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
        (MINIMAL + "[importance]\nconnection = 0.0", "greater than 0"),
        (MINIMAL + "[importance]\nconnection = nan", "finite"),
        (MINIMAL + "[[guarantees]]\nname = 'g'\nminimum = 1", "names 0 labels"),
        (MINIMAL + "[[guarantees]]\nname = 'g'\nedge_type = 'follow'\nminimum = 1\nshare = 0.2", "exactly one"),
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
