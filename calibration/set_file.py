"""A calibrator set as a file: one JSON document, whose version is the hash of its content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.curve import ResponseCurve
from calibration.errors import CalibrationError
from calibration.examination import Examination
from calibration.settings import CalibrationSettings

if TYPE_CHECKING:
    from calibration.calibrator_set import CalibratorSet
    from calibration.impressions import RankerKey

FILE_NAME = "calibrators.json"
SCHEMA = 2


def content_hash(calibrators: CalibratorSet) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of a set's content."""
    content = json.dumps(_content(calibrators), sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def write_set(calibrators: CalibratorSet, path_dir: str | Path) -> None:
    """Write a set into a directory, made where it does not exist; see ``CalibratorSet.save``."""
    directory = Path(path_dir)
    directory.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "version": calibrators.version, **_content(calibrators)}
    (directory / FILE_NAME).write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


def read_set(
    path_dir: str | Path,
) -> dict[str, Any]:
    """Read and check what ``write_set`` wrote: the arguments of ``CalibratorSet``.

    Raises
    ------
    CalibrationError
        See ``CalibratorSet.load``.
    """
    path = Path(path_dir) / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CalibrationError(f"{path} cannot be read: no calibrator set was saved there") from None
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}") from error
    if isinstance(content, dict) and content.get("schema", SCHEMA) != SCHEMA:
        raise CalibrationError(
            f"{path} has schema {content['schema']!r}; this library reads {SCHEMA}: "
            "install the version that wrote it, or fit again"
        )
    fields = {"schema", "version", "settings", "examination", "curves"}
    if not isinstance(content, dict) or set(content) != fields or not isinstance(content["curves"], list):
        raise CalibrationError(f"{path} must hold the fields {', '.join(sorted(fields))}, curves as a list")
    try:
        every = dict(_read_curve(entry) for entry in content["curves"])
        saved = content["examination"]
        examination = None if saved is None else Examination.from_dict(saved)
        settings = CalibrationSettings.from_dict(content["settings"])
    except (TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(f"{path}: {error}") from error
    for key, curve in every.items():
        if curve.form.response != settings.family(key[0]).name:
            raise CalibrationError(
                f"{path}: the curve {key!r} is of {curve.form.response} responses, the settings say "
                f"{settings.family(key[0]).name}"
            )
    stated = {name: content[name] for name in content if name not in ("schema", "version")}
    found = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:12]
    if len(every) != len(content["curves"]) or found != content["version"]:
        raise CalibrationError(f"{path} was altered: its content has version {found}, it says {content['version']!r}")
    curves = {key: curve for key, curve in every.items() if len(key) == 2}
    segments = {key: curve for key, curve in every.items() if len(key) == 3}
    return {"curves": curves, "segments": segments, "settings": settings, "examination": examination}


def _content(calibrators: CalibratorSet) -> dict[str, Any]:
    keys: list[RankerKey] = [*calibrators.curves, *calibrators.segments]
    return {
        "settings": calibrators.settings.to_dict(),
        "examination": None if calibrators.examination is None else calibrators.examination.to_dict(),
        "curves": [
            {
                "entity_type": key[0],
                "ranker_version": key[1],
                "segment": key[2] if len(key) == 3 else None,
                "curve": calibrators[key].to_dict(),
            }
            for key in keys
        ],
    }


def _read_curve(entry: Any) -> tuple[RankerKey, ResponseCurve]:
    if not isinstance(entry, dict) or set(entry) != {"entity_type", "ranker_version", "segment", "curve"}:
        raise CalibrationError("an entry of curves must hold entity_type, ranker_version, segment and curve")
    key = tuple(entry[name] for name in ("entity_type", "ranker_version", "segment"))
    named = key[:2] if key[2] is None else key
    if not all(isinstance(part, str) for part in named) or not isinstance(entry["curve"], dict):
        raise CalibrationError(f"entry {key!r:.80} must be strings and a curve")
    try:
        return named, ResponseCurve.from_dict(entry["curve"])
    except CalibrationError as error:
        raise CalibrationError(f"curve {named!r}: {error}") from error
