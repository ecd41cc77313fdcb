"""A report as one HTML page: sections of text, tables and pictures; nothing in it runs or is fetched."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: .95rem; margin-bottom: .3rem; }
table { border-collapse: collapse; font-size: .85rem; } td, th { padding: .25rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #444; }
tbody tr:nth-child(even) { background: #f4f4f4; } img { max-width: 100%; } .wide { overflow-x: auto; }
"""


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Parameters
    ----------
    title : str
    text : sequence of str, default ()
        Paragraphs.
    tables : mapping of str to DataFrame, optional
        By caption.
    figures : mapping of str to Figure, optional
        By what it shows, for those who cannot see it.
    """

    title: str
    text: Sequence[str] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


def write_report(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write sections as one HTML page.

    Parameters
    ----------
    path : str or Path
        Of the page; its directory is made.
    title : str
    sections : sequence of Section

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> page = Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(page, "Factors", [Section("One", ["a < b"], {"t": pd.DataFrame({"x": [1.0]})})])
    >>> "a &lt; b" in page.read_text(encoding="utf-8")
    True
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "\n".join(_section(section) for section in sections)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n",
        encoding="utf-8",
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.text]
    parts += [f'<img alt="{escape(shows)}" src="{_picture(figure)}">' for shows, figure in section.figures.items()]
    for caption, table in section.tables.items():
        html = table.to_html(border=0, float_format=lambda value: f"{value:.4g}", na_rep="")
        parts.append(f'<h3>{escape(caption)}</h3><div class="wide">{html}</div>')
    return "\n".join(parts)


def _picture(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
