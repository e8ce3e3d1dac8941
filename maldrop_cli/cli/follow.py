"""From what executors tell to what a person sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from maldrop_cli.config import RunConfig
from maldrop_cli.record import Status
from maldrop_cli.render.progress import Reporter
from maldrop_cli.render.runs import name
from maldrop_cli.sweep.job_queue import Ended, Event, Retried, Started, Trained, Waiting, Warned


def label(config: RunConfig) -> str:
    return f"{name(config)}, seed {config.seed}"


@dataclass
class Follower:
    """Hands events on to ``reporter``, and counts. ``on_end`` is called with the end of every job."""

    reporter: Reporter
    on_end: Callable[[Ended], None] = lambda end: None
    reused: int = 0
    taken_up: set[int] = field(default_factory=set)
    done: dict[int, int] = field(default_factory=dict)  # epochs that the reporter knows of, by job

    def __call__(self, event: Event) -> None:
        match event:
            case Started(job, epochs):
                if not self.reporter.trained:
                    self.reporter.restart_clock()
                self.reporter.run(label(job.config))
                self._reach(job.number, epochs)
                if epochs:
                    self.taken_up.add(job.number)
            case Trained(job, row):
                self.done[job.number] = row.epoch
                self.reporter.epoch(row, label(job.config))
            case Waiting(job):
                self.reporter.warn(f"{label(job.config)}: another process trains it; waiting for its result")
            case Ended(job, record, reused):
                self.reused += reused
                if record.status is not Status.UNFINISHED:
                    self._reach(job.number, job.config.epochs)
                self.on_end(event)
            case Retried(job, reason):
                self.reporter.warn(f"{label(job.config)}: tried again, as {reason}")
            case Warned(message):
                self.reporter.warn(message)

    def _reach(self, number: int, epochs: int) -> None:
        """Fewer than were done, where a killed worker took them along."""
        self.reporter.skip(epochs - self.done.get(number, 0))
        self.done[number] = epochs
