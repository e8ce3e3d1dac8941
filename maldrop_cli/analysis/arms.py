"""Runs that differ only in their seed, seen as one: an arm of `compare`, a point of `sweep`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import geometric_mean, median

from maldrop_cli.analysis.stats import Interval, t_interval
from maldrop_cli.config import RunConfig
from maldrop_cli.record import RunRecord, Status


@dataclass(frozen=True)
class Arm:
    """``runs``: by seed, all that were tried; ``done``: those that reached the last epoch, which the numbers are of.
    ``label``: what the user calls it, if anything."""

    config: RunConfig
    runs: dict[int, RunRecord]
    label: str = ""

    @property
    def done(self) -> dict[int, RunRecord]:
        return {seed: run for seed, run in self.runs.items() if run.status is Status.DONE}

    @property
    def data_digest(self) -> str:
        """Of the images that its runs saw, the same for all."""
        return next(iter(self.runs.values())).data_digest

    @property
    def trained_as(self) -> RunConfig | None:
        """The arm that was trained, where this one has the runs of another."""
        trained = next(iter(self.runs.values())).trained_as
        return trained and replace(trained, seed=0)

    def metric(self, name: str, epoch: int | None = None) -> Interval:
        """Mean and 95 % interval over the finished seeds of :meth:`EpochRow.value`; the default epoch is the last."""
        values = self.values(name, epoch)
        return t_interval([values[seed] for seed in sorted(values)])

    def values(self, name: str, epoch: int | None = None) -> dict[int, float]:
        """By seed; seeds without that value are left out."""
        rows = {seed: run.at(epoch or self.config.epochs) for seed, run in self.done.items()}
        values = {seed: row.value(name) for seed, row in rows.items() if row}
        return {seed: float(value) for seed, value in values.items() if value is not None}

    def of_runs(self, name: str) -> Interval:
        """As :meth:`metric`, of a field of RunRecord."""
        values = [getattr(run, name) for run in self.done.values()]
        return t_interval([float(value) for value in values if value is not None])

    def seconds_per_epoch(self) -> dict[int, float]:
        """By seed, the median training time of an epoch: one slow epoch on a busy machine does not move it."""
        return {seed: median(row.train_seconds for row in run.epochs) for seed, run in self.done.items()}

    def total_seconds(self) -> Interval:
        """Training time of a whole run, over the finished seeds."""
        return t_interval([run.train_seconds for run in self.done.values()])


def group(records: Iterable[RunRecord]) -> list[Arm]:
    """Arms in the order in which they first appear; of copies of a run, the first that is finished counts."""
    arms: dict[str, Arm] = {}
    for record in records:
        config = replace(record.config, seed=0)
        runs = arms.setdefault(config.run_id(record.data_digest), Arm(config, {})).runs
        known = runs.get(record.config.seed)
        if known is None or not known.finished:
            runs[record.config.seed] = record
    return list(arms.values())


def time_ratio(arm: Arm, reference: Arm | None) -> float:
    """How many times the reference's training time an epoch of ``arm`` takes: the geometric mean, over the seeds that
    both trained on the same machine, of the ratio of their median epochs; nan without such a seed."""
    if reference is None:
        return math.nan
    mine, theirs = arm.seconds_per_epoch(), reference.seconds_per_epoch()
    ratios = [
        mine[seed] / theirs[seed]
        for seed in sorted(mine.keys() & theirs.keys())
        if theirs[seed] > 0 and arm.runs[seed].machine == reference.runs[seed].machine
    ]
    return geometric_mean(ratios) if ratios else math.nan


def paired_differences(arm: Arm, baseline: Arm, name: str = "val_top1") -> list[float]:
    """Arm minus baseline at the last epoch, for every seed that both finished."""
    mine, theirs = arm.values(name), baseline.values(name)
    return [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]


def marked_epochs(epochs: int) -> Sequence[int]:
    """The first, the middle and the last epoch, each once: 1, 5 and 10 of ten."""
    return sorted({1, (epochs + 1) // 2, epochs})
