"""The work itself, wherever it is done: what a worker must know, and how it carries out a job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from maldrop_cli import machine
from maldrop_cli import train as engine
from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.data import load as datasets
from maldrop_cli.data.load import ImageData
from maldrop_cli.record import RunRecord, Status
from maldrop_cli.runs.store import Store
from maldrop_cli.sweep.job_queue import Ended, Job, Listener, Started, Stop, Trained, Waiting, Warned, Work
from maldrop_cli.train import NOTHING_MORE, Keeping


@dataclass(frozen=True)
class Workplace:
    """All of it can be sent to another process. ``digest``: of the data, which are known to be there; ``workers``: how
    many runs are trained at a time."""

    data: DataConfig
    data_dir: Path | None
    digest: str
    device: str
    threads: int | None
    out: Path
    fresh: bool = False
    keeping: Keeping = NOTHING_MORE
    workers: int = 1

    def open(self) -> Work:
        """Load the data and find the device."""
        device = machine.prepare(self.device, self.threads)
        return self.with_data(datasets.load(self.data, self.data_dir), device)

    def with_data(self, data: ImageData, device: torch.device) -> Work:
        """The work on data that are loaded."""
        data = data.to(device)

        def work(job: Job, tell: Listener, stop: Stop) -> Ended:
            store = Store(self.out, lambda message: tell(Warned(message)))
            record, reused = engine.train_or_reuse(
                job.config,
                data,
                self.digest,
                device,
                store,
                fresh=self.fresh,
                retry=job.attempt > 0,
                patient=job.patient,
                keeping=self.keeping,
                workers=self.workers,
                on_start=lambda epochs: tell(Started(job, epochs)),
                on_epoch=lambda row: tell(Trained(job, row)),
                on_wait=lambda: tell(Waiting(job)),
                stop=stop,
            )
            return Ended(job, record, reused)

        return work


@dataclass(frozen=True)
class Desk:
    """What the command itself can say of a run, whoever trains it. ``device``: for the records of runs not begun."""

    store: Store
    data: ImageData
    digest: str
    device: torch.device
    workers: int = 1
    fresh: bool = False

    def blank(self, config: RunConfig) -> RunRecord:
        """The record of a run that has not begun."""
        return engine.start_record(config, self.data, self.digest, self.device, self.workers)

    def finished(self, config: RunConfig) -> RunRecord | None:
        """The stored record, if there is nothing left to train."""
        stored = self.store.load(config.run_id(self.digest))
        return stored if stored and stored.finished else None

    def give_up(self, config: RunConfig, reason: str) -> RunRecord:
        """The record of a run whose worker died once too often."""
        return engine.give_up(self.store, self.blank(config), reason, fresh=self.fresh)

    def bring_home(self, record: RunRecord) -> None:
        """Keep the record of a run whose worker, on another machine, does not share our folder."""
        if record.status is not Status.UNFINISHED and self.store.load(record.run_id) is None:
            self.store.start(record, record.epochs)
            self.store.finish(record)
