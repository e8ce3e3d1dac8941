"""What goes on, on stderr: a live bar with the time left on a terminal, a plain line an epoch elsewhere."""

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

from maldrop_cli.record import EpochRow
from maldrop_cli.render.tables import duration, number


class Reporter:
    """Counts epochs over all runs of a command, however many are trained at a time.

    ``quiet`` says nothing but warnings. The time left is the time so far, divided by the epochs trained in it, times
    those to go; reused epochs take none.
    """

    def __init__(
        self, console: Console, *, quiet: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.console = console
        self.quiet = quiet
        self.clock = clock
        self.total = self.done = self.trained = 0
        self.began = 0.0
        self.label = ""
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> Reporter:
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

    def restart_clock(self) -> None:
        """What there was to do before the first epoch is done: it is not to be multiplied."""
        self.began = self.clock()

    def run(self, label: str) -> None:
        """The next run."""
        self.label = label
        if self.bar and self.task is not None:
            self.bar.update(self.task, description=label)

    def epoch(self, row: EpochRow, label: str | None = None) -> None:
        """An epoch was trained; of the run ``label``, where several are under way."""
        label = self.label if label is None else label
        self.done += 1
        self.trained += 1
        if self.bar and self.task is not None:
            text = f"{label}  top-1 {number(row.val_top1, 2)} %"
            self.bar.update(self.task, completed=self.done, description=text)
            return
        left = (self.clock() - self.began) / self.trained * (self.total - self.done)
        self._line(
            f"{label}, epoch {row.epoch}: train loss {number(row.train_loss, 4)}, "
            f"val loss {number(row.val_loss, 4)}, top-1 {number(row.val_top1, 2)} %, "
            f"{number(row.train_seconds, 1)} s; {self.done}/{self.total}, about {duration(left)} left"
        )

    def skip(self, epochs: int) -> None:
        """Epochs that need no training: a reused run, or the rest of one that ended early."""
        self.done += epochs
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=self.done)

    def warn(self, message: str) -> None:
        """A line that is shown whatever happens."""
        self.console.print(f"maldrop: {message}", highlight=False, markup=False, soft_wrap=True)

    def _line(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)
