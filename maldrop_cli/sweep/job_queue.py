"""What is to be done, what is under way, and what became of it: the book that every executor keeps in the same way."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from maldrop_cli.config import RunConfig
from maldrop_cli.record import EpochRow, RunRecord, Status


@dataclass(frozen=True)
class Job:
    """A run of the plan; ``attempt`` counts from 0. ``patient``: wait where another process trains the same run, for
    there is nothing else left to do."""

    number: int
    config: RunConfig
    attempt: int = 0
    patient: bool = False


@dataclass(frozen=True)
class Started:
    """``epochs``: how many the checkpoint has behind it that the run is taken up from."""

    job: Job
    epochs: int


@dataclass(frozen=True)
class Trained:
    job: Job
    row: EpochRow


@dataclass(frozen=True)
class Waiting:
    """Another process trains the same run."""

    job: Job


@dataclass(frozen=True)
class Ended:
    """``reused``: it was finished already."""

    job: Job
    record: RunRecord
    reused: bool


@dataclass(frozen=True)
class Retried:
    """The run failed, for that ``reason``, and is tried again."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Warned:
    message: str


Event = Started | Trained | Waiting | Ended | Retried | Warned
Listener = Callable[[Event], None]
Stop = Callable[[], bool]  # asked after each epoch
Work = Callable[[Job, Listener, Stop], Ended]
OpenWork = Callable[[], Work]  # called once where the work is done: loads the data


@dataclass(frozen=True)
class Policy:
    """``retries``: how often a run is tried again that raised, or whose worker died; None: once where the worker died,
    for what raises once will raise again. ``fail_fast``: the first run that fails or diverges stops the others."""

    retries: int | None = None
    fail_fast: bool = False

    def again(self, job: Job, *, died: bool) -> bool:
        return job.attempt < (int(died) if self.retries is None else self.retries)


class JobQueue:
    """The runs of a plan from start to end.

    ``blank`` gives the record of a run that has not begun, ``give_up`` that of one whose worker died, with the reason.
    An executor takes jobs until there are none, and reports how each one ended; after :meth:`stop` there are none.
    """

    def __init__(
        self,
        plan: Sequence[RunConfig],
        policy: Policy,
        listener: Listener,
        blank: Callable[[RunConfig], RunRecord],
        give_up: Callable[[RunConfig, str], RunRecord],
    ) -> None:
        self.plan, self.policy, self.listener = plan, policy, listener
        self.blank, self.give_up = blank, give_up
        self.waiting = deque(Job(number, config) for number, config in enumerate(plan))
        self.records_by_number: dict[int, RunRecord] = {}
        self.stopping = False

    def take(self) -> Job | None:
        """The next job, if there is one for now: a job under way may come back."""
        return self.waiting.popleft() if self.waiting and not self.stopping else None

    def settle(self, find: Callable[[RunConfig], RunRecord | None]) -> None:
        """Take those jobs out whose record is there already, as ``find`` tells."""
        for job in list(self.waiting):
            if record := find(job.config):
                self.waiting.remove(job)
                self._close(Ended(job, record, True))

    def ended(self, end: Ended) -> None:
        """A job came to its end, or failed, or was stopped; or another process trains that run: then it is put off."""
        failed = end.record.status is Status.FAILED
        if end.record.status is Status.UNFINISHED and not self.stopping:
            self.waiting.append(replace(end.job, patient=True))
        elif failed and not self.stopping and self.policy.again(end.job, died=False):
            self._retry(end.job, end.record.reason)
        else:
            self._close(end)

    def died(self, job: Job, reason: str) -> None:
        """The worker of a job died. What it had done is in its checkpoint, for the same command."""
        if self.stopping:
            return
        if self.policy.again(job, died=True):
            self._retry(job, reason)
        else:
            self._close(Ended(job, self.give_up(job.config, reason), False))

    def stop(self) -> None:
        """Begin no more jobs; those under way stop after their epoch."""
        self.stopping = True

    def records(self) -> list[RunRecord]:
        """In the order of the plan; of what was not carried out, blank ones."""
        return [self.records_by_number.get(number) or self.blank(config) for number, config in enumerate(self.plan)]

    def _close(self, end: Ended) -> None:
        self.records_by_number[end.job.number] = end.record
        self.listener(end)
        if self.policy.fail_fast and end.record.status in (Status.FAILED, Status.DIVERGED):
            self.stop()

    def _retry(self, job: Job, reason: str) -> None:
        self.waiting.appendleft(replace(job, attempt=job.attempt + 1))
        self.listener(Retried(job, reason))


@contextmanager
def stopped_by_signals(ledger: JobQueue, on_stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Ctrl-C, or a polite kill, stops the ledger; the second one raises KeyboardInterrupt. Yields what tells whether
    there was one."""
    interrupted = False

    def handle(number: int, frame: Any) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        ledger.stop()
        on_stop()

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
