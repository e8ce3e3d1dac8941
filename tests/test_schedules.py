"""The five schedules of section 4.4 against their printed formulas, the smooth ones against their closed forms."""

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
        ("forward", 2, 0, 3608),  # 3607.8
        ("forward", 9, 0, 4095),  # 4095.49
        ("forward", 256, 0, 4096),
        ("reverse", 0, 0, 2048),
        ("reverse", 9, 0, 1),  # 0.51
        ("reverse", 4096, 9, 0),
        ("standard", 256, 7, 256),
        ("forward-smooth", 256, 1, 406),  # 4096 / (1 + 15 / e^0.5) = 405.6
        ("forward-smooth", 256, 9, 3511),  # 3510.9
        ("forward-smooth", 2048, 2, 2994),  # as equation (1) from rho = 0 after one epoch: 4096 / (1 + 1/e)
        ("reverse-smooth", 256, 1, 159),  # 4096 / (1 + 15 e^0.5) = 159.2
        ("reverse-smooth", 256, 9, 3),
        ("linear", 512, 1, 455),  # 512 - 512/9 = 455.1
        ("linear", 512, 8, 57),  # 56.9
        ("linear", 512, 9, 0),
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
    with pytest.raises(ValueError, match="rng"):
        SCHEDULES["randomized"](3, 9, Step(0, 0))


rates = st.floats(0, 50, exclude_min=True)


@given(widths.flatmap(lambda width: st.tuples(st.integers(0, width), st.just(width))), epochs, rates)
def test_the_smooth_logistics_are_their_closed_forms(rho_width: tuple[int, int], epoch: int, rate: float) -> None:
    """Exactly rounded, given the decay, up to what float64 can tell of a tie."""
    rho, width = rho_width
    decay = Fraction(math.exp(-rate * epoch))
    up = Fraction(width * rho) / (rho + (width - rho) * decay) if rho else Fraction(0)
    down = width * rho * decay / (rho * decay + (width - rho)) if rho < width else Fraction(width)
    step = Step(epoch, 0, rate=rate)
    for name, exact in (("forward-smooth", up), ("reverse-smooth", down)):
        value = SCHEDULES[name](rho, width, step)
        assert value in (half_up(float(exact - Fraction(1, 10**9))), half_up(float(exact + Fraction(1, 10**9))))


@given(widths.flatmap(lambda width: st.tuples(st.integers(0, width), st.just(width))), epochs, rates)
def test_the_smooth_logistics_are_monotone_within_the_layer_and_mirror_images(
    rho_width: tuple[int, int], epoch: int, rate: float
) -> None:
    rho, width = rho_width
    forward, reverse = SCHEDULES["forward-smooth"], SCHEDULES["reverse-smooth"]
    now, later = Step(epoch, 0, rate=rate), Step(epoch + 1, 0, rate=rate)
    assert rho <= forward(rho, width, now) <= forward(rho, width, later) <= width
    assert rho >= reverse(rho, width, now) >= reverse(rho, width, later) >= 0
    assert forward(rho, width, now) + reverse(width - rho, width, now) in (width, width + 1)  # 1: both rounded up


@given(st.integers(1, 2**31 - 1), st.floats(0, 1), rates)
def test_the_smooth_schedules_begin_with_exactly_rho(width: int, share: float, rate: float) -> None:
    rho = round(share * width)
    for name in ("forward-smooth", "reverse-smooth", "linear"):
        assert SCHEDULES[name](rho, width, Step(0, 0, rate=rate)) == rho


@pytest.mark.parametrize("rate", [0.5, 1e3, 1.7e308])
def test_the_smooth_logistics_end_at_the_width_and_at_0_and_stay_where_they_cannot_move(rate: float) -> None:
    late = Step(10_000, 0, rate=rate)
    assert SCHEDULES["forward-smooth"](1, 4096, late) == 4096
    assert SCHEDULES["reverse-smooth"](4095, 4096, late) == 0
    for name in ("forward-smooth", "reverse-smooth"):
        for rho in (0, 4096):
            assert SCHEDULES[name](rho, 4096, late) == rho


def test_the_default_rate_takes_the_default_rho_past_half_the_layer_in_the_middle_of_ten_epochs() -> None:
    counts = [SCHEDULES["forward-smooth"](256, 4096, Step(epoch, 0)) for epoch in range(10)]
    assert sum(count < 2048 for count in counts) == 6
    assert counts[-1] < 0.9 * 4096  # not saturated


@given(rhos, st.integers(0, 5000), st.integers(1, 60), st.integers(0, 100))
def test_linear_is_its_closed_form(rho: int, rho_end: int, horizon: int, epoch: int) -> None:
    value = SCHEDULES["linear"](rho, 5000, Step(epoch, 0, rho_end=rho_end, horizon=horizon))
    if epoch == 0:
        assert value == rho
    elif epoch >= horizon - 1:
        assert value == rho_end
    else:
        assert value == math.floor(rho + Fraction((rho_end - rho) * epoch, horizon - 1) + Fraction(1, 2))
        assert min(rho, rho_end) <= value <= max(rho, rho_end)
