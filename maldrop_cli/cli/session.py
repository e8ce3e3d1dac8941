"""From a plan to records: what train, compare and sweep have in common."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from maldrop_cli import machine
from maldrop_cli import train as engine
from maldrop_cli.cli import crew
from maldrop_cli.cli.estimate import estimate
from maldrop_cli.cli.follow import Follower
from maldrop_cli.cli.options import DeviceOptions, ExecutionOptions, OutputOptions, SubjectOptions, TrainingOptions
from maldrop_cli.config import DataConfig, Executor, MaldropError, RunConfig
from maldrop_cli.data import load as datasets
from maldrop_cli.data.load import ImageData
from maldrop_cli.executors.work import Desk, Workplace
from maldrop_cli.models import check_batches, describe_head
from maldrop_cli.models.variants import Head, check_variant
from maldrop_cli.record import RunRecord, Status, environment
from maldrop_cli.render.progress import Reporter
from maldrop_cli.render.runs import failures
from maldrop_cli.render.tables import plural
from maldrop_cli.runs.checkpoint import check_data
from maldrop_cli.runs.points import Shared
from maldrop_cli.runs.store import Store
from maldrop_cli.sweep.grammar import NOTHING, Quantity
from maldrop_cli.sweep.job_queue import JobQueue, Policy, stopped_by_signals
from maldrop_cli.train import Keeping

ONE_AT_A_TIME = ExecutionOptions()
STOPPING = "stopping after the epochs under way, each with a checkpoint; Ctrl-C once more stops at once"


def head_of(config: RunConfig, subject: SubjectOptions) -> Head:
    """The last layer of the model on these images, without loading them all."""
    return describe_head(config, *_described(config.data, subject.data_dir))


@functools.cache
def _described(data: DataConfig, data_dir: Path | None) -> tuple[tuple[int, int, int], int]:
    return datasets.describe(data, data_dir)


@functools.cache
def _at_hand(data: DataConfig, data_dir: Path | None) -> ImageData | None:
    return datasets.cached(data, data_dir)


def available(config: RunConfig, head: Head) -> int:
    """How many neurons, channels or weights the variant has to drop from; UsageError where it can't be had."""
    check_variant(replace(config, rho=0), head)
    return head.units(config.unit)


def sized(config: RunConfig, head: Head, rho: Quantity, rho_end: Quantity = NOTHING) -> RunConfig:
    """``config`` with both as numbers of what its variant drops. Raises as :func:`available`."""
    units = available(config, head)
    if not config.has_rho:
        return config
    counts = [quantity.count(units, flag, config.unit) for quantity, flag in ((rho, "rho"), (rho_end, "rho_end"))]
    return replace(config, rho=counts[0], rho_end=counts[1])


