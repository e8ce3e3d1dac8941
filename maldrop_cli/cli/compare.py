"""`maldrop compare`: several dropout variants over paired seeds, with a verdict."""

from __future__ import annotations

from typing import Annotated

import typer

from maldrop_cli.cli.options import (
    RHO_DEFAULT,
    DeviceOptions,
    DropoutsOption,
    ExecutionOptions,
    Given,
    OmegaOption,
    OutputOptions,
    PlotOptions,
    RhoOption,
    ScheduleOption,
    SelectorOption,
    SubjectOptions,
    TrainingOptions,
)

_PANEL = "Comparison"


def compare(
    subject: SubjectOptions,
    training: TrainingOptions,
    device: DeviceOptions,
    execution: ExecutionOptions,
    output: OutputOptions,
    plotting: PlotOptions,
    given: Given,
    dropout: DropoutsOption = "none,vanilla,maldrop,random",
    rho: RhoOption = RHO_DEFAULT,
    omega: OmegaOption = "paper",
    schedule: ScheduleOption = "standard",
    selector: SelectorOption = "heuristic",
    seeds: Annotated[str, typer.Option(help="A count; a list or a range names them.", rich_help_panel=_PANEL)] = "3",
    baseline: Annotated[
        str,
        typer.Option(help="The arm that the others are tested against; without it, the first.", rich_help_panel=_PANEL),
    ] = "vanilla",
    margin: Annotated[
        float,
        typer.Option(help="Points of accuracy within which arms count as equivalent.", rich_help_panel=_PANEL),
    ] = 0.5,
) -> None:
    """Compare dropout variants on one data set, over paired seeds: one table, with error bars and a verdict."""
    from dataclasses import replace

    from maldrop_cli.cli.output import check_output, check_plot, present
    from maldrop_cli.cli.settings import base_config, check_margin, parse_names, smooth_command
    from maldrop_cli.config import Dropout, PlotKind, Schedule, Selector, UsageError, parse_name, parse_omega
    from maldrop_cli.sweep.grammar import parse_seeds, parse_single
    from maldrop_cli.sweep.grid import arms, over_seeds

    check_output(output)
    dropouts = parse_names(Dropout, dropout, "dropout")
    against = parse_name(Dropout, baseline, "baseline")
    if against not in dropouts:
        if "baseline" in given.names:
            raise UsageError("baseline", f"{against} is not among --dropout {','.join(dropouts)}")
        against = dropouts[0]
    check_margin(margin)
    plot = check_plot(plotting, PlotKind.LEARNING)
    config = replace(
        base_config(subject, training, given),
        schedule=parse_name(Schedule, schedule, "schedule"),
        omega=parse_omega(omega),
        selector=parse_name(Selector, selector, "selector"),
    )
    named_seeds, wanted = parse_seeds(seeds), parse_single(rho, "rho")
    wanted_end = parse_single(training.rho_end, "rho_end")

    from maldrop_cli.analysis.arms import group
    from maldrop_cli.analysis.compare import compare as compare_arms
    from maldrop_cli.cli.session import Session, head_of, sized
    from maldrop_cli.render.runs import (
        arm_rows,
        arm_table,
        failures,
        machine_line,
        mask_tables,
        saturated_arms,
        settings_line,
        verdict_table,
    )
    from maldrop_cli.render.tables import plural

    session = Session(subject, training, device, output, execution)
    head = head_of(config, subject)
    plan = [sized(arm, head, wanted, wanted_end) for arm in arms(config, dropouts)]
    records = session.carry_out(over_seeds(plan, named_seeds, rotate=True))

    by_dropout = {arm.config.dropout: arm for arm in group(records)}
    comparison = compare_arms([by_dropout[each] for each in dropouts], against, margin)
    notes = [
        "±: 95 % t-interval over seeds. × none: training time an epoch.",
        machine_line(records),
        *failures(records),
        *saturated_arms(comparison.arms, smooth_command(given.arguments, schedule)),
    ]
    tables = [arm_table(comparison, f"{settings_line(config)}, {plural(len(named_seeds), 'seed')}", notes)]
    if len(dropouts) > 1:
        tables.append(verdict_table(comparison))
    if config.fidelity_every:
        tables += mask_tables(comparison.arms)
    present(tables, arm_rows(comparison), output)
    try:
        if plot:
            plot.draw(comparison.arms)
    finally:
        session.conclude(records)
