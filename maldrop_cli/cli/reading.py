"""From the texts of flags to checked values."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from maldrop_cli.config import SETTINGS, DataConfig, RunConfig
from maldrop_cli.names import MAX_COUNT, TAKES, Dropout, Outcome, Perturbation, UsageError, parse_name, unknown_name
from maldrop_cli.robustness.plan import STANDARD, RobustnessPlan, check_severity
from maldrop_cli.sweep import grammar

if TYPE_CHECKING:
    from maldrop_cli.cli.options import OutputOptions

SWEPT = (  # `sweep` takes several
    *("dropout", "rho", "dataset", "model", "train_images", "lr", "p", "selector", "schedule", "omega"),
)
OF_ARMS = ("lr", "momentum", "weight_decay", "batch_size", "epochs")  # beside its variant's, the settings of an arm
SETTING_TYPES = typing.get_type_hints(DataConfig) | typing.get_type_hints(RunConfig)


def read_setting(name: str, text: Any, several: Collection[str]) -> list[Any]:
    """The values of a setting of RunConfig or DataConfig, checked; UsageError for more than one, unless it may have
    ``several``."""
    kind, values = SETTING_TYPES[name], [text]
    if isinstance(text, str):
        if name in ("rho", "rho_end"):
            values = list(grammar.parse_axis(text, name, whole=True))
        elif name in _READERS:
            values = _READERS[name](text)
        elif kind in (int, float):
            numbers = grammar.parse_numbers(text, name, whole=kind is int)
            values = [_exact(kind, number, name) for number in numbers]
        elif kind is str:
            values = words(text)
        else:
            values = names(kind, text, name)
    if len(values) > 1 and name not in several:
        where = f"; `maldrop sweep --{name}` takes several" if name in SWEPT else ""
        raise UsageError(name, f"{text!r} names {len(values)} values, and this takes one{where}")
    for value in values:
        SETTINGS[name].check(name, value)
    return values


def read_robustness(text: str) -> RobustnessPlan:
    """A plan from ``--robustness``; UsageError for what it can't be, with the nearest name."""
    severities: list[tuple[Perturbation, float]] = []
    every = 0
    for item in text.split():
        name, sign, values = item.partition("=")
        if name == "standard" and not sign:
            severities += read_robustness(STANDARD).severities
        elif name == "every" and re.fullmatch(r"0*[1-9]\d*", values):
            every = _whole(values, "robustness")
        elif name != "off" or sign:
            perturbation = parse_name(Perturbation, name, "robustness")
            found = grammar.parse_numbers(values, f"robustness {name}")
            severities += [(perturbation, check_severity(perturbation, each)) for each in found]
    return RobustnessPlan(tuple(dict.fromkeys(severities)), every)


def read_arm(text: str) -> tuple[str, dict[str, list[Any]]]:
    """``NAME: VARIANT SETTING=VALUE ...``, the name at will: (name or "", values by setting). UsageError for a setting
    that no arm has, or that has no effect on the variant."""
    label, colon, rest = text.rpartition(":")
    variant, *others = rest.split() or [""]
    values = {"dropout": [parse_name(Dropout, variant, "arm")]}
    allowed = [*TAKES[values["dropout"][0]], *OF_ARMS]
    for item in others:
        name, sign, value = item.partition("=")
        name = name.replace("-", "_")
        if not sign:
            raise UsageError("arm", f"{item!r} in {text!r} is no SETTING=VALUE; write e.g. 'maldrop selector=joint'")
        if name not in allowed:
            raise UsageError("arm", unknown_name(f"setting of {variant}", name, allowed))
        values[name] = read_setting(name, value, ())
    if colon and not label.strip():
        raise UsageError("arm", f"{text!r} has no name before its colon")
    if not label.isprintable():
        raise UsageError("arm", f"{label!r} is no name: it has characters that can't be seen")
    return label.strip(), values


def _exact(kind: type[Any], number: float, name: str) -> Any:
    if kind(number) != number:
        raise UsageError(name, f"{number:g} is not a whole number")
    return kind(number)


