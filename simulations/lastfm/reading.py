"""HetRec 2011 Last.fm-2k: where its files are, and the network they hold."""

from __future__ import annotations

import hashlib
import io
import os
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd

from spr.errors import DataNotFound, TableError

PUBLISHED = "https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip"
SHA256 = {
    "artists.dat": "c173881362c6b28551368fecb3c0be5a6a30a6cd859e1f5775413dfe46d48648",
    "tags.dat": "c815d7216101fd0ba9b9c59fa2a011998d2fd076e0064d281ec4153d95ae8095",
    "user_artists.dat": "254272fa721c3935e8be286d28c051b206844307128698ab4eaa41d483379416",
    "user_friends.dat": "0360883a3557776e04fdebda851f2e5dd23e796cad7059b968acdebd528d13fa",
    "user_taggedartists.dat": "c4a9ffae9ab47a9f9b2f0678ab1f7e5c1db4ca818837d8cddd1f5699c5bbf048",
}
_FOLDER = "lastfm_hetrec"
_FIRST_YEAR = 2005  # Last.fm had no tags before; five rows of the file say it had


@dataclass(frozen=True)
class Network:
    """People, the artists they play and the tags they give.

    Parameters
    ----------
    friends : DataFrame
        viewer_id, friend_id; both directions of each friendship.
    plays : DataFrame
        viewer_id, artist_id, plays (a count over the viewer's whole time; it has no date).
    assignments : DataFrame
        viewer_id, artist_id, tag_id, day (timestamp, UTC, midnight): who gave which artist which tag, when.
    names : DataFrame
        entity_type ("artist" or "tag"), entity_id, name; people have none.
    """

    friends: pd.DataFrame
    plays: pd.DataFrame
    assignments: pd.DataFrame
    names: pd.DataFrame


def find_data(path: str | Path | None = None) -> Path:
    """Return the folder that holds the five files.

    Parameters
    ----------
    path : path, optional
        The folder, or one that holds it as ``lastfm_hetrec``. By default the environment variable
        ``SPR_DATA``, in the same sense; failing that, a copy downloaded from the publisher into
        ``$XDG_CACHE_HOME/spr`` and checked against the known SHA-256 sums.

    Returns
    -------
    Path

    Raises
    ------
    DataNotFound
        When the named place does not hold the files, or there is neither a place nor a download.

    Notes
    -----
    The data is made available for non-commercial use: it is read where it is and is no part of this package.

    References
    ----------
    .. [1] Cantador, Brusilovsky and Kuflik, "2nd Workshop on Information Heterogeneity and Fusion in
       Recommender Systems (HetRec 2011)", RecSys 2011. https://grouplens.org/datasets/hetrec-2011
    """
    place = path if path is not None else os.environ.get("SPR_DATA")
    if place:
        for folder in (Path(place), Path(place) / _FOLDER):
            if _is_complete(folder):
                return folder
        raise DataNotFound(
            f"Last.fm: no HetRec 2011 files in {place} or its folder {_FOLDER}; "
            f"needed: {', '.join(SHA256)}. Unpack {PUBLISHED} there, or unset SPR_DATA to download it."
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spr" / _FOLDER
    if not _is_complete(cache):
        _download(cache)
    return cache


def read_network(folder: Path) -> Network:
    """Read the five files of a folder.

    Parameters
    ----------
    folder : Path
        As returned by `find_data`.

    Returns
    -------
    Network
        With ids as strings, ``u2``, ``a51`` and ``t13``. Tag assignments dated before 2005 are left out.

    Raises
    ------
    DataNotFound
        When a file is not there.
    TableError
        When a file lacks a column.
    """
    friends = _read(folder, "user_friends.dat", ["userID", "friendID"])
    plays = _read(folder, "user_artists.dat", ["userID", "artistID", "weight"])
    assignments = _read(folder, "user_taggedartists.dat", ["userID", "artistID", "tagID", "day", "month", "year"])
    assignments = assignments.loc[assignments["year"] >= _FIRST_YEAR].reset_index(drop=True)
    artists = _read(folder, "artists.dat", ["id", "name"])
    tags = _read(folder, "tags.dat", ["tagID", "tagValue"])
    return Network(
        friends=pd.DataFrame({"viewer_id": _ids("u", friends["userID"]), "friend_id": _ids("u", friends["friendID"])}),
        plays=pd.DataFrame(
            {
                "viewer_id": _ids("u", plays["userID"]),
                "artist_id": _ids("a", plays["artistID"]),
                "plays": plays["weight"],
            }
        ),
        assignments=pd.DataFrame(
            {
                "viewer_id": _ids("u", assignments["userID"]),
                "artist_id": _ids("a", assignments["artistID"]),
                "tag_id": _ids("t", assignments["tagID"]),
                "day": pd.to_datetime(assignments[["year", "month", "day"]], utc=True),
            }
        ),
        names=pd.concat(
            [
                pd.DataFrame({"entity_type": "artist", "entity_id": _ids("a", artists["id"]), "name": artists["name"]}),
                pd.DataFrame({"entity_type": "tag", "entity_id": _ids("t", tags["tagID"]), "name": tags["tagValue"]}),
            ],
            ignore_index=True,
        ),
    )


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in SHA256)


def _read(folder: Path, name: str, columns: list[str]) -> pd.DataFrame:
    file = folder / name
    if not file.is_file():
        raise DataNotFound(f"Last.fm: no {name} in {folder}; needed: {', '.join(SHA256)}.")
    # never quoted, and "NA", "null" and "nan" are names of artists and tags
    text = "\n".join(_decode(line) for line in file.read_bytes().splitlines())
    table = pd.read_csv(StringIO(text), sep="\t", quoting=3, keep_default_na=False)
    missing = [column for column in columns if column not in table]
    if missing:
        raise TableError(f"{file}: no column {', '.join(missing)}; found: {', '.join(map(str, table.columns))}.")
    return table[columns]


def _decode(line: bytes) -> str:
    """Read a line as UTF-8, or as latin-1, which some lines of the publisher's files are in."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _ids(prefix: str, numbers: pd.Series[int]) -> pd.Series[str]:
    return prefix + numbers.astype(str)


def _download(folder: Path) -> None:
    try:
        with urllib.request.urlopen(PUBLISHED, timeout=60) as answer:
            archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    except (OSError, urllib.error.URLError, zipfile.BadZipFile) as error:
        raise DataNotFound(
            f"Last.fm: {PUBLISHED} cannot be downloaded ({error}). Unpack it yourself and name the folder "
            "as the path or in the environment variable SPR_DATA."
        ) from error
    inside = {Path(name).name: name for name in archive.namelist()}
    files = {name: archive.read(inside[name]) for name in SHA256 if name in inside}
    wrong = [name for name, sum_ in SHA256.items() if hashlib.sha256(files.get(name, b"")).hexdigest() != sum_]
    if wrong:
        raise DataNotFound(
            f"Last.fm: {PUBLISHED} is not the file that is known: SHA-256 differs for {', '.join(wrong)}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
