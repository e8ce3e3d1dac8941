"""How results leave a command: tables on stdout, rows in files, plots."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from maldrop_cli.cli.options import OutputOptions, PlotOptions
from maldrop_cli.files import STDOUT
from maldrop_cli.names import PlotKind, UsageError

if TYPE_CHECKING:
    from maldrop_cli.analysis.arms import Arm
    from maldrop_cli.analysis.compare import Comparison
    from maldrop_cli.data.load import ImageData
    from maldrop_cli.render.tables import Table
    from maldrop_cli.robustness.plan import RobustnessPlan


def present(
    tables: Sequence[Table],
    rows: Sequence[dict[str, Any]],
    output: OutputOptions,
    command: str,
    *,
    json_rows: Sequence[dict[str, Any]] | None = None,
    by_seed: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the files and show the tables, unless a file is stdout: neither a full disk nor a closed terminal takes the
    other along.

    ``command``: its name, for the JSON file, as are ``json_rows``, which replace ``rows`` there, for values that a
    table has no room for, and ``by_seed``, a row a run.
    """
    from rich.console import Console

    from maldrop_cli.render.tables import show, write_csv, write_json

    try:
        if output.csv:
            write_csv(rows, output.csv)
        if output.json:
            write_json(rows if json_rows is None else json_rows, output.json, command, by_seed)
    finally:
        if STDOUT not in (output.csv, output.json):
            show(tables, output.format, Console(file=sys.stdout))


def draw_plot(
    arms: Sequence[Arm],
    options: PlotOptions,
    default: PlotKind,
    plan: RobustnessPlan | None = None,
    images: Callable[[], ImageData] | None = None,
    comparison: Comparison | None = None,
) -> None:
    """Draw the plot that was asked for, if any; MaldropError where there is nothing to draw, or the disk fails.

    ``plan``, ``images``: of the plot ``examples``, which shows the validation images that the plan perturbs.
    ``comparison``: of the plot ``forest``, the tests of the arms.
    """
    if options.plot:
        from maldrop_cli.plots import draw, examples, save

        kind = options.plot_kind or default
        if kind is PlotKind.EXAMPLES:
            if not plan or not images:
                raise UsageError("plot_kind", "examples needs the images: compare and sweep draw it")
            figure = examples(images(), plan)
        else:
            figure = draw(kind, arms, (options.metrics or ["val_top1"])[0], options.x, comparison)
        save(figure, options.plot)