def words(text: str) -> list[str]:
    """Commas between words, each once."""
    return list(dict.fromkeys(item.strip() for item in text.split(",")))


def names(kind: type[StrEnum], text: str, setting: str) -> list[Any]:
    """Commas between names, each once."""
    return [parse_name(kind, item, setting) for item in words(text)]


def read_seeds(seeds: str, seed: int | None, output: OutputOptions, given: frozenset[str]) -> list[int]:
    """What ``--seeds`` names, or the one ``--seed``, with a line that says so. UsageError for both."""
    if seed is None:
        return grammar.parse_seeds(seeds)
    if "seeds" in given:
        raise UsageError("seed", "--seeds says which seeds as well; leave one of the two out")
    SETTINGS["seed"].check("seed", seed)
    _tell(f"--seed {seed} is the one seed {seed}; --seeds 3 would be three, 0 to 2", output)
    return [seed]


def read_seed(seeds: str, output: OutputOptions, given: frozenset[str]) -> int:
    """The one that ``--seeds`` names to ``train``, with a line that says so. UsageError for several, or beside
    ``--seed``."""
    if "seed" in given:
        raise UsageError("seeds", "--seed says which seed already; leave one of the two out")
    several = f"`maldrop compare --seeds {seeds}`"
    [first, *others] = grammar.parse_seeds(seeds, count=False)
    if others:
        raise UsageError(
            "seeds", f"train trains one run, and {seeds} names {1 + len(others)} seeds; {several} takes them"
        )
    _tell(f"--seeds {seeds} is the one seed {first} here; {several} takes a count or a list", output)
    return first


def _tell(line: str, output: OutputOptions) -> None:
    if not output.quiet:
        typer.echo(f"maldrop: {line}", err=True)


def read_gate(text: str) -> tuple[str, list[Outcome]]:
    """(arm, verdicts) of ``ARM:VERDICT[,VERDICT]``. UsageError for a verdict that there is not."""
    arm, colon, verdicts = text.rpartition(":")
    if not colon:
        raise UsageError("fail_if", f"{text!r} is no ARM:VERDICT; write e.g. 'maldrop:worse' ({', '.join(Outcome)})")
    return arm.strip(), names(Outcome, verdicts, "fail_if")


def read_limit(text: str) -> tuple[str, float]:
    """(subject, number) of ``SUBJECT>NUMBER``; UsageError where it is something else."""
    subject, _, number = text.partition(">")
    try:
        limit = float(number)
    except ValueError:
        raise UsageError("fail_if", f"{text!r} is no SUBJECT>NUMBER; write e.g. 'heuristic>1.1'") from None
    positive("fail_if", limit)
    return subject.strip(), limit


def positive(name: str, value: float) -> None:
    """UsageError unless it is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise UsageError(name, f"{value} is not a number above 0")


def _whole(digits: str, name: str) -> int:
    """UsageError for more than MAX_COUNT; ``int`` of a text would refuse 5,000 digits in a way of its own."""
    value = float(digits)
    if value > MAX_COUNT:
        raise UsageError(name, f"{digits} is too large; {MAX_COUNT:,} is the most")
    return int(value)


def _fidelity(text: str) -> list[int]:
    match = re.fullmatch(r"off|every=([1-9]\d*)", text.strip())
    if not match:
        raise UsageError("fidelity", f"{text!r} is neither 'off' nor 'every=N', a number of epochs; write e.g. every=5")
    return [_whole(match[1] or "0", "fidelity")]


def _shape(text: str) -> list[tuple[int, ...]]:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text.strip().lower())
    if not match:
        raise UsageError("shape", f"{text!r} is not channels x height x width; write e.g. 3x32x32")
    return [tuple(_whole(side, "shape") for side in match.groups())]


_READERS: dict[str, Callable[[str], list[Any]]] = {
    "omega": lambda text: list(grammar.parse_omegas(text)), "shape": _shape, "fidelity_every": _fidelity,
}  # fmt: skip
