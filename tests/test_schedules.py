"""The five schedules of section 4.4 against their printed formulas."""

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maldrop_cli.dropout import SCHEDULES, Step

widths = st.integers(1, 5000)
rhos = st.integers(0, 5000)
epochs = st.integers(0, 50)


def half_up(value: float) -> int:
    return math.floor(Fraction(value) + Fraction(1, 2))


@given(rhos, widths, epochs)
def test_forward_and_reverse_are_the_equations(rho: int, width: int, epoch: int) -> None:
    step = Step(epoch, 0)
    logistic = 1 / (1 + math.exp(-(rho + epoch)))
    assert SCHEDULES["forward"](rho, width, step) == half_up(width * logistic)
    reverse = SCHEDULES["reverse"](rho, width, step)
    assert abs(reverse - width * (1 - logistic)) <= 0.5 + 1e-9 * width


@given(rhos, widths, epochs)
def test_annealing_is_monotone_and_within_the_layer(rho: int, width: int, epoch: int) -> None:
    now, later = Step(epoch, 0), Step(epoch + 1, 0)
    assert 0 <= SCHEDULES["forward"](rho, width, now) <= SCHEDULES["forward"](rho, width, later) <= width
    assert width >= SCHEDULES["reverse"](rho, width, now) >= SCHEDULES["reverse"](rho, width, later) >= 0


@pytest.mark.parametrize(
    ("name", "rho", "epoch", "expected"),
    [
        ("forward", 0, 0, 2048),  # half the layer
        ("forward", 0, 1, 2994),  # 4096 / (1 + 1/e) = 2994.4
        ("forward", 2, 0, 3608),  # 3607.8
        ("forward", 9, 0, 4095),  # 4095.49
        ("forward", 5, 5, 4096),  # saturated
        ("forward", 256, 0, 4096),
        ("reverse", 0, 0, 2048),
        ("reverse", 0, 1, 1102),  # 1101.6
        ("reverse", 9, 0, 1),  # 0.51
        ("reverse", 10, 0, 0),
        ("reverse", 4096, 9, 0),
        ("standard", 256, 7, 256),
    ],
)
def test_known_values_of_4096_neurons(name: str, rho: int, epoch: int, expected: int) -> None:
    assert SCHEDULES[name](rho, 4096, Step(epoch, 0)) == expected


def test_periodic_drops_in_every_fifth_batch_and_counts_through_epochs() -> None:
    drops = [SCHEDULES["periodic"](7, 100, Step(batch // 4, batch, period=5)) for batch in range(12)]
    assert drops == [0, 0, 0, 0, 7, 0, 0, 0, 0, 7, 0, 0]
    assert SCHEDULES["periodic"](7, 100, Step(0, 0, period=1)) == 7


def test_randomized_is_uniform_over_0_to_the_width() -> None:
    rng = random.Random(0)
    draws = [SCHEDULES["randomized"](3, 9, Step(0, batch, rng=rng)) for batch in range(10_000)]
    assert set(draws) == set(range(10))
    counts = [draws.count(value) for value in range(10)]
    assert all(850 < count < 1150 for count in counts)  # five standard deviations around 1,000


def test_randomized_needs_its_randomness() -> None:
    with pytest.raises(ValueError, match="rng"):
        SCHEDULES["randomized"](3, 9, Step(0, 0))
