"""Statistics against examples worked by hand and against scipy's own paired test."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from maldrop_cli.analysis import stats
from maldrop_cli.analysis.stats import (
    MIN_SAMPLES,
    MIN_SEEDS,
    Difference,
    Outcome,
    holm,
    median_interval,
    ratio_interval,
    seeds_to_decide,
    t_interval,
)


def verdicts(differences: Sequence[Sequence[float]], margin: float) -> list[Difference]:
    """With one margin for all."""
    return stats.verdicts(differences, [margin] * len(differences))


def test_t_interval_by_hand() -> None:
    """1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653."""
    interval = t_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert interval.n == 3


def test_t_interval_of_one_or_none() -> None:
    assert t_interval([5.0]).mean == 5.0
    assert math.isnan(t_interval([5.0]).half)
    assert math.isnan(t_interval([]).mean)


def test_holm_by_hand() -> None:
    """0.01 * 4, 0.02 * 3, then 0.03 * 2 = 0.06 and 0.04 * 1, which may not fall below 0.06."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_p_and_bonferroni(p_values: list[float]) -> None:
    for raw, corrected in zip(p_values, holm(p_values), strict=True):
        assert raw <= corrected <= min(1.0, raw * len(p_values)) + 1e-12


def test_a_difference_by_hand() -> None:
    """2, 3, 4, 3: mean 3, deviation 0.816497, t = 3 / 0.408248 = 7.348469 on 3 degrees of freedom, p = 0.005209."""
    [difference] = verdicts([[2.0, 3.0, 4.0, 3.0]], margin=0.5)
    assert difference.p == pytest.approx(0.005209, rel=1e-3)
    assert difference.p_holm == difference.p
    assert difference.outcome is Outcome.BETTER


def test_p_is_scipys_paired_test() -> None:
    rng = np.random.default_rng(0)
    arm, baseline = rng.normal(size=7), rng.normal(size=7)
    [difference] = verdicts([list(arm - baseline)], margin=0.5)
    assert difference.p == pytest.approx(float(scipy_stats.ttest_rel(arm, baseline).pvalue))


def test_equivalence_by_hand() -> None:
    """-0.1, 0, 0.1: mean 0, standard error 0.057735, (0.5 - 0) / 0.057735 = 8.66 on 2 degrees: p = 0.0065."""
    [difference] = verdicts([[-0.1, 0.0, 0.1]], margin=0.5)
    assert difference.outcome is Outcome.EQUIVALENT
    # With a margin of 0.1 it is 1.732, p = 0.113: not shown.
    [difference] = verdicts([[-0.1, 0.0, 0.1]], margin=0.1)
    assert difference.outcome is Outcome.INCONCLUSIVE


def test_verdicts() -> None:
    arms = [
        [5.0, 5.1, 4.9],  # better
        [-5.0, -5.1, -4.9],  # worse
        [0.01, -0.01, 0.0],  # equivalent
        [3.0, -2.0, 1.0],  # inconclusive
        [9.0, 9.1],  # too few
        [],  # none at all
    ]
    outcomes = [difference.outcome for difference in verdicts(arms, margin=0.5)]
    assert outcomes == [
        Outcome.BETTER,
        Outcome.WORSE,
        Outcome.EQUIVALENT,
        Outcome.INCONCLUSIVE,
        Outcome.TOO_FEW,
        Outcome.TOO_FEW,
    ]


def test_holm_can_take_a_verdict_away() -> None:
    """Of p = 0.03 alone, better; with a second arm alike, neither."""
    values = [1.0, 1.5, 3.0, 1.0]
    assert 0.025 < verdicts([values], margin=0.1)[0].p < 0.05
    assert verdicts([values], margin=0.1)[0].outcome is Outcome.BETTER
    both = verdicts([values, values], margin=0.1)
    assert [each.outcome for each in both] == [Outcome.INCONCLUSIVE] * 2
    assert both[0].p_holm == pytest.approx(2 * both[0].p)


def test_arms_with_too_few_seeds_do_not_correct_the_others() -> None:
    values = [1.0, 1.5, 3.0, 1.0]
    alone, _ = verdicts([values, [1.0, 2.0]], margin=0.1)
    assert alone.p_holm == alone.p


