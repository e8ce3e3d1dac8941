"""Work for executors that trains nothing. Imports no torch, so that worker processes start quickly."""

import os
import signal
import time

from maldrop_cli.config import RunConfig
from maldrop_cli.names import MaldropError
from maldrop_cli.record import RunRecord, Status
from maldrop_cli.runs.events import Ended, Job, Started, Stop, Tell, Train

FINE, DIES_ONCE, DIES, RAISES, RAISES_ONCE, DIVERGES, GIVES_UP, LINGERS = range(8)  # seeds


def record(config: RunConfig, status: Status = Status.DONE, reason: str = "") -> RunRecord:
    return RunRecord(run_id=str(config.seed), config=config, status=status, reason=reason)


def open_work() -> Train:
    def work(job: Job, tell: Tell, stop: Stop) -> Ended:
        tell(Started(job, 0))
        kind, status = job.config.seed % 10, Status.DONE
        if kind == DIES or (kind == DIES_ONCE and job.attempt == 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == RAISES or (kind == RAISES_ONCE and job.attempt == 0):
            status = Status.FAILED
        if kind == DIVERGES:
            status = Status.DIVERGED
        if kind == GIVES_UP:
            raise MaldropError("the disk is full")
        while kind == LINGERS and status is Status.DONE:
            time.sleep(0.01)
            if stop():
                status = Status.UNFINISHED
        return Ended(job, record(job.config, status, os.environ.get("CUDA_VISIBLE_DEVICES", "")), False)

    return work


def open_nothing() -> Train:
    raise MaldropError("the data are gone")


def open_and_die() -> Train:
    os.kill(os.getpid(), signal.SIGKILL)
    return open_work()
