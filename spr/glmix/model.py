"""What a fit leaves behind: a frozen mixed model that scores, explains, draws and is saved."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.coefficients import INTERCEPT, Coefficients
from spr.glmix.encoding import Encoding, check_columns, read_keys
from spr.glmix.families import Family
from spr.glmix.fixed import FittedLinear, FittedTrees
from spr.glmix.leaves import LeafEncoding
from spr.glmix.rows import read_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SCHEMA_VERSION = 1
FIXED, UNSEEN = "fixed", "unseen"


@dataclass(frozen=True)
class MixedModel:
    """A fitted mixed model: margin = fixed effect + random effects + correction of unseen entities.

    Parameters
    ----------
    family : Family
    fixed : FittedTrees, FittedLinear or None
    encoding : Encoding or None
        From the columns of X to the fixed effect's matrix.
    effects : dict of str to Coefficients
    encodings : dict of str to Encoding
    prior_variance : dict of str to dict of str to float
        Per effect and column, in force for an entity that has no row yet: learnt, times its scale, or 1 / l2.
    unseen_correction : tuple (intercept, slope)
        The fixed margin where the first effect's key is unseen becomes intercept + slope * margin.
    dispersion : float, default 1.0
        The residual variance of a gaussian model.
    leaves : LeafEncoding, optional
        From the fixed effect's matrix to the leaf columns that random effects read.

    Examples
    --------
    >>> import pandas as pd
    >>> from spr.glmix import GLMixRegressor, RandomEffect
    >>> X = pd.DataFrame({"shop": ["a", "a", "b", "b"]})
    >>> shops = GLMixRegressor(random_effects=[RandomEffect("shop", "shop", l2=1.0)]).fit(X, [1.0, 2.0, 0.0, 0.0])
    >>> shops.model_.margins(pd.DataFrame({"shop": ["a", "z"]})).round(3).to_dict("list")
    {'fixed': [0.0, 0.0], 'shop': [1.0, 0.0], 'unseen': [0.0, 0.0]}
    """

    family: Family
    fixed: FittedTrees | FittedLinear | None
    encoding: Encoding | None
    effects: Mapping[str, Coefficients]
    encodings: Mapping[str, Encoding]
    prior_variance: Mapping[str, Mapping[str, float]]
    unseen_correction: tuple[float, float] = (0.0, 1.0)
    dispersion: float = 1.0
    leaves: LeafEncoding | None = field(default=None)

    def margins(self, X: Any) -> pd.DataFrame:
        """Return the margin's parts, which sum to it.

        Parameters
        ----------
        X : DataFrame or Arrow table of n rows

        Returns
        -------
        DataFrame of n rows, indexed as X
            ``fixed``, one column per random effect (exactly 0 at an unseen or null key), and ``unseen``: the
            correction of the fixed margin where the first random effect's key is unseen or null, else 0.
        """
        X = read_frame(X)
        parts, X = {FIXED: self.fixed_margin(X)}, self.with_leaves(X)
        unseen = np.zeros(len(X), dtype=bool)
        for number, (name, coefficients) in enumerate(self.effects.items()):
            keys = self._keys(X, name)
            parts[name] = coefficients.margin(self.encodings[name].matrix(X, f"random effect {name!r}"), keys)
            if number == 0:
                unseen = coefficients.positions(keys) < 0
        intercept, slope = self.unseen_correction
        parts[UNSEEN] = np.where(unseen, intercept + (slope - 1.0) * parts[FIXED], 0.0)
        return pd.DataFrame(parts, index=X.index)

    def fixed_margin(self, X: pd.DataFrame) -> Floats:
        """Return the fixed effect's margin of each row; zeros where there is no fixed effect."""
        if self.fixed is None or self.encoding is None:
            return np.zeros(len(X))
        if isinstance(self.fixed, FittedLinear):
            return self.fixed.margin(self.encoding.linear_rows(X, "the fixed effect"))
        return self.fixed.margin(self.encoding.matrix(X, "the fixed effect"))

    def with_leaves(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return X with the leaf columns that random effects read."""
        if self.leaves is None or self.encoding is None:
            return X
        return join_leaves(X, self.leaves, self.encoding)

    def sample_margins(self, X: Any, *, rng: np.random.Generator) -> Floats:
        """Return the margin of each row under one draw of all coefficients from their posterior (Thompson sampling).

        Rows of an entity share its draw, those of an unseen entity too: its coefficients come from the prior.

        Parameters
        ----------
        X : DataFrame or Arrow table of n rows
        rng : numpy Generator

        Returns
        -------
        float64 array of n

        Raises
        ------
        InvalidModelInput
            The model was fitted without variances.
        """
        X = read_frame(X)
        total, X = self.fixed_margin(X), self.with_leaves(X)
        for name, effect in self.effects.items():
            keys = self._keys(X, name)
            _, asked = pd.factorize(keys, sort=True)  # sorted: the draws do not depend on the order of rows
            if not len(asked):
                continue
            asked = np.asarray(asked, dtype=effect.keys.dtype)
            place = effect.positions(asked)
            prior = np.array([self.prior_variance[name][column] for column in effect.columns])
            matrix = np.zeros((len(asked), len(effect.columns)), dtype=np.float32)
            known = place >= 0
            drawn = effect.taken(place[known]).sampled(rng) if known.any() else None
            if drawn is not None:
                matrix[known] = drawn.matrix
            matrix[~known] = np.sqrt(prior) * rng.standard_normal((int((~known).sum()), len(prior)))
            among = replace(effect, keys=asked, matrix=matrix, variance=None, covariance=None)
            total = total + among.margin(self.encodings[name].matrix(X, f"random effect {name!r}"), keys)
        return total

    def explain(self, row: Any) -> pd.DataFrame:
        """Return what each feature of each coordinate contributes to the margin of one row.

        Parameters
        ----------
        row : DataFrame or Arrow table of 1 row, or Series

        Returns
        -------
        DataFrame
            Columns coordinate, feature, value, coefficient, contribution; the contributions sum to the margin.
            Trees contribute SHAP values (XGBoost's own), without a coefficient (NaN). An unseen key contributes
            nothing but the correction ``unseen``.
        """
        row = read_frame(row.to_frame().T.infer_objects() if isinstance(row, pd.Series) else row)
        if len(row) != 1:
            raise InvalidModelInput(f"explain: {len(row)} rows; give one.")
        lines: list[tuple[str, str, float, float, float]] = []
        if self.fixed is not None and self.encoding is not None:
            lines += [(FIXED, *line) for line in self.fixed.explain(self.encoding.matrix(row, "the fixed effect"))]
        joined = self.with_leaves(row)
        for name, effect in self.effects.items():
            own = effect.lookup(self._keys(joined, name)[0])
            values = np.nan_to_num(self.encodings[name].matrix(joined, f"random effect {name!r}")[0])
            if own is None:
                continue
            for place, (column, coefficient) in enumerate(zip(effect.columns, own.tolist(), strict=True)):
                value = 1.0 if column == INTERCEPT and effect.intercept else float(values[place])
                lines.append((name, column, value, coefficient, value * coefficient))
        unseen = float(self.margins(row)[UNSEEN].iloc[0])
        if unseen:
            lines.append((UNSEEN, "correction", 1.0, unseen, unseen))
        table = pd.DataFrame(lines, columns=["coordinate", "feature", "value", "coefficient", "contribution"])
        return table.astype(dict.fromkeys(table.columns[2:], float))  # a table without lines too

    def to_tables(self) -> dict[str, pd.DataFrame]:
        """Return each random effect as a table for a key-value store: key, and one packed float32 value an entity.

        Returns
        -------
        dict of str to DataFrame
            Columns ``key`` and ``value`` (bytes: little-endian float32, in the order of ``attrs["columns"]``).
        """
        tables = {}
        for name, effect in self.effects.items():
            packed = [row.tobytes() for row in np.ascontiguousarray(effect.matrix, dtype="<f4")]
            tables[name] = pd.DataFrame({"key": effect.keys, "value": packed})
            tables[name].attrs["columns"] = list(effect.columns)
        return tables

    def from_tables(self, tables: Mapping[str, pd.DataFrame]) -> MixedModel:
        """Return the model with the coefficients of `tables`, as `to_tables` gives them, in place of its own.

        Raises
        ------
        InvalidModelInput
            The table of a coordinate is missing, one is of no coordinate, or its values are of another length.
        """
        for name in tables:
            if name not in self.effects:
                raise InvalidModelInput(name_unknown("random effect", name, self.effects, "the tables"))
        effects = {}
        for name, effect in self.effects.items():
            if name not in tables:
                raise InvalidModelInput(f"the table of random effect {name!r} is missing; found: {sorted(tables)}.")
            table = tables[name].sort_values("key")
            width = 4 * len(effect.columns)
            wrong = [key for key, value in zip(table["key"], table["value"], strict=True) if len(value) != width]
            if wrong:
                raise InvalidModelInput(
                    f"table of {name!r}: {len(wrong)} values are not {width} bytes ({len(effect.columns)} columns); "
                    f"first: key {wrong[0]!r}."
                )
            matrix = np.frombuffer(b"".join(table["value"]), dtype="<f4").reshape(len(table), len(effect.columns))
            keys: Any = table["key"].to_numpy(dtype=effect.keys.dtype)
            effects[name] = replace(effect, keys=keys, matrix=matrix.astype(np.float32), variance=None, covariance=None)
        return replace(self, effects=effects)

    def save(self, directory: str | Path) -> None:
        """Write the model as a directory of JSON, UBJSON, Parquet and npy files with a ``model.json``; no pickle."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        described: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "family": self.family.name,
            "fixed": None if self.fixed is None else type(self.fixed).__name__,
            "encoding": None if self.encoding is None else self.encoding.to_dict(),
            "effects": list(self.effects),
            "encodings": {name: encoding.to_dict() for name, encoding in self.encodings.items()},
            "prior_variance": {name: dict(variance) for name, variance in self.prior_variance.items()},
            "unseen_correction": list(self.unseen_correction),
            "dispersion": self.dispersion,
            "leaves": None if self.leaves is None else self.leaves.to_dict(),
        }
        if self.fixed is not None:
            self.fixed.save(directory / FIXED)
        for number, effect in enumerate(self.effects.values()):
            effect.save(directory / "random_effects" / str(number))
        (directory / "model.json").write_text(json.dumps(described, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> MixedModel:
        """Read what `save` wrote; runs no code of the files.

        Raises
        ------
        InvalidModelInput
            A file is missing, of another schema version, or does not fit the others; the message names it.
        """
        directory = Path(directory)
        try:
            described = json.loads((directory / "model.json").read_text(encoding="utf-8"))
            if described["schema_version"] != SCHEMA_VERSION:
                raise InvalidModelInput(
                    f"{directory}: schema version {described['schema_version']!r}; this library reads {SCHEMA_VERSION}."
                )
            kinds = {"FittedTrees": FittedTrees, "FittedLinear": FittedLinear, None: None}
            kind = kinds[described["fixed"]]
            effects = [
                Coefficients.load(directory / "random_effects" / str(number))
                for number in range(len(described["effects"]))
            ]
            leaves = None if described["leaves"] is None else LeafEncoding.from_dict(described["leaves"])
            intercept, slope = described["unseen_correction"]
            model = cls(
                family=Family.named(described["family"]),
                fixed=None if kind is None else kind.load(directory / FIXED),
                encoding=None if described["encoding"] is None else Encoding.from_dict(described["encoding"]),
                effects={effect.name: effect for effect in effects},
                encodings={name: Encoding.from_dict(part) for name, part in described["encodings"].items()},
                prior_variance={str(name): dict(part) for name, part in described["prior_variance"].items()},
                unseen_correction=(float(intercept), float(slope)),
                dispersion=float(described["dispersion"]),
                leaves=leaves,
            )
        except InvalidModelInput:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            what = f"{type(problem).__name__}: {problem}"  # repr() would leave out the file's name
            raise InvalidModelInput(f"the model in {directory} cannot be read: {what}") from problem
        model._check_parts(described["effects"])
        return model

    def _check_parts(self, listed: list[str]) -> None:
        """Raise InvalidModelInput where the parts, read one by one, are not those of one model."""
        if list(self.effects) != listed:
            raise InvalidModelInput(f"model.json lists the random effects {listed}; found: {list(self.effects)}.")
        if (self.fixed is None) != (self.encoding is None) or (
            self.fixed is not None and self.encoding is not None and self.encoding.names != self.fixed.features
        ):
            raise InvalidModelInput("model.json: the encoding does not give the columns of the fixed effect.")
        for name, effect in self.effects.items():
            if name not in self.encodings or self.encodings[name].names != effect.features:
                raise InvalidModelInput(f"model.json: encodings do not give the columns of random effect {name!r}.")
            if set(self.prior_variance.get(name, ())) != set(effect.columns):
                raise InvalidModelInput(f"model.json: prior_variance is not of the columns of random effect {name!r}.")
        if not np.isfinite([*self.unseen_correction, self.dispersion]).all():
            raise InvalidModelInput("model.json: unseen_correction and dispersion must be finite.")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The coordinates: "fixed" where there is one, then the random effects."""
        return (*((FIXED,) if self.fixed is not None else ()), *self.effects)

    def _keys(self, X: pd.DataFrame, name: str) -> Any:
        where = f"random effect {name!r}"
        check_columns(X, [self.effects[name].key], "key column", where)
        return read_keys(X[self.effects[name].key], where)


def join_leaves(X: pd.DataFrame, leaves: LeafEncoding, encoding: Encoding) -> pd.DataFrame:
    """Return X with a column per tree, ``tree0``, ``tree1``, ..., that names the leaf of each row.

    Raises
    ------
    InvalidModelInput
        X has a column of that name already.
    """
    codes = leaves.codes(encoding.matrix(X, "the trees of features='leaves'"))
    columns = {}
    for tree, count in enumerate(leaves.n_leaves):
        if f"tree{tree}" in X.columns:
            raise InvalidModelInput(f"features='leaves' makes a column 'tree{tree}', which X has already; rename it.")
        names = pd.Index([f"leaf{leaf}" for leaf in range(count)])
        columns[f"tree{tree}"] = pd.Categorical.from_codes(codes[:, tree], names)
    return X.assign(**columns)
