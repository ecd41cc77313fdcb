"""What the scripts share: ``python -m simulations.<name> settings.toml --out DIR``."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spr.errors import ConfigError, name_unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from matplotlib.figure import Figure

    from simulations.world import World
    from spr.progress import Progress

_SHIPPED = Path(__file__).parent.parent / "configs" / "simulations"


class Settings(BaseModel):
    """Settings of a script: what its TOML file may say; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(1, ge=0)


AnySettings = TypeVar("AnySettings", bound=Settings)


def read_settings(path: Path, kind: type[AnySettings]) -> AnySettings:
    """Read a script's TOML file.

    Parameters
    ----------
    path : Path
    kind : type of Settings

    Returns
    -------
    Settings
        Of that kind.

    Raises
    ------
    ConfigError
        When there is no such file, it is not TOML, or a setting is unknown or not allowed.

    Examples
    --------
    >>> read_settings(Path("none.toml"), Settings)
    Traceback (most recent call last):
    spr.errors.ConfigError: settings: none.toml cannot be read: ...
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"settings: {path} cannot be read: {error}") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        known = ", ".join(sorted(kind.model_fields))
        raise ConfigError(f"{path}: {where}: {first['msg']}; known settings: {known}") from None


def require_edge_type(edge_type: str, world: World) -> None:
    """Refuse an edge type that a world does not have.

    Parameters
    ----------
    edge_type : str
    world : World

    Raises
    ------
    ConfigError
    """
    known = world.behaviour.edge_types
    if edge_type not in known:
        raise ConfigError(name_unknown("edge type", edge_type, known, "the settings"))


@dataclass(frozen=True)
class Results:
    """What a script ends with.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        By title; printed, and written as CSV under the title's words.
    figures : mapping of str to Figure
        By the name of the file, without its suffix.
    remarks : tuple of str
        Sentences that are printed below.
    """

    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Figure]
    remarks: tuple[str, ...] = ()


def run_script(name: str, kind: type[AnySettings], job: Callable[[AnySettings, Progress], Results]) -> None:
    """Run a script's job from the command line: bars while it runs, then tables and figures.

    Parameters
    ----------
    name : str
        Of the script; its shipped settings are ``configs/simulations/<name>.toml``.
    kind : type of Settings
    job : callable
        Takes the settings and the progress.
    """
    from spr.cli import console, print_table, progress_bars, readable_errors

    def command(
        settings: Annotated[Path, typer.Argument(help="A TOML file of settings.")] = _SHIPPED / f"{name}.toml",
        out: Annotated[Path, typer.Option(help="Where figures and tables go.")] = Path("simulated") / name,
    ) -> None:
        with readable_errors():
            read = read_settings(settings, kind)
            out.mkdir(parents=True, exist_ok=True)
            with progress_bars() as progress:
                results = job(read, progress)
            for title, table in results.tables.items():
                print_table(table, title)
                table.to_csv(out / f"{_file_name(title)}.csv")
            for file, figure in results.figures.items():
                figure.savefig(out / f"{file}.png", dpi=120, bbox_inches="tight")
        for remark in results.remarks:
            console.print(remark, highlight=False, soft_wrap=True)
        console.print(f"tables and figures: [bold]{out}[/bold] ({', '.join(results.figures)})")

    command.__doc__ = sys.modules[job.__module__].__doc__
    typer.run(command)


def _file_name(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
