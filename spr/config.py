"""The configuration: a TOML file read into checked, frozen models; unknown keys are errors.

Only ``[entity_types]`` is required. A network with other entity and edge types is another TOML file and no code.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import pydantic
from pydantic import BeforeValidator, Field, PlainSerializer

from calibration import SlotExamination
from calibration.families import Response
from calibration.forms.loglinear import Transforms
from calibration.response import Method
from spr.errors import ConfigError, InfeasibleGuarantee, name_unknown
from spr.page_settings import Exploration, Guarantee
from spr.reorder import ImportanceFactors, ImpressionGuarantee, check_guarantees
from spr.sections import Duration, Section
from spr.tables import IMPRESSION_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping

Aggregation = Literal["mean", "slot_weighted_mean", "max", "noisy_or", "log_sum_exp"]


def _read_importance(content: object) -> object:
    """Read numbers by edge type, or what a file of factors held: see :meth:`ImportanceFactors.to_dict`."""
    if isinstance(content, ImportanceFactors):
        return content
    if not isinstance(content, dict):
        raise ValueError(f"{content!r} is no table of numbers by edge type")
    if isinstance(content.get("file"), str):
        raise ValueError(f"file = {content['file']!r} is read with TOML text only; give what the file holds")
    parts = isinstance(content.get("factor"), dict)
    try:
        return ImportanceFactors.from_dict(content if parts else {"factor": content})
    except (TypeError, AttributeError) as error:  # a list where a number belongs, a number where a table does
        raise ValueError(f"not factors: {error}") from error


def _plain_importance(factors: ImportanceFactors) -> dict[str, Any]:
    # Chosen numbers stay numbers by edge type, so that the hash of a configuration that states them does not change.
    chosen = ImportanceFactors.of(factors.factor) == factors
    return dict(factors.factor) if chosen else factors.to_dict()


Importance = Annotated[
    pydantic.InstanceOf[ImportanceFactors],
    BeforeValidator(_read_importance),
    PlainSerializer(_plain_importance, return_type=dict[str, Any]),
]


class Labels(Section):
    """When a label is mature: ``at`` + both windows <= ``snapshot``.

    Without a snapshot labels stay as they were logged, and only a replay uses the windows, at each of its cuts.
    """

    response_window: Duration = timedelta(days=3)
    downstream_window: Duration = timedelta(days=7)
    snapshot: datetime | None = None


class EntityType(Section):
    """One entity type: what acting on it forms, how many slots are ranked on, and how they are summed up.

    ``response`` says what its ranker is labelled with. ``aggregation`` is ``"noisy_or"`` unless given, and where
    responses are not probabilities ``"slot_weighted_mean"``. ``negative_sampling_rate`` is the share of rows without
    a response that the log kept.
    """

    edge_type: str = Field(min_length=1)
    top_k: int = Field(6, ge=1, le=64)
    response: Response = "binary"
    aggregation: Aggregation = "noisy_or"
    negative_sampling_rate: float = Field(1.0, gt=0, le=1)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _choose_aggregation(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("response", "binary") != "binary":
            return {"aggregation": "slot_weighted_mean"} | given
        return given

    @pydantic.model_validator(mode="after")
    def _check_response(self) -> Self:
        if self.response == "binary":
            return self
        if self.aggregation == "noisy_or":
            raise ValueError(
                f"aggregation 'noisy_or' needs probabilities, and response is {self.response!r}; "
                "use 'slot_weighted_mean', 'mean', 'max' or 'log_sum_exp'"
            )
        if self.negative_sampling_rate != 1.0:
            raise ValueError(f"negative_sampling_rate needs binary responses, and response is {self.response!r}")
        return self


class Calibration(Section):
    """How raw scores become expected responses; ``unknown_version`` is what ``rank`` does without a curve.

    ``position_examination`` is estimated from the random policy. ``slot_examination``, by slot as displayed and
    relative to slot 0, is not identified there, because slots follow the raw score, so it is given: from
    ``calibration.SlotExamination.fit_shuffled``, ``fit_rankers``, or the user's own knowledge. Expected responses are
    then those at slot 0, and noisy-or gives each slot its examination back. Default: no correction; expected
    responses are those at the slots where the ranker's scores put its entities.

    ``method`` and ``transforms`` are those of ``calibration.QuantileResponseCalibrator``. ``segment`` names a viewers
    column of strings or booleans, or a ``context_*`` column: each of its values gets a curve per ranker, partially
    pooled to the ranker's own, which answers where the column is null or holds a value that training did not see.
    ``unknown_version = "prior"`` takes the mean expected response of the entity type, or, where it has no curve either,
    the mean over the types whose responses are alike (``CalibratorSet.prior``); the page says so in ``fallbacks``.
    """

    method: Method = "auto"
    transforms: Transforms = "rank"
    segment: str | None = Field(None, min_length=1)
    folds: int = Field(10, ge=2)
    position_examination: bool = True
    slot_examination: tuple[float, ...] | None = None
    unknown_version: Literal["error", "prior"] = "error"

    @pydantic.field_validator("slot_examination")
    @classmethod
    def _check_slots(cls, relative: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if relative is not None:
            SlotExamination(np.array(relative))
        return relative

    @pydantic.field_validator("segment")
    @classmethod
    def _check_segment(cls, column: str | None) -> str | None:
        if column in IMPRESSION_COLUMNS:
            raise ValueError(f"{column!r} is a column of the impressions table itself; name a viewers or context_* one")
        return column


class Features(Section):
    """What the second pass may see beside expected responses and types.

    ``viewer_in_trees`` says whether the trees see columns that are constant within a viewer. They help where such
    columns tell something about viewers in general, and harm where they let the trees memorise viewers, which also
    leaves less to the random effects. ``"auto"`` fits both ways and keeps what has the lower loss, averaged over
    held-out viewers and later requests of seen viewers. Random effects may use these columns either way.
    """

    viewer_in_trees: Literal["auto", "yes", "no"] = "auto"
    max_levels: int = Field(50, ge=2)


class TreeSettings(Section):
    """The boosting budget of the fixed effect; one thread gives the same trees on every machine."""

    n_rounds: int = Field(300, ge=1)
    max_depth: int = Field(6, ge=1, le=12)
    learning_rate: float = Field(0.1, gt=0, le=1)
    min_child_weight: float = Field(5.0, ge=0)
    early_stopping_rounds: int = Field(30, ge=1)
    n_threads: int = Field(1, ge=1)


class RandomEffectSettings(Section):
    """One random effect: its key column and the features that get a coefficient per key."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    key: str = "viewer_id"
    features: tuple[str, ...] = ("entity_type", "edge_type")


