"""The calibrators of a whole page: one curve per (entity type, ranker version), an artefact of its own."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calibration.binned import BinnedResponses
from calibration.columns import numbers, require_columns
from calibration.errors import CalibrationError, UnknownCalibrator
from calibration.impressions import examined, learnable_rows, rows_by_ranker, segment_names
from calibration.ranker_curves import RankerCurves
from calibration.segments import answer_by_segment, by_segment, segment_curves
from calibration.set_file import content_hash, read_set, write_set
from calibration.settings import CalibrationSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.curve import ResponseCurve
    from calibration.examination import Examination
    from calibration.impressions import Ranker, RankerKey, Segment
    from calibration.sketch import QuantileSketch

_log = logging.getLogger(__name__)

POSITIVES_TO_CROSS_FIT = 500


@dataclass(frozen=True, eq=False)
class CalibratorSet(RankerCurves):
    """One response curve per (entity type, ranker version); immutable, versioned by its content.

    Parameters
    ----------
    curves, segments : mapping
        As in ``RankerCurves``, whose look-ups and ``predict`` it has.
    settings : CalibrationSettings
        What they were fitted with; ``refitted`` uses it again.
    examination : Examination, optional
        The position and slot correction of the fit; None = no correction.

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

    settings: CalibrationSettings = field(default_factory=CalibrationSettings)
    examination: Examination | None = None

    @classmethod
    def fit(
        cls,
        impressions: pd.DataFrame,
        *,
        method: str = "auto",
        transforms: str = "rank",
        response: Mapping[str, str] | None = None,
        negative_sampling_rate: Mapping[str, float] | None = None,
        segment: str | None = None,
        examination: Examination | None = None,
        minimum_rows: int = 50,
        progress: Callable[[int, int], None] | None = None,
    ) -> CalibratorSet:
        """Fit one curve per (entity type, ranker version) of an impressions table.

        Parameters
        ----------
        impressions : DataFrame
            Columns entity_type, ranker_version, raw_score (null = not scorable: ignored), response (null = its
            window is still open: ignored); position and slot where their examination is given; policy, optional:
            where it is there, only rows of the "random" policy are used.
        method, transforms : str
            As in ``QuantileResponseCalibrator``.
        response : mapping of entity type to {"binary", "count", "continuous"}, optional
            What a type's responses are; default, and for types not named: binary.
        negative_sampling_rate : mapping of entity type to float, optional
            The share of a type's rows without a response that the log kept; default 1.
        segment : str, optional
            A column, for instance how active the viewer is: each of its values also gets a curve per ranker,
            partially pooled to the ranker's own. Rows with a null there teach the ranker's own curve only.
        examination : Examination, optional
            Expected responses are then those at the top position, at slot 0. Default: no correction.
        minimum_rows : int
            A ranker with fewer usable rows gets no curve: it stays unknown, a warning
            is logged, and ``prior`` is its fallback.
        progress : callable, optional
            Called as progress(done, total) after each ranker.

        Returns
        -------
        CalibratorSet

        Raises
        ------
        CalibrationError
            A missing column, a value out of range (with its row number), or no ranker with enough rows.
        """
        settings = CalibrationSettings(method, transforms, response or {}, negative_sampling_rate or {}, segment)
        usable = learnable_rows(impressions)
        groups = rows_by_ranker(impressions.iloc[usable])
        for key in [key for key, index in groups.items() if index.size < minimum_rows]:
            n_usable = groups.pop(key).size
            _log.warning("no calibrator for %s: %d usable rows, minimum_rows is %d", key, n_usable, minimum_rows)
        if not groups:
            raise CalibrationError(
                f"no ranker has {minimum_rows} usable rows: of {len(impressions):,} impressions {usable.size:,} are of "
                "the random policy with response and raw score known; log random pages, wait for responses, or lower "
                "minimum_rows"
            )
        curves: dict[Ranker, ResponseCurve] = {}
        segments: dict[Segment, ResponseCurve] = {}
        for key, index in groups.items():
            rows = settings.rows(key[0], impressions, usable[index], examination)
            curves[key] = settings.fit_curve(key[0], rows)
            parts = by_segment(rows, segment_names(impressions, settings.segment)[usable[index]])
            segments |= {(*key, name): each for name, each in segment_curves(curves[key], parts).items()}
            _log_warnings(key, curves[key])
            if progress is not None:
                progress(len(curves), len(groups))
        return cls(curves, segments, settings, examination)

    @classmethod
    def from_sketches(
        cls,
        sketches: Mapping[RankerKey, QuantileSketch],
        settings: CalibrationSettings | None = None,
        *,
        examination: Examination | None = None,
    ) -> CalibratorSet:
        """Fit one curve per ranker from summaries of logs that do not fit in memory.

        Parameters
        ----------
        sketches : mapping of (entity_type, ranker_version) or (..., segment) to QuantileSketch
            Of usable rows: random policy, response known. A ranker's segments are merged into its own curve.
        settings : CalibrationSettings, optional
            How to fit; ``segment`` names the column that segments come from. Sampled negatives are in the sketches'
            own weights.
        examination : Examination, optional
            What the sketches were updated with.

        Returns
        -------
        CalibratorSet

        Raises
        ------
        CalibrationError
            No sketch, one without rows, a key of another shape, segments whose column is not named, an examination
            that is not given, or settings with a negative sampling rate: it belongs in the weights.

        Examples
        --------
        >>> from calibration.sketch import QuantileSketch
        >>> rng, sketch = np.random.default_rng(0), QuantileSketch()
        >>> for log_file in range(3):
        ...     score = rng.normal(size=1000)
        ...     sketch = sketch.update(score, rng.random(1000) < 1 / (1 + np.exp(2 - score)))
        >>> calibrators = CalibratorSet.from_sketches({("people", "p1"): sketch})
        >>> calibrators["people", "p1"].n_rows
        3000
        """
        settings = settings or CalibrationSettings()
        if any(rate < 1.0 for rate in settings.negative_sampling_rate.values()):
            raise CalibrationError(
                "a sketch holds sums, so negative sampling cannot be undone any more; update it with "
                "sample_weight = 1 / rate for rows without a response, and leave negative_sampling_rate out"
            )
        _check_sketches(sketches, settings, examination)
        curves: dict[Ranker, ResponseCurve] = {}
        segments: dict[Segment, ResponseCurve] = {}
        for key in sorted({key[:2] for key in sketches}):
            parts = {each[2]: sketches[each] for each in sketches if each[:2] == key and len(each) == 3}
            whole = reduce(
                lambda one, other: one.merge(other), (sketches[each] for each in sketches if each[:2] == key)
            )
            curves[key] = settings.fit_curve(key[0], whole.cells)
            of_parts = segment_curves(curves[key], {name: sketch.cells for name, sketch in parts.items()})
            segments |= {(*key, name): each for name, each in of_parts.items()}
            _log_warnings(key, curves[key])
        return cls(curves, segments, settings, examination)

    def refitted(self, impressions: pd.DataFrame, *, entity_type: str, ranker_version: str) -> CalibratorSet:
        """Return a set in which this one ranker is fitted anew (or added); all other curves are the same objects.

        Parameters
        ----------
        impressions : DataFrame
            As in ``fit``; rows of this entity type and version only are used. For a version that is not
            live yet: its shadow scores joined to logged responses, see ``with_shadow_scores``.
        entity_type, ranker_version : str
            Which ranker.

        Returns
        -------
        CalibratorSet
            With the same settings and examination.

        Raises
        ------
        CalibrationError
            No usable row of this type and version, or rows that break the contract of ``fit``.
        """
        require_columns(impressions, ("entity_type", "ranker_version"))
        key = (entity_type, ranker_version)
        names = impressions[["entity_type", "ranker_version"]].astype(str)
        wanted = (names["entity_type"] == entity_type) & (names["ranker_version"] == ranker_version)
        chosen = impressions[wanted.to_numpy()]
        if learnable_rows(chosen).size == 0:
            raise CalibrationError(
                f"no usable row of {entity_type!r}, {ranker_version!r}: {len(chosen):,} of "
                f"{len(impressions):,} impressions are of this type and version, and none of these is of the "
                "random policy with its response known and a raw score"
            )
        own = type(self).fit(chosen, **vars(self.settings), examination=self.examination, minimum_rows=1)
        others = {each: curve for each, curve in self.segments.items() if each[:2] != key}
        return replace(self, curves={**self.curves, **own.curves}, segments={**others, **own.segments})

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
        small share in a pooled curve, so that curve answers for every row; as it does where one fold has every row.
        """
        fold = np.asarray(fold)
        if n_folds < 2 or fold.shape != (len(impressions),) or np.any((fold < 0) | (fold >= n_folds)):
            raise CalibrationError(
                f"fold must hold {len(impressions):,} numbers in 0 .. n_folds - 1, n_folds >= 2; "
                f"found shape {fold.shape}, n_folds {n_folds}"
            )
        usable, answer = learnable_rows(impressions), self.predict_table(impressions)
        learning = rows_by_ranker(impressions.iloc[usable])
        raw_score, names = numbers(impressions, "raw_score"), segment_names(impressions, self.settings.segment)
        for key, index in rows_by_ranker(impressions).items():
            curve = self[key]
            own = usable[learning.get(key, np.empty(0, dtype=np.intp))]
            if own.size == 0:
                continue
            rows = self.settings.rows(key[0], impressions, own, self.examination)
            if np.count_nonzero(rows.response) < POSITIVES_TO_CROSS_FIT:
                continue
            for held_out, binned in enumerate(BinnedResponses.without_each(rows, curve.table, fold[own], n_folds)):
                inside, others = index[fold[index] == held_out], np.flatnonzero(fold[own] != held_out)
                if others.size == 0:
                    continue
                refitted = curve.with_rates_of(binned)
                parts = segment_curves(refitted, by_segment(rows.take(others), names[own][others]))
                answer[inside] = answer_by_segment(refitted, parts, raw_score[inside], names[inside])
        return answer

    def predict_table(self, impressions: pd.DataFrame, *, at_logged_place: bool = False) -> NDArray[np.float64]:
        """Return the expected response of each row of a table.

        Parameters
        ----------
        impressions : DataFrame
            Columns entity_type, ranker_version, raw_score (null = not scorable), and the segment's where there is one.
        at_logged_place : bool
            Where the row was shown: the expected response times the examination of its position and slot, to be
            compared with responses. Default: at the reference position, to be compared with each other.

        Returns
        -------
        float64[n]
            NaN where the raw score is null.

        Raises
        ------
        CalibrationError
            A missing column, or (UnknownCalibrator) a ranker without a curve.
        """
        require_columns(impressions, ("entity_type", "ranker_version", "raw_score"))
        raw_score, names = numbers(impressions, "raw_score"), segment_names(impressions, self.settings.segment)
        answer = np.full(len(impressions), np.nan)
        for key, index in rows_by_ranker(impressions).items():
            answer[index] = answer_by_segment(self[key], self.segments_of(key), raw_score[index], names[index])
        return answer * examined(impressions, self.examination) if at_logged_place else answer

    def prior(self, entity_type: str) -> float:
        """Return the mean expected response of a type over its fitted rows, all versions together.

        Parameters
        ----------
        entity_type : str

        Returns
        -------
        float
            For callers that want a fallback for a version without a curve; ``predict`` never uses it. For a type
            without any curve, the pooled prior: the mean, on the link scale, of the priors of the types whose
            responses are of the same family; the debug log says so.

        Raises
        ------
        UnknownCalibrator
            No type has responses of this family.
        """
        if entity_type in self._priors:
            return self._priors[entity_type]
        family, known = self.settings.family(entity_type), list(self._priors)
        alike = [each for each in known if self.settings.family(each) is family]
        if not alike:
            raise UnknownCalibrator(
                f"no calibrator for {entity_type!r}, and no other type has {family.name} responses to pool: "
                f"{', '.join(known)}"
            )
        etas = family.link(np.array([self._priors[each] for each in alike]))
        pooled = float(family.mean(etas.mean(keepdims=True))[0])
        _log.debug("%s has no calibrator: the pooled prior of %s, %.4g", entity_type, ", ".join(alike), pooled)
        return pooled

    @cached_property
    def _priors(self) -> dict[str, float]:
        # once for the set: a service asks at every request that holds a version without a curve
        priors = {}
        for entity_type in self.entity_types:
            curves = [self.curves[entity_type, version] for version in self.known(entity_type)]
            masses = [float(curve.table.weight.sum()) for curve in curves]
            priors[entity_type] = float(np.average([curve.mean_response for curve in curves], weights=masses))
        return priors

    def __repr__(self) -> str:
        return f"<CalibratorSet {self.version}: {len(self.curves)} rankers, {len(self.segments)} segments>"

    @cached_property
    def version(self) -> str:
        """Short hash of the content: 12 hexadecimal digits. Equal content, equal version."""
        return content_hash(self)

    def save(self, path_dir: str | Path) -> None:
        """Write the set as one file, calibrators.json; floats keep every bit.

        Parameters
        ----------
        path_dir : path
            A directory; made where it does not exist.
        """
        write_set(self, path_dir)

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
        return cls(**read_set(path_dir))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per curve, for printing.

        Returns
        -------
        DataFrame
            entity_type, ranker_version, segment (where there are any; null = the ranker's own), method (as
            chosen), n_rows, n_positive, base_rate, minimum_response, maximum_response.
        """
        every: list[tuple[str, str, str | None]] = [(*key, None) for key in self.curves]
        every += self.segments
        frame = pd.DataFrame(
            [
                {
                    "entity_type": key[0],
                    "ranker_version": key[1],
                    "segment": key[2],
                    "method": curve.method,
                    "n_rows": curve.n_rows,
                    "n_positive": curve.n_positive,
                    "base_rate": curve.base_rate,
                    "minimum_response": curve.predict(curve.knots[0]),
                    "maximum_response": curve.predict(curve.knots[-1]),
                }
                for key in sorted(every, key=lambda key: (*key[:2], key[2] or ""))
                for curve in [self.curves[key[:2]] if key[2] is None else self.segments[key[0], key[1], key[2]]]
            ]
        )
        return frame if self.segments else frame.drop(columns="segment")


