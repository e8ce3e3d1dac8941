"""Progress on stderr: a live bar with the time left on a terminal, a plain line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from maldrop_cli.config import RunConfig
from maldrop_cli.record import EpochRow, Status
from maldrop_cli.render.runs import name
from maldrop_cli.render.tables import duration, number
from maldrop_cli.runs.events import Ended, Event, Retried, Started, Trained, Waiting, Warned


class ProgressListener:
    """Shows events, and counts epochs over all runs of a command, however many are trained at a time.

    ``quiet`` shows warnings alone. The time left is the time so far, divided by the epochs trained in it, times those
    to go; reused epochs take none. ``reused``: runs that were finished already; ``resumed``: job numbers.
    """

    def __init__(
        self, console: Console, *, quiet: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.console, self.quiet, self.clock = console, quiet, clock
        self.total = self.done = self.trained = self.reused = 0
        self.resumed: set[int] = set()
        self.done_by_job: dict[int, int] = {}  # epochs
        self.began = 0.0
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> ProgressListener:
        if self.console.is_terminal and not self.quiet:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def preparing(self, what: str, done: int, total: int) -> None:
        """Progress of work that is not training: decoding images, timing rounds."""
        if self.bar:
            if self.task is None:
                self.task = self.bar.add_task(what, total=total)
            self.bar.update(self.task, description=what, completed=done, total=total)
            if done == total:
                self.bar.remove_task(self.task)
                self.task = None
        elif done == total:
            self._line(f"{what}: {total:,} done")

    def begin(self, epochs: int) -> None:
        """Training starts: so many epochs in all runs together."""
        self.total, self.began = epochs, self.clock()
        if self.bar:
            self.task = self.bar.add_task("epochs", total=epochs)

    def tell(self, event: Event) -> None:
        """Show what a runner or an executor reports."""
        match event:
            case Started(job, epochs):
                if not self.trained:
                    self.began = self.clock()  # what was to do before the first epoch is not to be multiplied
                self._update(label(job.config))
                self._reach(job.number, epochs)
                if epochs:
                    self.resumed.add(job.number)
            case Trained(job, row):
                self.done_by_job[job.number] = row.epoch
                self._epoch(row, label(job.config))
            case Waiting(job):
                self.warn(f"{label(job.config)}: another process trains it; waiting for its result")
            case Ended(job, record, reused):
                self.reused += reused
                if record.status is not Status.UNFINISHED:
                    self._reach(job.number, job.config.epochs)
            case Retried(job, reason):
                self.warn(f"{label(job.config)}: tried again, as {reason}")
            case Warned(message):
                self.warn(message)

    def warn(self, message: str) -> None:
        """A line that is always shown."""
        self.console.print(f"maldrop: {message}", highlight=False, markup=False, soft_wrap=True)

    def _reach(self, job: int, epochs: int) -> None:
        """So many epochs of a run need no training any more: fewer than before, where a killed worker lost some."""
        self.done += epochs - self.done_by_job.get(job, 0)
        self.done_by_job[job] = epochs
        self._update()

    def _epoch(self, row: EpochRow, run: str) -> None:
        self.done += 1
        self.trained += 1
        if self.bar:
            self._update(f"{run}  top-1 {number(row.val_top1, 2)} %")
            return
        left = (self.clock() - self.began) / self.trained * (self.total - self.done)
        self._line(
            f"{run}, epoch {row.epoch}: train loss {number(row.train_loss, 4)}, "
            f"val loss {number(row.val_loss, 4)}, top-1 {number(row.val_top1, 2)} %, "
            f"{number(row.train_seconds, 1)} s; {self.done}/{self.total}, about {duration(left)} left"
        )

    def _update(self, description: str | None = None) -> None:
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=self.done, description=description)

    def _line(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def label(config: RunConfig) -> str:
    """A run in few words."""
    return f"{name(config)}, seed {config.seed}"
