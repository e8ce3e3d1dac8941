"""`maldrop report`: stored runs as tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maldrop_cli.cli.options import OutputOptions, PlotOptions

if TYPE_CHECKING:
    from maldrop_cli.record import RunRecord
    from maldrop_cli.sweep.filters import Condition

_PANEL = "Arms"


def report(
    output: OutputOptions,
    plotting: PlotOptions,
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that --out wrote.")],
    long: Annotated[bool, typer.Option("--long", help="One row an epoch instead of one a run.")] = False,
    masks: Annotated[
        bool, typer.Option("--masks", help="A table of the masks as well: pass rates, turnover, harm.")
    ] = False,
    dropout: Annotated[str | None, typer.Option("--dropout", "--dropouts", help="Only these variants.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING=VALUE[,VALUE]",
            help="Only runs with this setting: rho=0..1024 (all between), schedule=forward; - stands for runs on which "
            "it has no effect. Several: all must hold.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="SETTING[,SETTING]",
            help="Take runs together over their seeds, in the order of these settings.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|SETTING=VALUE",
            help="Test each arm against the one with this variant or setting that is alike in all else.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(help="Points of accuracy within which arms count as equivalent.", rich_help_panel=_PANEL),
    ] = 0.5,
) -> None:
    """Tables and plots of stored runs, finished or not; nothing is trained."""
    from maldrop_cli.cli.output import check_output, check_plot, present
    from maldrop_cli.cli.settings import check_margin, parse_names
    from maldrop_cli.config import Dropout, MaldropError, PlotKind, UsageError
    from maldrop_cli.sweep.filters import Condition as Only
    from maldrop_cli.sweep.filters import parse_baseline, parse_by, parse_condition

    check_output(output)
    check_margin(margin)
    plot = check_plot(plotting, PlotKind.LEARNING)
    conditions = [parse_condition(text, "where") for text in where or []]
    if dropout:
        wanted = parse_names(Dropout, dropout, "dropout")
        conditions.append(Only("dropout", f"dropout={','.join(wanted)}", lambda run, value: value in wanted))
    settings = parse_by(by) if by else []
    against = parse_baseline(baseline) if baseline else None
    grouped = bool(settings or against)
    if long and grouped:
        raise UsageError("long", "a row an epoch is of single runs; --by and --baseline take them together over seeds")

    from rich.console import Console

    from maldrop_cli.analysis.arms import group
    from maldrop_cli.analysis.compare import compare
    from maldrop_cli.render.progress import Reporter
    from maldrop_cli.render.reports import identifying, in_order, mixed_data, report_tables
    from maldrop_cli.render.runs import arm_rows, epoch_rows, mask_tables, report_table, run_rows
    from maldrop_cli.render.tables import plural
    from maldrop_cli.runs.points import runs_of_points
    from maldrop_cli.runs.store import Store

    warn = Reporter(Console(stderr=True)).warn
    stored, points = [], []
    for folder in folders:
        if not folder.is_dir():
            raise MaldropError(f"{folder} is no folder of runs")
        store = Store(folder, warn)
        stored += list(store.scan())
        points += store.points()
    if not stored:
        raise MaldropError(f"no runs in {', '.join(map(str, folders))}; `maldrop train --out DIR` makes one")
    together = grouped or plot or masks  # then points of a sweep that have the runs of others count as well
    known = [*stored, *runs_of_points(stored, points)] if together else stored
    records = [run for run in known if all(each.holds(run) for each in conditions)]
    if not records:
        raise MaldropError(_nothing_left(known, conditions))
    records.sort(key=lambda run: (str(run.config.effective_settings() | {"seed": 0}), run.config.seed))
    arms = in_order(group(records), settings) if together else []
    mask_report = mask_tables(arms, identifying(arms, settings)) if masks else []
    if grouped:
        pool = group(known)  # a baseline need not be among the rows
        if against and not any(map(against.fits, pool)):
            raise MaldropError(f"--baseline: none of {plural(len(stored), 'stored run')} has {against.label}")
        comparison = compare(arms, against, margin, pool)
        present([*report_tables(comparison, settings), *mask_report], arm_rows(comparison), output)
    else:
        runs = [run for run in records if run.trained_as is None]
        table = report_table(runs, long, mixed_data(runs))
        present([table, *mask_report], epoch_rows(runs) if long else run_rows(runs), output)
    if plot:
        plot.draw(arms)


def _nothing_left(stored: Sequence[RunRecord], conditions: Sequence[Condition]) -> str:
    """Which condition no stored run fulfils, and what the runs have instead."""
    from maldrop_cli.analysis.settings import order
    from maldrop_cli.sweep.filters import shown, value_of

    for condition in conditions:
        if not any(map(condition.holds, stored)):
            values = sorted({value_of(run, condition.name) for run in stored}, key=order)
            some = ", ".join(map(shown, values[:10])) + (" ..." if len(values) > 10 else "")
            return f"none of {len(stored)} stored runs has {condition.text}; there is {condition.name}={some}"
    texts = " and ".join(condition.text for condition in conditions)
    return f"none of {len(stored)} stored runs has {texts} together"
