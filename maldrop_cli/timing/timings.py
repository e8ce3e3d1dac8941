"""What was timed, and how far to believe it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy import stats

from maldrop_cli.analysis.stats import ratio_interval

UNSTABLE = 0.25  # interquartile range, as a share of the median
DRIFT = 0.1  # by how much the last third may differ from the first
MIN_TO_DRIFT = 9
TICKS = 1000  # of the clock, that a sample should last
LOADED = 0.5  # processes that wanted to run before the timing began


@dataclass(frozen=True)
class Timing:
    """One subject. ``samples``: seconds a step. ``device_ms``: of the same steps, milliseconds a step on the device's
    own clock; None of devices without.

    Of a naive form, ``neurons``: how many its time was measured on, and ``agreement``: how much of its mask, in
    percent, is the fast form's. Of a form that chooses neurons, on a trained network: the loss that its mask raises,
    how much of the harm of the jointly worst set that is, and how much of its mask is that set's, both in percent.
    """

    subject: str
    samples: Sequence[float]
    peak_mib: float
    agreement: float | None = None
    neurons: int | None = None
    raised: float | None = None
    harm_of_joint: float | None = None
    mask_of_joint: float | None = None
    rho: int | None = None
    granularity: str | None = None
    device_ms: Sequence[float] | None = None

    @property
    def naive(self) -> bool:
        return self.neurons is not None

    @property
    def median_ms(self) -> float:
        return 1000 * median(self.samples)

    @property
    def iqr_ms(self) -> float:
        low, high = np.percentile(self.samples, [25, 75])
        return float(1000 * (high - low))

    @property
    def median_device_ms(self) -> float | None:
        return median_of(self.device_ms)

    def ratio_to(self, reference: Timing) -> tuple[float, float, float]:
        """Median ratio of the samples of the same round, and its 95 % interval."""
        return ratio_interval(self.samples, reference.samples)


def median_of(samples: Sequence[float] | None) -> float | None:
    """None of what was not measured."""
    return median(samples) if samples else None


@dataclass(frozen=True)
class ScalePoint:
    """Median seconds of one selector at one value of an axis, and the ends of their 95 % interval. ``device_ms``: the
    median on the device's own clock; None of devices without."""

    selector: str
    value: int
    seconds: float
    low: float = math.nan
    high: float = math.nan
    device_ms: float | None = None


@dataclass(frozen=True)
class Exponent:
    """time ~ value ** exponent, with the half-width of its 95 % interval (nan from two values)."""

    selector: str
    exponent: float
    half: float


def exponents(points: Sequence[ScalePoint]) -> list[Exponent]:
    """One for each selector, in order of appearance: least squares on logarithms."""
    found = []
    for selector in dict.fromkeys(point.selector for point in points):
        own = [point for point in points if point.selector == selector]
        fit = stats.linregress([math.log(point.value) for point in own], [math.log(point.seconds) for point in own])
        half = stats.t.ppf(0.975, len(own) - 2) * fit.stderr if len(own) > 2 else math.nan
        found.append(Exponent(selector, float(fit.slope), float(half)))
    return found


def doubts(
    timings: Sequence[Timing],
    *,
    widest: tuple[float, str],
    precision: float,
    budget_spent: bool,
    sample_seconds: float,
    resolution: float,
    load: float | None,
) -> list[str]:
    """What the reader should know before believing the figures, a line each; the arguments as `measure` gives them.

    ``resolution``: of the clock, in seconds. ``load``: how many processes wanted to run before the timing began, None
    where the system doesn't tell.
    """
    found = []
    width, whose = widest
    if budget_spent:
        known = f"is within ±{100 * width:.1f} %" if math.isfinite(width) else "has a single sample"
        found.append(
            f"--budget was spent before every ratio was within ±{100 * precision:g} %: that of {whose} {known}."
        )
    fast = [timing for timing in timings if not timing.naive]
    unstable = [timing.subject for timing in fast if timing.iqr_ms > UNSTABLE * timing.median_ms]
    if unstable:
        found.append(
            f"Unstable: of {', '.join(unstable)} the interquartile range is above {100 * UNSTABLE:g} % of the median. "
            "The ratios stand this better than the times, those of one thread (--threads 1) best."
        )
    drifting = [timing.subject for timing in fast if abs(drift(timing.samples)) > DRIFT]
    if drifting:
        found.append(
            f"Drifting: the last third of the samples of {', '.join(drifting)} differs from the first by more than "
            f"{100 * DRIFT:g} %."
        )
    if sample_seconds < TICKS * resolution:
        found.append(f"A sample lasts {sample_seconds:.2g} s, below {TICKS} ticks of a clock of {resolution:.1g} s.")
    return found + other_work(load)


def other_work(load: float | None) -> list[str]:
    """A line where other processes wanted to run before the timing began; ``load`` as in :func:`doubts`."""
    if load is None or load <= LOADED:
        return []
    return [f"Other work ran on this machine before the timing began (load {load:.1f})."]


def drift(samples: Sequence[float]) -> float:
    """By what share the median of the last third differs from that of the first; 0 for a few samples."""
    if len(samples) < MIN_TO_DRIFT:
        return 0.0
    third = len(samples) // 3
    return median(samples[-third:]) / median(samples[:third]) - 1