def test_without_spread_nothing_is_claimed() -> None:
    """Three equal differences are no rarity where accuracy comes in steps of one image in 360; no t-test applies."""
    image = 100 / 360
    rounded = [97.5 - 97.22222222222223, 98.05555555555556 - 97.77777777777777, image]
    assert len(set(rounded)) > 1
    arms = verdicts([[image] * 3, rounded, [0.0] * 3, [1.0, 1.5, 3.0, 1.0]], margin=0.5)
    assert [each.outcome for each in arms] == [
        Outcome.INCONCLUSIVE,
        Outcome.INCONCLUSIVE,
        Outcome.EQUIVALENT,  # identical runs
        Outcome.BETTER,
    ]
    assert all(math.isnan(each.p) for each in arms[:3])
    assert arms[3].p_holm == arms[3].p  # the others do not enter Holm's count


def test_the_seeds_named_decide_when_the_test_is_run_again() -> None:
    """Differences of the same mean and deviation, as many as named: every arm is decided; with one fewer, not all."""

    def stretched(n: int, mean: float, deviation: float) -> list[float]:
        values = np.linspace(-1, 1, n)
        return list(mean + deviation * values / values.std(ddof=1))

    shapes = [(0.8, 1.5), (0.9, 1.5), (0.7, 1.5)]
    arms = verdicts([stretched(4, *shape) for shape in shapes], margin=0.01)
    for index, arm in enumerate(arms):
        assert arm.outcome is Outcome.INCONCLUSIVE
        assert arm.more_seeds is not None
        again = verdicts([stretched(4 + arm.more_seeds, *shape) for shape in shapes], margin=0.01)
        assert again[index].outcome is Outcome.BETTER
    hardest = max(arm.more_seeds or 0 for arm in arms)
    fewer = verdicts([stretched(4 + hardest - 1, *shape) for shape in shapes], margin=0.01)
    assert [arm.outcome for arm in fewer].count(Outcome.INCONCLUSIVE) <= 1  # Holm is milder than reckoned with


def test_one_arm_is_decided_exactly_at_the_number_named() -> None:
    mean, deviation, n = 0.8, 1.5, 4
    more = seeds_to_decide(mean, deviation, n, margin=0.01, tests=1)
    assert more is not None

    def p(total: int) -> float:
        return float(2 * scipy_stats.t.sf(mean / (deviation / math.sqrt(total)), total - 1))

    assert p(n + more) < 0.05 <= p(n + more - 1)


def test_more_seeds_may_show_equivalence() -> None:
    more = seeds_to_decide(0.0, 1.0, 3, margin=0.5, tests=1)
    assert more is not None
    assert 8 < more < 15  # t(0.95, n-1) / sqrt(n) < 0.5 first holds at n = 13


def test_no_number_of_seeds_decides_at_the_margin_itself() -> None:
    assert seeds_to_decide(0.001, 5.0, MIN_SEEDS, margin=0.001, tests=1) is None


def test_ratio_interval() -> None:
    ratio, low, high = ratio_interval([2.0, 4.0, 6.0, 8.0] * 3, [1.0, 2.0, 3.0, 4.0] * 3)
    assert (ratio, low, high) == (2.0, 2.0, 2.0)
    ratio, low, high = ratio_interval(list(np.linspace(1, 3, 41)), [1.0] * 41)
    assert ratio == 2.0
    assert 1.5 < low < 2.0 < high < 2.5
    ratio, low, high = ratio_interval([3.0], [1.0, 5.0])  # only pairs count
    assert ratio == 3.0
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize("count", range(1, 31))
def test_there_is_an_interval_from_six_blocks_on(count: int) -> None:
    """A block is as long as the cube root of the number of samples."""
    blocks = math.ceil(count / round(count ** (1 / 3)))
    assert (blocks >= 6) == (count >= MIN_SAMPLES)
    middle, low, high = median_interval(list(range(count)))
    assert middle == (count - 1) / 2
    assert math.isfinite(low) == math.isfinite(high) == (blocks >= 6)


def test_samples_that_drift_together_tell_less_than_independent_ones() -> None:
    """Ratios with an autocorrelation of 0.8 over 216 rounds: their interval holds the true ratio far more often than
    one that takes them for independent, and is wider than that of the same ratios shuffled."""
    rng = np.random.default_rng(0)
    wider, held, tries = [], 0, 40
    for _ in range(tries):
        noise = rng.normal(size=316)
        for i in range(1, len(noise)):
            noise[i] += 0.8 * noise[i - 1]
        ratios = 1 + 0.01 * noise[100:]
        _, low, high = ratio_interval(list(ratios), [1.0] * len(ratios))
        _, shuffled_low, shuffled_high = ratio_interval(list(rng.permutation(ratios)), [1.0] * len(ratios))
        wider.append((high - low) / (shuffled_high - shuffled_low))
        held += low <= 1 <= high
    assert np.mean(wider) > 1.5
    assert held >= 0.8 * tries
