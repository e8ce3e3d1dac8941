"""Arms against a baseline, paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from maldrop_cli.analysis.arms import Arm, paired_differences
from maldrop_cli.analysis.settings import varying
from maldrop_cli.analysis.stats import Difference, verdicts
from maldrop_cli.names import Dropout, UsageError


@dataclass(frozen=True)
class Baseline:
    """What arms are tested against. ``label``: as people write it; ``named``: the settings that it fixes."""

    label: str
    named: frozenset[str]
    fits: Callable[[Arm], bool]


def of_dropout(dropout: Dropout) -> Baseline:
    """The arms with this variant."""
    return Baseline(str(dropout), frozenset({"dropout"}), lambda arm: arm.config.dropout is dropout)


def of_vanilla(p: float) -> Baseline:
    """The arms with vanilla dropout of that rate."""
    return Baseline(
        f"vanilla p={p:g}",
        frozenset({"dropout", "p"}),
        lambda arm: arm.config.dropout is Dropout.VANILLA and arm.config.p == p,
    )


@dataclass(frozen=True)
class Comparison:
    """Arms and, in the same order, what each was tested against and with what outcome (None for a baseline itself, and
    for an arm without one). ``references``: for the times, each one's arm without dropout."""

    arms: list[Arm]
    differences: list[Difference | None]
    baselines: list[Arm | None]
    references: list[Arm | None]
    label: str | None
    margin: float

    @property
    def baseline(self) -> Arm | None:
        """The one that all were tested against; None where there are several, or none."""
        different = {id(each): each for each in self.baselines if each}
        return next(iter(different.values())) if len(different) == 1 else None


def compare_arms(
    arms: list[Arm], baseline: Baseline | None, margin: float, pool: Sequence[Arm] | None = None
) -> Comparison:
    """Test every arm against its own baseline: the arm that fits, saw the same images, and is alike in every other
    setting that has an effect on both. The p-values of all arms are corrected together; arms with the same runs, points
    of a sweep, are one test, and none where the baseline has these runs too.

    ``pool``: where baselines and references are looked for; by default, the arms themselves. UsageError where more than
    one is alike.
    """
    pool = arms if pool is None else pool
    known = {id(arm): arm.config.flat_settings() for arm in [*arms, *pool]}
    bases: list[Arm | None] = [None] * len(arms)
    if baseline:
        bases = _counterparts(arms, pool, baseline, known)
    pairs = [(arm, base) for arm, base in zip(arms, bases, strict=True) if base]
    tests = {(_runs(arm), _runs(base)): (arm, base) for arm, base in pairs if _runs(arm) != _runs(base)}
    differences = verdicts([paired_differences(arm, base) for arm, base in tests.values()], margin)
    by_runs = dict(zip(tests, differences, strict=True))
    by_arm = {id(arm): by_runs.get((_runs(arm), _runs(base))) for arm, base in pairs}
    references = _counterparts(arms, pool, of_dropout(Dropout.NONE), known, itself=True)
    return Comparison(
        arms, [by_arm.get(id(arm)) for arm in arms], bases, references, baseline.label if baseline else None, margin
    )


def _runs(arm: Arm) -> str:
    """Which runs these are, whatever else they are shown as."""
    return (arm.trained_as or arm.config).run_id(arm.data_digest)


def _counterparts(
    arms: Sequence[Arm],
    pool: Sequence[Arm],
    baseline: Baseline,
    known: dict[int, dict[str, Any]],
    *,
    itself: bool = False,
) -> list[Arm | None]:
    """For each arm the one it is to be held against. ``itself``: the baseline's own is the baseline, not None."""
    candidates = [arm for arm in pool if baseline.fits(arm)]
    ignored = baseline.named | {"seed"}

    def alike(arm: Arm, other: Arm) -> bool:
        mine, theirs = known[id(arm)], known[id(other)]
        return arm.data_digest == other.data_digest and all(
            mine[name] == theirs[name] for name in mine.keys() & theirs.keys() - ignored
        )

    found: list[Arm | None] = []
    for arm in arms:
        if baseline.fits(arm):
            found.append(arm if itself else None)
            continue
        matches = [other for other in candidates if alike(arm, other)]
        if len(matches) > 1:
            several = [known[id(other)] for other in matches]
            [name, *_] = varying(several)
            example = next(each[name] for each in several if name in each)
            label = baseline.label if "=" in baseline.label else f"dropout={baseline.label}"
            raise UsageError(
                "baseline",
                f"{baseline.label} fits {len(matches)} arms, which differ in "
                f"{', '.join(varying(several))}; say which, e.g. --baseline {label},{name}={example}",
            )
        found.append(matches[0] if matches else None)
    return found
