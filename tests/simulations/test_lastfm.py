from __future__ import annotations

import hashlib
import io
import urllib.error
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from first_pass import EdgeGraph
from simulations.lastfm import LastFMTables, build_tables, find_data, reading
from simulations.lastfm.behaviour import interacts_downstream
from simulations.lastfm.cohorts import KINDS
from simulations.lastfm.hold_out import KEY, hold_out, list_edges
from simulations.lastfm.page_views import LOG_START, POSITION_EXAMINATION, draw_page_views, show_pages
from simulations.lastfm.reading import Network, read_network
from simulations.lastfm.tables import describe_entities, describe_viewers, score_candidates
from spr.config import Config
from spr.errors import DataNotFound, TableError
from spr.tables import read_entities, read_impressions, read_viewers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = ["response", "downstream"]


def _pairs(edges: pd.DataFrame) -> set[tuple[str, ...]]:
    return set(edges[KEY].itertuples(index=False, name=None))


def _is_held_out(rows: pd.DataFrame, end: str, entity_type: str, held_out: pd.DataFrame) -> pd.Series[bool]:
    edges = held_out.loc[held_out["entity_type"] == entity_type, ["viewer_id", "entity_id"]]
    keys = pd.MultiIndex.from_frame(rows[["viewer_id", end]])
    return pd.Series(keys.isin(pd.MultiIndex.from_frame(edges)), index=rows.index)


def _change_held_out(network: Network, seed: int) -> Network:
    """Remove some of what is held out, give the rest other ends, plays and days, and shuffle all rows."""
    rng = np.random.default_rng(0)
    held_out = hold_out(network, 0.3, seed=seed).held_out
    no_friend = _is_held_out(network.friends, "friend_id", "people", held_out)
    no_artist = _is_held_out(network.plays, "artist_id", "artist", held_out)
    no_tag = _is_held_out(network.assignments, "tag_id", "tag", held_out)
    of_no_artist = _is_held_out(network.assignments, "artist_id", "artist", held_out) & ~no_tag

    friends = network.friends.loc[no_friend & (network.friends["viewer_id"] < network.friends["friend_id"])].copy()
    plays = network.plays.loc[no_artist].sample(frac=0.8, random_state=1)
    tags = network.assignments.loc[no_tag].sample(frac=0.8, random_state=1)
    for table, end in ((friends, "friend_id"), (plays, "artist_id"), (tags, "artist_id"), (tags, "tag_id")):
        table[end] = rng.permutation(table[end].to_numpy())
    friends = friends.loc[friends["viewer_id"] != friends["friend_id"]]
    mirrored = friends.rename(columns={"viewer_id": "friend_id", "friend_id": "viewer_id"})
    other = replace(
        network,
        friends=pd.concat([friends, mirrored]).drop_duplicates(),
        plays=plays.assign(plays=13 * plays["plays"] + 1).drop_duplicates(["viewer_id", "artist_id"]),
        assignments=tags.drop_duplicates(),
    )
    # a new edge may hash to the kept side, where it would be one more kept edge: such ones are left out
    hashed_out = hold_out(other, 0.3, seed=seed).held_out
    told = network.assignments.loc[of_no_artist].sample(frac=0.7, random_state=2)
    parts = {
        "friends": [
            network.friends.loc[~no_friend],
            other.friends.loc[_is_held_out(other.friends, "friend_id", "people", hashed_out)],
        ],
        "plays": [
            network.plays.loc[~no_artist],
            other.plays.loc[_is_held_out(other.plays, "artist_id", "artist", hashed_out)],
        ],
        "assignments": [
            network.assignments.loc[~no_tag & ~of_no_artist],
            told.assign(day=told["day"] + pd.Timedelta(days=100)),
            other.assignments.loc[_is_held_out(other.assignments, "tag_id", "tag", hashed_out)],
        ],
    }
    return replace(network, **{name: pd.concat(rows).sample(frac=1.0, random_state=3) for name, rows in parts.items()})


