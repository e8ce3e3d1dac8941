"""Where runs are trained: in this process, in several, or on a Ray cluster. All give the same records.

The flags follow from what is defined here, so every start imports it: an executor's own module waits until it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from maldrop_cli.config import MACHINE, RARE, setting
from maldrop_cli.names import CNN, Executor, UsageError

if TYPE_CHECKING:
    import torch

    from maldrop_cli.runs.events import OpenRunner, Train
    from maldrop_cli.sweep.job_queue import JobQueue


HERE = (Executor.AUTO, Executor.SERIAL)  # in this process
WORTH_PROCESSES = 100_000  # images: below it, processes take longer to start than runs to train


@dataclass(frozen=True)
class Machine:
    """The device and the CPU threads of a run."""

    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps.", MACHINE)
    threads: int | None = setting(None, "CPU threads; the default is torch's.", MACHINE, low=1, high=1024)


@dataclass(frozen=True)
class Execution(Machine):
    """Where runs are trained, and what happens to those that fail. UsageError where the settings contradict."""

    workers: int | None = setting(
        None, "Concurrent runs, each in a process of its own; by default one a core for many runs of the CNN on a CPU, "
        "else 1.", MACHINE, low=1, high=1024,
    )  # fmt: skip
    executor: Executor = setting(Executor.AUTO, "Where runs are trained.", MACHINE)
    ray_address: str | None = setting(None, "Of a Ray cluster; by default RAY_ADDRESS, else one is started here.", RARE)
    cpus_per_run: float | None = setting(
        None, "Of ray: CPUs that a run needs; the default is its threads.", RARE, low=0.0
    )
    gpus_per_run: float | None = setting(
        None, "Of ray: GPUs that a run needs, e.g. 0.25; the default is 1 with --device cuda.", RARE, low=0.0
    )
    retries: int | None = setting(
        None, "Further tries of a run that failed; by default one, and only where its worker was killed.", RARE
    )
    fail_fast: bool = setting(False, "Stop at the first run that fails or diverges.", RARE)

    def __post_init__(self) -> None:
        several = (self.workers or 1) > 1
        if self.executor is Executor.AUTO and (self.workers or self.threads):
            object.__setattr__(self, "executor", Executor.PROCESSES if several else Executor.SERIAL)
        if self.executor is Executor.SERIAL and several:
            raise UsageError("", f"--executor serial trains one run at a time, and --workers is {self.workers}")
        for name in ("cpus_per_run", "gpus_per_run"):
            if (value := getattr(self, name)) is not None and round(value, 4) != value:
                raise UsageError(name, f"{value:g} has more than four decimals, and Ray counts in steps of 0.0001")
        if not self.remote:
            for name in ("ray_address", "cpus_per_run", "gpus_per_run"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        "", f"--{name.replace('_', '-')} is for --executor ray, and this is {self.executor}"
                    )

    @property
    def remote(self) -> bool:
        """Whether runs may be trained on other machines."""
        return self.executor is Executor.RAY

    def settled(self, models: Collection[str], runs: int, images: int, device_type: str) -> Execution:
        """The same with a run of one thread on each core, where nothing was said and it is quicker: of several runs of
        the paper's CNN, which gains little from a second thread, on so many training ``images`` in all."""
        several = runs > 1 and images >= WORTH_PROCESSES and {*models} == {CNN} and device_type == "cpu"
        if self.executor is not Executor.AUTO or not several:
            return self
        import joblib

        cores = min(joblib.cpu_count(), runs)
        return replace(self, workers=cores, executor=Executor.PROCESSES) if cores > 1 else self

    @property
    def threads_per_run(self) -> int | None:
        """CPU threads; workers that share a machine have one each, unless told otherwise."""
        return self.threads if self.executor in HERE else self.threads or 1

    def resolve_device(self) -> torch.device:
        """The device of this process or its workers; of a cluster only the type is known. UsageError when absent."""
        import torch

        from maldrop_cli.machine import use_machine

        if self.remote:
            from maldrop_cli.executors import ray_cluster

            ray_cluster.installed()
            return torch.device("cuda" if self._gpus() else "cpu")
        return use_machine(self.device, self.threads_per_run)

    def concurrent(self, runs: int) -> int:
        """Runs at a time on this machine: at most ``workers`` and ``runs``."""
        return max(min(self.workers or 1, runs), 1)

    def _gpus(self) -> float:
        return float(self.device.startswith("cuda")) if self.gpus_per_run is None else self.gpus_per_run


@dataclass(frozen=True)
class OpenExecutor:
    """``workers``: concurrent runs, each on ``device``. ``run``: all jobs of a queue, by the runner of this process, or
    by one that each worker opens."""

    workers: int
    device: str
    run: Callable[[JobQueue, Train, OpenRunner], None]


@contextmanager
def open_executor(execution: Execution, device: torch.device, runs: int) -> Iterator[OpenExecutor]:
    """An executor for a plan of so many runs. ``device``: as :meth:`Execution.resolve_device` gave it."""
    workers = execution.concurrent(runs)
    if execution.executor in HERE:
        yield OpenExecutor(1, execution.device, lambda queue, train, open_runner: serial(queue, train))
    elif execution.executor is Executor.PROCESSES:
        from maldrop_cli.executors.processes import processes

        gpus = visible_gpus() if device.type == "cuda" and execution.device in ("auto", "cuda") else []
        yield OpenExecutor(
            workers,
            "cuda" if gpus else execution.device,
            lambda queue, train, open_runner: processes(queue, open_runner, min(workers, len(queue.waiting)), gpus),
        )
    else:
        from maldrop_cli.executors import ray_cluster

        cpus = float(execution.threads_per_run or 1) if execution.cpus_per_run is None else execution.cpus_per_run
        with ray_cluster.connected(execution.ray_address) as ray:
            needs = ray_cluster.Needs(cpus, execution._gpus())
            workers = min(execution.workers or ray_cluster.capacity(ray, needs), runs)
            yield OpenExecutor(
                workers,
                device.type,
                lambda queue, train, open_runner: ray_cluster.ray_cluster(ray, queue, open_runner, workers, needs),
            )


def serial(queue: JobQueue, train: Train) -> None:
    """Run all jobs of ``queue`` in this process, in the order of the plan."""
    while job := queue.take():
        queue.ended(train(job, queue.tell, lambda: queue.stopping))


def visible_gpus() -> list[str]:
    """The CUDA_VISIBLE_DEVICES of each GPU that this process sees."""
    import torch

    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(index) for index in range(count)]
