"""From options to configs, and from a plan to records: what train, compare and sweep have in common."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from maldrop_cli import datasets, devices, engine
from maldrop_cli.cli.options import DeviceOptions, Given, OutputOptions, SubjectOptions, TrainingOptions
from maldrop_cli.config import (
    DataConfig,
    Dataset,
    Granularity,
    Machine,
    MaldropError,
    Model,
    Name,
    Preset,
    RunConfig,
    UsageError,
    apply_preset,
    nearest,
    parse_name,
)
from maldrop_cli.models import hidden_width
from maldrop_cli.render.progress import Reporter
from maldrop_cli.render.runs import failures, name
from maldrop_cli.render.tables import Table, show, write_files
from maldrop_cli.results.records import RunRecord
from maldrop_cli.results.store import Store
from maldrop_cli.sweep.executors import serial

FORMATS = ("auto", "rich", "plain", "markdown")


def base_config(subject: SubjectOptions, training: TrainingOptions, given: Given) -> RunConfig:
    """The settings that do not vary within a command; rho, omega, schedule, dropout and seed are set by each."""
    config = replace(
        subject_config(subject),
        period=training.period,
        epochs=training.epochs,
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        deterministic=training.deterministic,
    )
    if training.preset is None:
        return config
    return apply_preset(parse_name(Preset, training.preset, "--preset"), config, set(given.names))


def subject_config(subject: SubjectOptions) -> RunConfig:
    """Data, model and the settings of the variants that every command takes."""
    return RunConfig(
        data=DataConfig(
            dataset=parse_name(Dataset, subject.dataset, "--dataset"),
            image_size=subject.image_size,
            shape=_shape(subject.shape),
            classes=subject.classes,
            images=subject.images,
        ),
        model=parse_name(Model, subject.model, "--model"),
        depth=subject.depth,
        p=subject.p,
        granularity=parse_name(Granularity, subject.granularity, "--granularity"),
        batch_size=subject.batch_size,
    )


def _shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text.strip().lower())
    if not match:
        raise UsageError(f"--shape: {text!r} is not channels x height x width; write e.g. 3x32x32")
    return int(match[1]), int(match[2]), int(match[3])


def width_of(config: RunConfig, subject: SubjectOptions) -> int:
    """D of the model on these images, without loading them all."""
    shape, _ = datasets.describe(config.data, subject.data_dir)
    return hidden_width(config.model, config.depth, shape)


def parse_names(kind: type[Name], text: str, flag: str) -> list[Name]:
    """Commas between names, each once."""
    return list(dict.fromkeys(parse_name(kind, item.strip(), flag) for item in text.split(",")))


def check_output(output: OutputOptions) -> None:
    """Find out before any training whether the results can be shown and written as asked."""
    if output.format not in FORMATS:
        raise UsageError(
            f"--format: no format is called {output.format!r}{nearest(output.format, list(FORMATS))} "
            f"(one of: {', '.join(FORMATS)})"
        )
    for path in (output.csv, output.json):
        if path is not None and not path.resolve().parent.is_dir():
            raise MaldropError(f"can't write {path}: there is no folder {path.resolve().parent}")
        if path is not None and path.is_dir():
            raise MaldropError(f"can't write {path}: it is a folder")


@dataclass(frozen=True)
class Session:
    """What a command needs to carry out a plan."""

    machine: Machine
    output: OutputOptions
    reporter: Reporter

    @classmethod
    def of(
        cls, subject: SubjectOptions, training: TrainingOptions, device: DeviceOptions, output: OutputOptions
    ) -> Session:
        check_output(output)
        machine = Machine(
            device=device.device,
            threads=device.threads,
            data_dir=subject.data_dir,
            out=training.out,
            fresh=training.fresh,
        )
        return cls(machine, output, Reporter(Console(stderr=True), quiet=output.quiet))

    def carry_out(self, plan: Sequence[RunConfig]) -> list[RunRecord]:
        """Load the data, then train or reuse every run of the plan."""
        reporter = self.reporter
        device = devices.prepare(self.machine.device, self.machine.threads)
        store = Store(self.machine.out, reporter.warn)
        store.prepare()
        with reporter:
            loaded = datasets.load(plan[0].data, self.machine.data_dir, reporter.preparing)
            digest = loaded.digest()
            data = loaded.to(device)
            reporter.begin(sum(config.epochs for config in plan))
            reused = 0

            def work(config: RunConfig) -> RunRecord:
                nonlocal reused
                reporter.run(f"{name(config)}, seed {config.seed}")
                record, known = engine.train_or_reuse(
                    config, data, digest, device, store, fresh=self.machine.fresh, on_epoch=reporter.epoch
                )
                reporter.skip(config.epochs - (0 if known else len(record.epochs)))
                reused += known
                return record

            records = serial(plan, work)
        if reused:
            reporter.warn(
                f"{reused} of {len(plan)} runs were already finished in {self.machine.out} and are reused "
                "(--fresh trains them again)"
            )
        return records

    def present(self, tables: Sequence[Table], rows: Sequence[dict[str, Any]]) -> None:
        """Show the tables and write the files."""
        show(tables, self.output.format, Console(file=sys.stdout))
        write_files(rows, self.output.csv, self.output.json)

    def conclude(self, records: Sequence[RunRecord]) -> None:
        """Raise MaldropError, exit code 1, when runs failed or diverged; all results are out by then."""
        bad = failures(records)
        if bad:
            raise MaldropError(f"{len(bad)} of {len(records)} runs did not finish: {'; '.join(bad)}")
