"""The fixed effect: what the user asks for (`Trees`, `Linear`) and what is served (`FittedTrees`, `FittedLinear`)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.tree_files import check_booster

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix

    Rows = NDArray[np.float32]
    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trees:
    """A fixed effect of gradient-boosted trees (XGBoost), fitted in one block of rounds per sweep.

    Parameters
    ----------
    features : sequence of str, optional
        Columns of X: numeric, boolean or string (one column per level). By default every numeric or boolean column
        that is neither a key nor the time. Null is a missing value, which trees send either way.
    n_rounds : int, default 300
        The boosting budget of all sweeps together: n_rounds / sweeps between two passes over the random effects.
    max_depth, learning_rate, min_child_weight, l2
        As in XGBoost (`min_child_weight` in sums of the loss's second derivative; `l2` is its lambda).
    subsample : float in (0, 1], default 1.0
        Share of rows per round, drawn by a hash of the row.
    colsample : float in (0, 1], default 1.0
        Share of columns per tree.
    early_stopping_rounds : int, default 30
        Rounds without a lower loss on the held-out groups before a block of boosting ends and goes back to its best
        round; boosting is over when a block finds no better round.
    monotone : mapping of str to -1 or 1, default {}
        Columns that may only lower or raise the margin.
    interaction_constraints : sequence of sequences of str, optional
        Sets of columns that may meet in a tree's path; a column that no set names meets none.
    out_of_fold : int, default 0
        Number of folds (2 or more) over groups. The random effects are then fitted at margins of trees that saw no
        row of the group in question: trees that see columns constant within an entity memorise it, and leave the
        random effects nothing. The trees that are served learn from all rows, and what they did memorise of an
        entity is then counted twice: where held-out groups stop the boosting early, this gains variance estimates
        and coefficients, not a lower loss. Boosting costs about `out_of_fold` times as much.
    n_threads : int, default 1
    seed : int, default 0

    Raises
    ------
    InvalidModelInput
        A number out of range, or a feature named twice.

    Examples
    --------
    >>> Trees(features=["age"], monotone={"age": 1}).n_rounds
    300
    """

    features: Sequence[str] | None = None
    n_rounds: int = 300
    max_depth: int = 6
    learning_rate: float = 0.1
    min_child_weight: float = 1.0
    subsample: float = 1.0
    colsample: float = 1.0
    l2: float = 1.0
    early_stopping_rounds: int = 30
    monotone: Mapping[str, int] = field(default_factory=dict)
    interaction_constraints: Sequence[Sequence[str]] | None = None
    out_of_fold: int = 0
    n_threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_features(self.features, "Trees")
        for name, low in (("n_rounds", 1), ("max_depth", 1), ("early_stopping_rounds", 1), ("n_threads", 1)):
            if getattr(self, name) < low:
                raise InvalidModelInput(f"Trees: {name} is {getattr(self, name)!r}; allowed: integers >= {low}.")
        if self.out_of_fold != 0 and self.out_of_fold < 2:
            raise InvalidModelInput(f"Trees: out_of_fold is {self.out_of_fold!r}; allowed: 0, and integers >= 2.")
        for name in ("subsample", "colsample", "learning_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidModelInput(f"Trees: {name} is {getattr(self, name)!r}; allowed: above 0, at most 1.")
        for name in ("min_child_weight", "l2"):
            if not getattr(self, name) >= 0:
                raise InvalidModelInput(f"Trees: {name} is {getattr(self, name)!r}; allowed: numbers >= 0.")
        for column, direction in self.monotone.items():
            if direction not in (-1, 1):
                raise InvalidModelInput(f"Trees: monotone[{column!r}] is {direction!r}; allowed: -1 and 1.")


@dataclass(frozen=True)
class Linear:
    """A linear fixed effect: loss summed over rows + l2/2 |b|^2 + l1 |b|, the intercept not penalised.

    Parameters
    ----------
    features : sequence of str
        Columns of X: numeric, boolean, string (one column per level) or pandas Sparse, which stays sparse in fitting
        and scoring. Null counts as 0.
    l1, l2 : float, default 0.0 and 1.0
    bounds : mapping of str to (lower, upper), default {}
        Where a coefficient may lie, in the units of its feature whatever the normalisation; -inf and inf leave a
        side open. A string column's bounds are those of each of its levels, ``column=level`` those of one.
    normalization : {None, "standardize", "max_magnitude", "standard_deviation"}
        What the penalty sees: features as they are, (x - mean) / sd, x / max |x|, or x / sd, over the rows that teach
        and by their weights; a constant feature as it is. Coefficients are reported for the features as they are.
        The intercept being free, "standardize" and "standard_deviation" give the same model.

    Raises
    ------
    InvalidModelInput
        A negative penalty, a feature named twice, an unknown normalisation, or bounds that hold nothing or belong
        to no feature.

    Examples
    --------
    >>> Linear(features=["age"], bounds={"age": (0.0, float("inf"))}, normalization="standardize").l2
    1.0
    """

    features: Sequence[str]
    l1: float = 0.0
    l2: float = 1.0
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    normalization: Literal["standardize", "max_magnitude", "standard_deviation"] | None = None

    def __post_init__(self) -> None:
        _check_features(self.features, "Linear")
        for name in ("l1", "l2"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InvalidModelInput(f"Linear: {name} is {getattr(self, name)!r}; allowed: finite numbers >= 0.")
        if self.normalization not in (None, *_NORMALIZATIONS):
            raise InvalidModelInput(name_unknown("normalization", str(self.normalization), _NORMALIZATIONS))
        known = set(self.features)
        for name, limits in self.bounds.items():
            # of "column=level" the levels are known in fit only
            if not any(name[:end] in known for end in (len(name), *_places(name, "="))):
                raise InvalidModelInput(name_unknown("feature", str(name), known, where="the bounds of Linear"))
            _check_limits(name, limits)


_NORMALIZATIONS = ("standardize", "max_magnitude", "standard_deviation")


def _places(name: str, letter: str) -> list[int]:
    return [place for place, found in enumerate(name) if found == letter]


def _check_limits(name: str, limits: tuple[float, float]) -> None:
    try:
        lower, upper = (float(limit) for limit in limits)
    except (TypeError, ValueError) as problem:
        raise InvalidModelInput(
            f"Linear: bounds[{name!r}] is {limits!r}; allowed: a pair (lower, upper) of numbers."
        ) from problem
    if not (lower <= upper and lower < np.inf and upper > -np.inf):
        raise InvalidModelInput(
            f"Linear: bounds[{name!r}] is {limits!r}; allowed: lower <= upper, -inf and inf for an open side."
        )


def _check_features(features: Sequence[str] | None, where: str) -> None:
    if isinstance(features, str):
        raise InvalidModelInput(f"{where}: features is the string {features!r}; give a list of columns.")
    seen: set[str] = set()
    for feature in features or ():
        if feature in seen:
            raise InvalidModelInput(f"{where}: feature {feature!r} is named twice; name each once.")
        seen.add(feature)


@dataclass(frozen=True)
class FittedLinear:
    """A fitted linear fixed effect.

    Parameters
    ----------
    features : tuple of str
        The matrix columns.
    intercept : float
    coefficients : float64 array, one per feature

    Examples
    --------
    >>> FittedLinear(("age",), 1.0, np.array([0.5])).margin(np.array([[2.0], [np.nan]], dtype=np.float32)).tolist()
    [2.0, 1.0]
    """

    features: tuple[str, ...]
    intercept: float
    coefficients: Floats

    def __post_init__(self) -> None:
        if self.coefficients.shape != (len(self.features),):
            raise InvalidModelInput(
                f"FittedLinear: {self.coefficients.shape} coefficients, {len(self.features)} names."
            )
        if not (np.isfinite(self.coefficients).all() and np.isfinite(self.intercept)):
            raise InvalidModelInput("FittedLinear: a coefficient is not finite.")

    def margin(self, rows: Rows | csc_matrix) -> Floats:
        """Return the margin of each row of a float32 matrix, dense or sparse; NaN counts as 0."""
        _check_width(rows, self.features)
        if not isinstance(rows, np.ndarray):  # sparse rows hold no NaN, see Encoding.sparse_matrix
            return np.asarray(rows @ self.coefficients, dtype=np.float64) + self.intercept
        return np.nan_to_num(rows).astype(np.float64) @ self.coefficients + self.intercept

    def explain(self, rows: Rows) -> list[tuple[str, float, float, float]]:
        """Return name, value, coefficient and contribution of each column of one dense row, the intercept last."""
        values = np.nan_to_num(rows[0]).astype(np.float64).tolist()
        lines = [
            (name, value, coefficient, value * coefficient)
            for name, value, coefficient in zip(self.features, values, self.coefficients.tolist(), strict=True)
        ]
        return [*lines, ("intercept", 1.0, self.intercept, self.intercept)]

    def save(self, directory: str | Path) -> None:
        """Write ``linear.json`` into `directory`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        described = {
            "features": list(self.features),
            "intercept": self.intercept,
            "coefficients": self.coefficients.tolist(),
        }
        (directory / "linear.json").write_text(json.dumps(described, indent=1))

    @classmethod
    def load(cls, directory: str | Path) -> FittedLinear:
        """Read what `save` wrote; InvalidModelInput where it cannot be."""
        described = _read_json(Path(directory) / "linear.json", ("features", "intercept", "coefficients"))
        try:
            coefficients = np.array(described["coefficients"], dtype=np.float64)
            return cls(tuple(map(str, described["features"])), float(described["intercept"]), coefficients)
        except (TypeError, ValueError) as problem:
            raise InvalidModelInput(f"linear.json in {directory} cannot be read: {problem}") from problem


@dataclass(frozen=True)
class FittedTrees:
    """A fitted fixed effect of trees: intercept + the sum of the trees' leaves.

    Parameters
    ----------
    features : tuple of str
        The matrix columns.
    intercept : float
    booster : xgboost.Booster
        Its own base score is 0: the margin is the same whichever way XGBoost is asked.
    """

    features: tuple[str, ...]
    intercept: float
    booster: Any

    @property
    def n_rounds(self) -> int:
        """The number of trees."""
        return int(self.booster.num_boosted_rounds())

    def margin(self, rows: Rows) -> Floats:
        """Return the margin of each row of a float32 matrix; NaN is a missing value."""
        _check_width(rows, self.features)
        trees: Rows = self.booster.inplace_predict(
            rows,
            predict_type="margin",
            base_margin=np.zeros(len(rows), dtype=np.float32),
            validate_features=False,
        )
        return trees.astype(np.float64) + self.intercept

    def explain(self, rows: Rows) -> list[tuple[str, float, float, float]]:
        """Return name, value, coefficient (NaN) and contribution of each column of one row, the intercept last."""
        shares = self.shap(rows)[0].tolist()
        values = [*rows[0].tolist(), 1.0]
        return [
            (*line, np.nan, share) for *line, share in zip((*self.features, "intercept"), values, shares, strict=True)
        ]

    def shap(self, rows: Rows) -> Floats:
        """Return what each column adds to each row's margin: Shapley values of the trees.

        Parameters
        ----------
        rows : float32 array of (n, d)

        Returns
        -------
        float64 array of (n, d + 1)
            The last column is the same for all rows: the intercept and the trees' mean over the rows that they learnt
            from. Each row sums to its margin, in float32's precision.

        References
        ----------
        Lundberg et al. (2020), "From local explanations to global understanding with explainable AI for trees",
        Nature Machine Intelligence 2.
        """
        import xgboost

        _check_width(rows, self.features)
        values = self.booster.predict(xgboost.DMatrix(rows, nthread=1), pred_contribs=True, validate_features=False)
        shares: Floats = values.astype(np.float64)
        shares[:, -1] += self.intercept
        return shares

    def save(self, directory: str | Path) -> None:
        """Write ``trees.ubj`` and ``trees.json`` into `directory`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "trees.ubj").write_bytes(bytes(self.booster.save_raw("ubj")))
        described = {"features": list(self.features), "intercept": self.intercept}
        (directory / "trees.json").write_text(json.dumps(described, indent=1))

    @classmethod
    def load(cls, directory: str | Path, *, n_threads: int = 1) -> FittedTrees:
        """Read what `save` wrote, having checked the trees' structure before XGBoost sees them.

        Parameters
        ----------
        directory : path
        n_threads : int, default 1
            Threads for scoring.

        Raises
        ------
        InvalidModelInput
            A file is missing, altered, or does not hold trees over the named features.
        """
        import xgboost

        directory = Path(directory)
        described = _read_json(directory / "trees.json", ("features", "intercept"))
        try:
            raw = (directory / "trees.ubj").read_bytes()
            features = tuple(map(str, described["features"]))
            intercept = float(described["intercept"])
        except (OSError, TypeError, ValueError) as problem:
            raise InvalidModelInput(f"trees in {directory} cannot be read: {problem}") from problem
        check_booster(raw, n_features=len(features))
        if not np.isfinite(intercept):
            raise InvalidModelInput(f"trees.json in {directory}: intercept is {intercept}; it must be finite.")
        booster = xgboost.Booster()
        try:
            booster.load_model(bytearray(raw))
        except xgboost.core.XGBoostError as problem:
            raise InvalidModelInput(f"trees.ubj in {directory} is refused by XGBoost: {problem}") from problem
        booster.set_param({"nthread": n_threads})
        return cls(features, intercept, booster)


def _check_width(rows: Rows | csc_matrix, features: Sequence[str]) -> None:
    if rows.ndim != 2 or rows.shape[1] != len(features):
        raise InvalidModelInput(f"fixed effect: rows of shape {rows.shape}, expected (n, {len(features)}).")


def _read_json(path: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise InvalidModelInput(f"{path} cannot be read: {problem}") from problem
    for name in names:
        if not isinstance(described, dict) or name not in described:
            raise InvalidModelInput(f"{path}: {name_unknown('field', name, described)} Save the part again.")
    return cast("dict[str, Any]", described)
