"""`maldrop sweep`: a grid of settings."""

from __future__ import annotations

from typing import Annotated

import typer

from maldrop_cli.cli.options import (
    RHO_DEFAULT,
    DeviceOptions,
    DropoutsOption,
    DryRunOption,
    ExecutionOptions,
    Given,
    OutputOptions,
    PlotOptions,
    SubjectOptions,
    TrainingOptions,
)
from maldrop_cli.config import Schedule, Selector

_PANEL = "Grid"


def sweep(
    subject: SubjectOptions,
    training: TrainingOptions,
    device: DeviceOptions,
    execution: ExecutionOptions,
    output: OutputOptions,
    plotting: PlotOptions,
    given: Given,
    dropout: DropoutsOption = "maldrop",
    rho: Annotated[
        str,
        typer.Option(
            help="Neurons to drop: 256, 6.25%, 0,256,1024, 0..4096 (nine points), 0..4096:512 (a step), "
            "0..4096/17 (points), 1..4096*2 (a factor).",
            rich_help_panel=_PANEL,
        ),
    ] = RHO_DEFAULT,
    schedule: Annotated[
        str,
        typer.Option(
            help=f"Commas between any of: {', '.join(Schedule)}.",
            rich_help_panel=_PANEL,
        ),
    ] = "standard",
    selector: Annotated[
        str, typer.Option(help=f"Commas between any of: {', '.join(Selector)}.", rich_help_panel=_PANEL)
    ] = "heuristic",
    omega: Annotated[
        str, typer.Option(help="paper, classes, numbers and ranges, as for --rho.", rich_help_panel=_PANEL)
    ] = "paper",
    seeds: Annotated[str, typer.Option(help="A count; a list or a range names them.", rich_help_panel=_PANEL)] = "1",
    dry_run: DryRunOption = False,
) -> None:
    """Train a grid: one row a point, the best and the worst marked.

    --dropout, --rho, --schedule, --omega, --selector, --lr, --p, --model and --dataset take several values each.
    """
    from dataclasses import replace

    from maldrop_cli.cli.output import check_output, check_plot, present, stdout_encoding
    from maldrop_cli.cli.settings import parse_names, several_bases, smooth_command
    from maldrop_cli.config import Dropout, PlotKind, RunConfig, Selector, UsageError
    from maldrop_cli.sweep.grammar import parse_axis, parse_omegas, parse_seeds, parse_single, to_counts
    from maldrop_cli.sweep.grid import arms, distinct, grid, over_seeds, trained_once, with_references

    check_output(output)
    plot = check_plot(plotting, PlotKind.METRIC)
    if plot and dry_run:
        raise UsageError("plot", "a dry run measures nothing that could be plotted")
    dropouts = parse_names(Dropout, dropout, "dropout")
    schedules = parse_names(Schedule, schedule, "schedule")
    omegas, named_seeds, quantities = parse_omegas(omega), parse_seeds(seeds), parse_axis(rho, "rho")
    wanted_end = parse_single(training.rho_end, "rho_end")
    selectors = parse_names(Selector, selector, "selector")
    bases = [replace(base, selector=selectors[0]) for base in several_bases(subject, training, given)]

    from maldrop_cli.analysis.arms import group
    from maldrop_cli.analysis.compare import compare, of_vanilla
    from maldrop_cli.cli.session import Session, available, head_of, sized
    from maldrop_cli.models.variants import EpochRho, Head, rho_by_epoch
    from maldrop_cli.render.runs import arm_rows, failures, machine_line, mask_tables, sweep_table, sweep_title
    from maldrop_cli.runs.points import runs_of_points, shared

    session = Session(subject, training, device, output, execution)

    def head(config: RunConfig) -> Head:
        return head_of(config, subject)

    def rhos(config: RunConfig) -> list[EpochRho]:
        return rho_by_epoch(config, head(config).units(config.unit))

    variants = [replace(each, selector=one) for base in bases for each in arms(base, dropouts) for one in selectors]
    sizes = [
        (sized(each, head(each), quantities[0], wanted_end),
         to_counts(quantities, available(each, head(each)), "rho", each.unit))
        for each in distinct(variants)
    ]  # fmt: skip
    points = with_references(bases, grid(sizes, schedules, omegas))
    trained = trained_once(points, rhos)
    plan = over_seeds(distinct(trained), named_seeds)
    title = sweep_title(points, len(named_seeds))
    smoother = smooth_command(given.arguments, schedule)
    session.check(plan)  # all of it, before the first data set is loaded
    if dry_run:
        from maldrop_cli.render.dry_run import characters, dry_rows, plan_line, sweep_chart

        known, left = session.finished(plan), session.estimate(plan)
        notes = [plan_line(len(points), len(named_seeds), len(plan), known, training.out, left)]
        chart = sweep_chart(points, head, characters(stdout_encoding()), title, notes, smoother)
        present([chart], dry_rows(points, head, {"n_seeds": len(named_seeds)}), output)
        return
    elsewhere = shared(points, trained)
    records = [
        record
        for data in dict.fromkeys(config.data for config in plan)
        for record in session.carry_out(
            [config for config in plan if config.data == data],
            points=[each for each in elsewhere if each.trained.data == data],
        )
    ]

    by_settings = {
        repr(arm.config.effective_settings()): arm for arm in group([*records, *runs_of_points(records, elsewhere)])
    }
    comparison = compare(
        [by_settings[repr(point.effective_settings())] for point in points], of_vanilla(bases[0].p), margin=0.5
    )
    notes = [machine_line(records), *failures(records)]
    tables = [sweep_table(comparison, title, notes, smoother)]
    if bases[0].fidelity_every:
        tables += mask_tables(comparison.arms)
    present(tables, arm_rows(comparison), output)
    try:
        if plot:
            plot.draw(comparison.arms)
    finally:
        session.conclude(records)