class Config(Section):
    r"""Everything a fit needs to know beside its tables.

    Parameters
    ----------
    entity_types : mapping of str to EntityType
        The only required section.
    seed : int, default 7
        Seeds the fit. The random policy has a salt of its own, so that a refit keeps the random bucket.
    labels, calibration, features, trees, exploration : section, optional
        See the section's class.
    importance : ImportanceFactors
        ``[importance]``: a factor per edge type (one without has factor 1), or ``file = "factors.json"``, factors of an
        experiment with their parts and intervals. The file is read with the TOML text and its content stands in for
        it, so that the hash covers it and a bundle needs no file.
    guarantees : sequence of Guarantee
        Impression guarantees, kept on every page that is not random.
    random_effects : sequence of RandomEffectSettings
        Default: one, ``member``, keyed by ``viewer_id``, with a coefficient per entity type and edge type.

    Examples
    --------
    >>> from spr import Config
    >>> config = Config.parse('[entity_types]\npeople = { edge_type = "connection" }')
    >>> config.entity_types["people"].top_k
    6
    >>> Config.parse('seeds = 3\n[entity_types]\npeople = { edge_type = "connection" }')
    Traceback (most recent call last):
    ...
    spr.errors.ConfigError: config: unknown key 'seeds'; known: ... Did you mean 'seed'?
    """

    entity_types: dict[str, EntityType] = Field(min_length=1)
    seed: int = Field(7, ge=0)
    labels: Labels = Labels()
    calibration: Calibration = Calibration()
    features: Features = Features()
    trees: TreeSettings = TreeSettings()
    importance: Importance = Field(default_factory=lambda: ImportanceFactors.of({}))
    guarantees: tuple[Guarantee, ...] = ()
    random_effects: tuple[RandomEffectSettings, ...] = (RandomEffectSettings(name="member"),)
    exploration: Exploration = Exploration()

    @pydantic.field_validator("guarantees", "random_effects", mode="before")
    @classmethod
    def _check_brackets(cls, value: object, info: pydantic.ValidationInfo) -> object:
        if isinstance(value, dict):
            raise ValueError(f"write [[{info.field_name}]], with two brackets: there may be several")
        return value

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a TOML file.

        Parameters
        ----------
        path : str or Path
            UTF-8; see ``configs/network.toml`` for one with most sections. ``[importance] file`` is relative to it.

        Returns
        -------
        Config

        Raises
        ------
        ConfigError
            When the file is missing, is not TOML, or breaks a rule; the message names the key.
        """
        path = Path(path)
        if not path.is_file():
            raise ConfigError(f"no configuration at {path}")
        return cls.parse(path.read_text(encoding="utf-8"), source=str(path), folder=path.parent)

    @classmethod
    def named(cls, name: str) -> Self:
        """Read a configuration that is shipped with the package.

        Parameters
        ----------
        name : str
            ``"network"`` or ``"lastfm"``.

        Returns
        -------
        Config

        Raises
        ------
        ConfigError
            When no configuration of this name is shipped.

        Examples
        --------
        >>> sorted(Config.named("network").entity_types)[:3]
        ['company', 'event', 'group']
        """
        shipped = resources.files("configs")
        known = [entry.name[:-5] for entry in shipped.iterdir() if entry.name.endswith(".toml")]
        if name not in known:
            raise ConfigError(name_unknown("configuration", name, known))
        return cls.parse((shipped / f"{name}.toml").read_text(encoding="utf-8"), source=f"{name}.toml")

    @classmethod
    def parse(cls, text: str, *, source: str = "config", folder: Path = Path()) -> Self:
        """Read TOML text.

        Parameters
        ----------
        text : str
            See :meth:`read`.
        source : str, default "config"
            Names the text in errors.
        folder : Path, default the current directory
            What ``[importance] file`` is relative to.

        Returns
        -------
        Config

        Raises
        ------
        ConfigError
            As of :meth:`read`; when ``[importance]`` names a file that cannot be read, or a file and numbers.
        """
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{source}: not TOML: {error}") from error
        return cls.from_dict(_with_factors_of_file(content, source, folder), source=source)

    @classmethod
    def from_dict(cls, content: dict[str, Any], *, source: str = "config") -> Self:
        """Check plain values, as read from TOML or from a bundle's manifest.

        Parameters
        ----------
        content : dict
            Sections and keys as in the TOML file.
        source : str, default "config"
            Names the content in errors.

        Returns
        -------
        Config

        Raises
        ------
        ConfigError
            When a key is unknown or missing, a value is out of range, or names contradict each other.
        """
        try:
            config = cls.model_validate(content)
        except pydantic.ValidationError as error:
            raise ConfigError(f"{source}: {_explain(error, content)}") from error
        config._check_names(source)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` reads back."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical content; stands in the bundle and on each page."""
        canonical = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def responses(self) -> dict[str, str]:
        """What a response is, by entity type."""
        return {name: kind.response for name, kind in self.entity_types.items()}

    @property
    def negative_sampling_rates(self) -> dict[str, float]:
        """The share of rows without a response that the log kept, by entity type."""
        return {name: kind.negative_sampling_rate for name, kind in self.entity_types.items()}

    @property
    def edge_types(self) -> tuple[str, ...]:
        """The edge types of the entity types, in order of first mention."""
        return tuple(dict.fromkeys(kind.edge_type for kind in self.entity_types.values()))

    @property
    def top_k(self) -> int:
        """The largest ``top_k`` of the entity types: how many slots the response features have."""
        return max(kind.top_k for kind in self.entity_types.values())

    def impression_guarantees(
        self, factors: ImportanceFactors, prices: Mapping[str, float] = MappingProxyType({})
    ) -> tuple[ImpressionGuarantee, ...]:
        """Return what pages keep.

        Parameters
        ----------
        factors : ImportanceFactors
            That shares follow where a ratio says so.
        prices : mapping of str to float, optional
            Of shares, by guarantee, in units of the mean factor; see :func:`spr.reorder.learn_prices`.

        Raises
        ------
        InfeasibleGuarantee
            When no page could keep them together.
        """
        factor = {edge_type: factors.factor.get(edge_type, 1.0) for edge_type in self.edge_types}
        kept = tuple(g for guarantee in self.guarantees for g in guarantee.to_guarantees(factor, prices))
        check_guarantees(kept, {name: kind.edge_type for name, kind in self.entity_types.items()})
        return kept

    def _check_names(self, source: str) -> None:
        for edge_type in self.importance.factor:
            if edge_type not in self.edge_types:
                raise ConfigError(name_unknown("edge type", edge_type, self.edge_types, f"{source}, [importance]"))
        for guarantee in self.guarantees:
            if guarantee.name == "total":
                raise ConfigError(f"{source}: a guarantee cannot be called 'total': delivered_total counts all")
            guarantee.check_labels(self.edge_types, tuple(self.entity_types), source)
        try:
            self.impression_guarantees(self.importance)
            self.exploration.to_exploration()
        except (ConfigError, InfeasibleGuarantee) as error:
            raise ConfigError(f"{source}: {error}") from error
        if self.exploration.method == "thompson" and not any(e.key == "viewer_id" for e in self.random_effects):
            raise ConfigError(f"{source}: exploration: thompson needs a random effect with key = 'viewer_id'")
        names = [effect.name for effect in self.random_effects]
        taken = sorted({name for name in names if names.count(name) > 1 or name in {"fixed", "unseen"}})
        if taken:
            raise ConfigError(f"{source}: random effects need names of their own; taken: {', '.join(taken)}")


