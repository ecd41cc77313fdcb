"""The fitted coefficients of one random effect: what serving looks up, and its files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput
from spr.glmix.row_kernels import entity_margins

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float32]
    Keys = NDArray[np.object_] | NDArray[np.int64]

INTERCEPT = "intercept"
_NO_SPREAD = 1e-12  # a variance of held coefficients: its inverse is still a number


@dataclass(frozen=True)
class Coefficients:
    """One random effect's coefficients, an entity a row.

    Parameters
    ----------
    name : str
        The effect.
    key : str
        The key column.
    features : tuple of str
        The matrix columns, without the intercept.
    intercept : bool
        Whether the last column of `matrix` is an intercept.
    keys : int64 or object (str) array of K
        Sorted, each once.
    matrix : float32 array of (K, d)
        d = number of features, + 1 with an intercept.
    variance : float32 array of (K, d), optional
        The coefficients' posterior variances.
    covariance : float32 array of (K, d, d), optional
        Their whole posterior covariance; `variance` is then its diagonal.

    Raises
    ------
    InvalidModelInput
        Shapes that do not fit, keys that are not sorted, coefficients that are not finite.

    Examples
    --------
    >>> member = Coefficients(
    ...     "member", "viewer_id", ("age",), True, np.array(["a", "b"], dtype=object),
    ...     np.array([[0.5, 1.0], [0.0, -1.0]], dtype=np.float32),
    ... )
    >>> member.lookup("a").tolist()
    [0.5, 1.0]
    >>> member.lookup("z") is None
    True
    >>> member.margin(np.array([[2.0], [2.0]], dtype=np.float32), np.array(["a", "z"], dtype=object)).tolist()
    [2.0, 0.0]
    """

    name: str
    key: str
    features: tuple[str, ...]
    intercept: bool
    keys: Keys
    matrix: Rows
    variance: Rows | None = field(default=None)
    covariance: Rows | None = field(default=None)

    def __post_init__(self) -> None:
        shape = (len(self.keys), len(self.columns))
        where = f"coefficients of {self.name!r}"
        if self.matrix.shape != shape or self.matrix.dtype != np.float32:
            raise InvalidModelInput(
                f"{where}: found {self.matrix.dtype} {self.matrix.shape}, expected float32 {shape}."
            )
        if not np.isfinite(self.matrix).all():
            raise InvalidModelInput(f"{where}: {int((~np.isfinite(self.matrix)).sum())} values are not finite.")
        if self.variance is not None and (
            self.variance.shape != shape or np.isnan(self.variance).any() or (self.variance < 0).any()
        ):
            raise InvalidModelInput(f"{where}: variances must be >= 0 and of shape {shape}.")
        if self.covariance is not None and (
            self.covariance.shape != (*shape, shape[1]) or not np.isfinite(self.covariance).all()
        ):
            raise InvalidModelInput(f"{where}: covariances must be finite and of shape {(*shape, shape[1])}.")
        if len(set(self.columns)) != len(self.columns):
            raise InvalidModelInput(f"{where}: column names repeat: {self.columns}.")
        index = pd.Index(self.keys)
        if not (index.is_unique and index.is_monotonic_increasing):
            raise InvalidModelInput(f"{where}: keys must be sorted, each once.")

    @cached_property
    def version(self) -> str:
        """First 12 hex digits of the SHA-256 of the columns, keys and coefficients."""
        digest = hashlib.sha256(repr((self.name, self.key, self.columns, self.keys.tolist())).encode())
        digest.update(np.ascontiguousarray(self.matrix).tobytes())
        return digest.hexdigest()[:12]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the matrix's columns: the features, then ``"intercept"`` where there is one."""
        return (*self.features, INTERCEPT) if self.intercept else self.features

    @cached_property
    def second_moment(self) -> NDArray[np.float64]:
        """Mean over entities of ``variance + coefficient ** 2``, shape (d,): an estimate of the prior variance.

        Raises
        ------
        InvalidModelInput
            When variances were not fitted, or there is no entity.
        """
        if self.variance is None or not len(self.keys):
            raise InvalidModelInput(f"coefficients of {self.name!r}: a second moment needs variances and an entity.")
        return np.asarray((self.variance + self.matrix.astype(np.float64) ** 2).mean(axis=0))

    @cached_property
    def _rows(self) -> dict[str | int, int]:
        return {key: row for row, key in enumerate(self.keys.tolist())}

    def table(self, *, variance: bool = False) -> pd.DataFrame:
        """Return the coefficients as a table indexed by key; `variance` appends ``<column>_variance``."""
        index = pd.Index(self.keys, name=self.key)
        table = pd.DataFrame(self.matrix, index=index, columns=list(self.columns))
        if not variance:
            return table
        if self.variance is None:
            raise InvalidModelInput("variances were not fitted; fit with variance='diagonal' or 'full'.")
        names = [f"{column}_variance" for column in self.columns]
        return table.join(pd.DataFrame(self.variance, index=index, columns=names))

    def lookup(self, key: str | int) -> Rows | None:
        """Return the coefficients of one entity, or None where it was not in training."""
        row = self.position(key)
        return None if row is None else self.matrix[row]

    def position(self, key: str | int) -> int | None:
        """Return the row of one entity, or None where it was not in training."""
        return self._rows.get(key)

    def positions(self, keys: Keys) -> NDArray[np.int64]:
        """Return the row of each key, -1 where it was not in training or is null.

        Raises
        ------
        InvalidModelInput
            Strings are asked for where the keys are integers, or integers where they are strings.
        """
        asked = keys.tolist()
        known = next((key for key in asked if key is not None), None)
        integers = self.keys.dtype != object
        if known is not None and len(self.keys) and isinstance(known, str) == integers:
            raise InvalidModelInput(
                f"key column {self.key!r} of random effect {self.name!r} holds {type(known).__name__}, but held "
                f"{'int' if integers else 'str'} in fit; convert it with .astype({'int' if integers else 'str'})."
            )
        row_of = self._rows
        return np.array([row_of.get(key, -1) for key in asked], dtype=np.int64)

    def margin(self, rows: Rows, keys: Keys) -> NDArray[np.float64]:
        """Return each row's margin: its features times its entity's coefficients, plus the intercept.

        Parameters
        ----------
        rows : float32 array of (n, number of features)
            NaN counts as 0.
        keys : int64 or object array of n
            None = null.

        Returns
        -------
        float64 array of n
            Exactly 0 where the key is null or was not in training.
        """
        if rows.ndim != 2 or rows.shape != (len(keys), len(self.features)):
            raise InvalidModelInput(
                f"rows of random effect {self.name!r}: found shape {rows.shape}, "
                f"expected {(len(keys), len(self.features))}."
            )
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        positions = self.positions(keys)
        return cast("NDArray[np.float64]", entity_margins(rows, self.matrix, positions, self.intercept))

    def over(self, older: Coefficients) -> Coefficients:
        """Return these coefficients, and those of `older` for the entities that have none here.

        Both need the same columns; a posterior is kept where both have one.
        """
        missing = np.flatnonzero(self.positions(older.keys) < 0)
        if not missing.size:
            return self
        keys = np.concatenate([self.keys, older.keys[missing]])
        order = np.argsort(keys, kind="stable")

        def joined(mine: Rows | None, theirs: Rows | None) -> Rows | None:
            return None if mine is None or theirs is None else np.concatenate([mine, theirs[missing]])[order]

        matrix = np.concatenate([self.matrix, older.matrix[missing]])[order]
        variance = joined(self.variance, older.variance)
        covariance = joined(self.covariance, older.covariance)
        return replace(self, keys=keys[order], matrix=matrix, variance=variance, covariance=covariance)

    def taken(self, rows: NDArray[np.int64]) -> Coefficients:
        """Return the entities in the given rows, which rise."""
        variance = None if self.variance is None else self.variance[rows]
        covariance = None if self.covariance is None else self.covariance[rows]
        return replace(self, keys=self.keys[rows], matrix=self.matrix[rows], variance=variance, covariance=covariance)

    def sampled(self, rng: np.random.Generator) -> Coefficients:
        """Return one draw of every entity's coefficients from its posterior, for Thompson sampling.

        Raises
        ------
        InvalidModelInput
            The coefficients have no posterior variances.
        """
        if self.variance is None:
            raise InvalidModelInput(f"coefficients of {self.name!r} have no variances; fit with variance='full'.")
        normal = rng.standard_normal(self.matrix.shape)
        if self.covariance is None:
            drawn = self.matrix + np.sqrt(self.variance) * normal
        else:
            # eigenvectors rather than Cholesky: float32 rounding may leave a covariance barely semidefinite
            values, vectors = np.linalg.eigh(self.covariance.astype(np.float64))
            drawn = self.matrix + np.einsum("kij,kj->ki", vectors, np.sqrt(np.maximum(values, 0.0)) * normal)
        return replace(self, matrix=drawn.astype(np.float32), variance=None, covariance=None)

    def save(self, directory: str | Path) -> None:
        """Write ``coefficients.json``, ``keys.parquet``, ``matrix.npy`` and the posterior into `directory`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        described = {
            "name": self.name,
            "key": self.key,
            "features": list(self.features),
            "intercept": self.intercept,
            "variance": self.variance is not None,
            "covariance": self.covariance is not None,
        }
        (directory / "coefficients.json").write_text(json.dumps(described, indent=1))
        pd.DataFrame({"key": self.keys}).to_parquet(directory / "keys.parquet", index=False)
        np.save(directory / "matrix.npy", self.matrix, allow_pickle=False)
        for part in ("variance", "covariance"):
            if getattr(self, part) is not None:
                np.save(directory / f"{part}.npy", getattr(self, part), allow_pickle=False)

    @classmethod
    def load(cls, directory: str | Path) -> Coefficients:
        """Read what `save` wrote.

        Raises
        ------
        InvalidModelInput
            A file is missing, cannot be read, or does not fit the others.
        """
        directory = Path(directory)
        try:
            described = json.loads((directory / "coefficients.json").read_text())
            keys = pd.read_parquet(directory / "keys.parquet")["key"]
            matrix = np.load(directory / "matrix.npy", allow_pickle=False)
            posterior = {
                part: np.load(directory / f"{part}.npy", allow_pickle=False)
                for part in ("variance", "covariance")
                if described.get(part)
            }
            return cls(
                name=str(described["name"]),
                key=str(described["key"]),
                features=tuple(str(feature) for feature in described["features"]),
                intercept=bool(described["intercept"]),
                keys=keys.to_numpy(dtype=np.int64 if pd.api.types.is_integer_dtype(keys.dtype) else object),
                matrix=matrix,
                **posterior,
            )
        except InvalidModelInput:
            raise
        except (OSError, EOFError, ValueError, KeyError, TypeError) as problem:
            raise InvalidModelInput(f"coefficients in {directory} cannot be read: {problem}") from problem


def inverse(covariance: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the precision of covariances, (..., d, d) or diagonals (..., d, 1); where there is no spread a large one.

    Examples
    --------
    >>> inverse(np.array([[4.0], [0.0]])).tolist()
    [[0.25], [1000000000000.0]]
    """
    if covariance.shape[-1] == 1:
        return 1.0 / np.maximum(covariance.astype(np.float64), _NO_SPREAD)
    inverted = np.linalg.inv(covariance.astype(np.float64) + _NO_SPREAD * np.eye(covariance.shape[-1]))
    return cast("NDArray[np.float64]", inverted)
