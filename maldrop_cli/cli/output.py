"""How results leave a command: tables on stdout, rows in files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maldrop_cli.cli.options import OutputOptions
from maldrop_cli.config import MaldropError, UsageError, nearest

if TYPE_CHECKING:
    from maldrop_cli.render.tables import Table

FORMATS = ("auto", "rich", "plain", "markdown")


def check_output(output: OutputOptions) -> None:
    """Find out before any training whether the results can be shown and written as asked."""
    if output.format not in FORMATS:
        raise UsageError(
            f"--format: no format is called {output.format!r}{nearest(output.format, list(FORMATS))} "
            f"(one of: {', '.join(FORMATS)})"
        )
    for path in (output.csv, output.json):
        if path is not None:
            check_writable(path)


def check_writable(path: Path) -> None:
    """MaldropError where a file can't be put."""
    if not path.resolve().parent.is_dir():
        raise MaldropError(f"can't write {path}: there is no folder {path.resolve().parent}")
    if path.is_dir():
        raise MaldropError(f"can't write {path}: it is a folder")


def stdout_encoding() -> str | None:
    """What stdout can show; None where it is closed."""
    return getattr(sys.stdout, "encoding", None)


def present(tables: Sequence[Table], rows: Sequence[dict[str, Any]], output: OutputOptions) -> None:
    """Write the files and show the tables: neither a full disk nor a closed terminal takes the other along."""
    from rich.console import Console

    from maldrop_cli.render.tables import show, write_files

    try:
        write_files(rows, output.csv, output.json)
    finally:
        show(tables, output.format, Console(file=sys.stdout))
