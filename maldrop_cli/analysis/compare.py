"""Arms against a baseline, paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maldrop_cli.analysis.arms import Arm, paired_differences
from maldrop_cli.analysis.settings import ARM_SETTINGS, varying
from maldrop_cli.analysis.stats import Difference, verdicts
from maldrop_cli.config import RunConfig
from maldrop_cli.names import TAKES, Dropout, Metric, UsageError, value_text
from maldrop_cli.record import TUNE, measured_names

TOP1 = "val_top1"
UNTESTED = (Metric.TRAIN_LOSS, Metric.TRAIN_SECONDS, Metric.DROP_RATE)  # more of these is neither better nor worse
OF_VARIANTS = frozenset(name for names in TAKES.values() for name in names)
Known = Mapping[int, dict[str, Any]]  # flat settings, by the id() of an arm


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


def of_config(config: RunConfig, label: str) -> Baseline:
    """One arm, whatever the settings of the others."""
    return Baseline(label, frozenset(ARM_SETTINGS), lambda arm: arm.config.key == config.key)


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

    @property
    def baseline(self) -> Arm | None:
        """The one that all were tested against; None where there are several, or none."""
        different = {id(each): each for bases in self.baselines.values() for each in bases if each}
        return next(iter(different.values())) if len(different) == 1 else None


def lower_is_better(metric: str) -> bool:
    """Of losses; of accuracies more is better."""
    return metric.endswith("loss")


def default_metrics(arms: Sequence[Arm]) -> list[str]:
    """Top-1, and under each perturbation that was measured of all arms."""
    of_arms = [measured_names(arm.done.values()) for arm in arms if arm.done]
    common = [name for name in (of_arms or [[]])[0] if all(name in names for names in of_arms)]
    return [TOP1, *(name for name in common if not name.startswith(TUNE))]


def check_baseline(baseline: Baseline, arms: Sequence[Arm]) -> None:
    """UsageError, before anything is trained, where :func:`compare_arms` would raise one."""
    if baseline.best and not all(arm.config.tune_split for arm in arms):
        raise _without_tuning()
    if not baseline.best:
        _counterparts(arms, arms, baseline, _known(arms))


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
    known = _known([*arms, *pool])
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
    signs = [-1.0 if lower_is_better(metric) else 1.0 for metric, *_ in tests]
    margins = [margin / 10 if sign < 0 else margin for sign in signs]
    pairs = [paired_differences(*pair, metric) for (metric, *_), pair in tests.items()]
    found = dict(zip(tests, verdicts(pairs, margins, signs), strict=True))
    differences = {
        metric: [
            found.get((metric, _runs(arm), _runs(base))) if base else None
            for arm, base in zip(arms, bases[metric], strict=True)
        ]
        for metric in metrics
    }
    return Comparison(arms, references, bases, differences, baseline.label if baseline else None, margin)


def _known(arms: Sequence[Arm]) -> Known:
    return {id(arm): arm.config.flat_settings() for arm in arms}


def _runs(arm: Arm) -> str:
    """Which runs these are, whatever else they are shown as."""
    return (arm.trained_as or arm.config).run_id(arm.data_digest)


def _counterparts(
    arms: Sequence[Arm],
    pool: Sequence[Arm],
    baseline: Baseline,
    known: Known,
    metric: str = TOP1,
    *,
    itself: bool = False,
) -> list[Arm | None]:
    """For each arm the one to compare it with. ``itself``: the baseline's own is the baseline, not None."""
    candidates = [arm for arm in pool if baseline.fits(arm)]
    ignored = baseline.named | {"seed"} | (OF_VARIANTS if baseline.best else set())

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
            matches = [best_arm(matches, metric)]
        elif len(matches) > 1:
            raise UsageError("baseline", _ambiguous(baseline, [known[id(other)] for other in matches]))
        found.append(matches[0] if matches and matches[0] is not arm else None)
    return found


def best_arm(arms: Sequence[Arm], metric: str) -> Arm:
    """The arm with the best mean of ``metric`` on the tuning images; UsageError where one has none."""
    sign = -1 if lower_is_better(metric) else 1
    means = [sign * arm.metric(TUNE + metric).mean for arm in arms]
    if any(mean != mean for mean in means):
        raise _without_tuning()
    return arms[means.index(max(means))]


def _without_tuning() -> UsageError:
    return UsageError("baseline", "best: goes by tuning images, which these runs have not; try --tune-split 0.1")


def _ambiguous(baseline: Baseline, several: list[dict[str, Any]]) -> str:
    """Which settings would decide between several arms that fit."""
    [name, *_] = varying(several)
    example = next(each[name] for each in several if name in each)
    label = baseline.label if "=" in baseline.label else f"dropout={baseline.label}"
    return (
        f"{baseline.label} fits {len(several)} arms, which differ in {', '.join(varying(several))}; "
        f"say which, e.g. --baseline {label},{name}={example}"
    )
