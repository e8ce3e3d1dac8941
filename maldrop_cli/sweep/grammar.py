"""The grammar of everything that can be swept.

256                 a number                0..4096        nine evenly spaced points
6.25%               of the layer's width    0..4096/17     a number of points
0,256,1024          commas between any      0..4096:512    a step
                                            1..4096*2      a factor
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from maldrop_cli.names import MAX_COUNT, Omega, Unit, UsageError, parse_omega

DEFAULT_POINTS = 9
MAX_POINTS = 10_000

_NUMBER = re.compile(r"[+-]?(\d+(\.(?!\.)\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)  # the 0 of 0..5, not "0."
_WORD, _BLANKS, _COMMA, _PERCENT = (re.compile(each) for each in (r"[A-Za-z]\w*", r"\s*", ",", "%"))
_RANGE, _SPACING = re.compile(r"\.\."), re.compile("[:/*]")


@dataclass(frozen=True)
class Quantity:
    """A number, or a percentage of the layer's width."""

    value: float
    percent: bool = False

    def count(self, available: int, flag: str, unit: Unit = Unit.NEURON) -> int:
        """As a whole number of the ``available`` neurons (channels, weights), rounded half up, but at least 1 where it
        is a percentage above 0; UsageError outside 0 to ``available``."""
        exact = self.value * available / 100 if self.percent else self.value
        if not 0 <= exact <= available:
            shown = f"{self.value:g}%" if self.percent else f"{self.value:g}"
            whole = "the layer's width" if unit is Unit.NEURON else f"the layer's {available} {unit}s"
            raise UsageError(flag, f"{shown} is not within {whole}, 0 to {available} (or 0% to 100%)")
        half_up = math.floor(round(exact, 9) + 0.5)  # 32.3 % of 500 is 161.49999999999997 in binary
        return max(half_up, 1 if self.percent and exact > 0 else 0)


NOTHING = Quantity(0)


def parse_axis(text: str, flag: str, *, points: int | None = DEFAULT_POINTS, whole: bool = False) -> list[Quantity]:
    """All values that ``text`` names, in its order, without repeats.

    ``points``: how many a bare range has; None: every whole number in it. ``whole``: of counts, which are typed without
    a fraction; points between the ends of a range may have one. Raises UsageError, naming the character where ``text``
    stops making sense.
    """
    return [item for item in _parse(text, flag, points, whole=whole) if isinstance(item, Quantity)]


def parse_spans(text: str, flag: str) -> list[tuple[Quantity, Quantity]]:
    """What ``text`` allows, as closed intervals: here a bare range is all that lies in it, not nine points; the rest of
    the grammar names single values. UsageError as :func:`parse_axis`."""
    reader, spans = _Reader(text, flag), []
    while True:
        begin = reader.position
        values = _item(reader, DEFAULT_POINTS)
        item = reader.text[begin : reader.position]
        bare = ".." in item and not set(":/*") & set(item)
        spans += [(values[0], values[-1])] if bare else [(value, value) for value in values]
        if not reader.another():
            return spans


def parse_numbers(text: str, flag: str, *, whole: bool = False) -> list[float]:
    """An axis of plain numbers."""
    return [_plain(quantity, flag) for quantity in parse_axis(text, flag, whole=whole)]


def parse_omegas(text: str) -> list[Omega]:
    """An axis whose items may also be words: ``paper``, ``classes``."""
    items = _parse(text, "omega", DEFAULT_POINTS, words=True)
    values = [parse_omega(item) if isinstance(item, str) else _plain(item, "omega") for item in items]
    return list(dict.fromkeys(values))


def parse_seeds(text: str, *, count: bool = True) -> list[int]:
    """A number alone is a ``count``, 0 to N-1, or else a seed; a list names seeds, and a range names each in it."""
    seeds = []
    for quantity in parse_axis(text, "seeds", points=None, whole=True):
        value = _plain(quantity, "seeds")
        if not 0 <= value <= MAX_COUNT:
            raise UsageError("seeds", f"{value:g} is not a whole number from 0 to {MAX_COUNT:,}")
        seeds.append(int(value))
    if not count or "," in text or ".." in text:
        return seeds
    if not 1 <= seeds[0] <= MAX_POINTS:
        raise UsageError("seeds", f"{text} is not a count of 1 to {MAX_POINTS:,} seeds")
    return list(range(seeds[0]))


def _parse(
    text: str, flag: str, points: int | None, *, words: bool = False, whole: bool = False
) -> list[Quantity | str]:
    reader = _Reader(text, flag, whole)
    items: list[Quantity | str] = []
    while True:
        word = reader.take(_WORD) if words else ""
        items += [word] if word else _item(reader, points)
        if len(items) > MAX_POINTS:
            raise UsageError(flag, f"{text!r} names more than {MAX_POINTS:,} values")
        if not reader.another():
            return list(dict.fromkeys(items))


