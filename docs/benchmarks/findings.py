"""Does MalDrop leave backup features? Every MalDrop family against tuned vanilla dropout, under each perturbation.

    python docs/benchmarks/findings.py DIR [DIR ...]

Each DIR holds the runs of one data set, as the commands of docs/findings.md store them, with --tune-split. For each
measurement, each family is the arm with the best mean on the tuning images; so is vanilla, which it is tested against,
seed by seed, on the validation images. Holm's correction is over all tests of all folders together. "clean": top-1 of
the arm that was chosen for the perturbation, less that of the vanilla arm that was chosen for clean accuracy.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from maldrop_cli.analysis.arms import Arm, group, paired_differences
from maldrop_cli.analysis.compare import TOP1, best_arm, default_metrics
from maldrop_cli.analysis.stats import Difference, Outcome, verdicts
from maldrop_cli.names import Dropout, Selector
from maldrop_cli.render.runs import metric_name, name
from maldrop_cli.render.tables import Column, Table, number, number_column, plural, plus_minus, to_text
from maldrop_cli.runs.store import Store

MARGIN = 0.5  # points


def of_maldrop(selector: Selector) -> Callable[[Arm], bool]:
    return lambda arm: arm.config.dropout is Dropout.MALDROP and arm.config.selector is selector


VANILLA = "vanilla"
FAMILIES: dict[str, Callable[[Arm], bool]] = {
    "none": lambda arm: arm.config.dropout is Dropout.NONE,
    VANILLA: lambda arm: arm.config.dropout is Dropout.VANILLA,
    "random": lambda arm: arm.config.dropout is Dropout.RANDOM,
    "heuristic": of_maldrop(Selector.HEURISTIC),
    "gradient": of_maldrop(Selector.GRADIENT),
    "joint": of_maldrop(Selector.JOINT),
    "vanilla+gradient": lambda arm: arm.config.dropout is Dropout.VANILLA_MALDROP,
}


def read(folder: Path) -> dict[str, list[Arm]]:
    """The arms of each family that has some, those with the most seeds alone."""
    arms = group(run for run in Store(folder).scan() if not run.trained_as)
    seeds = max(len(arm.done) for arm in arms)
    whole = [arm for arm in arms if len(arm.done) == seeds]
    found = {family: [arm for arm in whole if fits(arm)] for family, fits in FAMILIES.items()}
    return {family: arms for family, arms in found.items() if arms}


def means_table(title: str, families: dict[str, list[Arm]], metrics: list[str]) -> Table:
    """Validation means of the arm that each family has for each measurement."""
    best = {metric: [best_arm(arms, metric).metric(metric) for arms in families.values()] for metric in metrics}
    measured = [number_column(metric_name(metric), means, 1) for metric, means in best.items()]
    chosen = [name(best_arm(arms, TOP1).config) for arms in families.values()]
    return Table(
        title, [Column("family", list(families), left=True), *measured, Column("for top-1", chosen, left=True)]
    )


class Test(NamedTuple):
    """The arms of a family and of vanilla that are best for ``metric`` on the tuning images; ``clean``: vanilla's for
    top-1."""

    data: str
    metric: str
    family: str
    mine: Arm
    vanilla: Arm
    clean: Arm


def plan(folders: dict[str, dict[str, list[Arm]]]) -> list[Test]:
    """Every family against tuned vanilla, by each measurement of each folder."""
    tests = []
    for data, families in folders.items():
        vanilla = families[VANILLA]
        for metric in default_metrics([arm for arms in families.values() for arm in arms]):
            against = best_arm(vanilla, metric), best_arm(vanilla, TOP1)
            others = [family for family in families if family != VANILLA]
            tests += [Test(data, metric, each, best_arm(families[each], metric), *against) for each in others]
    return tests


def cell(test: Test, found: Difference) -> str:
    """``+4.7 ±1.7, **better**, p 0.005 (rho 256, clean +0.5)``."""
    decided = found.outcome in (Outcome.BETTER, Outcome.WORSE)
    p = "< 0.001" if found.p_holm < 0.001 else number(found.p_holm, 3)
    clean = paired_differences(test.mine, test.clean)
    rho = f"rho {test.mine.config.rho}, " if test.mine.config.has_rho else ""
    return "".join(
        [
            plus_minus(found.interval.mean, found.interval.half, 1, sign=True),
            f", **{found.outcome}**, p {p}" if decided else "",
            f" ({rho}clean {number(sum(clean) / len(clean), 1, sign=True)})",
        ]
    )


def verdict_table(tests: list[Test]) -> Table:
    """A row a measurement of a folder, a column a family."""
    differences = [paired_differences(test.mine, test.vanilla, test.metric) for test in tests]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    against: dict[tuple[str, str], str] = {}
    for test, found in zip(tests, verdicts(differences, [MARGIN] * len(tests)), strict=True):
        row = test.data, test.metric
        rows.setdefault(row, {})[test.family] = cell(test, found)
        mean = test.vanilla.metric(test.metric).mean
        against[row] = f"{number(mean, 1)} (p={test.vanilla.config.p:g})"
    columns = [
        Column("data", [data for data, _ in rows], left=True),
        Column("measurement", [metric_name(metric) for _, metric in rows], left=True),
        Column("vanilla", list(against.values()), left=True),
        *(
            Column(family, [row.get(family, "") for row in rows.values()], left=True)
            for family in dict.fromkeys(test.family for test in tests)
        ),
    ]
    return Table(f"Points above tuned vanilla (95 %); p is Holm's over all {len(tests)} tests", columns)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folders = {Path(each).name: read(Path(each)) for each in sys.argv[1:]}
    tables = []
    for title, families in folders.items():
        arms = [arm for several in families.values() for arm in several]
        seeds = plural(len(arms[0].done), "seed")
        tables.append(means_table(f"{title}: validation top-1 %, {seeds}", families, default_metrics(arms)))
    print(to_text([*tables, verdict_table(plan(folders))], "markdown"))


if __name__ == "__main__":
    main()
