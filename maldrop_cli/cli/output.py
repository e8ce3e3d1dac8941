"""How results leave a command: tables on stdout, rows in files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maldrop_cli.analysis.settings import NUMERIC
from maldrop_cli.cli.options import OutputOptions, PlotOptions
from maldrop_cli.cli.writable import check_writable
from maldrop_cli.config import PLOT_SUFFIXES, Metric, PlotKind, UsageError, nearest, parse_name

if TYPE_CHECKING:
    from maldrop_cli.analysis.arms import Arm
    from maldrop_cli.render.tables import Table

FORMATS = ("auto", "rich", "plain", "markdown", "latex")


def check_output(output: OutputOptions) -> None:
    """Find out before any training whether the results can be shown and written as asked."""
    if output.format not in FORMATS:
        raise UsageError(
            "format",
            f"no format is called {output.format!r}{nearest(output.format, list(FORMATS))} "
            f"(one of: {', '.join(FORMATS)})",
        )
    for path in (output.csv, output.json):
        if path is not None:
            check_writable(path)


@dataclass(frozen=True)
class Plot:
    """A plot that was asked for, checked."""

    path: Path
    kind: PlotKind
    metric: Metric
    x: str

    def draw(self, arms: Sequence[Arm]) -> None:
        """Draw it and write it; MaldropError where there is nothing to draw, or the disk does not take it."""
        from maldrop_cli.plots import draw, save

        save(draw(self.kind, arms, self.metric, self.x), self.path)


def check_plot(options: PlotOptions, default: PlotKind) -> Plot | None:
    """What to draw, found out before any training; None where no plot was asked for."""
    metric = parse_name(Metric, options.metric, "metric")
    kind = default if options.plot_kind is None else parse_name(PlotKind, options.plot_kind, "plot_kind")
    x = options.x.strip().replace("-", "_")
    if x not in NUMERIC:
        raise UsageError(
            "x",
            f"no setting that is a number is called {options.x!r}{nearest(x, list(NUMERIC))} "
            f"(one of: {', '.join(NUMERIC)})",
        )
    if options.plot is None:
        if options.plot_kind is not None:
            raise UsageError("plot_kind", "there is no plot without --plot FILE")
        return None
    check_plot_file(options.plot)
    return Plot(options.plot, kind, metric, x)


def check_plot_file(path: Path) -> None:
    """UsageError where the suffix names no form of picture, MaldropError where a file can't be put there."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError("plot", f"{path} ends in none of {', '.join(PLOT_SUFFIXES)}; write e.g. plot.png")
    check_writable(path)


def stdout_encoding() -> str | None:
    """What stdout can show; None where it is closed."""
    return getattr(sys.stdout, "encoding", None)


def present(
    tables: Sequence[Table],
    rows: Sequence[dict[str, Any]],
    output: OutputOptions,
    json_rows: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Write the files and show the tables: neither a full disk nor a closed terminal takes the other along.

    ``json_rows``: what goes into the JSON file instead of ``rows``, for values that a table has no room for.
    """
    from rich.console import Console

    from maldrop_cli.render.tables import show, write_files

    try:
        write_files(rows, output.csv, None)
        write_files(rows if json_rows is None else json_rows, None, output.json)
    finally:
        show(tables, output.format, Console(file=sys.stdout))
