"""From a plan to records: what train, compare and sweep have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from maldrop_cli import datasets, devices, engine
from maldrop_cli.cli.options import DeviceOptions, OutputOptions, SubjectOptions, TrainingOptions
from maldrop_cli.config import MaldropError, RunConfig
from maldrop_cli.models import hidden_width
from maldrop_cli.render.progress import Reporter
from maldrop_cli.render.runs import failures, name
from maldrop_cli.render.tables import plural
from maldrop_cli.results.records import RunRecord
from maldrop_cli.results.store import Store
from maldrop_cli.sweep.executors import serial
from maldrop_cli.variants import check_selector


def width_of(config: RunConfig, subject: SubjectOptions) -> int:
    """D of the model on these images, without loading them all."""
    shape, _ = datasets.describe(config.data, subject.data_dir)
    return hidden_width(config.model, config.depth, shape)


@dataclass(frozen=True)
class Session:
    """What a command needs to carry out a plan."""

    subject: SubjectOptions
    training: TrainingOptions
    device: DeviceOptions
    output: OutputOptions

    def carry_out(self, plan: Sequence[RunConfig]) -> list[RunRecord]:
        """Load the data, then train or reuse every run of the plan."""
        out, reporter = self.training.out, Reporter(Console(stderr=True), quiet=self.output.quiet)
        device = devices.prepare(self.device.device, self.device.threads)
        width = width_of(plan[0], self.subject)
        for config in plan:
            engine.check_deterministic(config, device)
            check_selector(config, width)
        store = Store(out, reporter.warn)
        store.prepare()
        with reporter:
            loaded = datasets.load(plan[0].data, self.subject.data_dir, reporter.preparing, reporter.warn)
            digest = loaded.digest()
            data = loaded.to(device)
            reporter.begin(sum(config.epochs for config in plan))
            reused = 0

            def work(config: RunConfig) -> RunRecord:
                nonlocal reused
                reporter.run(f"{name(config)}, seed {config.seed}")
                record, known = engine.train_or_reuse(
                    config, data, digest, device, store, fresh=self.training.fresh, on_epoch=reporter.epoch
                )
                reporter.skip(config.epochs - (0 if known else len(record.epochs)))
                reused += known
                return record

            records = serial(plan, work)
        if reused:
            reporter.warn(
                f"{reused} of {plural(len(plan), 'run')} already finished in {out}: reused (--fresh trains them again)"
            )
        return records

    def conclude(self, records: Sequence[RunRecord]) -> None:
        """Raise MaldropError, exit code 1, when runs failed or diverged; all results are out by then."""
        bad = failures(records)
        if bad:
            more = f"; and {len(bad) - 2} more, under the table" if len(bad) > 2 else ""
            raise MaldropError(
                f"{len(bad)} of {plural(len(records), 'run')} did not finish: {'; '.join(bad[:2])}{more}"
            )
