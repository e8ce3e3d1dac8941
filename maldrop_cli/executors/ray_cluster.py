"""On a Ray cluster: one that is there, or one that is started on this machine for the length of the command.

Every run is a task. Its machine needs maldrop and the data. Where all machines share the folder of the runs, another
machine can resume a run; else its record alone is sent back. Events come through an actor.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from maldrop_cli.names import MaldropError, UsageError, one_line
from maldrop_cli.runs.events import Ended, Event, Job, OpenRunner, Train
from maldrop_cli.sweep.job_queue import JobQueue

TICK_SECONDS = 0.2


class Mailbox:
    """An actor: tasks post their events, and ask whether they are to stop."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.stopped = False

    def post(self, event: Event) -> None:
        self.events.append(event)

    def collect(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def stop(self) -> None:
        self.stopped = True

    def stopping(self) -> bool:
        return self.stopped


class Needs(NamedTuple):
    """Of a run."""

    cpus: float
    gpus: float


def installed() -> Any:
    """The module ``ray``; UsageError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise UsageError("executor ray", "Ray is not installed; `pip install 'maldrop-cli[ray]'` brings it") from None
    return ray


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module ``ray``, connected to the cluster at ``address`` (None: the one that RAY_ADDRESS names, else a new
    one). UsageError where Ray is not installed, MaldropError where no cluster answers."""
    ray = installed()
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise MaldropError(f"no Ray cluster answers at {address or 'this machine'}: {one_line(error)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def capacity(ray: Any, needs: Needs) -> int:
    """Concurrent runs that the cluster has room for; UsageError where it is none."""
    cpus, gpus = needs
    there = ray.cluster_resources()
    fits = [int(there.get(name, 0) / each) for name, each in (("CPU", cpus), ("GPU", gpus)) if each > 0]
    if min(fits, default=1) < 1:
        raise UsageError(
            "executor ray",
            f"a run needs {cpus:g} CPUs and {gpus:g} GPUs, and the cluster has "
            f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}; --cpus-per-run and --gpus-per-run take fractions",
        )
    return min(fits, default=1)


def ray_cluster(ray: Any, queue: JobQueue, open_runner: OpenRunner, count: int, needs: Needs) -> None:
    """Run all jobs of ``queue``, ``count`` at a time, each with what it ``needs``.

    The queue retries, not Ray. MaldropError where a worker can't go on at all.
    """
    mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
    try:
        task = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, max_retries=0)(run_job)
    except ValueError as error:  # 1.5 GPUs, say
        raise UsageError("executor ray", one_line(error)) from None
    under_way: dict[Any, Job] = {}
    told = False
    while True:
        while len(under_way) < count and (job := queue.take()):
            under_way[task.remote(open_runner, job, mailbox)] = job
        if not under_way:
            return
        done, _ = ray.wait(list(under_way), timeout=TICK_SECONDS)
        for event in ray.get(mailbox.collect.remote()):
            queue.tell(event)
        if queue.stopping and not told:
            told = True
            mailbox.stop.remote()
        for reference in done:
            job = under_way.pop(reference)
            try:
                queue.ended(ray.get(reference))
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, MaldropError):
                    raise error.cause from None
                reason = str(error.cause).strip().partition("\n")[0]
                raise MaldropError(f"a Ray task raised {type(error.cause).__name__}: {reason}") from None
            except ray.exceptions.RayError as error:
                queue.died(job, f"its worker died ({type(error).__name__})")


# --- in a task -------------------------------------------------------------------------------------------------------


def run_job(open_runner: OpenRunner, job: Job, mailbox: Any) -> Ended:
    """A run, in a process that Ray keeps for the next one: the data are loaded once."""
    import ray

    def tell(event: Event) -> None:
        ray.get(mailbox.post.remote(event))

    return _opened(open_runner)(job, tell, lambda: bool(ray.get(mailbox.stopping.remote())))


@functools.lru_cache(maxsize=1)
def _opened(open_runner: OpenRunner) -> Train:
    return open_runner()
