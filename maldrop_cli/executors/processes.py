"""In processes of this machine, which may die: each trains one run after the other and reports over a pipe.

Spawned, not forked: a fork would copy torch's threads in mid-work, and can't use CUDA. All messages go through pipes: a
job goes down, events come up; anything that comes down while a run is under way means "stop after this epoch"; the end
of the pipe means that the process at its other end is dead.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from maldrop_cli.names import STOPS, MaldropError
from maldrop_cli.record import Status
from maldrop_cli.runs.events import Ended, Event, Job, OpenRunner, Stop
from maldrop_cli.sweep.job_queue import JobQueue

TICK_SECONDS = 0.2  # how long a signal may go unheeded
MAX_FAILED_STARTS = 5  # workers that die one after the other before they are ready: the next ones will, too


@dataclass
class _Worker:
    """``gpu``: its CUDA_VISIBLE_DEVICES, None: as it is. ``job``: what is under way. ``leaves``: after a run that
    raised, it ends of itself."""

    process: BaseProcess
    connection: Connection
    gpu: str | None
    ready: bool = False
    leaves: bool = False
    told_to_stop: bool = False
    job: Job | None = None

    def send(self, message: Job | None) -> None:
        with suppress(OSError):  # a dead worker is noticed by the end of its pipe
            self.connection.send(message)


def processes(queue: JobQueue, open_runner: OpenRunner, count: int, gpus: Sequence[str] = ()) -> None:
    """Run all jobs of ``queue`` in ``count`` processes, each with one of ``gpus``, in turn.

    A worker that dies is replaced, and so is one whose run raised: its memory may be in any state. MaldropError where a
    worker can't go on at all: the data are gone, say, or the disk is full.
    """
    workers = [_start(open_runner, gpus[index % len(gpus)] if gpus else None) for index in range(count)]
    failed_starts = 0
    try:
        while workers:
            by_connection = {worker.connection: worker for worker in workers}
            for connection in wait(list(by_connection), timeout=TICK_SECONDS):
                worker = by_connection[connection]  # type: ignore[index]
                if _receive(worker, queue):
                    failed_starts = 0 if worker.ready else failed_starts
                    continue
                workers.remove(worker)
                failed_starts += not worker.ready
                reason = _reap(worker)
                if worker.job:
                    queue.died(worker.job, reason)
                if failed_starts == MAX_FAILED_STARTS:
                    raise MaldropError(f"workers end before they have begun: {reason}; --executor serial needs none")
                if queue.waiting and not queue.stopping:
                    workers.append(_start(open_runner, worker.gpu))
            _dispatch(workers, queue)
    finally:
        for worker in workers:
            worker.process.kill()
            _reap(worker)


def _dispatch(workers: list[_Worker], queue: JobQueue) -> None:
    """Give jobs to workers that have none, and stop those that are not needed any more."""
    for worker in workers:
        if worker.ready and not worker.job and not worker.leaves and (job := queue.take()):
            worker.job = job
            worker.send(job)
    busy = any(worker.job for worker in workers)
    if queue.stopping or not (queue.waiting or busy):
        for worker in workers:
            if not worker.told_to_stop:
                worker.told_to_stop = True
                worker.send(None)


def _receive(worker: _Worker, queue: JobQueue) -> bool:
    """Handle the next message of a worker; False when it is dead. MaldropError, if that is the message."""
    try:
        message: Event | MaldropError | None = worker.connection.recv()
    except (EOFError, OSError):
        return False
    if isinstance(message, MaldropError):
        raise message
    if message is None:
        worker.ready = True
    elif isinstance(message, Ended):
        worker.job, worker.leaves = None, message.record.status is Status.FAILED
        queue.ended(message)
    else:
        queue.tell(message)
    return True


def _reap(worker: _Worker) -> str:
    """Wait for the end of a worker; how it died."""
    worker.connection.close()
    worker.process.join()
    code = worker.process.exitcode or 0
    worker.process.close()
    return describe_exit(code)


def describe_exit(code: int) -> str:
    """The exit code of a worker in words: negative where a signal killed it."""
    if code >= 0:
        return f"its worker ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", for want of memory perhaps" if name == "SIGKILL" else ""
    return f"its worker was killed by {name}{hint}"


def _start(open_runner: OpenRunner, gpu: str | None) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, open_runner, gpu))
    with _signals_held():
        process.start()
    theirs.close()  # so that the pipe ends with the worker
    return _Worker(process, ours, gpu)


@contextmanager
def _signals_held() -> Iterator[None]:
    """A process that begins here gets no signal that stops a command: a terminal sends it to all processes, and the
    parent decides. The parent gets its own afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # as the first process starts it, and it lets these signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the worker ---------------------------------------------------------------------------------------------------


def _serve(connection: Connection, open_runner: OpenRunner, gpu: str | None) -> None:
    """Open the runner, say so with None, and run jobs until None comes or the parent is dead."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # in time: nothing has asked for a device yet
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent is dead
        try:
            _work(connection.recv, connection.send, connection.poll, open_runner)
        except MaldropError as error:
            connection.send(error)


def _work(receive: Callable[[], Job | None], send: Callable[[Any], None], stop: Stop, open_runner: OpenRunner) -> None:
    train = open_runner()
    send(None)
    while job := receive():
        end = train(job, send, stop)
        send(end)
        if end.record.status is Status.FAILED:
            return


def _die_with_parent() -> None:
    """On every system: the operating system closes what a dead process had open, and that is what this waits for."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
