"""In this process, one run after the other."""

from __future__ import annotations

from maldrop_cli.sweep.job_queue import JobQueue, OpenWork


def serial(ledger: JobQueue, open_work: OpenWork) -> None:
    """Carry out all jobs of ``ledger``, in the order of the plan."""
    work = open_work()
    while job := ledger.take():
        ledger.ended(work(job, ledger.listener, lambda: ledger.stopping))
