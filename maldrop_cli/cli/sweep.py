"""`maldrop sweep`: a grid of settings."""

from __future__ import annotations

import functools
from typing import Annotated

from maldrop_cli.cli.compare import SEED, SEEDS
from maldrop_cli.cli.options import (
    DRY_RUN,
    SEEDED,
    DataOptions,
    MeasureOptions,
    OutputOptions,
    PlotOptions,
    Settings,
    StoreOptions,
    command,
    not_plotted,
)
from maldrop_cli.cli.reading import SWEPT, read_seeds
from maldrop_cli.executors import Execution
from maldrop_cli.names import PlotKind


@command(SEEDED, several=SWEPT)
def sweep(
    settings: Settings,
    data: DataOptions,
    store: StoreOptions,
    measured: MeasureOptions,
    execution: Execution,
    output: OutputOptions,
    plotting: PlotOptions,
    seeds: Annotated[str, SEEDS] = "1",
    dry_run: Annotated[bool, DRY_RUN] = False,
    seed: Annotated[int | None, SEED] = None,
) -> None:
    """Train a grid: one row a point, the best and the worst marked.

    --dropout, --rho, --schedule, --omega, --selector, --lr, --p, --train-images, --model and --dataset take several
    values each.
    Names have commas between them. Numbers: 256, 0,256,1024, 0..4096 (nine points), 0..4096:512 (a step), 0..4096/17
    (points), 1..4096*2 (a factor); of --rho also 6.25%.
    """
    not_plotted(plotting, dry_run)
    named_seeds = read_seeds(seeds, seed, output, settings.given)

    from maldrop_cli.analysis.arms import group
    from maldrop_cli.analysis.compare import compare_arms, of_vanilla
    from maldrop_cli.cli.output import draw_plot, present
    from maldrop_cli.cli.run import Session
    from maldrop_cli.data import load as datasets
    from maldrop_cli.render import arms as render
    from maldrop_cli.render.dry_run import dry_rows, plan_line, sweep_chart
    from maldrop_cli.render.runs import failures, machine_line
    from maldrop_cli.runs.store import Store
    from maldrop_cli.sweep.grid import REFERENCES, aliases, distinct, over_seeds, trained_as

    session = Session(settings, data, store, measured, output, execution)
    points = session.build(REFERENCES)
    trained = trained_as(points, session.head)
    plan = over_seeds(distinct(trained), named_seeds)
    title = render.sweep_title(points, len(named_seeds))
    session.check(plan)  # all of it, before the first data set is loaded
    if dry_run:
        known, left = session.finished(plan), session.estimate(plan)
        notes = [plan_line(len(points), len(named_seeds), len(plan), known, store.out, left)]
        rows = dry_rows(points, session.head, {"n_seeds": len(named_seeds)})
        present([sweep_chart(points, session.head, title, notes)], rows, output, "sweep")
        return
    records = []
    for images in dict.fromkeys(config.data for config in plan):
        records += session.run([config for config in plan if config.data == images])
    aliased = aliases(points, trained, records)
    for record in aliased:
        Store(store.out).write_alias(record)

    by_settings = {arm.config.key: arm for arm in group([*records, *aliased])}
    arms = [by_settings[point.key] for point in points]
    comparison = compare_arms(arms, of_vanilla(settings.values["p"][0]), margin=0.5)
    tables = [render.sweep_table(comparison, title, [machine_line(records), *failures(records)])]
    if points[0].fidelity_every:
        tables += render.mask_tables(comparison.arms)
    present(tables, render.arm_rows(comparison), output, "sweep", by_seed=render.seed_rows(comparison.arms))
    try:
        load = functools.partial(datasets.load, points[0].data, data.data_dir)
        draw_plot(comparison.arms, plotting, PlotKind.METRIC, measured.plan, load, comparison)
    finally:
        session.conclude(records)
