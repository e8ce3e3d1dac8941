"""`maldrop report`: stored runs as tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maldrop_cli.cli.options import OutputOptions, PlotOptions, command, completing
from maldrop_cli.cli.reading import names, positive
from maldrop_cli.files import expand
from maldrop_cli.names import Dropout, MaldropError, PlotKind, UsageError

if TYPE_CHECKING:
    from maldrop_cli.record import RunRecord
    from maldrop_cli.sweep.filters import Condition

_PANEL = "Arms"
DROPOUT = typer.Option("--dropout", "--dropouts", help="Only these variants.", autocompletion=completing(Dropout))
WHERE = typer.Option(
    metavar="SETTING=VALUE[,VALUE]",
    help="Only runs with this setting: rho=0..1024 (all between), schedule=forward; - stands for runs on which it has "
    "no effect. Several: all must hold.",
)
BY = typer.Option(
    metavar="SETTING[,SETTING]",
    help="One row for runs that differ in their seed alone, in the order of these settings.",
    rich_help_panel=_PANEL,
)
BASELINE = typer.Option(
    metavar="NAME|SETTING=VALUE|best:...",
    help="Test each arm against the one with this variant or setting that is alike in all else; best: against the best "
    "of several on the tuning images.",
    rich_help_panel=_PANEL,
)
MARGIN = typer.Option(help="Points of accuracy within which arms count as equivalent.", rich_help_panel=_PANEL)


@command()
def report(
    output: OutputOptions,
    plotting: PlotOptions,
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that --out wrote.")],
    long: Annotated[bool, typer.Option("--long", help="One row an epoch instead of one a run.")] = False,
    masks: Annotated[
        bool, typer.Option("--masks", help="A table of the masks as well: pass rates, turnover, loss increase.")
    ] = False,
    dropout: Annotated[str | None, DROPOUT] = None,
    where: Annotated[list[str] | None, WHERE] = None,
    by: Annotated[str | None, BY] = None,
    baseline: Annotated[str | None, BASELINE] = None,
    margin: Annotated[float, MARGIN] = 0.5,
) -> None:
    """Tables and plots of stored runs, finished or not; nothing is trained."""
    from maldrop_cli.sweep.filters import parse_baseline, parse_by, parse_condition

    positive("margin", margin)
    conditions = [parse_condition(text, "where") for text in where or []]
    if dropout:
        wanted = ",".join(names(Dropout, dropout, "dropout"))
        conditions.append(parse_condition(f"dropout={wanted}", "dropout"))
    settings = parse_by(by) if by else []
    base = parse_baseline(baseline) if baseline else None
    grouped = bool(settings or base)
    if long and grouped:
        raise UsageError("long", "a row an epoch is of single runs; --by and --baseline take them together over seeds")

    from maldrop_cli.analysis.arms import group
    from maldrop_cli.analysis.compare import TOP1, UNTESTED, compare_arms, default_metrics
    from maldrop_cli.cli.output import draw_plot, present
    from maldrop_cli.render import arms as render
    from maldrop_cli.render import runs
    from maldrop_cli.render.tables import plural

    known = _stored_runs([expand(folder, "DIR") for folder in folders], output.quiet)
    trained = [run for run in known if not run.trained_as]
    together = grouped or plotting.plot or masks  # then points of a sweep that have the runs of others count as well
    candidates = known if together else trained
    records = [run for run in candidates if all(each.holds(run) for each in conditions)]
    if not records:
        raise MaldropError(_nothing_left(candidates, conditions))
    records.sort(key=lambda run: (str(run.config.effective_settings() | {"seed": 0}), run.config.seed))
    arms = render.in_order(group(records), settings) if together else []
    mask_report = render.mask_tables(arms, render.id_columns(arms, settings)) if masks else []
    comparison = None
    if grouped:
        pool = group(known)  # a baseline need not be among the rows
        if base and not any(map(base.fits, pool)):
            raise MaldropError(f"--baseline: none of {plural(len(trained), 'stored run')} has {base.label}")
        tested = [each for each in plotting.metrics if each not in UNTESTED]
        tested = tested or (default_metrics(arms) if base else [TOP1])
        comparison = compare_arms(arms, base, margin, pool, tested)
        tables, rows = render.report_tables(comparison, settings), render.arm_rows(comparison)
        by_seed = render.seed_rows(comparison.arms)
    else:
        single = [run for run in records if not run.trained_as]
        by_seed = runs.run_rows(single)
        rows = runs.epoch_rows(single) if long else by_seed
        tables = [runs.report_table(single, long, render.mixed_data(single))]
    present([*tables, *mask_report], rows, output, "report", by_seed=by_seed)
    draw_plot(arms, plotting, PlotKind.LEARNING, comparison=comparison)


def _stored_runs(folders: Sequence[Path], quiet: bool) -> list[RunRecord]:
    from rich.console import Console

    from maldrop_cli.render.progress import ProgressListener
    from maldrop_cli.runs.store import Store

    warn = ProgressListener(Console(stderr=True), quiet=quiet).warn
    found: list[RunRecord] = []
    for folder in {folder.resolve(): folder for folder in folders}.values():  # each once
        if not folder.is_dir():
            raise MaldropError(f"{folder} is no folder of runs")
        found += Store(folder, warn).scan()
    if not found:
        raise MaldropError(f"no runs in {', '.join(map(str, folders))}; `maldrop train --out DIR` makes one")
    return found


def _nothing_left(stored: Sequence[RunRecord], conditions: Sequence[Condition]) -> str:
    """Which condition no stored run fulfils, and what the runs have instead."""
    from maldrop_cli.analysis.settings import order
    from maldrop_cli.names import value_text
    from maldrop_cli.sweep.filters import WITHOUT, value_of

    for condition in conditions:
        if not any(map(condition.holds, stored)):
            values = sorted({value_of(run, condition.name) for run in stored}, key=order)
            some = ", ".join(value_text(value, WITHOUT) for value in values[:10]) + (" ..." if len(values) > 10 else "")
            return f"none of {len(stored)} stored runs has {condition.text}; there is {condition.name}={some}"
    texts = " and ".join(condition.text for condition in conditions)
    return f"none of {len(stored)} stored runs has {texts} together"
