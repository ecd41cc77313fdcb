from __future__ import annotations

from datetime import timedelta

import pytest

from spr import Config
from spr.errors import ConfigError

MINIMAL = '[entity_types]\npeople = { edge_type = "connection" }\nhashtag = { edge_type = "follow", top_k = 3 }\n'


def test_config_minimal_has_defaults() -> None:
    config = Config.parse(MINIMAL)
    assert config.edge_types == ("connection", "follow")
    assert config.top_k == 6
    assert config.labels.downstream_window == timedelta(days=7)
    assert config.random_effects[0].features == ("entity_type", "edge_type")


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
