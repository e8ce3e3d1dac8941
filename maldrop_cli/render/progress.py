"""Progress on stderr: a live bar with the time left on a terminal, a plain line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich import progress
from rich.console import Console

from maldrop_cli.names import one_line
from maldrop_cli.record import Status
from maldrop_cli.render.runs import label
from maldrop_cli.render.tables import duration, number
from maldrop_cli.runs.events import Ended, Event, Retried, Started, Trained, Waiting, Warned


class ProgressListener:
    """Shows events, and counts epochs over all runs of a command, concurrent ones included.

    ``quiet`` shows warnings alone. The time left is the time so far, divided by the epochs trained in it, times those
    to go; reused epochs take none. ``reused``: runs that were finished already; ``resumed``: job numbers.
    """

    def __init__(
        self, console: Console, *, quiet: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.console, self.clock, self.quiet = console, clock, quiet
        self.total = self.done = self.trained = self.reused = 0
        self.resumed: set[int] = set()
        self.done_by_job: dict[int, int] = {}  # epochs
        self.began = 0.0
        self.warned: set[str] = set()
        live = console.is_terminal and not quiet
        self.plain = not live and not quiet
        columns = [progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn()]
        columns += [progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn()]
        self.bar = progress.Progress(*columns, console=console, transient=True, disable=not live)
        self.task: progress.TaskID | None = None

    def __enter__(self) -> ProgressListener:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def preparing(self, what: str, done: int, total: int) -> None:
        """Progress of work that is not training: decoding images, timing rounds. With a ``total`` of 0, ``what`` is a
        line of its own."""
        if not total:
            if not self.quiet:
                self._print(what)
            return
        if self.task is None:
            self.task = self.bar.add_task(what, total=total)
        self.bar.update(self.task, description=what, completed=done, total=total)
        if done == total:
            self.bar.remove_task(self.task)
            self.task = None
            if self.plain:
                self._print(f"{what}: {total:,} done")

    def begin(self, epochs: int) -> None:
        """Training starts: so many epochs in all runs together."""
        self.total, self.began = epochs, self.clock()
        self.task = self.bar.add_task("epochs", total=epochs)

    def tell(self, event: Event) -> None:
        """Show what a runner or an executor reports."""
        match event:
            case Started(job, epochs):
                if not self.trained:
                    self.began = self.clock()  # what was to do before the first epoch is not to be multiplied
                self._reach(job.number, epochs, label(job.config))
                if epochs:
                    self.resumed.add(job.number)
            case Trained(job, row):
                self.trained += 1
                self._reach(job.number, row.epoch, f"{label(job.config)}  top-1 {number(row.val_top1, 2)} %")
                if self.plain:
                    left = (self.clock() - self.began) / self.trained * (self.total - self.done)
                    self._print(
                        f"{label(job.config)}, epoch {row.epoch}: train loss {number(row.train_loss, 4)}, "
                        f"val loss {number(row.val_loss, 4)}, top-1 {number(row.val_top1, 2)} %, "
                        f"{number(row.train_seconds, 1)} s; {self.done}/{self.total}, about {duration(left)} left"
                    )
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
        """A line that is always shown, once."""
        if message not in self.warned:
            self.warned.add(message)
            self._print(f"maldrop: {message}")

    def _reach(self, job: int, epochs: int, description: str | None = None) -> None:
        """So many epochs of a run need no training any more: fewer than before, where a killed worker lost some."""
        self.done += epochs - self.done_by_job.get(job, 0)
        self.done_by_job[job] = epochs
        if self.task is not None:
            self.bar.update(self.task, completed=self.done, description=description)

    def _print(self, text: str) -> None:
        self.console.print(one_line(text), highlight=False, markup=False, soft_wrap=True)
