"""What is hidden from a network after training, and how much of it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from maldrop_cli.names import Metric, Perturbation, UsageError, unknown_name, value_text
from maldrop_cli.record import ROBUSTNESS, TUNE, RunRecord, Status

MAX_SEVERITY = {Perturbation.BLUR: 0.3}  # a share; the others': 1
COUNTED = (Perturbation.WORST_NEURONS, Perturbation.WORST_NEURONS_JOINT)  # a number of neurons, up to the width
STANDARD = "occlude=0.25,0.5 occlude-centre=0.25 noise=0.2 blur=0.1 neurons=0.5,0.9 worst-neurons=64"


@dataclass(frozen=True)
class RobustnessPlan:
    """``severities``: pairs of a perturbation and a severity. ``every``: epochs between evaluations; 0: after the last
    one only."""

    severities: tuple[tuple[Perturbation, float], ...] = ()
    every: int = 0

    @property
    def keys(self) -> list[str]:
        """One for each measurement, as in EpochRow.measured."""
        return [key(*each) for each in self.severities]

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether to evaluate after ``epoch`` of so many ``epochs``."""
        return bool(self.severities) and (epoch == epochs or (self.every > 0 and epoch % self.every == 0))

    def covered_by(self, run: RunRecord) -> bool:
        """Whether a finished run has all these measurements; one that diverged has nothing to measure."""
        if run.status is not Status.DONE or not self.severities:
            return True
        return set(self.keys) <= run.epochs[-1].measured.keys()

    def asked(self, run: RunRecord) -> RunRecord:
        """``run`` with the measurements of this plan only, and clean accuracy on the tuning images."""

        def wanted(name: str) -> bool:
            bare = name.removeprefix(TUNE)
            return bare in self.keys or bare.startswith("val_")

        kept = [{name: value for name, value in row.measured.items() if wanted(name)} for row in run.epochs]
        rows = (replace(row, measured=measured) for row, measured in zip(run.epochs, kept, strict=True))
        return replace(run, epochs=tuple(rows))

    def check_width(self, width: int) -> None:
        """UsageError for more neurons than the layer has."""
        for perturbation, severity in self.severities:
            if perturbation in COUNTED and severity > width:
                raise UsageError("robustness", f"{perturbation}={severity:g}, and the layer has {width} neurons")


def key(perturbation: Perturbation, severity: float) -> str:
    """``top1_occlude_0.5``, the name of the measurement."""
    return f"top1_{perturbation}_{value_text(severity)}"


def parse_metric(text: str) -> str:
    """A :class:`Metric`, ``top1_occlude_0.5``, or a mean over severities: ``top1_occlude``, ``top1_robustness``;
    UsageError, with the nearest name, for anything else."""
    means = [f"top1_{name}" for name in (*Perturbation, ROBUSTNESS)]
    name, _, severity = text.rpartition("_")
    if name in means[:-1]:
        try:
            return f"{name}_{value_text(float(severity))}"
        except ValueError:
            raise UsageError("metric", f"{text!r} has no number for its severity; write e.g. {name}_0.5") from None
    if text not in (*Metric, *means):
        raise UsageError("metric", unknown_name("measurement", text, [*map(str, Metric), *means]))
    return text


def check_severity(perturbation: Perturbation, severity: float) -> float:
    """``severity``; UsageError where it is out of range."""
    if perturbation in COUNTED:
        if severity < 0 or severity != int(severity):
            raise UsageError("robustness", f"{perturbation}={severity:g} is not a whole number of neurons")
    elif not 0 <= severity <= MAX_SEVERITY.get(perturbation, 1.0):
        highest = MAX_SEVERITY.get(perturbation, 1.0)
        raise UsageError("robustness", f"{perturbation}={severity:g} is not a share from 0 to {highest:g}")
    return severity
