"""The calibrators of a whole page: one curve per (entity type, ranker version), an artefact of its own."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from calibration.curve import ResponseCurve
from calibration.errors import CalibrationError, UnknownCalibrator
from calibration.examination import PositionExamination
from calibration.impressions import RankerKey, learning_rows, numbers, require_columns, rows_by_ranker
from calibration.quantiles import sum_by_group
from calibration.response import fit_curve, fit_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.rows import CalibrationRows

_log = logging.getLogger(__name__)

FILE_NAME = "calibrators.json"
SCHEMA = 1
POSITIVES_TO_CROSS_FIT = 500


@dataclass(frozen=True, eq=False)
class CalibratorSet:
    """One response curve per (entity type, ranker version); immutable, versioned by its content.

    Parameters
    ----------
    curves : mapping of (entity_type, ranker_version) to ResponseCurve
        At least one.
    method : str
        As asked for at fit, see ``QuantileResponseCalibrator``; ``refitted`` uses it again.
    transforms : str
        Likewise.
    examination : PositionExamination, optional
        The position correction of the fit; None = no correction.

    Notes
    -----
    Iterating gives the keys; ``len``, ``in`` and ``[]`` work as on a mapping.

    Examples
    --------
    >>> impressions = pd.DataFrame(
    ...     {
    ...         "entity_type": ["people"] * 60 + ["event"] * 60,
    ...         "ranker_version": ["p1"] * 60 + ["e1"] * 60,
    ...         "raw_score": list(range(60)) + [0.01 * j for j in range(60)],
    ...         "response": ([0.0, 0.0, 1.0] * 20) + ([0.0, 1.0, 1.0] * 20),
    ...     }
    ... )
    >>> calibrators = CalibratorSet.fit(impressions)
    >>> sorted(calibrators)
    [('event', 'e1'), ('people', 'p1')]
    >>> rankers = [("people", "p1"), ("event", "e1")]
    >>> calibrators.predict(np.array([30.0, 0.3]), np.array([0, 1]), rankers).round(1)
    array([0.3, 0.7])
    """

    curves: Mapping[RankerKey, ResponseCurve]
    method: str = "auto"
    transforms: str = "rank"
    examination: PositionExamination | None = None

    def __post_init__(self) -> None:
        if not self.curves:
            raise CalibrationError("a calibrator set needs at least one curve")
        object.__setattr__(self, "curves", MappingProxyType(dict(sorted(self.curves.items()))))

    # ---------------------------------------------------------------- fit

    @classmethod
    def fit(
        cls,
        impressions: pd.DataFrame,
        *,
        method: str = "auto",
        transforms: str = "rank",
        examination: PositionExamination | None = None,
        minimum_rows: int = 50,
        progress: Callable[[int, int], None] | None = None,
    ) -> CalibratorSet:
        """Fit one curve per (entity type, ranker version) of an impressions table.

        Parameters
        ----------
        impressions : DataFrame
            Columns entity_type, ranker_version, raw_score (null = not scorable: ignored), response in
            [0, 1] (null = its window is still open: ignored); position where there is an examination;
            policy, optional: where it is there, only rows of the "random" policy are used.
        method, transforms : str
            As in ``QuantileResponseCalibrator``.
        examination : PositionExamination, optional
            Expected responses are then those at the top position. Default: no correction.
        minimum_rows : int
            A ranker with fewer usable rows gets no curve: it stays unknown, a warning
            is logged, and ``prior`` is its fallback.
        progress : callable, optional
            Called as progress(done, total) after each curve.

        Returns
        -------
        CalibratorSet

        Raises
        ------
        CalibrationError
            A missing column, a value out of range (with its row number), or no ranker with enough rows.
        """
        usable, rows = learning_rows(impressions, examination)
        groups = rows_by_ranker(impressions.iloc[usable])
        for key in [key for key, index in groups.items() if index.size < minimum_rows]:
            n_usable = groups.pop(key).size
            _log.warning("no calibrator for %s: %d usable rows, minimum_rows is %d", key, n_usable, minimum_rows)
        if not groups:
            raise CalibrationError(
                f"no ranker has {minimum_rows} usable rows (random policy, response known, raw score there) "
                f"among {len(impressions):,} impressions; collect more rows or lower minimum_rows"
            )
        curves: dict[RankerKey, ResponseCurve] = {}
        for key, index in groups.items():
            curves[key] = fit_curve(rows.take(index), method=method, transforms=transforms)
            if progress is not None:
                progress(len(curves), len(groups))
        return cls(curves, method, transforms, examination)

    def refitted(self, impressions: pd.DataFrame, *, entity_type: str, ranker_version: str) -> CalibratorSet:
        """Return a set in which this one curve is fitted anew (or added); all others are the same objects.

        Parameters
        ----------
        impressions : DataFrame
            As in ``fit``; rows of this entity type and version only are used. For a version that is not
            live yet: its shadow scores joined to logged responses.
        entity_type, ranker_version : str
            Which curve.

        Returns
        -------
        CalibratorSet
            With the same method, transforms and examination.

        Raises
        ------
        CalibrationError
            No usable row of this type and version, or rows that break the contract of ``fit``.
        """
        require_columns(impressions, ("entity_type", "ranker_version"))
        wanted = (impressions["entity_type"] == entity_type) & (impressions["ranker_version"] == ranker_version)
        chosen = np.flatnonzero(wanted.to_numpy(dtype=bool, na_value=False))
        usable, rows = learning_rows(impressions.iloc[chosen], self.examination)
        if usable.size == 0:
            raise CalibrationError(
                f"no usable row of {entity_type!r}, {ranker_version!r}: {chosen.size:,} of "
                f"{len(impressions):,} impressions are of this type and version, and none of these is of the "
                "random policy with its response known and a raw score"
            )
        curve = fit_curve(rows, method=self.method, transforms=self.transforms)
        return replace(self, curves={**self.curves, (entity_type, ranker_version): curve})

    def cross_fitted(self, impressions: pd.DataFrame, fold: NDArray[np.intp], n_folds: int) -> NDArray[np.float64]:
        """Return expected responses that do not know the row's own fold.

        Parameters
        ----------
        impressions : DataFrame
            As in ``fit``. Rows that cannot be learnt from (other policies, open windows) are predicted too.
        fold : int[n]
            In 0 .. n_folds - 1, of each row, for instance by viewer.
        n_folds : int
            At least 2.

        Returns
        -------
        float64[n]
            NaN where the raw score is null.

        Raises
        ------
        CalibrationError
            Folds out of range, a broken table, or (UnknownCalibrator) a ranker without a curve.

        Notes
        -----
        The quantile tables and chosen methods are those of this set; only the response rates are refitted,
        on the other folds' rows. Below 500 positives the noise of smaller fits costs more than a row's own
        small share in a pooled curve, so that curve answers for every row.
        """
        fold = np.asarray(fold)
        if n_folds < 2 or fold.shape != (len(impressions),) or np.any((fold < 0) | (fold >= n_folds)):
            raise CalibrationError(
                f"fold must hold {len(impressions):,} numbers in 0 .. n_folds - 1, n_folds >= 2; "
                f"found shape {fold.shape}, n_folds {n_folds}"
            )
        usable, rows = learning_rows(impressions, self.examination)
        learning = rows_by_ranker(impressions.iloc[usable])
        raw_score = numbers(impressions, "raw_score")
        answer = np.full(len(impressions), np.nan)
        for key, index in rows_by_ranker(impressions).items():
            curve, scores = self[key], raw_score[index]
            answer[index] = curve.predict(scores)
            own = learning.get(key)
            if own is None or np.count_nonzero(rows.response[own]) < POSITIVES_TO_CROSS_FIT:
                continue
            curves = _curves_without_fold(curve, rows.take(own), fold[usable[own]], n_folds, self.transforms)
            for held_out, other_curve in enumerate(curves):
                inside = fold[index] == held_out
                answer[index[inside]] = other_curve.predict(scores[inside])
        return answer

    # ---------------------------------------------------------------- predict

    def predict(
        self, raw_score: NDArray[np.float64], ranker: NDArray[np.intp], rankers: Sequence[RankerKey]
    ) -> NDArray[np.float64]:
        """Return the expected responses of a page, all entity types in one call.

        Parameters
        ----------
        raw_score : float64[n]
            NaN = not scorable.
        ranker : int[n]
            Row i was scored by rankers[ranker[i]].
        rankers : sequence of (entity_type, ranker_version)
            Those of the page.

        Returns
        -------
        float64[n]
            NaN where the raw score is.

        Raises
        ------
        UnknownCalibrator
            A ranker that has no curve.
        CalibrationError
            A number in ``ranker`` that is not in ``rankers``.
        """
        answer = np.empty(raw_score.shape)
        n_answered = 0
        for number, key in enumerate(rankers):
            rows = (ranker == number).nonzero()[0]
            answer[rows] = self[key].predict(raw_score[rows])
            n_answered += rows.size
        if n_answered != raw_score.size:
            raise CalibrationError(
                f"ranker numbers must be in 0 .. {len(rankers) - 1}; "
                f"{raw_score.size - n_answered} of {raw_score.size} are not"
            )
        return answer

    def prior(self, entity_type: str) -> float:
        """Return the mean expected response of a type over its fitted rows, all versions together.

        Parameters
        ----------
        entity_type : str

        Returns
        -------
        float
            For callers that want a fallback for a version without a curve; ``predict`` never uses it.

        Raises
        ------
        UnknownCalibrator
            No version of this type has a curve.
        """
        versions = self.known(entity_type)
        if not versions:
            raise self._unknown((entity_type, "any version"))
        curves = [self.curves[entity_type, version] for version in versions]
        masses = [float(curve.table.weight.sum()) for curve in curves]
        return float(np.average([curve.mean_response for curve in curves], weights=masses))

    # ---------------------------------------------------------------- mapping

    def known(self, entity_type: str) -> tuple[str, ...]:
        """Return the ranker versions of a type that have a curve, sorted.

        Parameters
        ----------
        entity_type : str

        Returns
        -------
        tuple of str
            Empty for a type without any.
        """
        return tuple(version for found, version in self.curves if found == entity_type)

    def __getitem__(self, key: RankerKey) -> ResponseCurve:
        try:
            return self.curves[key]
        except KeyError:
            raise self._unknown(key) from None

    def __contains__(self, key: object) -> bool:
        return key in self.curves

    def __iter__(self) -> Iterator[RankerKey]:
        return iter(self.curves)

    def __len__(self) -> int:
        return len(self.curves)

    def _unknown(self, key: RankerKey) -> UnknownCalibrator:
        entity_type, version = key
        known = [" ".join(each) for each in self.curves]
        close = difflib.get_close_matches(f"{entity_type} {version}", known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return UnknownCalibrator(
            f"no calibrator for {entity_type!r}, {version!r}; known: {', '.join(known)}.{hint} "
            "Fit one with refitted(impressions, entity_type=..., ranker_version=...)"
        )

    # ---------------------------------------------------------------- artefact

    @cached_property
    def version(self) -> str:
        """Short hash of the content: 12 hexadecimal digits. Equal content, equal version."""
        content = json.dumps(self._content(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def save(self, path_dir: str | Path) -> None:
        """Write the set as one file, calibrators.json; floats keep every bit.

        Parameters
        ----------
        path_dir : path
            A directory; made where it does not exist.
        """
        directory = Path(path_dir)
        directory.mkdir(parents=True, exist_ok=True)
        content = {"schema": SCHEMA, "version": self.version, **self._content()}
        (directory / FILE_NAME).write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path_dir: str | Path) -> CalibratorSet:
        """Read a set that ``save`` wrote; no code is run, everything is checked.

        Parameters
        ----------
        path_dir : path
            The directory.

        Returns
        -------
        CalibratorSet

        Raises
        ------
        CalibrationError
            No file, not JSON, another schema, a curve that breaks its contract, or altered content.
        """
        path = Path(path_dir) / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CalibrationError(f"{path} cannot be read: {error}") from error
        fields = {"schema", "version", "method", "transforms", "examination", "curves"}
        if not isinstance(content, dict) or set(content) != fields or not isinstance(content["curves"], list):
            raise CalibrationError(f"{path} must hold the fields {', '.join(sorted(fields))}, curves as a list")
        if content["schema"] != SCHEMA:
            raise CalibrationError(f"{path} has schema {content['schema']!r}; this library reads {SCHEMA}")
        try:
            curves = dict(_read_curve(entry) for entry in content["curves"])
            relative = content["examination"]
            examination = None if relative is None else PositionExamination(np.array(relative, np.float64))
            loaded = cls(curves, content["method"], content["transforms"], examination)
        except (TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(f"{path}: {error}") from error
        if len(curves) != len(content["curves"]) or loaded.version != content["version"]:
            raise CalibrationError(
                f"{path} was altered: its content has version {loaded.version}, it says {content['version']!r}"
            )
        return loaded

    def to_frame(self) -> pd.DataFrame:
        """Return one row per curve, for printing.

        Returns
        -------
        DataFrame
            entity_type, ranker_version, method (as chosen), n_rows, n_positive, base_rate, minimum_response,
            maximum_response.
        """
        return pd.DataFrame(
            [
                {
                    "entity_type": entity_type,
                    "ranker_version": version,
                    "method": curve.method,
                    "n_rows": curve.n_rows,
                    "n_positive": curve.n_positive,
                    "base_rate": curve.base_rate,
                    "minimum_response": curve.predict(curve.knots[0]),
                    "maximum_response": curve.predict(curve.knots[-1]),
                }
                for (entity_type, version), curve in self.curves.items()
            ]
        )

    def _content(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "transforms": self.transforms,
            "examination": None if self.examination is None else self.examination.relative.tolist(),
            "curves": [
                {"entity_type": entity_type, "ranker_version": version, "curve": curve.to_dict()}
                for (entity_type, version), curve in self.curves.items()
            ],
        }


def _read_curve(entry: Any) -> tuple[RankerKey, ResponseCurve]:
    if not isinstance(entry, dict) or set(entry) != {"entity_type", "ranker_version", "curve"}:
        raise CalibrationError("an entry of curves must hold entity_type, ranker_version and curve")
    key = (entry["entity_type"], entry["ranker_version"])
    if not all(isinstance(part, str) for part in key) or not isinstance(entry["curve"], dict):
        raise CalibrationError(f"entry {key!r:.80} must be two strings and a curve")
    try:
        return key, ResponseCurve.from_dict(entry["curve"])
    except CalibrationError as error:
        raise CalibrationError(f"curve {key!r}: {error}") from error


def _curves_without_fold(
    curve: ResponseCurve,
    rows: CalibrationRows,
    fold: NDArray[np.intp],
    n_folds: int,
    transforms: str,
) -> Iterator[ResponseCurve]:
    """Yield, per fold, the curve with its table and method kept and its rates from the other folds."""
    m = curve.table.lower.size
    cell = fold * m + curve.table.assign(rows.raw_score)
    other_folds = 1.0 - np.eye(n_folds)
    positives = sum_by_group(cell, rows.weight * rows.response, n_folds * m).reshape(n_folds, m)
    exposure = sum_by_group(cell, rows.weight * rows.examination, n_folds * m).reshape(n_folds, m)
    for others in other_folds:
        values = fit_values(
            curve.table, others @ positives, others @ exposure, method=curve.method, transforms=transforms
        )
        yield replace(curve, values=values)
