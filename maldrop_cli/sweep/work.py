"""The work itself, wherever it is done: what a worker must know, and how it carries out a job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from maldrop_cli import datasets, devices, engine
from maldrop_cli.config import DataConfig
from maldrop_cli.datasets import ImageData
from maldrop_cli.engine import NOTHING_MORE, Keeping
from maldrop_cli.results.store import Store
from maldrop_cli.sweep.ledger import Ended, Job, Listener, Started, Stop, Trained, Waiting, Warned, Work


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
        device = devices.prepare(self.device, self.threads)
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
