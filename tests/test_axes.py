"""The grammar of swept values."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maldrop_cli.cli.reading import read_setting
from maldrop_cli.names import MaldropError, UsageError
from maldrop_cli.sweep.grammar import Quantity, parse_axis, parse_numbers, parse_omegas, parse_seeds


def counts(text: str) -> list[int]:
    return list(dict.fromkeys(each.count(4096, "rho") for each in parse_axis(text, "rho", whole=True)))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("256", [256]),
        ("0,256,1024", [0, 256, 1024]),
        (" 0 , 256 ", [0, 256]),
        ("0..4096", [0, 512, 1024, 1536, 2048, 2560, 3072, 3584, 4096]),
        ("0..4096:512", [0, 512, 1024, 1536, 2048, 2560, 3072, 3584, 4096]),
        ("0..4096:1000", [0, 1000, 2000, 3000, 4000]),
        ("0..4096/3", [0, 2048, 4096]),
        ("1..4096*2", [2**k for k in range(13)]),
        ("1..100*10", [1, 10, 100]),
        ("6.25%", [256]),
        ("0%..100%/3", [0, 2048, 4096]),
        ("7,0..4/3,50%", [7, 0, 2, 4, 2048]),
        ("3..3", [3]),
        ("5,5,5", [5]),
        ("1e3", [1000]),
        ("0..1", [0, 1]),  # nine points round to two whole numbers
        ("4..16*1.5", [4, 6, 9, 14]),  # what a range works out is rounded half up
        ("0%..10%:2.5", [0, 102, 205, 307, 410]),
        ("2.56e2", [256]),
    ],
)
def test_counts(text: str, values: list[int]) -> None:
    assert counts(text) == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1..0.5:0.1", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("0.1..0.9", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("0..0.7/8", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ("0.001..1*3", [0.001, 0.003, 0.009, 0.027, 0.081, 0.243, 0.729]),
        ("-0.3..0.3:0.1", [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3]),
        ("1e-5..1e-4:3e-5", [1e-5, 4e-5, 7e-5, 1e-4]),
        ("0.1..0.5:0.1,0.3", [0.1, 0.2, 0.3, 0.4, 0.5]),  # each once
        ("0..1/4", [0.0, 1 / 3, 2 / 3, 1.0]),  # no decimal ends there: the nearest number
        ("0..2:0.6666666666666667", [0.0, 0.6666666666666667, 1.3333333333333334, 2.0]),  # never beyond the end
        ("1..100*3.1622776601683795", [1.0, 3.1622776601683795, 10.000000000000002, 31.6227766016838, 100.0]),
    ],
)
def test_every_point_of_a_grid_is_the_number_that_one_would_type(text: str, values: list[float]) -> None:
    assert parse_numbers(text, "p") == values


@pytest.mark.parametrize(("percent", "width", "count"), [(32.3, 500, 162), (16.15, 1000, 162), (250 / 3, 15, 13)])
def test_half_of_a_neuron_is_rounded_up_whatever_it_is_in_binary(percent: float, width: int, count: int) -> None:
    assert Quantity(percent, percent=True).count(width, "rho") == count


@pytest.mark.parametrize(
    ("text", "at", "character"),
    [
        ("25x6", 3, "x"),
        ("x", 1, "x"),
        ("1..2..3", 5, "."),
        ("1,,2", 3, ","),
        ("0..4096;512", 8, ";"),
        ("0..4096:x", 9, "x"),
        ("1 2", 3, "2"),
        ("%", 1, "%"),
        ("5%%", 3, "%"),
        ("..5", 1, "."),
        ("0...4096", 4, "."),  # not up to .4096
        ("0...8/2", 4, "."),
        ("0.5", 2, "."),
        ("2.4", 2, "."),
        ("-0.4", 3, "."),
        (" 1e-3", 3, "e"),
        ("256,.5", 5, "."),
        ("0.5..4", 2, "."),
        ("0..4.5", 5, "."),
        ("0..4:0.5", 7, "."),
        ("4096.00000000000000001", 5, "."),  # 4096 in binary
    ],
)
def test_a_malformed_axis_names_the_character_it_stopped_at(text: str, at: int, character: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_axis(text, "rho", whole=True)
    assert f"at character {at}, {character!r}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "1,", "1..", "1..5:", "1..5*", " "])
def test_an_axis_that_ends_too_soon(text: str) -> None:
    with pytest.raises(UsageError, match="ends where"):
        parse_axis(text, "rho")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5..1", "runs backwards"),
        ("0..4:0", "step must be above 0"),
        ("0..4:-1", "step must be above 0"),
        ("0..4*2", "must begin above 0"),
        ("1..4*1", "factor must be above 1"),
        ("0..4/1", "from 2 to"),
        ("0..4/2.5", "from 2 to"),
        ("0..4/100001", "from 2 to"),
        ("0..1e9:1", "that are allowed"),
        ("0..50%", "both ends"),
        ("1e999", "too large"),
        ("1e308%", "too large"),
        ("0..1:1e-300", "more than the 10,000 values"),
        ("1e-300..1*1.0001", "more than the 10,000 values"),
    ],
)
def test_a_meaningless_axis_says_why(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_axis(text, "rho")


@pytest.mark.parametrize("text", ["-1", "4097", "100.1%", "-1%", "0..5000"])
def test_rho_stays_within_the_layer(text: str) -> None:
    with pytest.raises(UsageError, match="not within the layer's width, 0 to 4096"):
        counts(text)


def test_one_value_where_several_are_not_taken() -> None:
    assert read_setting("rho", "6.25%", ()) == [Quantity(6.25, percent=True)]
    assert len(read_setting("rho", "1,2", ("rho",))) == 2
    with pytest.raises(UsageError, match=r"names 2 values, and this takes one; `maldrop sweep --rho` takes several"):
        read_setting("rho", "1,2", ())


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", [0, 1, 2]),
        ("1", [0]),
        ("5,7", [5, 7]),
        ("3,", None),
        ("0..4", [0, 1, 2, 3, 4]),
        ("10..12,3", [10, 11, 12, 3]),
    ],
)
def test_seeds(text: str, seeds: list[int] | None) -> None:
    if seeds is None:
        with pytest.raises(UsageError):
            parse_seeds(text)
    else:
        assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "0..1.5", "0...5", "1,1.5", "50%", "two", "100001", "1,1e15"])
def test_wrong_seeds(text: str) -> None:
    with pytest.raises(UsageError, match="seeds"):
        parse_seeds(text)


def test_omegas_mix_words_and_numbers() -> None:
    assert parse_omegas("paper,classes,0.5,0..1/3") == ["paper", "classes", 0.5, 0.0, 1.0]
    for text in ("papers", "paper,,1", "5%"):
        with pytest.raises(UsageError):
            parse_omegas(text)


numbers = st.one_of(st.integers(-5, 5000), st.floats(allow_nan=False)).map(str)
pieces = st.one_of(numbers, st.sampled_from(["..", ",", ":", "/", "*", "%", " ", "x", "paper"]))


@given(st.lists(pieces, max_size=8).map("".join))
def test_any_text_gives_counts_within_the_layer_or_one_line(text: str) -> None:
    message = ""
    try:
        assert counts(text)
        assert all(0 <= count <= 4096 for count in counts(text))
    except MaldropError as error:
        message = str(error)
    assert "\n" not in message
    for parse in (parse_omegas, parse_seeds):
        with contextlib.suppress(MaldropError):
            assert parse(text)


def test_errors_in_omegas_count_from_the_start() -> None:
    with pytest.raises(UsageError, match="at character 8, 'x'"):
        parse_omegas("0.1,1..x")


@given(st.integers(0, 4096), st.integers(0, 4096), st.integers(2, 50))
def test_a_range_has_its_ends_and_stays_within_them(one: int, other: int, points: int) -> None:
    low, high = sorted((one, other))
    values = [each.value for each in parse_axis(f"{low}..{high}/{points}", "rho")]
    assert values[0] == low
    assert values[-1] == high
    assert values == sorted(values)