def _with_factors_of_file(content: dict[str, Any], source: str, folder: Path) -> dict[str, Any]:
    """Put what ``[importance] file`` holds in its place; a number of that name is the factor of an edge type "file"."""
    section = content.get("importance")
    if not isinstance(section, dict) or not isinstance(section.get("file"), str):
        return content
    file, numbers = section["file"], sorted(section.keys() - {"file"})
    if numbers:
        raise ConfigError(
            f"{source}, [importance]: file = {file!r} and numbers for {', '.join(numbers)}; keep one: write "
            "the numbers into the file, or all factors here"
        )
    try:
        factors = ImportanceFactors.read(folder / file)
    except ConfigError as error:
        raise ConfigError(f"{source}, [importance]: {error}") from error
    return content | {"importance": factors.to_dict()}


def _explain(error: pydantic.ValidationError, content: dict[str, Any]) -> str:
    sentences = []
    for problem in error.errors():
        loc = list(problem["loc"])
        if len(loc) > 1 and isinstance(loc[1], int):
            loc[1] = content[str(loc[0])][loc[1]].get("name", loc[1])
        *section, key = [str(part) for part in loc] or [""]
        if problem["type"] == "extra_forbidden":
            known = _known_keys(section)
            where = f"[{'.'.join(section)}]" if section else ""
            sentences.append(name_unknown("key", key, known, where))
        else:
            sentences.append(f"{'.'.join([*section, key])}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(sentences)


def _known_keys(section: list[str]) -> list[str]:
    sections: dict[str, type[Section]] = {
        "labels": Labels,
        "entity_types": EntityType,
        "calibration": Calibration,
        "features": Features,
        "trees": TreeSettings,
        "random_effects": RandomEffectSettings,
        "exploration": Exploration,
        "guarantees": Guarantee,
    }
    model = sections[section[0]] if section else Config
    return list(model.model_fields)