@dataclass(frozen=True)
class Session:
    """What a command needs to carry out a plan."""

    subject: SubjectOptions
    training: TrainingOptions
    device: DeviceOptions
    output: OutputOptions
    execution: ExecutionOptions = ONE_AT_A_TIME

    def check(self, plan: Sequence[RunConfig]) -> torch.device:
        """The device; UsageError where it, or the model's width, can't take one of the runs."""
        device = crew.resolve(self.execution, self.device)
        for config in plan:
            engine.check_deterministic(config, device)
            check_variant(config, head_of(config, self.subject))
        return device

    def finished(self, plan: Sequence[RunConfig]) -> int:
        """How many runs of the plan are stored and would be reused, going by their settings: the images, on which it
        also depends, may take long to load."""
        known = self._known
        return sum(config.run_id("") in known for config in plan)

    @functools.cached_property
    def _known(self) -> set[str]:
        """The runs that would be reused, whatever their images."""
        return set() if self.training.fresh else {run.config.run_id("") for run in self._stored if run.finished}

    @functools.cached_property
    def _stored(self) -> list[RunRecord]:
        """The runs that were there when this was first asked for."""
        return list(Store(self.training.out).scan()) if self.training.out.is_dir() else []

    def estimate(self, plan: Sequence[RunConfig]) -> str:
        """How long the unfinished runs of the plan would take on this machine, as many at a time as the options say, in
        words; none where no run is left, or where a cluster would train them."""
        known = self._known
        left = [config for config in plan if config.run_id("") not in known]
        if not left or self.elsewhere:
            return ""
        device = crew.resolve(self.execution, self.device)
        workers = crew.at_a_time(self.execution, len(left))
        where = environment(str(device), machine.device_name(device), machine.threads(), workers)
        here = RunRecord(run_id="", config=left[0], environment=where).machine

        def measure(config: RunConfig) -> float | None:
            data = _at_hand(config.data, self.subject.data_dir)
            return None if data is None else engine.seconds_of_epoch(config, data.to(device), device)

        return estimate(left, (run for run in self._stored if run.machine == here), measure, workers)

    def carry_out(
        self, plan: Sequence[RunConfig], keeping: Keeping | None = None, points: Sequence[Shared] = ()
    ) -> list[RunRecord]:
        """Load the data, then train or reuse every run of the plan. KeyboardInterrupt when that was stopped.

        ``keeping``: by default, a checkpoint after so many epochs as the options say, else after each. ``points``: of a
        sweep, those that have runs of the plan without being in it, which are written down.
        """
        out, reporter = self.training.out, Reporter(Console(stderr=True), quiet=self.output.quiet)
        keeping = keeping or Keeping(1 if self.training.checkpoint_every is None else self.training.checkpoint_every)
        device = self.check(plan)
        with crew.hired(self.execution, self.device, device, len(plan)) as hired, reporter:
            store = Store(out, reporter.warn)
            store.prepare()
            store.add_points(points)
            loaded = datasets.load(plan[0].data, self.subject.data_dir, reporter.preparing, reporter.warn)
            for config in plan:
                check_batches(config, loaded.shape, len(loaded.train.labels))
            digest = loaded.digest()
            if keeping.start:
                check_data(keeping.start, digest, device.type)
            place = Workplace(
                plan[0].data, self.subject.data_dir, digest, hired.device, hired.threads, out.resolve(),
                self.training.fresh, keeping, hired.workers,
            )  # fmt: skip
            here = torch.device("cpu") if self.elsewhere else device
            desk = Desk(store, loaded, digest, here, hired.workers, self.training.fresh)
            follower = Follower(reporter)
            if self.elsewhere:
                follower.on_end = lambda end: desk.bring_home(end.record)
            policy = Policy(self.execution.retries, self.execution.fail_fast)
            ledger = JobQueue(plan, policy, follower, desk.blank, desk.give_up)
            reporter.begin(sum(config.epochs for config in plan))
            if not self.training.fresh and not keeping.save:
                ledger.settle(desk.finished)
            elif not self.training.fresh and desk.finished(plan[0]):
                reporter.warn("this run had finished, but its weights were not kept: it is trained again for --save")
            with stopped_by_signals(ledger, lambda: reporter.warn(STOPPING)) as interrupted:
                if ledger.waiting:
                    hired.carry_out(ledger, place, loaded)
            records = ledger.records()
        if interrupted() and any(record.status is Status.UNFINISHED for record in records):
            raise KeyboardInterrupt
        if follower.taken_up:
            reporter.warn(f"{plural(len(follower.taken_up), 'run')} taken up from a checkpoint")
        if follower.reused:
            reporter.warn(
                f"{follower.reused} of {plural(len(plan), 'run')} already finished in {out}: "
                "reused (--fresh trains them again)"
            )
        return records

    @property
    def elsewhere(self) -> bool:
        """Whether runs are trained on other machines, it may be."""
        return crew.chosen(self.execution) is Executor.RAY

    def conclude(self, records: Sequence[RunRecord]) -> None:
        """Raise MaldropError, exit code 1, when runs failed or diverged; all results are out by then."""
        bad = failures(records)
        if bad:
            more = f"; and {len(bad) - 2} more, under the table" if len(bad) > 2 else ""
            left = sum(record.status is Status.UNFINISHED for record in records)
            stopped = f"; --fail-fast left {plural(left, 'run')} for the next time" if left else ""
            raise MaldropError(
                f"{len(bad)} of {plural(len(records), 'run')} did not finish: {'; '.join(bad[:2])}{more}{stopped}"
            )
