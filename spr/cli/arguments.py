"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Impressions = Annotated[Path, typer.Option(help="Impressions table: Parquet or CSV.")]
Requests = Annotated[Path, typer.Option(help="Requests table: impressions without policy, position, labels.")]
Viewers = Annotated[Path, typer.Option(help="Viewers table.")]
Entities = Annotated[Path | None, typer.Option(help="Entities table, where there is one.")]
BundleDir = Annotated[Path, typer.Argument(help="A bundle, as written by `spr fit`.")]
