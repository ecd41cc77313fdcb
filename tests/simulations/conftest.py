from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from simulations.lastfm.reading import SHA256, Network, find_data, read_network

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt


def _find_real_data() -> Path | None:
    places = [os.environ.get("SPR_DATA"), Path(__file__).parents[3] / "shared" / "data"]
    for place in places:
        if place and all((Path(place) / "lastfm_hetrec" / name).is_file() for name in SHA256):
            return Path(place)
    return None


def _write_network(network: Network, folder: Path) -> Path:
    """Write the five files in the format of HetRec 2011."""
    folder.mkdir(parents=True, exist_ok=True)
    day = network.assignments["day"].dt
    artists, tags = (network.names.loc[network.names["entity_type"] == kind] for kind in ("artist", "tag"))
    tables = {
        "user_friends.dat": {
            "userID": network.friends["viewer_id"].str[1:],
            "friendID": network.friends["friend_id"].str[1:],
        },
        "user_artists.dat": {
            "userID": network.plays["viewer_id"].str[1:],
            "artistID": network.plays["artist_id"].str[1:],
            "weight": network.plays["plays"],
        },
        "user_taggedartists.dat": {
            "userID": network.assignments["viewer_id"].str[1:],
            "artistID": network.assignments["artist_id"].str[1:],
            "tagID": network.assignments["tag_id"].str[1:],
            "day": day.day,
            "month": day.month,
            "year": day.year,
        },
        "artists.dat": {"id": artists["entity_id"].str[1:], "name": artists["name"], "url": "", "pictureURL": ""},
        "tags.dat": {"tagID": tags["entity_id"].str[1:], "tagValue": tags["name"]},
    }
    for name, columns in tables.items():
        text = pd.DataFrame(columns).to_csv(sep="\t", index=False, quoting=3, lineterminator="\r\n")
        (folder / name).write_bytes(b"".join(map(_encode, text.splitlines(keepends=True))))
    return folder


def _encode(line: str) -> bytes:
    """Write a line as the publisher does: latin-1 in places, UTF-8 elsewhere."""
    in_latin = sum(map(ord, line)) % 2 == 0
    return line.encode("latin-1" if in_latin and all(ord(letter) < 256 for letter in line) else "utf-8")


def _make_network() -> Network:
    """Make 120 people in five scenes, who befriend, hear and tag mostly inside their own."""
    rng = np.random.default_rng(0)
    n_people, n_artists, n_tags, n_scenes = 120, 200, 100, 5
    scene = np.arange(n_people) % n_scenes

    def draw(person: int, n_entities: int, size: int) -> npt.NDArray[np.int64]:
        at_home = np.arange(n_entities) % n_scenes == scene[person]
        weight = np.where(at_home, 8.0, 1.0) / (1 + np.arange(n_entities) // n_scenes) ** 0.7
        return rng.choice(n_entities, size=size, replace=False, p=weight / weight.sum())

    friends, plays, assignments = set(), [], []
    for person in range(n_people):
        friends |= {(min(person, f), max(person, f)) for f in draw(person, n_people, 6) if f != person}
        heard = draw(person, n_artists, 25)
        plays += [(person, artist, int(rng.lognormal(5, 1)) + 1) for artist in heard]
        for tag in draw(person, n_tags, 9):
            given_to = rng.choice(heard, size=rng.integers(1, 4), replace=False)
            assignments += [(person, a, tag, rng.integers(1, 13), rng.integers(2006, 2011)) for a in given_to]
    both = sorted(friends | {(b, a) for a, b in friends})
    tagged = pd.DataFrame(assignments, columns=["viewer", "artist", "tag", "month", "year"])
    return Network(
        friends=pd.DataFrame([(f"u{a}", f"u{b}") for a, b in both], columns=["viewer_id", "friend_id"]),
        plays=pd.DataFrame([(f"u{p}", f"a{a}", n) for p, a, n in plays], columns=["viewer_id", "artist_id", "plays"]),
        assignments=pd.DataFrame(
            {
                "viewer_id": "u" + tagged["viewer"].astype(str),
                "artist_id": "a" + tagged["artist"].astype(str),
                "tag_id": "t" + tagged["tag"].astype(str),
                "day": pd.to_datetime(tagged[["year", "month"]].assign(day=1), utc=True),
            }
        ),
        names=pd.DataFrame(
            [("artist", f"a{a}", f"Motörhead {a}") for a in range(n_artists)]
            + [("tag", f"t{t}", "NA" if t == 0 else f'"quoted {t}') for t in range(n_tags)],
            columns=["entity_type", "entity_id", "name"],
        ),
    )


def _keep_people(network: Network, viewer_ids: set[str]) -> Network:
    friends = network.friends
    return replace(
        network,
        friends=friends.loc[friends["viewer_id"].isin(viewer_ids) & friends["friend_id"].isin(viewer_ids)],
        plays=network.plays.loc[network.plays["viewer_id"].isin(viewer_ids)],
        assignments=network.assignments.loc[network.assignments["viewer_id"].isin(viewer_ids)],
    )


@pytest.fixture(scope="session")
def write_network() -> Callable[[Network, Path], Path]:
    return _write_network


@pytest.fixture(scope="session")
def made_network() -> Network:
    return _make_network()


@pytest.fixture(scope="session")
def real_network() -> Network:
    place = _find_real_data()
    if place is None:
        pytest.skip("no Last.fm data: set SPR_DATA, or put it in ../shared/data; the made network stands in")
    return read_network(find_data(place))


@pytest.fixture(scope="session", params=["made", "real"])
def network(request: pytest.FixtureRequest, made_network: Network) -> Network:
    """A small network: a made one, and the 150 best connected people of the real one."""
    if request.param == "made":
        return made_network
    real: Network = request.getfixturevalue("real_network")
    degree = real.friends["viewer_id"].value_counts(sort=False).sort_index()
    return _keep_people(real, set(degree.nlargest(150).index))
