"""A bundle: a directory of versioned parts with one manifest. Loading it runs no code of the bundle's.

::

    manifest.json        schema version, config and its hash, library versions, part versions, sha256 of each file
    calibrators/         one JSON file of curves
    features.json        columns, levels, kinds
    trees/               the boosted trees (UBJSON), their columns and intercept
    coefficients/<name>/ keys (Parquet) and coefficients (npy) of a random effect: the only place of viewer ids
    factors.json         importance factors
    golden.json          what a synthetic request must give; replayed at load
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spr.batch import CohortBatch
from spr.config import Config
from spr.errors import BundleError
from spr.features import CohortFeatures
from spr.history import Choice
from spr.ranker import SecondPassRanker
from spr.reorder import ImportanceFactors
from spr.trees import CohortTrees
from spr.types import Cohort, RankingRequest, Viewer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spr.types import FeatureValue

SCHEMA_VERSION = 2
_LIBRARIES = ("spr", "xgboost", "numpy")
_GOLDEN_TOLERANCE = 1e-5


def save(ranker: SecondPassRanker, path: str | Path, check: Callable[[Path], object] | None = None) -> None:
    """Write a bundle; a bundle that stands at ``path`` is replaced only once the new one is complete.

    Parameters
    ----------
    ranker : SecondPassRanker
        To save.
    path : str or Path
        A directory that does not exist yet, is empty, or holds a bundle. Of a symbolic link, what it leads to.
    check : callable, optional
        Called with the complete new bundle before it takes its place; what it raises leaves ``path`` as it was.

    Raises
    ------
    BundleError
        When ``path`` holds something that is not a bundle.
    """
    path = check_destination(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _write_parts(ranker, fresh)
        if check is not None:
            check(fresh)
        fresh.chmod(0o755)  # mkdtemp lets only its maker in; a service may run as another user
        if path.exists():
            replaced = fresh.with_name(f"{fresh.name}-replaced")
            path.rename(replaced)
            fresh.rename(path)
            shutil.rmtree(replaced)
        else:
            fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_destination(path: str | Path) -> Path:
    """Return a path that a bundle can be written to; ask before a long fit.

    Parameters
    ----------
    path : str or Path
        A directory that does not exist yet, is empty, or holds a bundle.

    Raises
    ------
    BundleError
        When ``path`` is a file, or holds something that is not a bundle.
    """
    path = Path(path)
    if path.is_file():
        raise BundleError(f"{path} is a file; a bundle is a directory")
    if path.exists() and any(path.iterdir()) and not _is_bundle(path):
        raise BundleError(f"{path} holds files that are not a bundle; choose another directory")
    return path


def load(path: str | Path) -> SecondPassRanker:
    """Load a bundle and replay its golden request.

    Parameters
    ----------
    path : str or Path
        A directory that :func:`save` wrote.

    Returns
    -------
    SecondPassRanker
        Ready to rank; XGBoost runs on one thread.

    Raises
    ------
    BundleError
        When the bundle is missing, a file is missing or was altered, it was written by a newer library, or its
        golden request gives something else here.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    _check_files(path, manifest)
    try:
        ranker = _read_parts(path, manifest)
        altered = dict(ranker.versions) != manifest["versions"] or ranker.config.hash != manifest["config_hash"]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError, EOFError) as error:
        raise BundleError(f"bundle {path}: a part cannot be read: {error}") from error
    if altered:
        raise BundleError(f"bundle {path}: manifest.json was altered (its parts have other versions than it says)")
    _replay_golden(ranker, path)
    return ranker


