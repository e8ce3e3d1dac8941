"""Progress on stderr: a live bar with the time left on a terminal, a plain line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich import progress
from rich.console import Console
from rich.table import Column

from maldrop_cli.names import one_line
from maldrop_cli.record import Status
from maldrop_cli.render.runs import label
from maldrop_cli.render.tables import duration, number
from maldrop_cli.runs.events import Ended, Event, Progressed, Retried, Started, Trained, Waiting, Warned


class ProgressListener:
    """Shows events, and counts epochs over all runs of a command, concurrent ones included.

    ``quiet`` shows nothing. The time left is the time so far, divided by the epochs trained in it, times those
    to go; reused epochs take none. Epochs are counted in fractions, as their batches are trained. ``reused``: runs that
    were finished already; ``resumed``: job numbers.
    """

    def __init__(
        self, console: Console, *, quiet: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.console, self.clock, self.quiet = console, clock, quiet
        self.total = self.reused = 0
        self.done = self.trained = 0.0  # epochs
        self.resumed: set[int] = set()
        self.heard_of: set[int] = set()  # jobs that were within an epoch
        self.done_by_job: dict[int, float] = {}  # epochs
        self.began = 0.0
        self.warned: set[str] = set()
        live = console.is_terminal and not quiet
        self.plain = not live and not quiet
        columns = [progress.BarColumn(16), progress.TextColumn("{task.fields[count]}"), progress.TimeElapsedColumn()]
        columns += [progress.TextColumn("{task.fields[left]}")]
        columns += [progress.TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True))]
        self.bar = progress.Progress(*columns, console=console, transient=True, disable=not live, expand=True)
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
            self.began = self.clock()
            self.task = self.bar.add_task(what, total=total, count="", left="")
        left = _left(self.clock() - self.began, done, total - done)
        count = f"{done:,}/{total:,}"
        self.bar.update(self.task, description=what, completed=done, total=total, count=count, left=left)
        if done == total:
            self.bar.remove_task(self.task)
            self.task = None
            if self.plain:
                self._print(f"{what}: {total:,} done")

    def begin(self, epochs: int) -> None:
        """Training starts: so many epochs in all runs together."""
        self.total, self.began = epochs, self.clock()
        self.task = self.bar.add_task("", total=epochs, count=f"0/{epochs} epochs", left="")

    def tell(self, event: Event) -> None:
        """Show what a runner or an executor reports."""
        match event:
            case Started(job, epochs):
                self._begin_with(job.number, epochs, f"{label(job.config)}, epoch {epochs + 1}")
                if epochs:
                    self.resumed.add(job.number)
            case Progressed(job, epochs):
                words = f"{label(job.config)}, epoch {min(int(epochs) + 1, job.config.epochs)}"
                known = bool(self.trained) and job.number in self.done_by_job
                if known or job.number in self.heard_of:
                    self._train_to(job.number, epochs, words)
                else:  # the first batch takes too long, and what another process did before we waited for it no time
                    self.heard_of.add(job.number)
                    self._begin_with(job.number, epochs, words)
            case Trained(job, row):
                words = f"{label(job.config)}, epoch {row.epoch}: top-1 {number(row.val_top1, 2)} %"
                left = self._train_to(job.number, row.epoch, words)
                if self.plain:
                    done = f"{round(self.done, 1):g}/{self.total} epochs"
                    self._print(
                        f"{label(job.config)}, epoch {row.epoch}: train loss {number(row.train_loss, 4)}, "
                        f"val loss {number(row.val_loss, 4)}, top-1 {number(row.val_top1, 2)} %, "
                        f"{number(row.train_seconds, 1)} s; {done}, about {duration(left)} left"
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
        """A line of its own, once."""
        if not self.quiet and message not in self.warned:
            self.warned.add(message)
            self._print(f"maldrop: {message}")

    def _begin_with(self, job: int, epochs: float, description: str) -> None:
        """A run begins, or goes on, after so many epochs."""
        if not self.trained:
            self.began = self.clock()  # what was to do before the first epoch is not to be multiplied
        self._reach(job, epochs, description=description)

    def _train_to(self, job: int, epochs: float, description: str) -> float:
        """So many epochs of a run are trained: the seconds left for all."""
        self.trained += epochs - self.done_by_job.get(job, 0)
        self._reach(job, epochs)
        took, to_go = self.clock() - self.began, self.total - self.done
        if self.task is not None:
            self.bar.update(self.task, description=description, left=_left(took, self.trained, to_go))
        return took / self.trained * to_go if self.trained > 0 else 0.0

    def _reach(self, job: int, epochs: float, **fields: Any) -> None:
        """So many epochs of a run need no training any more: fewer than before, where a killed worker lost some."""
        self.done += epochs - self.done_by_job.get(job, 0)
        self.done_by_job[job] = epochs
        if self.task is not None:
            count = f"{self.done:.1f}/{self.total} epochs"
            self.bar.update(self.task, completed=self.done, count=count, **fields)

    def _print(self, text: str) -> None:
        self.console.print(one_line(text), highlight=False, markup=False, soft_wrap=True)


def _left(seconds: float, done: float, to_go: float) -> str:
    """How long the rest takes, if it goes on as in these seconds; empty where nothing tells."""
    return f"{timedelta(seconds=round(seconds / done * to_go))} left" if done > 0 else ""
