"""Ways to carry out a plan. One for now: in this process, one run after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from maldrop_cli.config import RunConfig
from maldrop_cli.results.records import RunRecord

Work = Callable[[RunConfig], RunRecord]


def serial(plan: Sequence[RunConfig], work: Work) -> list[RunRecord]:
    """The records of all runs, in the order of the plan."""
    return [work(config) for config in plan]