def _plain(quantity: Quantity, flag: str) -> float:
    if quantity.percent:
        raise UsageError(flag, f"{quantity.value:g}% is a percentage, which has no meaning here")
    return quantity.value


class _Reader:
    """A text and a position in it. ``whole``: its numbers have no fraction, but for percentages and factors."""

    def __init__(self, text: str, flag: str, whole: bool = False) -> None:
        self.text, self.flag, self.position, self.whole = text, flag, 0, whole

    def take(self, pattern: re.Pattern[str]) -> str:
        """What comes next, blanks apart, if it matches; else the empty string."""
        blanks = _BLANKS.match(self.text, self.position)
        self.position = blanks.end() if blanks else self.position
        match = pattern.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return match[0] if match else ""

    def another(self) -> bool:
        """Whether another item follows, after a comma."""
        self.take(_BLANKS)
        if self.position == len(self.text):
            return False
        if not self.take(_COMMA):
            raise self.error("a comma, or '..' for a range")
        return True

    def number(self, *, whole: bool = False) -> float:
        """The next number; UsageError where it has to be ``whole``, and is neither that nor a percentage."""
        begin, text = self.position, self.take(_NUMBER)
        if not text:
            raise self.error("a number")
        if abs(float(text)) > MAX_COUNT:
            raise UsageError(self.flag, f"{text} is too large; {MAX_COUNT:,} is the most")
        exact, end = Decimal(text), self.position
        if whole and exact != exact.to_integral_value() and not self.take(_PERCENT):
            fraction = text.lstrip("+-0123456789")
            at = self.text.index(text, begin) + len(text) - len(fraction) + 1
            problem = f"in {self.text!r}, at character {at}, {fraction[0]!r}: {text} is not a whole number"
            raise UsageError(self.flag, problem)
        self.position = end
        return float(text)

    def quantity(self) -> Quantity:
        return Quantity(self.number(whole=self.whole), bool(self.take(_PERCENT)))

    def error(self, wanted: str) -> UsageError:
        if self.position >= len(self.text):
            return UsageError(self.flag, f"{self.text!r} ends where {wanted} should follow")
        return UsageError(
            self.flag,
            f"{self.text!r} stops making sense at character {self.position + 1}, "
            f"{self.text[self.position]!r}, where {wanted} should be; "
            "e.g. 256, 6.25%, 0,256,1024, 0..4096, 0..4096:512, 0..4096/17 or 1..4096*2",
        )


def _item(reader: _Reader, points: int | None) -> Sequence[Quantity]:
    start = reader.quantity()
    if not reader.take(_RANGE):
        return [start]
    if reader.text.startswith(".", reader.position):  # 0...4096 is hardly meant to end at .4096
        raise reader.error("a digit")
    end = reader.quantity()
    if start.percent != end.percent:
        raise UsageError(reader.flag, f"both ends of the range in {reader.text!r} must be percentages, or neither")
    kind = reader.take(_SPACING)
    at = reader.position
    a_step = kind == ":" and not start.percent
    argument = reader.number(whole=reader.whole and a_step) if kind else None
    values = _spread(start.value, end.value, kind, argument, points)
    if isinstance(values, str):
        reader.position = at if kind else reader.position
        raise UsageError(reader.flag, f"in {reader.text!r}, at character {at + 1}, {values}")
    return [Quantity(value, start.percent) for value in values]


def _spread(start: float, end: float, kind: str, argument: float | None, points: int | None) -> list[float] | str:
    """The values of a range, worked out in decimal so that 0.1..0.5:0.1 has 0.3 itself; or what is wrong with it."""
    first, last = Decimal(str(start)), Decimal(str(end))
    if end < start:
        return f"the range runs backwards, from {start:g} to {end:g}"
    if kind == "" and points is None:
        kind, argument = ":", 1.0
    if kind == ":":
        if argument is None or argument <= 0:
            return "a step must be above 0"
        steps = (end - start) / argument
        if steps >= MAX_POINTS:
            return f"this step gives more than the {MAX_POINTS:,} values that are allowed"
        step, indices = Decimal(str(argument)), range(math.floor(steps + 1e-9) + 1)
        return [float(min(first + index * step, last)) for index in indices]
    if kind == "*":
        if argument is None or argument <= 1 or start <= 0:
            return "a factor must be above 1, and its range must begin above 0"
        steps = (math.log(end) - math.log(start)) / math.log(argument)
        if steps >= MAX_POINTS:
            return f"this factor gives more than the {MAX_POINTS:,} values that are allowed"
        factor, indices = Decimal(str(argument)), range(math.floor(steps + 1e-9) + 1)
        return [float(min(first * factor**index, last)) for index in indices]
    wanted = DEFAULT_POINTS if argument is None else argument
    if wanted != int(wanted) or not 2 <= wanted <= MAX_POINTS:
        return f"the number of points must be a whole number from 2 to {MAX_POINTS:,}"
    gaps = int(wanted) - 1
    return [float(first + (last - first) * index / gaps) for index in range(gaps + 1)]
