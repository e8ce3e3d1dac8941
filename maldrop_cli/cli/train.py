"""`maldrop train`: one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maldrop_cli.cli.options import (
    RHO_DEFAULT,
    DeviceOptions,
    DropoutOption,
    DryRunOption,
    Given,
    OmegaOption,
    OutputOptions,
    RhoOption,
    ScheduleOption,
    SelectorOption,
    SubjectOptions,
    TrainingOptions,
)


def train(
    subject: SubjectOptions,
    training: TrainingOptions,
    device: DeviceOptions,
    output: OutputOptions,
    given: Given,
    dropout: DropoutOption = "maldrop",
    rho: RhoOption = RHO_DEFAULT,
    omega: OmegaOption = "paper",
    schedule: ScheduleOption = "standard",
    selector: SelectorOption = "heuristic",
    seed: Annotated[int, typer.Option(help="Of weights, batch order and noise.", rich_help_panel="Training")] = 0,
    save: Annotated[
        Path | None, typer.Option(help="Write a checkpoint of the finished run.", rich_help_panel="Machine and records")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on from a checkpoint of the same settings; --epochs may be larger.",
            rich_help_panel="Machine and records",
        ),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train one network: a table row an epoch, and a record on disk."""
    from dataclasses import replace

    from maldrop_cli.cli.output import check_output, present, stdout_encoding
    from maldrop_cli.cli.settings import base_config, smooth_command
    from maldrop_cli.cli.writable import check_writable
    from maldrop_cli.config import Dropout, Schedule, Selector, parse_name, parse_omega
    from maldrop_cli.sweep.grammar import parse_single

    check_output(output)
    if save:
        check_writable(save)
    config = replace(
        base_config(subject, training, given),
        dropout=parse_name(Dropout, dropout, "dropout"),
        schedule=parse_name(Schedule, schedule, "schedule"),
        omega=parse_omega(omega),
        selector=parse_name(Selector, selector, "selector"),
        seed=seed,
    )
    wanted, wanted_end = parse_single(rho, "rho"), parse_single(training.rho_end, "rho_end")

    from maldrop_cli.cli.session import Session, head_of, sized
    from maldrop_cli.render.masks import pass_rate_table
    from maldrop_cli.render.runs import epoch_rows, train_table
    from maldrop_cli.runs import checkpoint
    from maldrop_cli.train import Keeping

    session = Session(subject, training, device, output)
    head = head_of(config, subject)
    config = sized(config, head, wanted, wanted_end)
    start = checkpoint.read(resume) if resume else None
    if start and resume:
        if "horizon" not in given.names:
            config = replace(config, horizon=start.config.horizon)
        checkpoint.check_settings(resume, start, config)
    if dry_run:
        from maldrop_cli.render.dry_run import characters, dry_rows, plan_line, train_chart

        session.check([config])
        notes = [plan_line(1, 1, 1, session.finished([config]), training.out, session.estimate([config]))]
        chart = train_chart(config, head, characters(stdout_encoding()), notes)
        present([chart], dry_rows([config], lambda config: head, {"seed": seed}), output)
        return
    records = session.carry_out([config], Keeping(training.checkpoint_every or 0, start, save))
    tables = [train_table(records[0], smooth_command(given.arguments, schedule)), pass_rate_table(records[0])]
    present([table for table in tables if table], epoch_rows(records), output)
    session.conclude(records)
