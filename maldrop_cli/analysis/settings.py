"""The settings of runs by name: what `--by`, `--where` and `--baseline` speak of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from enum import StrEnum
from typing import Any

from maldrop_cli.config import WITHOUT_EFFECT, DataConfig, RunConfig

_OF_THE_DATA = [field.name for field in fields(DataConfig)]
SETTINGS = [  # in the order in which tables show them; of arms, whose runs differ in their seed alone
    *_OF_THE_DATA,
    *(each.name for each in fields(RunConfig) if each.name not in {"data", "seed", *WITHOUT_EFFECT}),
]
_WORDS = {"dataset", "shape", "model", "dropout", "selector", "granularity", "pass_rate", "schedule", "deterministic"}
NUMERIC = [name for name in SETTINGS if name not in _WORDS]  # omega too, where it is a number
OF_RUNS = ["seed", "status", "data_digest"]  # which runs can be chosen by as well


def settings_of(config: RunConfig) -> dict[str, Any]:
    """All settings that have an effect on the run, those of the data and the seed among them."""
    effective = config.effective_settings()
    return {**effective.pop("data"), **effective}


def varying(several: Iterable[dict[str, Any]]) -> list[str]:
    """The SETTINGS of which these :func:`settings_of` hold more than one value.

    Having no effect is no value: only ``vanilla`` has a ``p``, and a column full of that would say nothing that the
    variant does not. What decides whether a setting has an effect, the variant say, is itself a setting that varies.
    """
    known = list(several)
    return [name for name in SETTINGS if len({each[name] for each in known if name in each}) > 1]


def order(value: object) -> tuple[int, float, str]:
    """A sort key: no value, names in the order of their registry, other words by alphabet, numbers by size."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, StrEnum):
        return 1, list(type(value)).index(value), ""
    if isinstance(value, int | float):
        return 2, float(value), ""
    return 1, 0.0, str(value)
