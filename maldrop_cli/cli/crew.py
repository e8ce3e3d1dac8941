"""Who carries out a plan: this process, several, or a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from maldrop_cli import machine as devices
from maldrop_cli.cli.options import DeviceOptions, ExecutionOptions
from maldrop_cli.config import Executor, UsageError, parse_name
from maldrop_cli.data.load import ImageData
from maldrop_cli.executors import ray_cluster
from maldrop_cli.executors.processes import processes
from maldrop_cli.executors.serial import serial
from maldrop_cli.executors.work import Workplace
from maldrop_cli.sweep.job_queue import JobQueue


@dataclass(frozen=True)
class Crew:
    """``workers``: how many runs at a time, each with so many ``threads`` on ``device``. ``carry_out``: all jobs of a
    ledger, at a workplace, on data that are loaded here."""

    workers: int
    threads: int | None
    device: str
    carry_out: Callable[[JobQueue, Workplace, ImageData], None]


def chosen(options: ExecutionOptions) -> Executor:
    """The executor that the options ask for; UsageError where they contradict each other."""
    executor = parse_name(Executor, options.executor, "executor")
    if executor is Executor.AUTO:
        executor = Executor.PROCESSES if (options.workers or 1) > 1 else Executor.SERIAL
    if executor is Executor.SERIAL and (options.workers or 1) > 1:
        raise UsageError("", f"--executor serial trains one run at a time, and --workers is {options.workers}")
    if executor is not Executor.RAY:
        for flag, value in (
            ("--ray-address", options.ray_address),
            ("--cpus-per-run", options.cpus_per_run),
            ("--gpus-per-run", options.gpus_per_run),
        ):
            if value is not None:
                raise UsageError("", f"{flag} is for --executor ray, and this is {executor}")
    return executor


def resolve(options: ExecutionOptions, machine: DeviceOptions) -> torch.device:
    """The device that this process trains on, or that its workers do; on a cluster, its type is all that is known.
    UsageError when it is not there."""
    executor = chosen(options)
    if executor is Executor.RAY:
        return torch.device("cuda" if _gpus_per_run(options, machine) else "cpu")
    return devices.prepare(machine.device, _threads(executor, machine))


def at_a_time(options: ExecutionOptions, runs: int) -> int:
    """How many of so many runs are trained at a time on this machine."""
    return max(min(options.workers or 1, runs), 1)


@contextmanager
def hired(options: ExecutionOptions, machine: DeviceOptions, device: torch.device, runs: int) -> Iterator[Crew]:
    """A crew for a plan of so many runs, until the end of the ``with``. ``device``: as :func:`resolve` gave it."""
    executor = chosen(options)
    threads = _threads(executor, machine)
    if executor is Executor.SERIAL:

        def right_here(ledger: JobQueue, place: Workplace, data: ImageData) -> None:
            serial(ledger, lambda: place.with_data(data, device))

        yield Crew(1, threads, machine.device, right_here)
    elif executor is Executor.PROCESSES:
        workers = at_a_time(options, runs)
        gpus = visible_gpus() if device.type == "cuda" and machine.device in ("auto", "cuda") else []

        def in_processes(ledger: JobQueue, place: Workplace, data: ImageData) -> None:
            processes(ledger, place.open, min(workers, len(ledger.waiting)), gpus)

        yield Crew(workers, threads, "cuda" if gpus else machine.device, in_processes)
    else:
        cpus = float(threads or 1) if options.cpus_per_run is None else options.cpus_per_run
        gpus_per_run = _gpus_per_run(options, machine)
        ray = ray_cluster.connect(options.ray_address)
        try:
            workers = min(options.workers or ray_cluster.capacity(ray, cpus, gpus_per_run), runs)

            def on_ray(ledger: JobQueue, place: Workplace, data: ImageData) -> None:
                ray_cluster.ray_cluster(ray, ledger, place.open, workers, cpus, gpus_per_run)

            yield Crew(workers, threads, device.type, on_ray)
        finally:
            ray.shutdown()


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES is to be for each of the GPUs that this process sees."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(index) for index in range(count)]


def _threads(executor: Executor, machine: DeviceOptions) -> int | None:
    """CPU threads of a run; workers that share a machine have one each, unless told otherwise."""
    return machine.threads if executor is Executor.SERIAL else machine.threads or 1


def _gpus_per_run(options: ExecutionOptions, machine: DeviceOptions) -> float:
    return float(machine.device.startswith("cuda")) if options.gpus_per_run is None else options.gpus_per_run
