"""From settings to a plan, and from a plan to records: what train, compare and sweep have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from rich.console import Console

from maldrop_cli.cli.options import DataOptions, MeasureOptions, OutputOptions, Settings, StoreOptions
from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.data import load as datasets
from maldrop_cli.data.load import ImageData
from maldrop_cli.data.subsets import training_parts
from maldrop_cli.executors import Execution, open_executor
from maldrop_cli.machine import environment
from maldrop_cli.models import check_batches, describe_head
from maldrop_cli.models.variants import Head
from maldrop_cli.names import Dropout, MaldropError
from maldrop_cli.record import RunRecord, Status
from maldrop_cli.render.progress import ProgressListener
from maldrop_cli.render.runs import failures
from maldrop_cli.render.tables import duration, plural
from maldrop_cli.runs.checkpoint import check_data
from maldrop_cli.runs.events import Ended, Event
from maldrop_cli.runs.runner import CheckpointPolicy, Runner, RunnerSpec
from maldrop_cli.runs.store import Store
from maldrop_cli.sweep.grid import build
from maldrop_cli.sweep.job_queue import JobQueue, RetryPolicy, stopped_by_signals
from maldrop_cli.train import check_deterministic, seconds_of_epoch

STOPPING = "stopping after the epochs under way, each with a checkpoint; Ctrl-C once more stops at once"


def head_of(data_dir: Path | None) -> Callable[[RunConfig], Head]:
    """Describes the last layer of a config's model on its images, without loading them all."""
    described = functools.cache(lambda data: datasets.describe(data, data_dir))
    return lambda config: describe_head(config, *described(config.data))


@dataclass(frozen=True)
class Session:
    """The options of a command that trains."""

    settings: Settings
    data: DataOptions
    store: StoreOptions
    measured: MeasureOptions
    output: OutputOptions
    execution: Execution = field(default_factory=Execution)

    @functools.cached_property
    def head(self) -> Callable[[RunConfig], Head]:
        return head_of(self.data.data_dir)

    def build(self, references: Sequence[Dropout] = ()) -> list[RunConfig]:
        """The configs that the settings ask for, all seeds 0."""
        return build(self.settings.values, self.head, self.store.preset, self.settings.given, references)

    def check(self, plan: Sequence[RunConfig]) -> torch.device:
        """The device; UsageError where it can't take one of the runs."""
        device = self.execution.resolve_device()
        for config in plan:
            check_deterministic(config, device)
            self.measured.plan.check_width(self.head(config).width)
        return device

    def run(self, plan: Sequence[RunConfig], checkpoints: CheckpointPolicy | None = None) -> list[RunRecord]:
        """Load the data, then train or reuse every run of the plan. KeyboardInterrupt when that was stopped.

        ``checkpoints``: by default, one after so many epochs as the options say, else after each.
        """
        progress = ProgressListener(Console(stderr=True), quiet=self.output.quiet)
        every = self.store.checkpoint_every
        policy = checkpoints or CheckpointPolicy(1 if every is None else every)
        device = self.check(plan)
        with ExitStack() as stack:
            stack.enter_context(progress)
            store = Store(self.store.out, progress.warn)
            store.prepare()
            loaded = datasets.load(plan[0].data, self.data.data_dir, progress.preparing, progress.warn)
            counts = _training_images(plan, loaded)
            for config, images in zip(plan, counts, strict=True):
                check_batches(config, loaded.shape, images)
            digest = loaded.digest
            if policy.start:
                check_data(policy.start, digest, device.type)
            execution = _settled(self.execution, plan, counts, device)
            executor = stack.enter_context(open_executor(execution, device, len(plan)))
            spec = RunnerSpec(
                plan[0].data, self.data.data_dir, digest, executor.device, execution.threads_per_run,
                self.store.out.resolve(), self.store.fresh, policy, executor.workers,
                self.measured.plan, self.measured.keep_weights,
            )  # fmt: skip
            runner = Runner(spec, loaded, torch.device("cpu") if execution.remote else device)

            def tell(event: Event) -> None:
                progress.tell(event)
                if execution.remote and isinstance(event, Ended):
                    runner.store_remote(event.record)

            retries = RetryPolicy(self.execution.retries, self.execution.fail_fast)
            queue = JobQueue(plan, retries, tell, runner.blank, runner.record_failure)
            progress.begin(sum(config.epochs for config in plan))
            if not self.store.fresh and not policy.save:
                queue.skip_finished(runner.finished)
            elif not self.store.fresh and runner.finished(plan[0]):
                progress.warn("this run had finished, but its weights were not kept: it is trained again for --save")
            with stopped_by_signals(queue, lambda: progress.warn(STOPPING)) as interrupted:
                if queue.waiting:
                    executor.run(queue, runner.train, spec.open)
            records = queue.records()
        if interrupted() and any(record.status is Status.UNFINISHED for record in records):
            raise KeyboardInterrupt
        if progress.resumed:
            progress.warn(f"{plural(len(progress.resumed), 'run')} resumed from a checkpoint")
        if progress.reused:
            progress.warn(
                f"{progress.reused} of {plural(len(plan), 'run')} already finished in {self.store.out}: "
                "reused (--fresh trains them again)"
            )
        return records

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

    # --- for a dry run ---

    def finished(self, plan: Sequence[RunConfig]) -> int:
        """Runs of the plan that are stored and would be reused, going by their settings: the images, on which it also
        depends, may take long to load."""
        return sum(config.run_id("") in self._finished for config in plan)

    @functools.cached_property
    def _finished(self) -> set[str]:
        """Stored runs that would be reused, whatever their images."""
        if self.store.fresh:
            return set()
        return {run.config.run_id("") for run in self._stored if run.finished and self.measured.plan.covered_by(run)}

    @functools.cached_property
    def _stored(self) -> list[RunRecord]:
        runs = Store(self.store.out).scan() if self.store.out.is_dir() else ()
        return [run for run in runs if not run.trained_as]

    def estimate(self, plan: Sequence[RunConfig]) -> str:
        """How long the unfinished runs of the plan would take on this machine, in words; empty where no run is left, or
        where a cluster would train them."""
        left = [config for config in plan if config.run_id("") not in self._finished]
        if not left or self.execution.remote:
            return ""
        device = self.execution.resolve_device()
        cached = functools.cache(lambda data: _to_device(data, self.data.data_dir, device))
        execution, images = self.execution, cached(plan[0].data)
        if images is not None and len({config.data for config in plan}) == 1:
            execution = _settled(execution, plan, _training_images(plan, images), device)
            device = execution.resolve_device()
        workers = execution.concurrent(len(left))
        here = RunRecord(run_id="", config=left[0], environment=environment(device, workers)).machine

        def measure(config: RunConfig) -> float | None:
            data = cached(config.data)
            return None if data is None else seconds_of_epoch(config, data, device)

        lacking = functools.partial(datasets.lacking, data_dir=self.data.data_dir)
        return estimate(left, (run for run in self._stored if run.machine == here), measure, workers, lacking)


