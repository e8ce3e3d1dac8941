"""`maldrop train`: one run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from maldrop_cli.cli.options import (
    DRY_RUN,
    DataOptions,
    MeasureOptions,
    OutputOptions,
    PlotFile,
    Settings,
    StoreOptions,
    command,
)
from maldrop_cli.cli.reading import read_seed
from maldrop_cli.config import MACHINE, RARE, SETTINGS, RunConfig, setting
from maldrop_cli.executors import Execution, Machine
from maldrop_cli.files import check_writable
from maldrop_cli.names import PlotKind, UsageError
from maldrop_cli.sweep.grammar import Quantity

COUNTED = {"rho", "rho_end"}  # settings that may be given as a percentage


@dataclass(frozen=True)
class TrainOptions:
    save: Path | None = setting(None, "Write a checkpoint of the finished run.", MACHINE)
    resume: Path | None = setting(None, "Resume from a checkpoint, with its settings; --epochs may be larger.", MACHINE)

    seeds: str | None = setting(None, "As --seed: train trains one run.", RARE)

    def __post_init__(self) -> None:
        if self.save:
            check_writable(self.save)


def _resumed(settings: Settings, start: RunConfig) -> Settings:
    """``settings`` with those of ``start`` wherever none was given."""
    stored = {**vars(start.data), **vars(start)}
    stored |= {name: Quantity(stored[name]) for name in COUNTED}
    values = {name: [stored[name]] for name in (*settings.values, "horizon") if name not in settings.given}
    return replace(settings, values={**settings.values, **values})


@command(tuple(SETTINGS))
def train(
    settings: Settings,
    data: DataOptions,
    store: StoreOptions,
    measured: MeasureOptions,
    machine: Machine,
    files: TrainOptions,
    output: OutputOptions,
    plotting: PlotFile,
    dry_run: Annotated[bool, DRY_RUN] = False,
) -> None:
    """Train one network: a table row an epoch, and a record on disk."""
    if plotting.plot and dry_run:
        raise UsageError("plot", "a dry run measures nothing that could be plotted")
    from maldrop_cli.cli.output import present
    from maldrop_cli.cli.run import Session
    from maldrop_cli.render.dry_run import dry_rows, plan_line, train_chart
    from maldrop_cli.render.runs import epoch_rows, pass_rate_table, run_rows, train_table
    from maldrop_cli.runs import checkpoint
    from maldrop_cli.runs.runner import CheckpointPolicy

    if files.seeds is not None:
        seed = read_seed(files.seeds, output, settings.given)
        settings = Settings({**settings.values, "seed": [seed]}, settings.given | {"seed"})
    start = checkpoint.read(files.resume) if files.resume else None
    if start and files.resume:
        settings = _resumed(settings, start.config)
        typed = {name: settings.values[name][0] for name in vars(start.config) if name in settings.given - COUNTED}
        checkpoint.check_settings(files.resume, start, replace(start.config, **typed))
    session = Session(settings, data, store, measured, output, Execution(machine.device, machine.threads))
    [config] = session.build()
    if start and files.resume:
        checkpoint.check_settings(files.resume, start, config)
    if dry_run:
        session.check([config])
        notes = [plan_line(1, 1, 1, session.finished([config]), store.out, session.estimate([config]))]
        rows = dry_rows([config], session.head, {"seed": config.seed})
        present([train_chart(config, session.head(config), notes)], rows, output, "train")
        return
    records = session.run([config], CheckpointPolicy(store.checkpoint_every or 0, start, files.save))
    tables = [train_table(records[0]), pass_rate_table(records[0])]
    present([table for table in tables if table], epoch_rows(records), output, "train", by_seed=run_rows(records))
    try:
        if plotting.plot:
            from maldrop_cli.analysis.arms import group
            from maldrop_cli.plots import draw, save

            save(draw(PlotKind.LEARNING, group(records)), plotting.plot)
    finally:
        session.conclude(records)
