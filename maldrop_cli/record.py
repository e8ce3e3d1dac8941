"""What a run is: its settings, where it ran, one row an epoch, and how it ended."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from maldrop_cli.config import RunConfig


class Status(StrEnum):
    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"
    UNFINISHED = "unfinished"  # started, and no result: killed, or under way


PROBED = ("probe_loss", "raised_mask", "raised_joint", "raised_ceiling")  # of EpochRow, with --fidelity


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One epoch. Losses are means per example in nats (None: not finite), accuracies in percent, times in seconds.

    ``train_loss`` is measured while training, dropout active; ``val_*`` afterwards, with test scaling.
    ``rho_mean`` is the mean of rho over the epoch's batches (None where it does not apply); ``drop_rate`` the share of
    neurons really dropped, in percent.

    ``turnover`` is how much of the dropping moved to other neurons since the epoch before, 0 to 1. ``probe_loss`` and
    ``raised_*`` are measured on the probe batch with ``--fidelity``: the loss without dropping, and by how much the
    run's own mask, the jointly worst set, and at most any set raises it. None where it was not measured.
    """

    epoch: int
    train_loss: float | None
    val_loss: float | None
    val_top1: float
    val_top5: float
    train_seconds: float
    rho_mean: float | None
    drop_rate: float
    turnover: float | None = None
    probe_loss: float | None = None
    raised_mask: float | None = None
    raised_joint: float | None = None
    raised_ceiling: float | None = None

    @property
    def fidelity(self) -> float | None:
        """The harm of the mask in percent of that of the jointly worst set."""
        if self.raised_mask is None or self.raised_joint is None or self.raised_joint <= 0:
            return None
        return 100 * self.raised_mask / self.raised_joint


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run on disk or just trained. ``hidden_width`` is D, the neurons before the last layer.

    Of the neurons (or weights) that a variant counts, over all of training: how many passed never and always, and how
    many have a pass rate in each tenth from 0 to 1.

    ``trained_as``: of a point of a sweep, the settings with which its run was trained, see points.py; never stored.
    """

    run_id: str
    config: RunConfig
    data_digest: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    hidden_width: int = 0
    epochs: tuple[EpochRow, ...] = ()
    status: Status = Status.UNFINISHED
    reason: str = ""
    never_passed: int | None = None
    always_passed: int | None = None
    pass_histogram: tuple[int, ...] = ()
    trained_as: RunConfig | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train; a diverged run stays diverged, a failed one is worth another try."""
        return self.status in (Status.DONE, Status.DIVERGED)

    @property
    def machine(self) -> tuple[object, ...]:
        """What must be the same for times to compare. Times of a run that moved between machines compare with none."""
        where = tuple(self.environment.get(key) for key in ("device_name", "cpu", "threads", "torch"))
        return *where, self.workers, self.run_id if self.environment.get("moved") else None

    @property
    def workers(self) -> int:
        """How many runs were trained at a time."""
        return int(self.environment.get("workers", 1))

    @property
    def train_seconds(self) -> float:
        """Training time of all epochs."""
        return sum(row.train_seconds for row in self.epochs)

    def at(self, epoch: int) -> EpochRow | None:
        """The row of an epoch, counted from 1; None if the run did not get there."""
        return self.epochs[epoch - 1] if epoch <= len(self.epochs) else None


def to_json(record: RunRecord) -> dict[str, Any]:
    """A record as plain JSON values."""
    return {name: value for name, value in asdict(record).items() if name != "trained_as"}


def from_json(stored: dict[str, Any]) -> RunRecord:
    """The inverse of :func:`to_json`; KeyError, TypeError or ValueError when ``stored`` is no record."""
    return RunRecord(
        run_id=stored["run_id"],
        config=RunConfig.from_dict(stored["config"]),
        data_digest=str(stored["data_digest"]),
        environment=dict(stored["environment"]),
        hidden_width=int(stored["hidden_width"]),
        epochs=rows_from_json(stored["epochs"]),
        status=Status(stored["status"]),
        reason=str(stored["reason"]),
        never_passed=stored.get("never_passed"),
        always_passed=stored.get("always_passed"),
        pass_histogram=tuple(int(count) for count in stored.get("pass_histogram", ())),
    )


def rows_from_json(stored: Iterable[dict[str, Any]]) -> tuple[EpochRow, ...]:
    """Epoch rows; KeyError, TypeError or ValueError where a field is missing or no number."""

    def number(value: Any) -> float | None:
        return None if value is None else float(value)

    return tuple(
        EpochRow(
            epoch=int(row["epoch"]),
            train_loss=number(row["train_loss"]),
            val_loss=number(row["val_loss"]),
            val_top1=float(row["val_top1"]),
            val_top5=float(row["val_top5"]),
            train_seconds=float(row["train_seconds"]),
            rho_mean=number(row["rho_mean"]),
            drop_rate=float(row["drop_rate"]),
            **{name: number(row.get(name)) for name in ("turnover", *PROBED)},
        )
        for row in stored
    )


def environment(device: str, device_name: str, threads: int, workers: int = 1) -> dict[str, Any]:
    """Where a run is carried out: versions, machine, device, threads, how many runs at a time, time of day."""
    return {
        "maldrop": _version("maldrop-cli"),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "torchvision": _version("torchvision"),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "device": device,
        "device_name": device_name,
        "threads": threads,
        "workers": workers,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_machine(environment: Mapping[str, Any]) -> str:
    """``AMD EPYC, 2 CPU threads, torch 2.14.1``: the device, or the processor where that is the device."""
    device = environment.get("device_name", "?")
    threads = environment.get("threads", "?")
    return (
        f"{environment.get('cpu', device) if device == 'cpu' else device}, "
        f"{threads} CPU thread{'' if threads == 1 else 's'}, torch {environment.get('torch', '?')}"
    )


def cpu_name() -> str:
    """The processor's model where Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
