"""A report that people open: sections of sentences, tables and pictures in one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from spr.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

PAGE = "report.html"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .5rem 0 1.5rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: right; white-space: nowrap; }
th { text-align: left; } caption { text-align: left; font-weight: 600; padding: .3rem 0; }
"""


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Parameters
    ----------
    title : str
        Above it.
    sentences : sequence of str, default ()
        A paragraph each, before tables and pictures; plain text.
    tables : mapping of str to DataFrame, optional
        By caption. A null is an empty cell; numbers have four digits.
    figures : mapping of str to Figure, optional
        By file name without ending; unique in a report.
    """

    title: str
    sentences: Sequence[str] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


def write_report(folder: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write a report: one HTML page with its pictures inside, and each picture as a PNG beside it.

    Parameters
    ----------
    folder : str or Path
        Made where it is not there; files of the same names are replaced.
    title : str
        Of the page.
    sections : sequence of Section
        In the order of reading.

    Returns
    -------
    Path
        Of the page. It holds no script and refers to no other file.

    Raises
    ------
    ConfigError
        When the folder is a file, or two pictures have one name.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     section = Section("Pages", ["All is < well."], {"count": pd.DataFrame({"n": [3]})})
    ...     page = write_report(folder, "Week 7", [section])
    ...     "All is &lt; well." in page.read_text(encoding="utf-8")
    True
    """
    folder = check_folder(folder)
    names = [name for section in sections for name in section.figures]
    if len(set(names)) < len(names):
        raise ConfigError(f"report: pictures need names of their own; found {', '.join(names)}")
    folder.mkdir(parents=True, exist_ok=True)
    body = []
    for section in sections:
        pictures = {name: _png(figure) for name, figure in section.figures.items()}
        for name, content in pictures.items():
            (folder / f"{name}.png").write_bytes(content)
        body.append(_section(section, pictures))
    (folder / PAGE).write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{''.join(body)}</body></html>\n",
        encoding="utf-8",
    )
    return folder / PAGE


def check_folder(folder: str | Path) -> Path:
    """Return a folder that a report can be written to; ask before long work.

    Raises
    ------
    ConfigError
        When it is a file.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; a report is a folder: give another path")
    return folder


def _section(section: Section, pictures: Mapping[str, bytes]) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in section.sentences]
    for name, content in pictures.items():
        source = base64.b64encode(content).decode("ascii")
        parts.append(f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{source}"></figure>')
    for caption, table in section.tables.items():
        rows = table.to_html(border=0, na_rep="", float_format=lambda number: f"{number:.4g}")
        captioned = rows.replace(">", f"><caption>{escape(caption)}</caption>", 1)
        parts.append(f'<div class="wide">{captioned}</div>')
    return "\n".join([*parts, "</section>\n"])


def _png(figure: Figure) -> bytes:
    written = BytesIO()
    figure.savefig(written, format="png", dpi=150)
    return written.getvalue()
