"""The jobs of a plan, from waiting to ended: every executor takes them from here and reports how they ended."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from maldrop_cli.config import RunConfig
from maldrop_cli.names import STOPS
from maldrop_cli.record import RunRecord, Status
from maldrop_cli.runs.events import Ended, Job, Retried, Tell


@dataclass(frozen=True)
class RetryPolicy:
    """``retries``: of a run that raised, or whose worker died; None: one where the worker died, for what raises once
    will raise again. ``fail_fast``: the first run that fails or diverges stops the others."""

    retries: int | None = None
    fail_fast: bool = False

    def retry(self, job: Job, *, died: bool) -> bool:
        return job.attempt < (int(died) if self.retries is None else self.retries)


class JobQueue:
    """An executor takes jobs until there are none, and reports how each one ended; after :meth:`stop` there are none.

    ``blank`` gives the record of a run that has not begun, ``record_failure`` that of one whose worker died.
    """

    def __init__(
        self,
        plan: Sequence[RunConfig],
        policy: RetryPolicy,
        tell: Tell,
        blank: Callable[[RunConfig], RunRecord],
        record_failure: Callable[[RunConfig, str], RunRecord],
    ) -> None:
        self.plan, self.policy, self.tell = plan, policy, tell
        self.blank, self.record_failure = blank, record_failure
        self.waiting = deque(Job(number, config) for number, config in enumerate(plan))
        self.ended_records: dict[int, RunRecord] = {}  # by job number
        self.stopping = False

    def take(self) -> Job | None:
        """The next job, if there is one for now: a job under way may come back."""
        return self.waiting.popleft() if self.waiting and not self.stopping else None

    def skip_finished(self, find: Callable[[RunConfig], RunRecord | None]) -> None:
        """End the jobs whose record is there already, as ``find`` tells."""
        for job in list(self.waiting):
            if record := find(job.config):
                self.waiting.remove(job)
                self._close(Ended(job, record, True))

    def ended(self, end: Ended) -> None:
        """A job ended, failed, or was stopped; or another process trains that run: then it is put off."""
        status = end.record.status
        if status is Status.UNFINISHED and not self.stopping:
            self.waiting.append(replace(end.job, wait=True))
        elif status is Status.FAILED and not self.stopping and self.policy.retry(end.job, died=False):
            self._retry(end.job, end.record.reason)
        else:
            self._close(end)

    def died(self, job: Job, reason: str) -> None:
        """The worker of a job died. Its checkpoint stays for a retry, or for the same command."""
        if self.stopping:
            return
        if self.policy.retry(job, died=True):
            self._retry(job, reason)
        else:
            self._close(Ended(job, self.record_failure(job.config, reason), False))

    def stop(self) -> None:
        """Begin no more jobs; those under way stop after their epoch."""
        self.stopping = True

    def records(self) -> list[RunRecord]:
        """In the order of the plan; blank ones of what was not trained."""
        return [self.ended_records.get(number) or self.blank(config) for number, config in enumerate(self.plan)]

    def _close(self, end: Ended) -> None:
        self.ended_records[end.job.number] = end.record
        self.tell(end)
        if self.policy.fail_fast and end.record.status in (Status.FAILED, Status.DIVERGED):
            self.stop()

    def _retry(self, job: Job, reason: str) -> None:
        self.waiting.appendleft(replace(job, attempt=job.attempt + 1))
        self.tell(Retried(job, reason))


@contextmanager
def stopped_by_signals(queue: JobQueue, on_stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Ctrl-C, SIGTERM or SIGHUP stops the queue; the second one raises KeyboardInterrupt. What is ignored, as by nohup,
    stays so. Yields a function that tells whether there was one."""
    interrupted = False

    def handle(number: int, frame: Any) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        queue.stop()
        on_stop()

    numbers = STOPS if threading.current_thread() is threading.main_thread() else []
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield lambda: interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