def file_hashes(path: str | Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a bundle, as its manifest states it.

    Parameters
    ----------
    path : str or Path
        A bundle.

    Returns
    -------
    dict of str to str
        By the file's path inside the bundle.

    Raises
    ------
    BundleError
        When there is no bundle, or its manifest is damaged.
    """
    return dict(_read_manifest(Path(path))["sha256"])


def unchanged_parts(
    before: Mapping[str, str], after: str | Path, *, changed: Literal["calibrators", "factors"]
) -> tuple[str, ...]:
    """Make sure that a saved bundle differs from another in nothing but one part.

    Parameters
    ----------
    before : mapping of str to str
        Of :func:`file_hashes`, taken before the new bundle was saved: it may have replaced the old one.
    after : str or Path
        The new bundle.
    changed : {"calibrators", "factors"}
        The part that may differ.

    Returns
    -------
    tuple of str
        The other parts, whose files all have the same SHA-256: of ``calibrators``, ``coefficients``, ``factors``,
        ``features``, ``prices``, ``trees``.

    Raises
    ------
    BundleError
        When a file of another part differs; it is named.
    """
    # The golden margins are those of the calibrators in the bundle; no factor moves a margin.
    allowed = {"calibrators": {"calibrators", "golden"}, "factors": {"factors"}}[changed]
    both = [
        {file: digest for file, digest in hashes.items() if _part_of(file) not in allowed}
        for hashes in (before, file_hashes(after))
    ]
    other = sorted({file for file, _ in both[0].items() ^ both[1].items()})
    if other:
        raise BundleError(f"bundle {after}: {', '.join(other)} changed; only the {changed} should")
    return tuple(sorted({_part_of(file) for file in both[0]} - {"golden"}))


def _part_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".json")


def _is_bundle(path: Path) -> bool:
    try:
        return {"schema_version", "config_hash", "sha256"} <= set(_read_json(path / "manifest.json"))
    except (OSError, ValueError, TypeError):
        return False


def _write_parts(ranker: SecondPassRanker, path: Path) -> None:
    (path / "calibrators").mkdir()
    ranker.calibrators.save(path / "calibrators")
    _write_json(path / "features.json", ranker.features.to_dict())
    (path / "trees").mkdir()
    ranker.trees.fitted.save(path / "trees")
    for effect in ranker.effects:
        (path / "coefficients" / effect.name).mkdir(parents=True)
        effect.save(path / "coefficients" / effect.name)
    _write_json(path / "factors.json", ranker.factors.to_dict())
    if ranker.prices:
        _write_json(path / "prices.json", dict(ranker.prices))
    _write_json(path / "golden.json", {"margin": _golden_margin(ranker)})
    files = sorted(file for file in path.rglob("*") if file.is_file())
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "config": ranker.config.to_dict(),
        "config_hash": ranker.config.hash,
        "libraries": {name: installed(name) for name in _LIBRARIES},
        "versions": dict(ranker.versions),
        "effects": [effect.name for effect in ranker.effects],
        "unseen_correction": list(ranker.unseen_correction),
        "history": [dataclasses.asdict(choice) for choice in ranker.history],
        "monotone_in_raw_score": _is_monotone(ranker),
        "sha256": {file.relative_to(path).as_posix(): _sha256(file) for file in files},
    }
    _write_json(path / "manifest.json", manifest)


def _read_parts(path: Path, manifest: Mapping[str, Any]) -> SecondPassRanker:
    from calibration import CalibratorSet
    from spr.glmix.coefficients import Coefficients
    from spr.glmix.fixed import FittedTrees

    features = CohortFeatures.from_dict(_read_json(path / "features.json"))
    trees = CohortTrees(FittedTrees.load(path / "trees"), features.columns)
    intercept, slope = manifest["unseen_correction"]
    prices = _read_json(path / "prices.json") if "prices.json" in manifest["sha256"] else {}
    return SecondPassRanker(
        config=Config.from_dict(manifest["config"], source=f"bundle {path}"),
        calibrators=CalibratorSet.load(path / "calibrators"),
        features=features,
        trees=trees,
        effects=tuple(Coefficients.load(path / "coefficients" / name) for name in manifest["effects"]),
        unseen_correction=(float(intercept), float(slope)),
        factors=ImportanceFactors.from_dict(_read_json(path / "factors.json")),
        prices={str(name): float(price) for name, price in prices.items()},
        history=tuple(Choice(**choice) for choice in manifest["history"]),
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    if not (path / "manifest.json").is_file():
        raise BundleError(f"no bundle at {path}: there is no manifest.json")
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        schema_version, written = manifest["schema_version"], str(manifest["libraries"]["xgboost"])
        named = {str(name): str(digest) for name, digest in manifest["sha256"].items()}
        missing = {
            "config",
            "sha256",
            "effects",
            "unseen_correction",
            "versions",
            "history",
            "config_hash",
        } - manifest.keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"bundle {path}: manifest.json is damaged: {error!r}") from error
    if missing:
        raise BundleError(f"bundle {path}: manifest.json lacks {', '.join(sorted(missing))}")
    if schema_version != SCHEMA_VERSION:
        raise BundleError(
            f"bundle {path} has schema version {schema_version}; this library reads {SCHEMA_VERSION}: "
            "install the spr that wrote it, or fit again"
        )
    here = installed("xgboost")
    if _major_minor(here) < _major_minor(written):
        raise BundleError(
            f"bundle {path} was written with xgboost {written}; here is {here}, and older versions misread "
            f"newer trees: install xgboost>={written}"
        )
    return {**manifest, "sha256": named}


def _check_files(path: Path, manifest: Mapping[str, Any]) -> None:
    there = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()} - {"manifest.json"}
    named = manifest["sha256"]
    for name in sorted(named.keys() | there):
        if name not in there:
            raise BundleError(f"bundle {path}: {name} is missing")
        if name not in named:
            raise BundleError(f"bundle {path}: {name} is not in the manifest")
        if _sha256(path / name) != named[name]:
            raise BundleError(f"bundle {path}: {name} was altered (its sha256 is not the manifest's)")


def _replay_golden(ranker: SecondPassRanker, path: Path) -> None:
    try:
        expected = np.asarray(_read_json(path / "golden.json")["margin"], dtype=np.float64)
        found = np.asarray(_golden_margin(ranker))
    except (ValueError, LookupError, TypeError) as error:
        raise BundleError(f"bundle {path}: its golden request cannot be ranked: {error}") from error
    if expected.shape != found.shape or not np.allclose(found, expected, rtol=0, atol=_GOLDEN_TOLERANCE):
        raise BundleError(
            f"bundle {path}: its golden request gives other margins here than where it was written; "
            "the parts do not belong together, or a library computes differently"
        )


def _golden_margin(ranker: SecondPassRanker) -> list[float]:
    request = _golden_request(ranker)
    batch = CohortBatch.of_request(request, ranker.config.entity_types)
    position = np.arange(batch.n_cohorts)
    seen = ranker.value_cohorts(batch, position=position, given=request.coefficients).margin
    unseen = ranker.value_cohorts(batch, given=dict.fromkeys(request.coefficients)).margin
    return [float(m) for m in (*seen, *unseen)]


def _golden_request(ranker: SecondPassRanker) -> RankingRequest:
    """One cohort per calibrator, its raw scores spread over the curve; no viewer of the log stands in it."""
    viewer: dict[str, FeatureValue] = {}
    for source in ranker.features.sources:
        if source.scope == "viewer" and source.kind == "number":
            viewer[source.name] = 0.5
        elif source.scope == "viewer" and source.kind == "category" and source.levels:
            viewer[source.name] = source.levels[0]
        elif source.scope == "viewer" and source.kind == "embedding":
            viewer[source.name] = [0.1] * source.size
    cohorts = []
    for i, (entity_type, ranker_version) in enumerate(sorted(ranker.calibrators)):
        curve = ranker.calibrators[entity_type, ranker_version]
        k = 1 + i % ranker.config.entity_types[entity_type].top_k
        raw_score = np.linspace(curve.knots[-1], curve.knots[0], k).tolist()
        cohorts.append(Cohort(f"golden-{i}", entity_type, [f"e{j}" for j in range(k)], raw_score, ranker_version))
    coefficients = {e.name: np.linspace(-0.5, 0.5, e.matrix.shape[1], dtype=np.float32) for e in ranker.effects}
    return RankingRequest(
        "golden",
        datetime(2020, 1, 1, tzinfo=UTC),
        Viewer("golden", viewer),
        cohorts,
        coefficients=coefficients,
    )


def _is_monotone(ranker: SecondPassRanker) -> bool:
    """Tell whether no random effect has a slope on expected responses, which could turn negative for a key."""
    return not any(column.startswith("response") for effect in ranker.effects for column in effect.features)


def _major_minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_json(file: Path, content: object) -> None:
    with file.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
