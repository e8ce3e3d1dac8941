"""The settings of arms by name: what tables, `--by`, `--where` and `--baseline` speak of."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from maldrop_cli.config import SETTINGS, DataConfig, RunConfig

ARM_SETTINGS = [name for name in SETTINGS if name not in ("seed", "score_memory")]  # in the order of tables
DEFAULTS = vars(DataConfig()) | vars(RunConfig())
NUMERIC = [  # omega too, where it is a number
    name for name in ARM_SETTINGS if name != "model" and not isinstance(DEFAULTS[name], StrEnum | bool | tuple)
]


def varying(several: Iterable[dict[str, Any]]) -> list[str]:
    """The ARM_SETTINGS of which these :meth:`~maldrop_cli.config.RunConfig.flat_settings` hold more than one value.

    Having no effect is no value: only ``vanilla`` has a ``p``, and a column full of that would say nothing that the
    variant does not. What decides whether a setting has an effect, the variant say, is itself a setting that varies.
    """
    known = list(several)
    return [name for name in ARM_SETTINGS if len({each[name] for each in known if name in each}) > 1]


def order(value: object) -> tuple[int, float, str]:
    """A sort key: no value, names in the order of their registry, other words by alphabet, numbers by size."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, StrEnum):
        return 1, list(type(value)).index(value), ""
    if isinstance(value, int | float):
        return 2, float(value), ""
    return 1, 0.0, str(value)