def _check_sketches(
    sketches: Mapping[RankerKey, QuantileSketch], settings: CalibrationSettings, examination: Examination | None
) -> None:
    for key, sketch in sketches.items():
        if not isinstance(key, tuple) or len(key) not in (2, 3):
            raise CalibrationError(f"a sketch's key is (entity_type, ranker_version[, segment]); found {key!r}")
        if len(key) == 3 and settings.segment is None:
            raise CalibrationError(
                f"{key!r} is of a segment; name its column: settings=CalibrationSettings(segment=...)"
            )
        if len(sketch) == 0:
            raise CalibrationError(f"the sketch of {key!r} has no row to learn from")
        cells, family = sketch.cells, settings.family(key[0])
        if examination is None and np.any(cells.exposure < cells.weight * (1.0 - 1e-9)):
            raise CalibrationError(f"the sketch of {key!r} was updated with an examination; pass it here, too")
        mean = cells.response_sum / cells.weight
        beyond = (cells.response_squares > cells.response_sum * (1.0 + 1e-9)) & (family.name == "binary")
        wrong = (mean < family.lowest) | (mean > family.highest) | beyond
        if wrong.any():
            first = int(np.argmax(wrong))
            raise CalibrationError(
                f"responses of {key[0]!r} must be {family.allowed}; those at raw score {cells.raw_score[first]} "
                f"have the mean {mean[first]:.4g}"
            )


def _log_warnings(key: Ranker, curve: ResponseCurve) -> None:
    for warning in curve.warnings:
        _log.warning("%s %s: %s", *key, warning)
