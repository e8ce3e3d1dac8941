"""What a run is: its settings, where it ran, one row an epoch, and how it ended."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from maldrop_cli.config import RunConfig


class Status(StrEnum):
    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"
    UNFINISHED = "unfinished"  # started, and no result: killed, or under way


TUNE = "tune_"  # before a measurement: of the tuning images
ROBUSTNESS = "robustness"  # top1_robustness: the mean over all perturbations and severities
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

    ``measured``: validation top-1 in percent under perturbations, by the keys of a RobustnessPlan; and, with ``tune_``
    before their names, the same of the tuning images, with ``val_top1``, ``val_top5`` and ``val_loss``.
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
    measured: dict[str, float] = field(default_factory=dict)

    def value(self, metric: str) -> float | None:
        """A measurement by name: a field, or a key of ``measured``, or the mean over severities: ``top1_occlude``, over
        all perturbations ``top1_robustness``. None where it was not measured."""
        if not metric.startswith(("top1_", TUNE)):
            found: float | None = getattr(self, metric)
            return found
        every = metric.removesuffix(ROBUSTNESS) if metric.endswith(ROBUSTNESS) else metric + "_"
        values = [each for key, each in self.measured.items() if key == metric or key.startswith(every)]
        return sum(values) / len(values) if values else None

    @property
    def fidelity(self) -> float | None:
        """See :func:`fidelity_percent`."""
        return fidelity_percent(self.raised_mask, self.raised_joint)


def fidelity_percent(mask: float | None, joint: float | None) -> float | None:
    """The loss increase by a mask in percent of that by the jointly worst set; None where that set does no harm."""
    return 100 * mask / joint if mask is not None and joint is not None and joint > 0 else None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run on disk or just trained. ``hidden_width`` is D, the neurons before the last layer.

    Of the neurons (or weights) that a variant counts, over all of training: how many passed never and always, and how
    many have a pass rate in each tenth from 0 to 1.

    ``trained_as``: of a point of a sweep that has the run of another, as both have the same rho in every batch, the
    settings that were trained; ``run_id`` is that run's.
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
    return asdict(record)


def from_json(stored: dict[str, Any]) -> RunRecord:
    """The inverse of :func:`to_json`; an exception of any kind when ``stored`` is no record."""
    status, epochs = Status(stored["status"]), rows_from_json(stored["epochs"])
    config = RunConfig.from_dict(stored["config"])
    if texts := [name for name in ("run_id", "data_digest", "reason") if not isinstance(stored[name], str)]:
        raise TypeError(f"{texts[0]} is {stored[texts[0]]!r}")
    if len(epochs) > config.epochs or (status is Status.DONE and len(epochs) < config.epochs):
        raise ValueError(f"it is {status} after {len(epochs)} of {config.epochs} epochs")
    return RunRecord(
        run_id=stored["run_id"],
        config=config,
        data_digest=stored["data_digest"],
        environment=environment_from_json(stored["environment"]),
        hidden_width=int(stored["hidden_width"]),
        epochs=epochs,
        status=status,
        reason=stored["reason"],
        **{name: _count(stored.get(name)) for name in ("never_passed", "always_passed")},
        pass_histogram=tuple(int(count) for count in stored.get("pass_histogram", ())),
        trained_as=RunConfig.from_dict(stored["trained_as"]) if stored.get("trained_as") else None,
    )


def environment_from_json(stored: dict[str, Any]) -> dict[str, Any]:
    """Where a run was trained; an exception of any kind where it is not words and numbers."""
    if any(isinstance(value, list | dict) for value in stored.values()):
        raise TypeError(f"the environment is {stored!r}")
    int(stored.get("workers", 1))
    return dict(stored)


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def rows_from_json(stored: Iterable[dict[str, Any]], first: int = 1) -> tuple[EpochRow, ...]:
    """The rows of epoch ``first`` and of those after it; an exception of any kind where a field is missing or no
    number, or an epoch out of turn."""

    def read(row: dict[str, Any], each: Field[Any]) -> Any:
        value: Any = row[each.name] if each.default is each.default_factory is MISSING else row.get(each.name)
        if each.name == "measured":
            if strange := [key for key in value or () if not re.fullmatch(r"[a-z][\w.+-]*", key)]:
                raise ValueError(f"a measurement is called {strange[0]!r}")
            return {key: float(top1) for key, top1 in (value or {}).items()}
        if value is None and "None" in str(each.type):
            return None
        if not math.isfinite(value):
            raise ValueError(f"{each.name} is {value}")
        return int(value) if each.name == "epoch" else float(value)

    rows = tuple(EpochRow(**{each.name: read(row, each) for each in _FIELDS}) for row in stored)
    if wrong := [row.epoch for epoch, row in enumerate(rows, first) if row.epoch != epoch]:
        raise ValueError(f"epoch {wrong[0]} is out of turn")
    return rows


_FIELDS = fields(EpochRow)


def measured_names(runs: Iterable[RunRecord]) -> list[str]:
    """The keys of EpochRow.measured that any of the runs has, in their order."""
    return list(dict.fromkeys(name for run in runs for row in run.epochs for name in row.measured))


def describe_machine(environment: Mapping[str, Any]) -> str:
    """``AMD EPYC, 2 CPU threads, torch 2.14.1``: the device, or the processor where that is the device."""
    device = environment.get("device_name", "?")
    threads = environment.get("threads", "?")
    return (
        f"{environment.get('cpu', device) if device == 'cpu' else device}, "
        f"{threads} CPU thread{'' if threads == 1 else 's'}, torch {environment.get('torch', '?')}"
    )
