"""Arms against a baseline, paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maldrop_cli.analysis.arms import Arm, paired_differences
from maldrop_cli.analysis.settings import varying
from maldrop_cli.analysis.stats import Difference, verdicts
from maldrop_cli.names import Dropout, UsageError, value_text

TOP1 = "val_top1"
TUNE = "tune:"  # before a metric: of the tuning images


@dataclass(frozen=True)
class Baseline:
    """What arms are tested against. ``label``: as people write it; ``named``: the settings that it fixes. ``best``: of
    several arms that fit, the best on the tuning images, for each metric."""

    label: str
    named: frozenset[str]
    fits: Callable[[Arm], bool]
    best: bool = False


def of_dropout(dropout: Dropout) -> Baseline:
    """The arms with this variant."""
    return Baseline(str(dropout), frozenset({"dropout"}), lambda arm: arm.config.dropout is dropout)


def of_vanilla(p: float) -> Baseline:
    """The arms with vanilla dropout of that rate."""
    return Baseline(
        f"vanilla p={value_text(p)}",
        frozenset({"dropout", "p"}),
        lambda arm: arm.config.dropout is Dropout.VANILLA and arm.config.p == p,
    )


@dataclass(frozen=True)
class Comparison:
    """Arms and, in the same order, the arm without dropout that each one's time is compared with (``references``).

    By metric, the first of which is the main one: ``baselines``, what each arm was tested against, and
    ``differences``, with what outcome; None for a baseline itself, and for an arm without one.
    """

    arms: list[Arm]
    references: list[Arm | None]
    baselines: Mapping[str, list[Arm | None]]
    differences: Mapping[str, list[Difference | None]]
    label: str | None
    margin: float
    metrics: tuple[str, ...] = field(default=(TOP1,))

    def baseline(self, metric: str) -> Arm | None:
        """The one that all were tested against; None where there are several, or none."""
        different = {id(each): each for each in self.baselines[metric] if each}
        return next(iter(different.values())) if len(different) == 1 else None


def lower_is_better(metric: str) -> bool:
    """Of losses; of accuracies more is better."""
    return metric.removeprefix(TUNE).endswith("loss")


def compare_arms(
    arms: list[Arm],
    baseline: Baseline | None,
    margin: float,
    pool: Sequence[Arm] | None = None,
    metrics: Sequence[str] = (TOP1,),
) -> Comparison:
    """Test every arm against its own baseline, by each of the ``metrics``: the arm that fits, saw the same images, and
    is alike in every other setting that has an effect on both.

    The p-values of all arms and metrics are corrected together; arms with the same runs, points of a sweep, are one
    test, and none where the baseline has these runs too. ``margin``: points of accuracy; of a loss, a tenth of it in
    nats. ``pool``: where baselines and references are looked for; by default, the arms themselves. UsageError where
    more than one is alike.
    """
    pool = arms if pool is None else pool
    known = {id(arm): arm.config.flat_settings() for arm in [*arms, *pool]}
    references = _counterparts(arms, pool, of_dropout(Dropout.NONE), known, itself=True)
    bases: dict[str, list[Arm | None]] = {metric: [None] * len(arms) for metric in metrics}
    if baseline:
        bases = {metric: _counterparts(arms, pool, baseline, known, metric) for metric in metrics}
    tests = {
        (metric, _runs(arm), _runs(base)): (arm, base)
        for metric in metrics
        for arm, base in zip(arms, bases[metric], strict=True)
        if base and _runs(arm) != _runs(base)
    }
    pairs = [(paired_differences(*pair, metric), metric) for (metric, _, _), pair in tests.items()]
    signs = [-1.0 if lower_is_better(metric) else 1.0 for _, metric in pairs]
    margins = [margin / 10 if lower_is_better(metric) else margin for _, metric in pairs]
    found = dict(zip(tests, verdicts([values for values, _ in pairs], margins, signs), strict=True))
    differences: dict[str, list[Difference | None]] = {}
    for metric in metrics:
        keys = [
            (metric, _runs(arm), _runs(base) if base else "") for arm, base in zip(arms, bases[metric], strict=True)
        ]
        differences[metric] = [found.get(key) for key in keys]
    label = baseline.label if baseline else None
    return Comparison(arms, references, bases, differences, label, margin, tuple(metrics))


def _runs(arm: Arm) -> str:
    """Which runs these are, whatever else they are shown as."""
    return (arm.trained_as or arm.config).run_id(arm.data_digest)


def _counterparts(
    arms: Sequence[Arm],
    pool: Sequence[Arm],
    baseline: Baseline,
    known: dict[int, dict[str, Any]],
    metric: str = TOP1,
    *,
    itself: bool = False,
) -> list[Arm | None]:
    """For each arm the one to compare it with. ``itself``: the baseline's own is the baseline, not None."""
    candidates = [arm for arm in pool if baseline.fits(arm)]
    ignored = baseline.named | {"seed"} | ({"p", "rho"} if baseline.best else set())

    def alike(arm: Arm, other: Arm) -> bool:
        mine, theirs = known[id(arm)], known[id(other)]
        return arm.data_digest == other.data_digest and all(
            mine[name] == theirs[name] for name in mine.keys() & theirs.keys() - ignored
        )

    found: list[Arm | None] = []
    for arm in arms:
        if baseline.fits(arm) and not baseline.best:
            found.append(arm if itself else None)
            continue
        matches = [other for other in candidates if alike(arm, other)]
        if baseline.best and matches:
            matches = [_best(matches, metric)]
            if matches[0] is arm:
                matches = []
        if len(matches) > 1:
            raise UsageError("baseline", _ambiguous(baseline, [known[id(other)] for other in matches]))
        found.append(matches[0] if matches else None)
    return found


def _best(arms: Sequence[Arm], metric: str) -> Arm:
    """The arm with the best mean of ``metric`` on the tuning images; UsageError where there are none."""
    means = [arm.metric(TUNE + metric).mean for arm in arms]
    if any(mean != mean for mean in means):
        raise UsageError("baseline", "best: goes by tuning images, which these runs have not; try --tune-split 0.1")
    order = [-mean if lower_is_better(metric) else mean for mean in means]
    return arms[order.index(max(order))]


def _ambiguous(baseline: Baseline, several: list[dict[str, Any]]) -> str:
    """Which settings would decide between several arms that fit."""
    [name, *_] = varying(several)
    example = next(each[name] for each in several if name in each)
    label = baseline.label if "=" in baseline.label else f"dropout={baseline.label}"
    return (
        f"{baseline.label} fits {len(several)} arms, which differ in {', '.join(varying(several))}; "
        f"say which, e.g. --baseline {label},{name}={example}"
    )
