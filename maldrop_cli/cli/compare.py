"""`maldrop compare`: several dropout variants over paired seeds, with a verdict."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maldrop_cli.cli.options import (
    DRY_RUN,
    SEEDED,
    DataOptions,
    MeasureOptions,
    OutputOptions,
    PlotOptions,
    Settings,
    StoreOptions,
    command,
    not_plotted,
)
from maldrop_cli.cli.reading import positive, read_arm, read_gate, read_seeds
from maldrop_cli.config import RARE, TRAINING, RunConfig
from maldrop_cli.executors import Execution
from maldrop_cli.names import MaldropError, Outcome, PlotKind, Selector, UsageError

if TYPE_CHECKING:
    from maldrop_cli.analysis.compare import Baseline, Comparison
    from maldrop_cli.cli.run import Session

_PANEL = "Comparison"
FIRST_SELECTOR = Selector.HEURISTIC
SEEDS = typer.Option(help="A count; a list or a range names them.", rich_help_panel=TRAINING)
SEED = typer.Option(help="The one seed, instead of --seeds.", rich_help_panel=RARE, hidden=True)
ARM = typer.Option(
    metavar="[NAME:] VARIANT [SETTING=VALUE ...]",
    help="An arm of its own, e.g. 'maldrop selector=joint rho=64'; repeatable. Without --dropout, the only ones.",
    rich_help_panel=_PANEL,
)
MARGIN = typer.Option(help="Points of accuracy within which arms count as equivalent.", rich_help_panel=_PANEL)
BASELINE = typer.Option(
    metavar="NAME|SETTING=VALUE|best:...",
    help="The arm that the others are tested against; without it, the first. best: the best of several on the tuning "
    "images, for each measurement.",
    rich_help_panel=_PANEL,
)

FAIL_IF = typer.Option(
    metavar="ARM:VERDICT[,VERDICT]",
    help="Exit with 1 if the verdict on this arm, or on one of this variant, is so: 'maldrop:worse'; repeatable.",
    rich_help_panel=_PANEL,
)
MIN_TOP1 = typer.Option(
    min=0, max=100, help="Exit with 1 if the mean top-1 of an arm is below, in percent.", rich_help_panel=_PANEL
)


@command(
    SEEDED,
    several=("dropout", "selector", "rho", "p"),
    dropout="none,vanilla,maldrop,random",
    selector=f"{FIRST_SELECTOR},{Selector.GRADIENT}",
    robustness="occlude=0.5 neurons=0.9",
)
def compare(
    settings: Settings,
    data: DataOptions,
    store: StoreOptions,
    measured: MeasureOptions,
    execution: Execution,
    output: OutputOptions,
    plotting: PlotOptions,
    seeds: Annotated[str, SEEDS] = "4",
    arm: Annotated[list[str] | None, ARM] = None,
    baseline: Annotated[str, BASELINE] = "vanilla",
    margin: Annotated[float, MARGIN] = 0.5,
    dry_run: Annotated[bool, DRY_RUN] = False,
    seed: Annotated[int | None, SEED] = None,
    fail_if: Annotated[list[str] | None, FAIL_IF] = None,
    min_top1: Annotated[float | None, MIN_TOP1] = None,
) -> None:
    """Compare dropout variants on one data set, over paired seeds: one table, with error bars and a verdict.

    --dropout, --selector, --rho and --p take several values: every combination is an arm.
    """
    positive("margin", margin)
    not_plotted(plotting, dry_run)
    named_seeds = read_seeds(seeds, seed, output, settings.given)
    own = [read_arm(text) for text in arm or []]
    gates = [read_gate(text) for text in fail_if or []]

    from maldrop_cli.analysis.arms import group
    from maldrop_cli.analysis.compare import TOP1, UNTESTED, compare_arms
    from maldrop_cli.analysis.stats import MIN_SEEDS
    from maldrop_cli.cli.output import draw_plot, present
    from maldrop_cli.cli.run import Session
    from maldrop_cli.data import load as datasets
    from maldrop_cli.render import arms as render
    from maldrop_cli.render.dry_run import dry_rows, plan_line, sweep_chart
    from maldrop_cli.render.runs import failures, machine_line, settings_line
    from maldrop_cli.render.tables import plural
    from maldrop_cli.sweep.grid import over_seeds

    if gates and len(named_seeds) < MIN_SEEDS:
        raise UsageError("fail_if", f"a verdict takes {MIN_SEEDS} seeds, and --seeds names {len(named_seeds)}")
    session = Session(settings, data, store, measured, output, execution)
    points, labels = _arms(session, own)
    base = _baseline(baseline, points, labels, "baseline" in settings.given)
    gated = [(_gated(name, points, labels, base), verdicts) for name, verdicts in gates]
    plan = over_seeds(points, named_seeds, rotate=True)
    title = f"{settings_line(points[0])}, {plural(len(named_seeds), 'seed')}"
    if dry_run:
        session.check(plan)
        notes = [
            plan_line(
                len(points), len(named_seeds), len(plan), session.finished(plan), store.out, session.estimate(plan)
            )
        ]
        rows = dry_rows(points, session.head, {"n_seeds": len(named_seeds)})
        present([sweep_chart(points, session.head, title, notes)], rows, output, "compare")
        return
    records = session.run(plan)

    by_settings = {each.config.key: each for each in group(records)}
    found = [by_settings[point.key] for point in points]
    arms = [replace(each, label=labels.get(each.config.key, "")) for each in found]
    metrics = [each for each in plotting.metrics if each not in UNTESTED] or [TOP1, *measured.plan.keys]
    comparison = compare_arms(arms, base, margin, metrics=metrics)
    notes = [
        "±: 95 % t-interval over seeds. time × none: training time an epoch.",
        machine_line(records),
        *failures(records),
        *render.saturated_arms(comparison.arms),
    ]
    tables = [render.arm_table(comparison, title, notes)]
    if len(points) > 1:
        tables.append(render.verdict_table(comparison))
    if points[0].fidelity_every:
        tables += render.mask_tables(comparison.arms)
    present(tables, render.arm_rows(comparison), output, "compare", by_seed=render.seed_rows(comparison.arms))
    try:
        load = functools.partial(datasets.load, points[0].data, data.data_dir)
        default = PlotKind.FOREST if len(points) > 1 else PlotKind.LEARNING
        draw_plot(comparison.arms, plotting, default, measured.plan, load, comparison)
    finally:
        session.conclude(records)
    _fail(comparison, gated, min_top1)


def _arms(session: Session, own: list[tuple[str, dict[str, list[Any]]]]) -> tuple[list[RunConfig], dict[str, str]]:
    """The configs of all arms, seeds 0, and the names of those that have one, by their settings."""
    from maldrop_cli.sweep.grid import build, distinct

    values, given = session.settings.values, session.settings.given
    if "dropout" in given and "selector" not in given:  # two are for the arms that nobody named
        session = replace(session, settings=replace(session.settings, values={**values, "selector": [FIRST_SELECTOR]}))
    points: list[RunConfig] = session.build() if not own or "dropout" in given else []
    points.sort(key=lambda point: values["dropout"].index(point.dropout))
    single = {name: each[:1] for name, each in values.items()}
    labels: dict[str, str] = {}
    for label, changes in own:
        [config] = build(single | changes, session.head, session.store.preset, given | changes.keys())
        points.append(config)
        if label:
            labels[config.key] = label
    return distinct(points), labels


def _baseline(text: str, points: list[RunConfig], labels: dict[str, str], given: bool) -> Baseline:
    """What ``--baseline`` says, checked against arms that are still to be trained; where it was not ``given`` and fits
    none of them, the first. UsageError where it fits none, or several."""
    from maldrop_cli.analysis.arms import Arm
    from maldrop_cli.analysis.compare import check_baseline, of_config
    from maldrop_cli.record import RunRecord
    from maldrop_cli.render.runs import name
    from maldrop_cli.sweep.filters import parse_baseline

    arms = [Arm(each, {0: RunRecord(run_id="", config=each)}) for each in points]
    for arm in arms:
        if text == labels.get(arm.config.key):
            return of_config(arm.config, text)
    base = parse_baseline(text)
    if not any(map(base.fits, arms)):
        if given:
            known = ", ".join(labels.get(each.key) or name(each) for each in points)
            raise UsageError("baseline", f"{text} is not among the arms: {known}")
        return of_config(points[0], name(points[0]))
    check_baseline(base, arms)
    return base


def _gated(name: str, points: list[RunConfig], labels: dict[str, str], base: Baseline) -> list[int]:
    """Which arms ``--fail-if`` means by ``name``: that of this label or settings, or those of this variant. UsageError
    where it is none, or the baseline alone."""
    from maldrop_cli.analysis.arms import Arm
    from maldrop_cli.record import RunRecord
    from maldrop_cli.render.arms import labels as label

    arms = [Arm(each, {0: RunRecord(run_id="", config=each)}, labels.get(each.key, "")) for each in points]
    known = label(arms)
    found = [row for row, arm in enumerate(arms) if name in (known[row], arm.config.dropout)]
    if not found:
        raise UsageError("fail_if", f"{name!r} is not among the arms: {', '.join(known)}")
    if not base.best and all(base.fits(arms[row]) for row in found):
        raise UsageError("fail_if", f"{name} is what the others are tested against, and has no verdict")
    return found


def _fail(comparison: Comparison, gated: list[tuple[list[int], list[Outcome]]], min_top1: float | None) -> None:
    """MaldropError where a verdict of the main metric, or a mean top-1, is one that is not to be."""
    from maldrop_cli.render.arms import labels as label

    arms, differences = label(comparison.arms), next(iter(comparison.differences.values()))
    bad = [
        f"{arms[row]} is {found.outcome} ({found.interval.mean:+.2f})"
        for rows, verdicts in gated
        for row in rows
        if (found := differences[row]) and found.outcome in verdicts
    ]
    means = [arm.metric("val_top1").mean for arm in comparison.arms]
    bad += [
        f"{arm} has a mean top-1 of {mean:.2f} %, below {min_top1:g}"
        for arm, mean in zip(arms, means, strict=True)
        if min_top1 is not None and not mean >= min_top1
    ]
    if bad:
        raise MaldropError(f"not as asked: {'; '.join(dict.fromkeys(bad))}")
