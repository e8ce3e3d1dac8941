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
    SelectorOption,
    SubjectOptions,
    TrainingOptions,
)
from maldrop_cli.config import Schedule

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
    selector: SelectorOption = "heuristic",
    omega: Annotated[
        str, typer.Option(help="paper, classes, numbers and ranges, as for --rho.", rich_help_panel=_PANEL)
    ] = "paper",
    seeds: Annotated[str, typer.Option(help="A count; a list or a range names them.", rich_help_panel=_PANEL)] = "1",
    dry_run: DryRunOption = False,
) -> None:
    """Train a grid over rho, schedule, omega and dropout: one row a point, the best and the worst marked."""
    from dataclasses import replace

    from maldrop_cli.cli.output import check_output, check_plot, present, stdout_encoding
    from maldrop_cli.cli.settings import base_config, parse_names, smooth_command
    from maldrop_cli.config import Dropout, PlotKind, Selector, UsageError, parse_name
    from maldrop_cli.sweep.axes import parse_axis, parse_omegas, parse_seeds, parse_single, to_counts
    from maldrop_cli.sweep.plan import arms, grid, over_seeds, with_references

    check_output(output)
    plot = check_plot(plotting, PlotKind.METRIC)
    if plot and dry_run:
        raise UsageError("--plot: a dry run measures nothing that could be plotted")
    dropouts = parse_names(Dropout, dropout, "--dropout")
    schedules = parse_names(Schedule, schedule, "--schedule")
    omegas, named_seeds, quantities = parse_omegas(omega), parse_seeds(seeds), parse_axis(rho, "--rho")
    wanted_end = parse_single(training.rho_end, "--rho-end")
    config = base_config(subject, training, given)
    config = replace(config, selector=parse_name(Selector, selector, "--selector"))

    from maldrop_cli.cli.session import Session, available, head_of, sized
    from maldrop_cli.render.masks import mask_table
    from maldrop_cli.render.runs import arm_rows, failures, machine_line, name, settings_line, sweep_table
    from maldrop_cli.render.tables import plural
    from maldrop_cli.results.arms import group
    from maldrop_cli.results.comparison import compare

    session = Session(subject, training, device, output, execution)
    head = head_of(config, subject)
    variants = [
        (sized(each, head, quantities[0], wanted_end), to_counts(quantities, available(each, head), "--rho", each.unit))
        for each in arms(config, dropouts)
    ]
    points = with_references(config, grid(variants, schedules, omegas))
    plan = over_seeds(points, named_seeds)
    title = (
        f"{settings_line(config)}, {config.selector}, {config.granularity} masks, {plural(len(named_seeds), 'seed')}"
    )
    smoother = smooth_command(given.arguments)
    if dry_run:
        from maldrop_cli.render.schedules import characters, dry_rows, plan_line, sweep_chart

        session.check(plan)
        notes = [plan_line(len(points), len(named_seeds), session.finished(plan), training.out)]
        chart = sweep_chart(points, head, characters(stdout_encoding()), title, notes, smoother)
        present([chart], dry_rows(points, head, {"n_seeds": len(named_seeds)}), output)
        return
    records = session.carry_out(plan)

    comparison = compare(group(records), Dropout.VANILLA, margin=0.5)
    notes = [machine_line(records), *failures(records)]
    tables = [sweep_table(comparison, title, notes, smoother)]
    if config.fidelity_every and (table := mask_table(comparison.arms, [name(arm.config) for arm in comparison.arms])):
        tables.append(table)
    present(tables, arm_rows(comparison), output)
    try:
        if plot:
            plot.draw(comparison.arms)
    finally:
        session.conclude(records)
