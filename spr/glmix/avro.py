"""Coefficients that photon-ml and gdmix have fitted, read from their Avro files; needs the extra ``spr[avro]``.

Both keep one `BayesianLinearModelAvro` record per model: a fixed effect is one record, a random effect one record per
entity, whose `modelId` is the entity. A feature (name, term) becomes the column ``name``, or ``name=term`` where the
term is not empty, as `Encoding` calls the levels of a string column; ("(INTERCEPT)", "") becomes the intercept.

A coordinate's margin is ``model.margin(rows)`` of a fixed and ``model.margin(rows, keys)`` of a random effect; from a
DataFrame, ``wide = pd.get_dummies(frame, prefix_sep="=")`` names strings alike, and its absent features count as 0 in
``rows = wide.reindex(columns=list(model.features), fill_value=0).to_numpy(np.float32)``. The whole margin is the sum.
"""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spr.errors import InvalidModelInput, MissingDependency
from spr.glmix.coefficients import INTERCEPT, Coefficients
from spr.glmix.fixed import FittedLinear

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)
_INTERCEPT_FEATURE = ("(INTERCEPT)", "")
_LARGEST = float(np.finfo(np.float32).max)


def read_photon_model(directory: str | Path) -> dict[str, FittedLinear | Coefficients]:
    """Read a GAME model that photon-ml has saved.

    Parameters
    ----------
    directory : path
        Holds ``fixed-effect/<coordinate>/coefficients/*.avro`` and ``random-effect/<coordinate>/`` with
        ``coefficients/*.avro`` and ``id-info`` (the key column, the feature shard); either kind may be missing.
        ``model-metadata.json`` is not read: the margin's link (logit, identity, log) is for the caller to know.

    Returns
    -------
    dict of str to FittedLinear or Coefficients
        By coordinate, fixed effects first, each kind sorted by name.

    Raises
    ------
    InvalidModelInput
        No coordinate, a name that is both a fixed and a random effect, or files that the functions below refuse.
    MissingDependency
        fastavro is not installed.
    """
    directory = Path(directory)
    model: dict[str, FittedLinear | Coefficients] = {}
    for name in _names(directory / "fixed-effect"):
        model[name] = read_fixed_effect(directory / "fixed-effect" / name / "coefficients")
    for name in _names(directory / "random-effect"):
        if name in model:
            raise InvalidModelInput(f"{directory}: coordinate {name!r} is both a fixed and a random effect.")
        folder = directory / "random-effect" / name
        model[name] = read_random_effect(folder / "coefficients", name=name, key=_key_column(folder / "id-info"))
    if not model:
        found = ", ".join(_names(directory)) or "nothing"
        raise InvalidModelInput(f"{directory}: no coordinate in fixed-effect/ or random-effect/; found: {found}.")
    return model


def read_fixed_effect(path: str | Path) -> FittedLinear:
    """Read one fixed effect of gdmix or photon-ml.

    Parameters
    ----------
    path : path
        An Avro file, or a folder whose ``*.avro`` files hold one record between them.

    Returns
    -------
    FittedLinear
        Features sorted by name; intercept 0 where the record names none. Variances are not kept.

    Raises
    ------
    InvalidModelInput
        As `read_random_effect`; or there are several records.
    MissingDependency
        fastavro is not installed.
    """
    model, *more = islice(_read_models(Path(path)), 2)
    if more:
        found = f"{more[0].file}: model {more[0].key!r} stands beside {model.key!r}"
        raise InvalidModelInput(f"{found}; a fixed effect is one record, read several with read_random_effect.")
    intercept = float(model.means.pop(INTERCEPT, 0.0))
    features = tuple(sorted(model.means))
    return FittedLinear(features, intercept, np.array([model.means[name] for name in features], dtype=np.float64))


