"""On a Ray cluster: one that is there, or one that is started on this machine for the length of the command.

Every run is a task. Its machine needs maldrop and the data; where the folder of the runs is one that all machines
share, a run can be taken up by another machine, else its record alone comes home. Events come by way of an actor.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from maldrop_cli.config import MaldropError, UsageError
from maldrop_cli.sweep.job_queue import Ended, Event, Job, JobQueue, OpenWork, Work

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


def connect(address: str | None) -> Any:
    """The module ``ray``, connected to the cluster at ``address`` (None: the one that RAY_ADDRESS names, else a new
    one). UsageError where Ray is not installed, MaldropError where no cluster answers."""
    try:
        import ray
    except ImportError:
        raise UsageError("executor ray", "Ray is not installed; `pip install 'maldrop-cli[ray]'` brings it") from None
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise MaldropError(f"no Ray cluster answers at {address or 'this machine'}: {reason}") from None
    return ray


def capacity(ray: Any, cpus: float, gpus: float) -> int:
    """How many runs of so many CPUs and GPUs the cluster holds at a time; UsageError where it is none."""
    there = ray.cluster_resources()
    fits = [int(there.get(name, 0) / each) for name, each in (("CPU", cpus), ("GPU", gpus)) if each > 0]
    if min(fits, default=1) < 1:
        raise UsageError(
            "executor ray",
            f"a run needs {cpus:g} CPUs and {gpus:g} GPUs, and the cluster has "
            f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}; --cpus-per-run and --gpus-per-run take fractions",
        )
    return min(fits, default=1)


def ray_cluster(ray: Any, ledger: JobQueue, open_work: OpenWork, count: int, cpus: float, gpus: float) -> None:
    """Carry out all jobs of ``ledger``, ``count`` at a time, each with so many CPUs and GPUs.

    Retries are the ledger's, as it knows checkpoints. MaldropError where a worker can't go on at all.
    """
    mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(carry_out)
    under_way: dict[Any, Job] = {}
    told = False
    while True:
        while len(under_way) < count and (job := ledger.take()):
            under_way[task.remote(open_work, job, mailbox)] = job
        if not under_way:
            return
        done, _ = ray.wait(list(under_way), timeout=TICK_SECONDS)
        for event in ray.get(mailbox.collect.remote()):
            ledger.listener(event)
        if ledger.stopping and not told:
            told = True
            mailbox.stop.remote()
        for reference in done:
            job = under_way.pop(reference)
            try:
                ledger.ended(ray.get(reference))
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, MaldropError):
                    raise error.cause from None
                reason = str(error.cause).strip().partition("\n")[0]
                raise MaldropError(f"a Ray task raised {type(error.cause).__name__}: {reason}") from None
            except ray.exceptions.RayError as error:
                ledger.died(job, f"its worker died ({type(error).__name__})")


# --- in a task -------------------------------------------------------------------------------------------------------


def carry_out(open_work: OpenWork, job: Job, mailbox: Any) -> Ended:
    """A run, in a process that Ray keeps for the next one: the data are loaded once."""
    import ray

    def tell(event: Event) -> None:
        ray.get(mailbox.post.remote(event))

    return opened(open_work)(job, tell, lambda: bool(ray.get(mailbox.stopping.remote())))


@functools.lru_cache(maxsize=1)
def opened(open_work: OpenWork) -> Work:
    return open_work()
