"""`maldrop report`: stored runs as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maldrop_cli.cli.options import OutputOptions


def report(
    output: OutputOptions,
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that --out wrote.")],
    long: Annotated[bool, typer.Option("--long", help="One row an epoch instead of one a run.")] = False,
    dropout: Annotated[str | None, typer.Option("--dropout", "--dropouts", help="Only these variants.")] = None,
) -> None:
    """Print stored runs, finished or not."""
    from maldrop_cli.cli.output import check_output, present
    from maldrop_cli.cli.settings import parse_names
    from maldrop_cli.config import Dropout, MaldropError

    check_output(output)
    wanted = parse_names(Dropout, dropout, "--dropout") if dropout else list(Dropout)

    from rich.console import Console

    from maldrop_cli.render.progress import Reporter
    from maldrop_cli.render.runs import epoch_rows, report_table, run_rows
    from maldrop_cli.results.store import Store

    warn = Reporter(Console(stderr=True)).warn
    records = []
    for folder in folders:
        if not folder.is_dir():
            raise MaldropError(f"{folder} is no folder of runs")
        records += [run for run in Store(folder, warn).scan() if run.config.dropout in wanted]
    if not records:
        raise MaldropError(f"no runs in {', '.join(map(str, folders))}; `maldrop train --out DIR` makes one")
    records.sort(key=lambda run: (str(run.config.identity() | {"seed": 0}), run.config.seed))
    present([report_table(records, long)], epoch_rows(records) if long else run_rows(records), output)