def read_random_effect(path: str | Path, *, name: str, key: str) -> Coefficients:
    """Read one random effect of gdmix or photon-ml, a record at a time.

    Parameters
    ----------
    path : path
        An Avro file, or a folder of ``*.avro`` files, with one record per entity.
    name : str
        What to call the effect.
    key : str
        The key column that holds the entities. The files' keys are strings, whatever they were in training.

    Returns
    -------
    Coefficients
        Dense: an entity a row, a column per feature of any record, sorted by name. A feature that an entity's record
        does not name is 0. `variance` is None unless the files hold the variance of *every* coefficient: both
        libraries drop small coefficients, and the variance of what is not there is unknown, neither 0 nor the prior's.

    Raises
    ------
    InvalidModelInput
        No Avro file or no record, a file that is truncated or of another schema, a modelId or a record's feature
        that stands twice, two features of one column name, a coefficient that is not a finite float32, a variance
        below 0. (A file that ends exactly between two of its blocks cannot be told from a whole one.)
    MissingDependency
        fastavro is not installed.

    Examples
    --------
    >>> import fastavro, tempfile
    >>> fields = [{"name": "name", "type": "string"}, {"name": "term", "type": "string"}]
    >>> item = {"type": "record", "name": "NameTermValueAvro", "fields": [*fields, {"name": "value", "type": "double"}]}
    >>> fields = [{"name": "modelId", "type": "string"}, {"name": "means", "type": {"type": "array", "items": item}}]
    >>> schema = {"type": "record", "name": "BayesianLinearModelAvro", "fields": fields}
    >>> means = [{"name": "(INTERCEPT)", "term": "", "value": 0.5}, {"name": "type", "term": "event", "value": 2.0}]
    >>> with tempfile.NamedTemporaryFile(suffix=".avro") as file:
    ...     fastavro.writer(file, schema, [{"modelId": "a", "means": means}])
    ...     file.flush()
    ...     member = read_random_effect(file.name, name="member", key="viewer_id")
    >>> member.columns
    ('type=event', 'intercept')
    >>> member.margin(np.array([[1.0], [1.0]], dtype=np.float32), np.array(["a", "z"], dtype=object)).tolist()
    [2.5, 0.0]
    """
    held: dict[str, list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = {}
    column_of: dict[str, int] = {}
    for model in _read_models(Path(path)):
        if model.key in held:
            raise InvalidModelInput(f"{model.file}: modelId {model.key!r} stands twice in {path}.")
        held[model.key] = [
            (
                np.array([column_of.setdefault(column, len(column_of)) for column in values], dtype=np.int64),
                np.array([*values.values()], dtype=np.float32),
            )
            for values in (model.means, model.variances)
        ]
    columns = sorted(column_of, key=lambda column: (column == INTERCEPT, column))
    place = np.argsort([column_of[column] for column in columns])
    mean = np.zeros((len(held), len(columns)), dtype=np.float32)
    variance = np.full_like(mean, np.nan)
    for row, entity in enumerate(sorted(held)):
        for matrix, (at, values) in zip((mean, variance), held[entity], strict=True):
            matrix[row, place[at]] = values
    unknown = int(np.isnan(variance).sum())
    if 0 < unknown < variance.size:
        logger.info("%s: no variance kept, %d of %d are not in the files", path, unknown, variance.size)
    return Coefficients(
        name=name,
        key=key,
        features=tuple(column for column in columns if column != INTERCEPT),
        intercept=INTERCEPT in column_of,
        keys=np.array(sorted(held), dtype=object),
        matrix=mean,
        variance=None if unknown else variance,
    )


class _Model(NamedTuple):
    file: Path
    key: str
    means: dict[str, float]  # by column
    variances: dict[str, float]  # empty where null


def _read_models(path: Path) -> Iterator[_Model]:
    """Yield the models of a file or of a folder's files, at least one."""
    features: dict[str, tuple[str, str]] = {INTERCEPT: _INTERCEPT_FEATURE}
    found = False
    for file in [path] if path.is_file() else [path / name for name in _names(path) if name.endswith(".avro")]:
        for record in _records(file):
            key = record["modelId"]
            try:
                means = _values(record["means"], features, -_LARGEST)
                variances = _values(record.get("variances") or (), features, 0.0)
                if not isinstance(key, str):
                    raise TypeError("modelId is not a string")
            except (InvalidModelInput, KeyError, TypeError) as problem:
                raise InvalidModelInput(f"{file}: model {key!r} cannot be read: {problem}") from problem
            found = True
            yield _Model(file, key, means, variances)
    if not found:
        raise InvalidModelInput(f"{path}: no model in its *.avro files; found: {', '.join(_names(path)) or 'nothing'}.")


def _values(entries: Iterable[Any], features: dict[str, tuple[str, str]], lowest: float) -> dict[str, float]:
    values: dict[str, float] = {}
    for entry in entries:
        name, term, value = entry["name"], entry["term"] or "", entry["value"]
        column = INTERCEPT if (name, term) == _INTERCEPT_FEATURE else name + ("=" + term if term else "")
        taken = features.setdefault(column, (name, term))
        if taken != (name, term):
            raise InvalidModelInput(f"features {taken} and {(name, term)} would both be column {column!r}.")
        if column in values:
            raise InvalidModelInput(f"feature {column!r} stands twice.")
        if not lowest <= value <= _LARGEST:
            raise InvalidModelInput(f"{column!r} is {value}; allowed: {lowest:.6g} to {_LARGEST:.6g}.")
        values[column] = value
    return values


def _records(file: Path) -> Iterator[dict[str, Any]]:
    try:
        import fastavro
    except ImportError as error:
        raise MissingDependency(f"{file} needs fastavro, which is missing; run: pip install 'spr[avro]'") from error
    try:
        with file.open("rb") as opened:
            records: Any = fastavro.reader(opened)
            fields = [field["name"] for field in dict(records.writer_schema).get("fields", ())]
            if not {"modelId", "means"} <= set(fields):
                raise InvalidModelInput(f"{file} is not of BayesianLinearModelAvro records: it has fields {fields}.")
            yield from records
    except InvalidModelInput:
        raise
    except Exception as problem:  # whatever a damaged file makes the decoder stumble over
        raise InvalidModelInput(f"{file} cannot be read (damaged, not Avro, a missing codec): {problem!r}") from problem


def _names(folder: Path) -> list[str]:
    """Return the sorted names in a folder, none where it is not there, without ``_SUCCESS`` and ``.part.crc``."""
    return sorted(entry.name for entry in folder.glob("*") if not entry.name.startswith(("_", ".")))


def _key_column(file: Path) -> str:
    try:
        key, _shard = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as problem:
        raise InvalidModelInput(f"{file} must hold two lines, key column and feature shard: {problem}") from problem
    return key
