"""What the seeds say: intervals, paired differences and verdicts. scipy does the statistics."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maldrop_cli.names import Outcome as Outcome

ALPHA = 0.05
MIN_SEEDS = 3
NO_SPREAD = 1e-9  # points of accuracy: below it, values differ by rounding alone
MAX_SEEDS = 1000  # the furthest that `seeds_to_decide` looks


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the half-width of its 95 % t-interval; nan for a half-width of fewer than two values."""

    mean: float
    half: float
    n: int


@dataclass(frozen=True)
class Difference:
    """An arm less the baseline, seed by seed: the interval is not corrected for several arms, ``p_holm`` is.

    ``more_seeds``: about how many more would decide an inconclusive result, should mean and spread stay as they are;
    None where that is more than ``MAX_SEEDS`` or not asked.
    """

    interval: Interval
    p: float
    p_holm: float
    outcome: Outcome
    more_seeds: int | None = None


def _scipy_stats() -> Any:
    """scipy.stats, when there is something to calculate: it takes longer to load than a thousand stored runs."""
    from scipy import stats

    return stats


def t_interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % t-interval."""
    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, 0)
    mean = float(np.mean(values))
    if n == 1:
        return Interval(mean, math.nan, 1)
    half = _t_quantile(n) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, half, n)


@functools.cache  # scipy takes longer for one quantile than a table for all the rest of a row
def _t_quantile(n: int) -> float:
    return float(_scipy_stats().t.ppf(1 - ALPHA / 2, n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m is multiplied by m - k + 1, and none falls below the one
    before it."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def verdicts(
    differences: Sequence[Sequence[float]], margins: Sequence[float], signs: Sequence[float] | None = None
) -> list[Difference]:
    """A verdict for each test from its paired differences to the baseline (arm minus baseline, one a seed).

    Two-sided paired t-tests, Holm-corrected over those that can be made; where not significant, two one-sided t-tests
    within +- the margin. Fewer than ``MIN_SEEDS`` seeds can't be tested, nor differences that are all the same: without
    spread a t-test would take three equal accuracies for certainty. ``signs``: 1 where more is better, the default,
    else -1.
    """
    p_values = {index: p for index, values in enumerate(differences) if math.isfinite(p := _p_two_sided(values))}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [
        _verdict(values, (p_values.get(index, math.nan), corrected.get(index, math.nan)), margin, sign, len(p_values))
        for index, (values, margin, sign) in enumerate(
            zip(differences, margins, signs or [1.0] * len(differences), strict=True)
        )
    ]


def _verdict(values: Sequence[float], p: tuple[float, float], margin: float, sign: float, tests: int) -> Difference:
    interval = t_interval(values)
    if interval.n < MIN_SEEDS:
        return Difference(interval, *p, Outcome.TOO_FEW)
    if _without_spread(values):
        return Difference(interval, *p, Outcome.EQUIVALENT if abs(interval.mean) < NO_SPREAD else Outcome.INCONCLUSIVE)
    if p[1] < ALPHA:
        return Difference(interval, *p, Outcome.BETTER if sign * interval.mean > 0 else Outcome.WORSE)
    deviation = float(np.std(values, ddof=1))
    if _p_equivalence(interval.mean, deviation, interval.n, margin) < ALPHA:
        return Difference(interval, *p, Outcome.EQUIVALENT)
    more = seeds_to_decide(interval.mean, deviation, interval.n, margin, tests)
    return Difference(interval, *p, Outcome.INCONCLUSIVE, more)


def _without_spread(values: Sequence[float]) -> bool:
    """Whether all differences are the same but for rounding."""
    return float(np.ptp(values)) < NO_SPREAD


def _p_two_sided(values: Sequence[float]) -> float:
    """Paired t-test, given the differences; nan where they can't be tested."""
    if len(values) < MIN_SEEDS or _without_spread(values):
        return math.nan
    return float(_scipy_stats().ttest_1samp(values, 0.0).pvalue)


def _p_equivalence(mean: float, deviation: float, n: int, margin: float) -> float:
    """The larger p of the two one-sided tests of mean > -margin and mean < margin; ``deviation`` is above 0."""
    distance = (margin - abs(mean)) / (deviation / math.sqrt(n))  # the side that is nearer decides
    return float(_scipy_stats().t.sf(distance, n - 1))


def seeds_to_decide(mean: float, deviation: float, n: int, margin: float, tests: int) -> int | None:
    """How many seeds beyond ``n`` until either test decides, if mean and standard deviation (above 0) stay as they are.

    Holm multiplies p by at most the number of ``tests``, which is what is reckoned with. None beyond ``MAX_SEEDS`` in
    all.
    """
    total = np.arange(n + 1, MAX_SEEDS + 1)
    error = deviation / np.sqrt(total)
    differs = tests * 2 * _scipy_stats().t.sf(abs(mean) / error, total - 1) < ALPHA
    equivalent = _scipy_stats().t.sf((margin - abs(mean)) / error, total - 1) < ALPHA
    decided = np.flatnonzero(differs | equivalent)
    return int(total[decided[0]] - n) if decided.size else None


RESAMPLES = 2000
MIN_SAMPLES = 11  # they make six blocks; from fewer, the interval would be far too narrow


def ratio_interval(samples: Sequence[float], reference: Sequence[float]) -> tuple[float, float, float]:
    """:func:`median_interval` of the ratios of paired samples, the i-th to the i-th; where one has fewer samples, the
    others of the longer are left out."""
    pairs = min(len(samples), len(reference))
    return median_interval(np.asarray(samples[:pairs]) / np.asarray(reference[:pairs]))


def median_interval(values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float, float]:
    """The median of what was measured one after the other, and the ends of its 95 % bootstrap interval: nan of fewer
    than ``MIN_SAMPLES`` values.

    Resampled are blocks of consecutive values, as long as the cube root of their number, rounded: what disturbs a
    machine lasts for longer than one sample, so that neighbours are alike, and an interval that took them for
    independent would be too narrow (the moving-blocks bootstrap of Künsch, 1989).
    """
    measured, count = np.asarray(values), len(values)
    middle = float(np.median(measured))
    if count < MIN_SAMPLES:
        return middle, math.nan, math.nan
    length = round(count ** (1 / 3))
    starts = np.random.default_rng(0).integers(0, count - length + 1, (RESAMPLES, -(-count // length)))
    drawn = (starts[..., None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :count]
    low, high = np.quantile(np.median(measured[drawn], axis=1), [ALPHA / 2, 1 - ALPHA / 2])
    return middle, float(low), float(high)
