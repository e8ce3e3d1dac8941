"""From a plan to records: what train, compare and sweep have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console

from maldrop_cli import datasets, devices, engine
from maldrop_cli.cli.options import DeviceOptions, OutputOptions, SubjectOptions, TrainingOptions
from maldrop_cli.config import MaldropError, RunConfig
from maldrop_cli.models import check_batches, describe_head
from maldrop_cli.render.progress import Reporter
from maldrop_cli.render.runs import failures, name
from maldrop_cli.render.tables import plural
from maldrop_cli.results.records import RunRecord
from maldrop_cli.results.store import Store
from maldrop_cli.sweep.axes import NOTHING, Quantity
from maldrop_cli.sweep.executors import serial
from maldrop_cli.variants import Head, check_variant


def head_of(config: RunConfig, subject: SubjectOptions) -> Head:
    """The last layer of the model on these images, without loading them all."""
    shape, classes = datasets.describe(config.data, subject.data_dir)
    return describe_head(config, shape, classes)


def available(config: RunConfig, head: Head) -> int:
    """How many neurons, channels or weights the variant has to drop from; UsageError where it can't be had."""
    check_variant(replace(config, rho=0), head)
    return head.units(config.unit)


def sized(config: RunConfig, head: Head, rho: Quantity, rho_end: Quantity = NOTHING) -> RunConfig:
    """``config`` with both as numbers of what its variant drops. Raises as :func:`available`."""
    units = available(config, head)
    if not config.has_rho:
        return config
    counts = [quantity.count(units, flag, config.unit) for quantity, flag in ((rho, "--rho"), (rho_end, "--rho-end"))]
    return replace(config, rho=counts[0], rho_end=counts[1])


@dataclass(frozen=True)
class Session:
    """What a command needs to carry out a plan."""

    subject: SubjectOptions
    training: TrainingOptions
    device: DeviceOptions
    output: OutputOptions

    def check(self, plan: Sequence[RunConfig]) -> torch.device:
        """The device; UsageError where it, or the model's width, can't take one of the runs."""
        device = devices.prepare(self.device.device, self.device.threads)
        head = head_of(plan[0], self.subject)
        for config in plan:
            engine.check_deterministic(config, device)
            check_variant(config, head)
        return device

    def finished(self, plan: Sequence[RunConfig]) -> int:
        """How many runs of the plan are stored and would be reused, going by their settings: the images, on which it
        also depends, may take long to load."""
        if self.training.fresh or not self.training.out.is_dir():
            return 0
        known = {record.config.run_id("") for record in Store(self.training.out).scan() if record.finished}
        return sum(config.run_id("") in known for config in plan)

    def carry_out(self, plan: Sequence[RunConfig]) -> list[RunRecord]:
        """Load the data, then train or reuse every run of the plan."""
        out, reporter = self.training.out, Reporter(Console(stderr=True), quiet=self.output.quiet)
        device = self.check(plan)
        store = Store(out, reporter.warn)
        store.prepare()
        with reporter:
            loaded = datasets.load(plan[0].data, self.subject.data_dir, reporter.preparing, reporter.warn)
            for config in plan:
                check_batches(config, loaded.shape, len(loaded.train.labels))
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
