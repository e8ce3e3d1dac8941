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

from maldrop_cli.config import Omega, UsageError, parse_omega

DEFAULT_POINTS = 9
MOST_POINTS = 10_000

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Quantity:
    """A number, or a percentage of the layer's width."""

    value: float
    percent: bool = False

    def count(self, width: int, flag: str) -> int:
        """As a whole number of ``width`` neurons, rounded half up; UsageError outside 0 to ``width``."""
        exact = self.value * width / 100 if self.percent else self.value
        count = math.floor(exact + 0.5)
        if not 0 <= count <= width or exact < 0:
            shown = f"{self.value:g}%" if self.percent else f"{self.value:g}"
            raise UsageError(f"{flag}: {shown} is not within the layer's width, 0 to {width} (or 0% to 100%)")
        return count


def parse_axis(text: str, flag: str, *, points: int | None = DEFAULT_POINTS) -> list[Quantity]:
    """All values that ``text`` names, in its order, without repeats.

    ``points``: how many a bare range has; None: every whole number in it. Raises UsageError, naming the character
    where ``text`` stops making sense.
    """
    reader = _Reader(text, flag)
    values: list[Quantity] = []
    while True:
        values += _item(reader, points)
        if len(values) > MOST_POINTS:
            raise UsageError(f"{flag}: {text!r} names more than {MOST_POINTS:,} values")
        if reader.at_end():
            return list(dict.fromkeys(values))
        reader.expect(",", "a comma, or '..' for a range")


def parse_counts(text: str, width: int, flag: str) -> list[int]:
    """An axis of whole numbers of neurons in a layer of ``width``."""
    return list(dict.fromkeys(quantity.count(width, flag) for quantity in parse_axis(text, flag)))


def parse_count(text: str, width: int, flag: str) -> int:
    """A single such number; UsageError where ``text`` names several."""
    counts = parse_axis(text, flag)
    if len(counts) != 1:
        raise UsageError(
            f"{flag}: {text!r} names {len(counts)} values, and this command takes one; `maldrop sweep` takes all"
        )
    return counts[0].count(width, flag)


def parse_omegas(text: str) -> list[Omega]:
    """An axis whose items may also be the words ``paper`` and ``classes``."""
    values: list[Omega] = []
    for item in text.split(","):
        if item.strip()[:1].isalpha():
            values.append(parse_omega(item.strip()))
        else:
            values += [_plain(quantity, "--omega") for quantity in parse_axis(item, "--omega")]
    return list(dict.fromkeys(values))


def parse_seeds(text: str) -> list[int]:
    """A number alone is a count, 0 to N-1; a list names seeds, and a range names each seed in it."""
    quantities = parse_axis(text, "--seeds", points=None)
    values = [_plain(quantity, "--seeds") for quantity in quantities]
    for value in values:
        if value != int(value) or value < 0:
            raise UsageError(f"--seeds: {value:g} is not a whole number of at least 0")
    if re.fullmatch(r"\s*\+?\d+\s*", text):
        if not 1 <= values[0] <= MOST_POINTS:
            raise UsageError(f"--seeds: {text} is not a count of 1 to {MOST_POINTS:,} seeds")
        return list(range(int(values[0])))
    return [int(value) for value in values]


def _plain(quantity: Quantity, flag: str) -> float:
    if quantity.percent:
        raise UsageError(f"{flag}: {quantity.value:g}% is a percentage, which has no meaning here")
    return quantity.value


class _Reader:
    """A text and a position in it."""

    def __init__(self, text: str, flag: str) -> None:
        self.text, self.flag, self.position = text, flag, 0

    def skip_blanks(self) -> None:
        while self.text[self.position : self.position + 1].isspace():
            self.position += 1

    def at_end(self) -> bool:
        self.skip_blanks()
        return self.position == len(self.text)

    def take(self, *tokens: str) -> str:
        """The first of ``tokens`` that comes next, consumed; else the empty string."""
        self.skip_blanks()
        for token in tokens:
            if self.text.startswith(token, self.position):
                self.position += len(token)
                return token
        return ""

    def expect(self, token: str, wanted: str) -> None:
        if not self.take(token):
            raise self.error(wanted)

    def number(self) -> float:
        self.skip_blanks()
        match = _NUMBER.match(self._before_range(), self.position)
        if not match:
            raise self.error("a number")
        self.position = match.end()
        value = float(match[0])
        if not math.isfinite(value):
            raise UsageError(f"{self.flag}: {match[0]} is too large")
        return value

    def quantity(self) -> Quantity:
        return Quantity(self.number(), bool(self.take("%")))

    def error(self, wanted: str) -> UsageError:
        if self.position >= len(self.text):
            return UsageError(f"{self.flag}: {self.text!r} ends where {wanted} should follow")
        return UsageError(
            f"{self.flag}: {self.text!r} stops making sense at character {self.position + 1}, "
            f"{self.text[self.position]!r}, where {wanted} should be; "
            f"e.g. 256, 6.25%, 0,256,1024, 0..4096, 0..4096:512, 0..4096/17 or 1..4096*2"
        )

    def _before_range(self) -> str:
        """The text with '..' blotted out, so that '0..5' does not read as the number '0.'."""
        return self.text.replace("..", "\0\0")


def _item(reader: _Reader, points: int | None) -> Sequence[Quantity]:
    start = reader.quantity()
    if not reader.take(".."):
        return [start]
    end = reader.quantity()
    if start.percent != end.percent:
        raise UsageError(f"{reader.flag}: both ends of the range in {reader.text!r} must be percentages, or neither")
    kind = reader.take(":", "/", "*")
    at = reader.position
    argument = reader.number() if kind else None
    values = _spread(start.value, end.value, kind, argument, points)
    if isinstance(values, str):
        reader.position = at if kind else reader.position
        raise UsageError(f"{reader.flag}: in {reader.text!r}, at character {at + 1}, {values}")
    return [Quantity(value, start.percent) for value in values]


def _spread(start: float, end: float, kind: str, argument: float | None, points: int | None) -> list[float] | str:
    """The values of a range, or what is wrong with it."""
    if end < start:
        return f"the range runs backwards, from {start:g} to {end:g}"
    if kind == "" and points is None:
        kind, argument = ":", 1.0
    if kind == ":":
        if argument is None or argument <= 0:
            return "a step must be above 0"
        count = math.floor((end - start) / argument + 1e-9) + 1
        if count > MOST_POINTS:
            return f"this step gives {count:,} values; {MOST_POINTS:,} are allowed"
        return [start + index * argument for index in range(count)]
    if kind == "*":
        if argument is None or argument <= 1 or start <= 0:
            return "a factor must be above 1, and its range must begin above 0"
        count = math.floor(math.log(end / start) / math.log(argument) + 1e-9) + 1
        if count > MOST_POINTS:
            return f"this factor gives {count:,} values; {MOST_POINTS:,} are allowed"
        return [start * argument**index for index in range(count)]
    wanted = DEFAULT_POINTS if argument is None else argument
    if wanted != int(wanted) or not 2 <= wanted <= MOST_POINTS:
        return f"the number of points must be a whole number from 2 to {MOST_POINTS:,}"
    gaps = int(wanted) - 1
    return [start + (end - start) * index / gaps for index in range(gaps + 1)]