def _training_images(plan: Sequence[RunConfig], data: ImageData) -> list[int]:
    """How many each run of the plan trains on."""
    known = {(each.train_images, each.tune_split): each for each in plan}
    counts = {key: len(training_parts(data.train, config)[0].labels) for key, config in known.items()}
    return [counts[each.train_images, each.tune_split] for each in plan]


def _settled(execution: Execution, plan: Sequence[RunConfig], counts: Sequence[int], device: torch.device) -> Execution:
    """How the plan is trained, where the options leave it open. ``counts``: training images, by run."""
    images = sum(config.epochs * count for config, count in zip(plan, counts, strict=True))
    return execution.settled([config.model for config in plan], len(plan), images, device.type)


def _to_device(data: DataConfig, data_dir: Path | None, device: torch.device) -> ImageData | None:
    loaded = datasets.cached(data, data_dir)
    return None if loaded is None else loaded.to(device)


def estimate(
    left: Sequence[RunConfig],
    stored: Iterable[RunRecord],
    measure: Callable[[RunConfig], float | None],
    workers: int = 1,
    lacking: Callable[[DataConfig], str] = lambda data: "here",
) -> str:
    """How long the runs that are ``left`` take, so many at a time: by the epochs of ``stored`` runs, all of this
    machine, that are alike in what time depends on; where there are none, by ``measure``, the seconds of an epoch, or
    None where its images are not cached: ``lacking`` says what they are not yet."""
    known: dict[object, list[float]] = {}
    for run in stored:
        if run.epochs:
            known.setdefault(_time_key(run.config), []).append(median(row.train_seconds for row in run.epochs))
    missing = {_time_key(config): config for config in left if _time_key(config) not in known}
    for key, config in missing.items():
        seconds = measure(config)
        if seconds is None:
            lack = lacking(config.data)
            first = "" if lack == "here" else ", which the first run does"
            return f"how long they take can't be told before the images of {config.data.dataset} are {lack}{first}"
        known[key] = [seconds]
    total = sum(config.epochs * median(known[_time_key(config)]) for config in left) / workers
    basis = "the first batches of an epoch, trained to see" if missing else "epochs stored"
    return f"about {duration(total)} of training left, going by {basis}"


def _time_key(config: RunConfig) -> tuple[object, ...]:
    """What the time of an epoch depends on; on rho hardly."""
    return (
        *(config.data, config.model, config.depth, config.batch_size, config.deterministic),
        *(config.train_images, config.tune_split),
        *(config.dropout, config.granularity, config.effective_settings().get("selector")),
    )
