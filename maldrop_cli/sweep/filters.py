"""Which stored runs, compared by what: the grammar of `--where`, `--by` and `--baseline`.

SETTING=VALUE[,VALUE ...]    numbers as in grammar.py, except that 0..1024 is all that lies in between;
                             names as they are; - for runs on which the setting has no effect
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.compare import Baseline, of_dropout
from maldrop_cli.analysis.settings import ARM_SETTINGS, DEFAULTS
from maldrop_cli.names import Dropout, Unit, UsageError, nearest, parse_name, value_text
from maldrop_cli.record import RunRecord, Status
from maldrop_cli.sweep.grammar import Quantity, parse_spans

WITHOUT = "-"  # the value of a setting that has no effect
OF_RUNS = ("seed", "status", "data_digest")  # which runs can be chosen by beside the settings of their arm
NAMES = {name: type(value) for name, value in DEFAULTS.items() if isinstance(value, StrEnum)} | {"status": Status}
WORDS = ("model", "shape", "deterministic", "data_digest")
COUNTS = ("rho", "rho_end")  # which may be given as a percentage of the layer's width

Test = Callable[[RunRecord, object], bool]


@dataclass(frozen=True)
class Condition:
    """``SETTING=VALUE[,VALUE ...]``: what a run's setting must be."""

    name: str
    text: str
    accepts: Test

    def holds(self, run: RunRecord) -> bool:
        """Whether the run is one of these."""
        return self.accepts(run, value_of(run, self.name))


def value_of(run: RunRecord, name: str) -> object:
    """A run's setting, its status or its data digest; None where the setting has no effect."""
    if name == "status":
        return run.status
    if name == "data_digest":
        return run.data_digest
    return run.config.flat_settings().get(name)


def parse_by(text: str) -> list[str]:
    """The settings that ``--by`` names, each once."""
    names = list(dict.fromkeys(_setting(item, "by", [*ARM_SETTINGS, "seed"]) for item in text.split(",")))
    if "seed" in names:
        raise UsageError("by", "runs are taken together over their seeds; without --by, each run has a row of its own")
    return names


def parse_condition(text: str, flag: str, allowed: Sequence[str] = (*ARM_SETTINGS, *OF_RUNS)) -> Condition:
    """UsageError for an unknown setting, with the nearest, and for a value that the setting can't have."""
    name, sign, values = text.partition("=")
    if not sign:
        raise UsageError(flag, f"{text!r} is no SETTING=VALUE; write e.g. schedule=forward or rho=0..1024")
    name = _setting(name, flag, allowed)
    items = [item.strip() for item in values.split(",")]
    without, rest = WITHOUT in items, [item for item in items if item != WITHOUT]
    accepts = _test(name, rest, f"{flag} {name}") if rest else _nothing
    return Condition(name, text.strip(), lambda run, value: without if value is None else accepts(run, value))


def parse_baseline(text: str) -> Baseline:
    """A variant, or ``SETTING=VALUE`` once or more, with commas between; ``best:`` before it, for the best of them."""
    kind, sign, rest = text.partition(":")
    if sign:
        if kind.strip() != "best":
            raise UsageError("baseline", f"{text!r} begins with {kind!r}; only best: can stand before a colon")
        return replace(parse_baseline(rest), label=f"best:{rest.strip()}", best=True)
    if "=" not in text:
        return of_dropout(parse_name(Dropout, text.strip(), "baseline"))
    conditions = [parse_condition(item, "baseline", ARM_SETTINGS) for item in text.split(",")]

    def fits(arm: Arm) -> bool:
        run = next(iter(arm.runs.values()))
        return all(condition.holds(run) for condition in conditions)

    label = ",".join(condition.text for condition in conditions)
    return Baseline(label, frozenset(condition.name for condition in conditions), fits)


def _nothing(run: RunRecord, value: object) -> bool:
    return False


def _setting(text: str, flag: str, allowed: Sequence[str]) -> str:
    name = text.strip().replace("-", "_").lower()
    if name not in allowed:
        near = nearest(name, list(allowed))
        raise UsageError(flag, f"no setting is called {text.strip()!r}{near} (one of: {', '.join(allowed)})")
    return name


def _test(name: str, items: Sequence[str], flag: str) -> Test:
    """Whether a value is among ``items``."""
    if kind := NAMES.get(name):
        members = {parse_name(kind, item, flag) for item in items}
        return lambda run, value: value in members
    if name == "data_digest":
        return lambda run, value: any(item and str(value).startswith(item) for item in items)
    if name in WORDS:
        words = {item.lower() for item in items}
        if "" in words or (name == "deterministic" and not words <= {"true", "false"}):
            allowed = "true, false" if name == "deterministic" else "a word"
            raise UsageError(flag, f"{','.join(items)!r} is not what this setting can be ({allowed})")
        return lambda run, value: value_text(value, WITHOUT).lower() in words
    if name == "omega":
        words = {item for item in items if re.fullmatch("[a-z]+", item)}
        if unknown := words - {"paper", "classes"}:
            raise UsageError(flag, f"{min(unknown)!r} is neither 'paper' nor 'classes' nor a number")
        items = [item for item in items if item not in words]
        numbers = _numbers(name, items, flag) if items else _nothing
        return lambda run, value: value in words or (not isinstance(value, str) and numbers(run, value))
    return _numbers(name, items, flag)


def _numbers(name: str, items: Sequence[str], flag: str) -> Test:
    spans = parse_spans(",".join(items), flag)
    if name not in COUNTS and any(low.percent for low, _ in spans):
        raise UsageError(flag, f"{','.join(items)!r} is a percentage, which has no meaning here")

    def test(run: RunRecord, value: object) -> bool:
        assert isinstance(value, int | float)
        ends = [(_end(low, run, flag), _end(high, run, flag)) for low, high in spans]
        return any(low <= value <= high for low, high in ends)

    return test


def _end(quantity: Quantity, run: RunRecord, flag: str) -> float:
    """The end of a span for this run. Percentages are of the neurons before the last layer: where rho counts channels
    or weights, records do not say of how many, so none fits (nan)."""
    if not quantity.percent:
        return quantity.value
    return quantity.count(run.hidden_width, flag) if run.config.unit is Unit.NEURON else math.nan
