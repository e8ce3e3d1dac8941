"""Arms against a baseline, paired by seed."""

from __future__ import annotations

from dataclasses import dataclass

from maldrop_cli.config import Dropout
from maldrop_cli.results.arms import Arm, paired_differences
from maldrop_cli.results.stats import Difference, compare_arms


@dataclass(frozen=True)
class Comparison:
    """Arms, and each one's difference to the baseline (None for the baseline itself, and without one)."""

    arms: list[Arm]
    differences: list[Difference | None]
    baseline: Arm | None
    reference: Arm | None  # the arm without dropout, for the times
    margin: float


def compare(arms: list[Arm], baseline: Dropout | None, margin: float) -> Comparison:
    """Test every arm against the first whose dropout is ``baseline``."""
    base = next((arm for arm in arms if arm.config.dropout is baseline), None)
    others = [arm for arm in arms if arm is not base] if base else []
    verdicts = compare_arms([paired_differences(arm, base) for arm in others], margin) if base else []
    by_arm = {id(arm): verdict for arm, verdict in zip(others, verdicts, strict=True)}
    reference = next((arm for arm in arms if arm.config.dropout is Dropout.NONE), None)
    return Comparison(arms, [by_arm.get(id(arm)) for arm in arms], base, reference, margin)