@pytest.fixture(scope="session")
def folder(
    network: Network, write_network: Callable[[Network, Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return write_network(network, tmp_path_factory.mktemp("hetrec"))


@pytest.fixture(scope="session")
def tables(folder: Path) -> LastFMTables:
    return build_tables(folder, seed=7)


def test_lastfm_features_do_not_change_with_what_is_held_out(network: Network) -> None:
    before, after = (hold_out(each, 0.3, seed=7) for each in (network, _change_held_out(network, seed=7)))
    overlap = len(_pairs(before.held_out) & _pairs(after.held_out)) / len(before.held_out)
    assert overlap < 0.5, "the test must change what is held out"
    made = []
    for kept in (before.kept, after.kept):
        edges = list_edges(kept)
        graph = EdgeGraph.from_edges(edges)
        scored = score_candidates(kept, graph, seed=7)
        embedding = graph.embedding(n_components=8)
        made.append([edges, scored, describe_viewers(kept, embedding), describe_entities(kept, embedding)])
    assert {"popularity", "co_occurrence", "taste_similarity", "affinity", "raw_score"} <= set(made[0][1].columns)
    for first, second in zip(*made, strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_lastfm_features_change_with_what_is_kept(network: Network) -> None:
    kept = hold_out(network, 0.3, seed=7).kept
    other = replace(kept, plays=kept.plays.iloc[1:])
    edges = list_edges(kept)
    of_first = edges.loc[(edges["entity_type"] == "artist") & (edges["entity_id"] == kept.plays["artist_id"].iloc[0])]
    popularity = [
        EdgeGraph.from_edges(list_edges(each)).features(of_first)["popularity"].iloc[0] for each in (kept, other)
    ]
    assert popularity[1] < popularity[0]


def test_lastfm_page_views_show_only_candidates_that_could_be_formed(network: Network, tables: LastFMTables) -> None:
    split = hold_out(network, 0.3, seed=7)
    rows = pd.concat([tables.train, tables.test])
    assert not _pairs(rows) & _pairs(split.standing)
    assert not (rows["viewer_id"] == rows["entity_id"]).any()
    assert _pairs(rows.loc[rows["response"] == 1]) <= _pairs(split.held_out)
    assert _pairs(tables.edges) == _pairs(list_edges(split.kept))
    assert not _pairs(tables.edges) & _pairs(split.held_out)


def test_lastfm_tables_meet_the_contract(tables: LastFMTables) -> None:
    config = Config.named("lastfm")
    for rows in (tables.train, tables.test):
        read = read_impressions(rows, config)
        assert len(read) == len(rows)
        assert read[[*LABELS, "raw_score", "cohort_strength"]].notna().all(axis=None)
        assert set(read["entity_type"]) == set(config.entity_types)
    assert len(read_viewers(tables.viewers)) == len(tables.frequency)
    entities = pd.MultiIndex.from_frame(read_entities(tables.entities)[["entity_type", "entity_id"]])
    assert pd.MultiIndex.from_frame(tables.train[["entity_type", "entity_id"]]).isin(entities).all()
    edge_types = tables.edges.groupby("entity_type")["edge_type"].unique().map(list).to_dict()
    assert edge_types == {name: [kind.edge_type] for name, kind in config.entity_types.items()}


def test_lastfm_pages_are_well_formed(tables: LastFMTables) -> None:
    rows = pd.concat([tables.train, tables.test])
    cohorts = rows.groupby(["request_id", "cohort_id"], sort=False)
    assert (cohorts.size() == 6).all()
    assert (cohorts["entity_id"].nunique() == 6).all()
    ordered = rows.sort_values(["request_id", "cohort_id", "slot"])
    same = (ordered["slot"] > 0).to_numpy()
    assert (ordered["raw_score"].diff().to_numpy()[same] <= 0).all()
    assert (cohorts[["position", "cohort_strength", "propensity"]].nunique() <= 1).all(axis=None)
    per_page = cohorts["position"].first().groupby("request_id").agg(["min", "max", "size", "nunique"])
    assert (per_page["min"] == 0).all()
    assert ((per_page["max"] + 1 == per_page["size"]) & (per_page["size"] == per_page["nunique"])).all()
    assert (per_page["size"] >= 8).mean() > 0.9
    random = rows.loc[rows["policy"] == "random"]
    assert random["propensity"].to_numpy() == pytest.approx(1 / per_page["size"].loc[random["request_id"]].to_numpy())
    assert rows.loc[rows["policy"] != "random", "propensity"].isna().all()
    assert random["request_id"].nunique() / rows["request_id"].nunique() == pytest.approx(0.5, abs=0.05)
    assert (rows["downstream"] <= rows["response"]).all()


def test_lastfm_cohorts_have_usable_rates(tables: LastFMTables) -> None:
    cohorts = tables.train.groupby(["request_id", "cohort_kind", "entity_type"])[LABELS].max()
    rates = cohorts.groupby("entity_type").mean()
    assert rates["response"].between(0.02, 0.6).all()
    assert rates["downstream"].between(0.005, 0.5).all()
    assert set(tables.train["cohort_kind"]) == {kind.name for kind in KINDS}


def test_lastfm_split_is_by_time_and_by_viewer(tables: LastFMTables) -> None:
    cut = LOG_START + pd.Timedelta(days=45)
    assert tables.train["at"].max() < cut
    late = tables.test.loc[~tables.test["viewer_id"].isin(tables.unseen)]
    assert late["at"].min() >= cut
    assert set(late["viewer_id"]) <= set(tables.train["viewer_id"])
    assert not tables.unseen & set(tables.train["viewer_id"])
    assert tables.unseen <= set(tables.test["viewer_id"])
    assert len(tables.unseen) == round(0.1 * len(tables.viewers))
    views = tables.train.groupby("viewer_id")["request_id"].nunique()
    how_often = views.index.map(tables.frequency)
    assert views[how_often == "frequent"].min() > views[how_often == "infrequent"].max()
    assert 0.25 < (how_often == "frequent").mean() < 0.5


def test_lastfm_is_deterministic_by_seed(
    made_network: Network, write_network: Callable[[Network, Path], Path], tmp_path: Path
) -> None:
    folder = write_network(made_network, tmp_path)
    first, again, other = (build_tables(folder, seed=seed) for seed in (7, 7, 8))
    for name in ("train", "test", "viewers", "entities", "edges", "names"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name), check_exact=True)
    assert first.frequency == again.frequency
    assert not first.edges.equals(other.edges)


def test_lastfm_raw_scores_are_on_three_scales_and_rank_responses(tables: LastFMTables) -> None:
    rows = tables.train
    scores = rows.groupby("entity_type")["raw_score"].agg(["min", "max"])
    assert scores.loc["people", "min"] < 0  # log-odds
    assert scores.loc["artist"].between(0, 1).all()  # a probability
    assert scores.loc["tag", "min"] > 0  # an expected count
    assert rows.groupby("entity_type")["ranker_version"].nunique().eq(1).all()
    for entity_type, of_type in rows.groupby("entity_type"):
        rank = of_type["raw_score"].rank(pct=True)
        assert rank[of_type["response"] == 1].mean() > 0.55, entity_type


def test_hold_out_hides_whole_edges(network: Network) -> None:
    split = hold_out(network, 0.3, seed=7)
    edges = list_edges(network)
    assert _pairs(split.held_out) | _pairs(split.standing) == _pairs(edges)
    assert not _pairs(split.held_out) & _pairs(split.standing)
    share = split.held_out.groupby("entity_type").size() / edges.groupby("entity_type").size()
    assert share.to_numpy() == pytest.approx([0.3] * 3, abs=0.04)
    friends = split.held_out.loc[split.held_out["entity_type"] == "people"]
    forwards = set(zip(friends["viewer_id"], friends["entity_id"], strict=True))
    assert forwards == {(b, a) for a, b in forwards}
    heard = split.held_out.loc[split.held_out["entity_type"] == "artist"]
    tagged = split.kept.assignments
    assert not set(zip(tagged["viewer_id"], tagged["artist_id"], strict=True)) & set(
        zip(heard["viewer_id"], heard["entity_id"], strict=True)
    )
    assert _pairs(hold_out(network, 0.3, seed=8).held_out) != _pairs(split.held_out)


def test_hold_out_depends_on_the_edge_alone(network: Network) -> None:
    split = hold_out(network, 0.3, seed=7)
    fewer = replace(
        network,
        friends=network.friends.iloc[::-2],
        plays=network.plays.iloc[::-2],
        assignments=network.assignments.iloc[::-2],
    )
    assert _pairs(hold_out(fewer, 0.3, seed=7).held_out) <= _pairs(split.held_out)


def test_downstream_by_hand() -> None:
    def day(text: str) -> pd.Timestamp:
        return pd.Timestamp(text, tz="UTC")

    network = Network(
        friends=pd.DataFrame({"viewer_id": ["u1", "u2", "u1", "u3"], "friend_id": ["u2", "u1", "u3", "u1"]}),
        plays=pd.DataFrame({"viewer_id": "u1", "artist_id": ["a1", "a2", "a3"], "plays": [20, 10, 19]}),
        assignments=pd.DataFrame(
            [
                ("u2", "a1", "t1", day("2009-01-01")),
                ("u1", "a1", "t2", day("2009-02-01")),  # after u2 did
                ("u1", "a2", "t2", day("2009-02-01")),  # twice in a month
                ("u1", "a2", "t3", day("2008-12-01")),
                ("u1", "a1", "t3", day("2009-01-01")),  # in a later month, a year later
                ("u3", "a2", "t1", day("2009-02-01")),  # on the same day as u1
            ],
            columns=["viewer_id", "artist_id", "tag_id", "day"],
        ),
        names=pd.DataFrame(),
    )
    expected = {
        ("u1", "people", "u2"): True,
        ("u2", "people", "u1"): False,
        ("u1", "people", "u3"): False,
        ("u3", "people", "u1"): True,  # u1 tagged a2 in December already
        ("u1", "artist", "a1"): False,  # the median is 19
        ("u1", "artist", "a3"): False,
        ("u1", "tag", "t2"): False,
        ("u1", "tag", "t3"): True,
    }
    edges = pd.DataFrame(list(expected), columns=KEY)
    assert interacts_downstream(network, edges).tolist() == list(expected.values())
    more = replace(network, plays=network.plays.assign(plays=[20, 10, 9]))
    assert interacts_downstream(more, edges.loc[edges["entity_id"] == "a1"]).tolist() == [True]


def test_page_views_examine_as_declared() -> None:
    rng = np.random.default_rng(5)
    views = draw_page_views([f"u{number}" for number in range(400)], random_share=1.0, rng=rng)
    lists = [(f"u{viewer}", kind.name, kind.entity_type) for kind in KINDS[:5] for viewer in range(400)]
    candidates = pd.DataFrame(
        np.repeat(np.array(lists, dtype=object), 8, axis=0), columns=["viewer_id", "cohort_kind", "entity_type"]
    )
    candidates = candidates.assign(
        entity_id=np.tile([f"e{number}" for number in range(8)], len(lists)),
        strength=1.0,
        popularity=1.0,
        ranker_version="1",
        raw_score=np.tile(np.arange(8.0), len(lists)),
        would_respond=True,
        would_interact=True,
    )
    rows = show_pages(views, candidates, rng=rng)
    rates = rows.groupby(["position", "slot"])["response"].agg(["mean", "size"])
    declared = np.outer(POSITION_EXAMINATION[:5], 0.9 ** np.arange(6)).ravel()
    error = (rates["mean"].to_numpy() - declared) / np.sqrt(declared * (1 - declared) / rates["size"] + 1e-12)
    assert np.abs(error).max() < 4.5
    assert rows["response"].equals(rows["downstream"])
    first, last = (rows["entity_id"] == "e0").mean(), (rows["entity_id"] == "e7").mean()
    assert first > last  # the head of the list is drawn more readily
    views_per_viewer = views["viewer_id"].value_counts()
    assert views_per_viewer.between(3, 60).all()
    assert views_per_viewer.quantile(0.95) > 3 * views_per_viewer.median()
    assert views["at"].is_monotonic_increasing


def test_read_network_reads_the_whole_of_the_real_one(real_network: Network) -> None:
    assert len(real_network.friends) == 25_434
    assert len(real_network.plays) == 92_834
    assert len(real_network.assignments) == 186_479 - 5  # without those dated before 2005
    assert real_network.assignments["day"].min().year == 2005
    assert real_network.names["entity_type"].value_counts().to_dict() == {"artist": 17_632, "tag": 11_946}
    assert real_network.names["name"].notna().all()
    assert real_network.names["name"].isin(["Sigur Rós", "Björk"]).sum() == 2  # UTF-8 lines


def test_read_network_returns_what_was_written(
    made_network: Network, write_network: Callable[[Network, Path], Path], tmp_path: Path
) -> None:
    bogus = made_network.assignments.head(3).assign(day=pd.Timestamp("1956-01-01", tz="UTC"))
    written = replace(made_network, assignments=pd.concat([bogus, made_network.assignments]))
    read = read_network(write_network(written, tmp_path))
    for name in ("friends", "plays", "assignments", "names"):
        pd.testing.assert_frame_equal(
            getattr(read, name), getattr(made_network, name), check_dtype=False, check_index_type=False
        )


def test_read_network_refuses_what_it_cannot_read(
    made_network: Network, write_network: Callable[[Network, Path], Path], tmp_path: Path
) -> None:
    write_network(made_network, tmp_path)
    (tmp_path / "user_friends.dat").write_text("userID\tfriend\n1\t2\n")
    with pytest.raises(TableError, match=r"user_friends.dat: no column friendID; found: userID, friend"):
        read_network(tmp_path)
    (tmp_path / "user_friends.dat").unlink()
    with pytest.raises(DataNotFound, match=r"no user_friends.dat"):
        read_network(tmp_path)


def test_find_data_takes_the_folder_or_its_parent(
    made_network: Network,
    write_network: Callable[[Network, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_network(made_network, tmp_path / "lastfm_hetrec")
    assert find_data(folder) == find_data(tmp_path) == find_data(str(tmp_path)) == folder
    monkeypatch.setenv("SPR_DATA", str(tmp_path))
    assert find_data() == folder
    with pytest.raises(DataNotFound, match=r"no HetRec 2011 files in .*elsewhere"):
        find_data(tmp_path / "elsewhere")


def test_find_data_downloads_once_and_checks_the_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {name: f"content of {name}".encode() for name in reading.SHA256}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as unpacked:
        for name, text in content.items():
            unpacked.writestr(f"hetrec/{name}", text)
    asked: list[str] = []

    def answer(address: str, timeout: float) -> io.BytesIO:
        assert timeout > 0
        asked.append(address)
        return io.BytesIO(archive.getvalue())

    monkeypatch.delenv("SPR_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", answer)
    with pytest.raises(DataNotFound, match=r"SHA-256 differs for artists.dat"):
        find_data()
    assert not (tmp_path / "spr").exists()
    monkeypatch.setattr(reading, "SHA256", {n: hashlib.sha256(text).hexdigest() for n, text in content.items()})
    folder = find_data()
    assert folder == find_data() == tmp_path / "spr" / "lastfm_hetrec"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == content
    assert asked == [reading.PUBLISHED] * 2


def test_find_data_says_what_to_do_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, timeout: float) -> io.BytesIO:
        raise urllib.error.URLError(f"no route to {address} in {timeout} s")

    monkeypatch.delenv("SPR_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataNotFound, match=r"cannot be downloaded .*no route.* SPR_DATA"):
        find_data()
