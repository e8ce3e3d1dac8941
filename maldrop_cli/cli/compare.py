"""`maldrop compare`: several dropout variants over paired seeds, with a verdict."""

from __future__ import annotations

from typing import Annotated

import typer

from maldrop_cli.cli.options import (
    SEEDED,
    DataOptions,
    MeasureOptions,
    OutputOptions,
    PlotOptions,
    Settings,
    StoreOptions,
    command,
    positive,
)
from maldrop_cli.config import TRAINING
from maldrop_cli.executors import Execution
from maldrop_cli.names import Dropout, PlotKind, UsageError, parse_name
from maldrop_cli.sweep.grammar import parse_seeds

SEEDS = typer.Option(help="A count; a list or a range names them.", rich_help_panel=TRAINING)
MARGIN = typer.Option(help="Points of accuracy within which arms count as equivalent.", rich_help_panel="Comparison")
BASELINE = typer.Option(
    help="The arm that the others are tested against; without it, the first.", rich_help_panel="Comparison"
)


@command(SEEDED, several=("dropout",), dropout="none,vanilla,maldrop,random", robustness="occlude=0.5 neurons=0.9")
def compare(
    settings: Settings,
    data: DataOptions,
    store: StoreOptions,
    measured: MeasureOptions,
    execution: Execution,
    output: OutputOptions,
    plotting: PlotOptions,
    seeds: Annotated[str, SEEDS] = "3",
    baseline: Annotated[str, BASELINE] = "vanilla",
    margin: Annotated[float, MARGIN] = 0.5,
) -> None:
    """Compare dropout variants on one data set, over paired seeds: one table, with error bars and a verdict."""
    dropouts = settings.values["dropout"]
    base = parse_name(Dropout, baseline, "baseline")
    if base not in dropouts:
        if "baseline" in settings.given:
            raise UsageError("baseline", f"{base} is not among --dropout {','.join(dropouts)}")
        base = dropouts[0]
    positive("margin", margin)
    named_seeds = parse_seeds(seeds)

    from maldrop_cli.analysis.arms import group
    from maldrop_cli.analysis.compare import compare_arms, of_dropout
    from maldrop_cli.cli.output import draw_plot, present
    from maldrop_cli.cli.run import Session
    from maldrop_cli.render import arms as render
    from maldrop_cli.render.runs import failures, machine_line, settings_line
    from maldrop_cli.render.tables import plural
    from maldrop_cli.sweep.grid import over_seeds

    session = Session(settings, data, store, measured, output, execution)
    points = session.build()
    records = session.run(over_seeds(points, named_seeds, rotate=True))

    by_dropout = {arm.config.dropout: arm for arm in group(records)}
    comparison = compare_arms([by_dropout[each] for each in dropouts], of_dropout(base), margin)
    notes = [
        "±: 95 % t-interval over seeds. × none: training time an epoch.",
        machine_line(records),
        *failures(records),
        *render.saturated_arms(comparison.arms),
    ]
    title = f"{settings_line(points[0])}, {plural(len(named_seeds), 'seed')}"
    tables = [render.arm_table(comparison, title, notes)]
    if len(dropouts) > 1:
        tables.append(render.verdict_table(comparison))
    if points[0].fidelity_every:
        tables += render.mask_tables(comparison.arms)
    present(tables, render.arm_rows(comparison), output)
    try:
        draw_plot(comparison.arms, plotting, PlotKind.LEARNING)
    finally:
        session.conclude(records)
