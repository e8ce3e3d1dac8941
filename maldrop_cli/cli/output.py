"""How results leave a command: tables on stdout, rows in files, plots."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from maldrop_cli.cli.options import OutputOptions, PlotOptions
from maldrop_cli.names import PlotKind

if TYPE_CHECKING:
    from maldrop_cli.analysis.arms import Arm
    from maldrop_cli.render.tables import Table


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

    from maldrop_cli.render.tables import show, write_csv, write_json

    try:
        if output.csv:
            write_csv(rows, output.csv)
        if output.json:
            write_json(rows if json_rows is None else json_rows, output.json)
    finally:
        show(tables, output.format, Console(file=sys.stdout))


def draw_plot(arms: Sequence[Arm], options: PlotOptions, default: PlotKind) -> None:
    """Draw the plot that was asked for, if any; MaldropError where there is nothing to draw, or the disk fails."""
    if options.plot:
        from maldrop_cli.plots import draw, save

        save(draw(options.plot_kind or default, arms, options.metric, options.x), options.plot)
