"""What the configuration may ask of a page: refusals, each with its sentence, and the way through a manifest."""

from __future__ import annotations

import pytest

import spr
from spr.errors import ConfigError

MINIMAL = '[entity_types]\npeople = { edge_type = "connection" }\nhashtag = { edge_type = "follow" }\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[[guarantees]]\nname = 'g'\nratio = { connection = 1 }",
            "part of the impressions for all of it; found no share",
        ),
        ("[[guarantees]]\nname = 'g'\nratio = { connection = 1 }\nshare = 0.2\nmaximum = 3", "found maximum"),
        ("[[guarantees]]\nname = 'g'\nratio = { connection = 0 }\nshare = 0.2", "allowed: numbers above 0"),
        ("[[guarantees]]\nname = 'g'\nratio = {}\nshare = 0.2", "holds nothing"),
        ("[[guarantees]]\nname = 'g'\nratio = { conection = 1 }\nshare = 0.2", "Did you mean 'connection'"),
        ("[[guarantees]]\nname = 'g'\nratio = { follow = 1 }\nshare = 0.2\nedge_type = 'follow'", "edge_type, ratio"),
        ("[[guarantees]]\nname = 'g'\nratio = { follow = 1 }\nshare = 0.2\nrefresh = '3d'", "this ratio is fixed"),
        ("[[guarantees]]\nname = 'g'\nedge_type = 'follow'\nshare = 0.2\nrefresh = '3d'", "refresh belongs to"),
        ("[[guarantees]]\nname = 'g'\nedge_type = 'follow'\nminimum_by_prefix = [2]", "minimum_by_prefix"),
        ("[[guarantees]]\nname = 'g'\nedge_type = 'follow'\nminimum = 3\nmaximum = 2", "raise the maximum"),
        ("[[guarantees]]\nname = 'g'\nedge_type = 'follow'\nminimum = 1\nprice = 0.1", "belong to a share"),
        (
            "[[guarantees]]\nname = 'g'\nedge_type = 'follow'\nminimum = 1\n"
            "starts = 2026-02-01T00:00:00Z\nends = 2026-01-01T00:00:00Z",
            "a start before the end",
        ),
        (
            "[[guarantees]]\nname = 'a'\nentity_type = 'hashtag'\nminimum = 2\nwithin_top = 3\n"
            "[[guarantees]]\nname = 'b'\nedge_type = 'connection'\nminimum = 2\nwithin_top = 3",
            "minima .* sum to 4",
        ),
        ("[exploration]\nmethod = 'shuffle'", "exploration.method"),
        ("[exploration]\nmethod = 'epsilon'\nepsilon = 2.0", "epsilon=2.0; allowed"),
        ("[exploration]\ndepth = 3", "depth without a method"),
        ("[exploration]\nmethod = 'epsilon'\ntemperature = 0.2", "epsilon does not read temperature; it reads depth"),
        ("[exploration]\nmethod = 'thompson'\ndepth = 2", "thompson does not read depth; it reads draws"),
        (
            "[[random_effects]]\nname = 'kind'\nkey = 'cohort_kind'\n[exploration]\nmethod = 'thompson'",
            "thompson needs a random effect with key = 'viewer_id'",
        ),
        ("[guarantees]\nname = 'g'", r"write \[\[guarantees\]\], with two brackets"),
        *(
            (f"[[guarantees]]\nname = 'floor'\nedge_type = 'follow'\n{terms}", sentence)
            for terms, sentence in (
                ("share = 0.2\nprice = 'of'", r"guarantees\.floor\.price: 'of' is no price; allowed: a number >= 0"),
                ("share = 0.2\nprice = -1", "-1 is no price"),
                ("minimum = [1]", r"minimum: \[1\] is not a number"),
                ("minimum = true", "True is not a number"),
                ("minimum = '1'", "'1' is not a number"),
                ("maximum = true", "maximum: Input should be a valid integer"),
                ("share = '0.2'", "share: Input should be a valid number"),
                ("minimum = 1\nstarts = 20260101", "20260101 is no moment"),
                ("minimum = 1\nslack = 2.0", "slack belong to a share"),
                ("minimum = 1\nprice = 'off'\nscope = 'viewer'", "scope and price belong to a share"),
                ("share = 0.2\nscope = 'population'\nprice = 'off'", "price = 'off' would drop it"),
                ("minimum_by_prefix = [0, 1]\nwithin_top = 3", "within_top beside bounds by prefix"),
            )
        ),
        ("[[guarantees]]\nname = 'g'\nratio = 'importances'\nshare = 0.2", "'importances' is no ratio"),
        ("[[guarantees]]\nname = 'g'\nratio = 'importance'\nshare = 0.2\nrefresh = '0d'", "g.refresh: Input should be"),
        ("[[guarantees]]\nname = 'g'\nratio = 'importance'\nshare = 0.2\nrefresh = 30", "30 is not a duration"),
        ("[exploration]\ndeth = 3", "unknown key 'deth'.*Did you mean 'depth'"),
    ],
)
def test_rules_that_cannot_be_are_refused_when_they_are_read(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        spr.Config.parse(MINIMAL + text)


def test_rules_survive_the_manifest_and_leave_older_hashes_alone() -> None:
    old = spr.Config.parse(MINIMAL + "[[guarantees]]\nname = 'g'\nedge_type = 'follow'\nminimum = 1")
    assert old.to_dict()["guarantees"] == [
        {"name": "g", "edge_type": "follow", "minimum": 1, "within_top": 10, "slack": 1.0}
    ]
    assert old.to_dict()["exploration"] == {"random_share": 0.05, "salt": "spr-random-policy"}
    new = spr.Config.parse(
        MINIMAL
        + """
        [exploration]
        method = "plackett_luce"
        temperature = 0.2
        [[guarantees]]
        name = "g"
        ratio = "importance"
        share = 0.5
        refresh = "30d"
        starts = 2026-01-01T00:00:00Z
        """
    )
    assert spr.Config.from_dict(new.to_dict()) == new
