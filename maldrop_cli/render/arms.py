"""Arms and sweep points as rows (for files) and tables (for people)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maldrop_cli.analysis.arms import Arm, marked_epochs, time_ratio
from maldrop_cli.analysis.compare import Comparison
from maldrop_cli.analysis.settings import NUMERIC, order, varying
from maldrop_cli.analysis.stats import Difference, Outcome
from maldrop_cli.config import RunConfig
from maldrop_cli.record import RunRecord
from maldrop_cli.render.runs import (
    ENVIRONMENT,
    FIRST,
    FURTHER,
    MEASURED,
    REPORTED,
    cell,
    failures,
    is_annealed,
    machine_line,
    name,
    saturation,
    schedule_settings,
    scheduled_rates,
    setting_cells,
    settings_line,
    shared_settings,
)
from maldrop_cli.render.tables import Column, Table, interval_column, number_column, plural

DIGITS = 8  # of a data digest, where it is shown
_METRICS = ("val_top1", "val_top5", "val_loss", "train_loss", "drop_rate", "rho_mean", *MEASURED)  # of an arm


# --- arms ------------------------------------------------------------------------------------------------------------


def arm_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row an arm, at the last epoch."""
    rows = []
    for arm, difference, reference in zip(comparison.arms, comparison.differences, comparison.references, strict=True):
        middle = (arm.config.epochs + 1) // 2
        intervals = {
            **{field: arm.metric(field) for field in _METRICS},
            **{field: arm.of_runs(field) for field in REPORTED},
            "val_top1_first": arm.metric("val_top1", 1),
            "val_top1_middle": arm.metric("val_top1", middle),
            "train_seconds": arm.metric("train_seconds"),
            "total_train_seconds": arm.total_seconds(),
        }
        row = {
            **setting_cells(arm.config, FIRST),
            "epoch": arm.config.epochs,
            "n_seeds": len(arm.done),
            "n_failed": len(arm.runs) - len(arm.done),
        }
        for field, interval in intervals.items():
            row[f"{field}_mean"] = interval.mean
            if field not in REPORTED:
                row[f"{field}_ci95"] = interval.half
        rows.append(
            row
            | {
                "time_vs_none": time_ratio(arm, reference),
                "baseline": comparison.label,
                "diff_top1_mean": difference.interval.mean if difference else None,
                "diff_top1_ci95": difference.interval.half if difference else None,
                "p_value": difference.p if difference else None,
                "p_holm": difference.p_holm if difference else None,
                "verdict": str(difference.outcome) if difference else None,
                "more_seeds": difference.more_seeds if difference else None,
                "trained_as": name(arm.trained_as) if arm.trained_as else None,
                "margin": comparison.margin,
                **setting_cells(arm.config, FURTHER),
                "data_digest": arm.data_digest,
                **{key: _common(run.environment.get(key) for run in arm.runs.values()) for key in ENVIRONMENT},
            }
        )
    return rows


def _common(values: Iterable[object]) -> object:
    """The value that all have; ``mixed`` where they differ."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else "mixed"


def arm_table(
    comparison: Comparison, title: str, notes: Sequence[str] = (), id_columns: Sequence[Column] | None = None
) -> Table:
    """Accuracy at the first, middle and last epoch, losses, times and drop rates, one row an arm.

    ``id_columns``: those that say which arm it is; by default, its name.
    """
    arms = comparison.arms
    columns = [*(id_columns or _named(arms))]
    if len({arm.config.epochs for arm in arms}) == 1:
        marked: Sequence[tuple[object, int | None]] = [(epoch, epoch) for epoch in marked_epochs(arms[0].config.epochs)]
    else:
        marked = [("first", 1), ("last", None)]
    for label, epoch in marked:
        columns.append(interval_column(f"top-1 % @{label}", [arm.metric("val_top1", epoch) for arm in arms]))
    ratios = [time_ratio(arm, reference) for arm, reference in zip(arms, comparison.references, strict=True)]
    columns += [
        number_column("train loss", [arm.metric("train_loss").mean for arm in arms], 4),
        number_column("val loss", [arm.metric("val_loss").mean for arm in arms], 4),
        number_column("train s", [arm.total_seconds().mean for arm in arms], 1),
        number_column("× none", ratios, 2),
        number_column("dropped %", [arm.metric("drop_rate").mean for arm in arms], 2),
        Column("seeds", [_seeds(arm) for arm in arms]),
    ]
    if any(arm.trained_as for arm in arms):
        columns.append(Column("", [_trained_as(arm) for arm in arms], left=True))
    return Table(title, columns, notes)


def _named(arms: Sequence[Arm]) -> list[Column]:
    return [Column("dropout", [name(arm.config) for arm in arms], left=True)]


def _trained_as(arm: Arm) -> str:
    """Of a point that was not trained: whose runs it shows."""
    return f"the runs of {name(arm.trained_as)}" if arm.trained_as else ""


def _seeds(arm: Arm) -> str:
    return str(len(arm.done)) if len(arm.done) == len(arm.runs) else f"{len(arm.done)} of {len(arm.runs)}"


def verdict_table(comparison: Comparison, id_columns: Sequence[Column] | None = None) -> Table:
    """Each arm that has a baseline against it, seed by seed. ``id_columns``: as of :func:`arm_table`."""
    tested = {row: difference for row, difference in enumerate(comparison.differences) if difference is not None}
    differences = tested.values()
    columns = [
        *(each.only(tested) for each in id_columns or _named(comparison.arms)),
        interval_column("Δ top-1, points (95 %, uncorrected)", [each.interval for each in differences], sign=True),
        Column("p (Holm)", [_p_value(each.p_holm) for each in differences]),
        Column("verdict", [_verdict(each) for each in differences], left=True),
    ]
    base = comparison.baseline
    title = f"Against {comparison.label}, each arm's own, paired by seed, last epoch"
    if base:
        title = f"Against {name(base.config)}, paired by seed, epoch {base.config.epochs}"
    note = (
        f"better, worse: Holm-corrected p below 0.05; equivalent: within ±{comparison.margin:g} points "
        "(two one-sided t-tests)."
    )
    return Table(title, columns, [note])


def _p_value(p: float) -> str:
    if not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _verdict(difference: Difference) -> str:
    if difference.outcome is not Outcome.INCONCLUSIVE:
        return str(difference.outcome)
    if math.isnan(difference.p):
        return "inconclusive; the differences are all equal, so there is no spread to test against"
    if difference.more_seeds is None:
        return "inconclusive; no number of seeds within 1,000 would decide"
    return f"inconclusive; about {plural(difference.more_seeds, 'more seed')} would decide"


def mask_tables(arms: Sequence[Arm], id_columns: Sequence[Column] | None = None) -> list[Table]:
    """One row an arm that counts what it drops, means over its seeds at the last epoch; no table without such an arm.

    ``id_columns``: as of :func:`arm_table`.
    """
    rows = [row for row, arm in enumerate(arms) if arm.of_runs("never_passed").n]
    if not rows:
        return []
    counting = [arms[row] for row in rows]

    def means(heading: str, field: str, digits: int, factor: float = 1.0, *, sign: bool = False) -> Column:
        return number_column(heading, [factor * arm.metric(field).mean for arm in counting], digits, sign=sign)

    columns = [
        *(each.only(rows) for each in id_columns or _named(arms)),
        number_column("never passed", [arm.of_runs("never_passed").mean for arm in counting], 1),
        number_column("always", [arm.of_runs("always_passed").mean for arm in counting], 1),
        means("turnover %", "turnover", 1, 100.0),
        means("probe loss", "probe_loss", 4),
        means("raised by mask", "raised_mask", 3, sign=True),
        means("by joint", "raised_joint", 3, sign=True),
        means("ceiling", "raised_ceiling", 3, sign=True),
        means("mask/joint %", "fidelity", 1),
    ]
    notes = [
        "never passed, always: neurons (of maldropconnect, weights), over all of training. turnover: the share of the "
        "dropping that moved to others since the epoch before. raised: the loss of the probe images without the "
        "neurons of the run's own mask, of the jointly worst set, and at most without any set."
    ]
    return [Table("Masks, means over seeds at the last epoch", columns, notes)]


# --- sweeps ----------------------------------------------------------------------------------------------------------


def sweep_title(points: Sequence[RunConfig], seeds: int) -> str:
    """What all points of a sweep share."""
    lines = {settings_line(point) for point in points}
    shared = lines.pop() if len(lines) == 1 else "a grid over data, models or learning rates"
    selectors = list(dict.fromkeys(str(point.selector) for point in points if "selector" in point.effective_settings()))
    one = selectors if len(selectors) == 1 else []
    return ", ".join([shared, *one, f"{points[0].granularity} masks", plural(seeds, "seed")])


def point_columns(points: Sequence[RunConfig]) -> list[Column]:
    """What tells the points of a sweep apart: variant, schedule, omega, rho, and what else varies."""
    several = [point.flat_settings() for point in points]
    differing = varying(several)
    further = [field for field in ("dataset", "model", "selector", "lr", "p") if field in differing]
    return setting_columns(several, ["dropout", *further, "schedule", "omega", "rho"])


def setting_columns(several: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[Column]:
    """A column for each of the settings ``names``; empty where one has no effect. ``several``: flat settings by row."""
    return [
        Column(
            name.replace("_", "-"),
            [cell(each.get(name)) for each in several],
            left=name not in NUMERIC or name == "omega",
        )
        for name in names
    ]


def sweep_table(comparison: Comparison, title: str, notes: Sequence[str] = ()) -> Table:
    """One row a point, the references first; the best and the worst point marked."""
    arms = comparison.arms
    means = {row: arm.metric("val_top1").mean for row, arm in enumerate(arms) if arm.config.has_rho and arm.done}
    marks, marked = [""] * len(arms), {}
    if means:
        best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        if best != worst:
            marks[best], marks[worst] = "best", "worst"
            marked = {best: "green", worst: "red"}
    remarks = [", ".join(filter(None, [mark, _trained_as(arm)])) for mark, arm in zip(marks, arms, strict=True)]
    columns = [
        *point_columns([arm.config for arm in arms]),
        interval_column(f"top-1 % @{arms[0].config.epochs}", [arm.metric("val_top1") for arm in arms]),
        number_column("val loss", [arm.metric("val_loss").mean for arm in arms], 4),
        number_column("train s", [arm.total_seconds().mean for arm in arms], 1),
        number_column("dropped %", [_mean_drop(arm) for arm in arms], 2),
        Column("seeds", [_seeds(arm) for arm in arms]),
        Column("", remarks, left=True),
    ]
    return Table(
        title, columns, [*schedule_settings(arm.config for arm in arms), *notes, *saturated_arms(arms)], marked
    )


def _mean_drop(arm: Arm) -> float:
    """Realised drop rate over all epochs and seeds, in percent."""
    rates = [row.drop_rate for run in arm.done.values() for row in run.epochs]
    return sum(rates) / len(rates) if rates else math.nan


def saturated_arms(arms: Sequence[Arm]) -> list[str]:
    """:func:`saturation` of those arms that are annealed."""
    return saturation([scheduled_rates(arm.done.values()) for arm in arms if is_annealed(arm.config)])


# --- stored runs in arms ----------------------------------------------------------------------------------------------


def in_order(arms: Sequence[Arm], by: Sequence[str]) -> list[Arm]:
    """By the values of the settings ``by``, then by all others: the same runs give the same table."""
    further = varying([arm.config.flat_settings() for arm in arms])

    def key(arm: Arm) -> tuple[object, ...]:
        values = arm.config.flat_settings()
        return (*(order(values.get(name)) for name in (*by, *further)), arm.data_digest)

    return sorted(arms, key=key)


def id_columns(arms: Sequence[Arm], by: Sequence[str]) -> list[Column]:
    """A column for each setting in ``by``, then one for each other that varies among the arms; empty where a setting
    has no effect. And the images, where those of one data set differ."""
    several = [arm.config.flat_settings() for arm in arms]
    names = list(dict.fromkeys([*by, *varying(several)]))
    if "dropout" not in names:
        names.insert(len(by), "dropout")
    columns = setting_columns(several, names)
    if _digests([run for arm in arms for run in arm.runs.values()]):
        columns.append(Column("data-digest", [arm.data_digest[:DIGITS] for arm in arms], left=True))
    return columns


def report_tables(comparison: Comparison, by: Sequence[str]) -> list[Table]:
    """The arms, and where there is a baseline the verdicts."""
    arms = comparison.arms
    records = list({run.run_id: run for arm in arms for run in arm.runs.values()}.values())
    ids = id_columns(arms, by)
    notes = [
        "±: 95 % t-interval over seeds. × none: training time an epoch, against the arm without dropout that is alike "
        "in all else.",
        machine_line(records),
        *mixed_data(records),
        *failures(records),
    ]
    title = f"{plural(len(records), 'stored run')} in {plural(len(arms), 'arm')}: {shared_settings(arms)}"
    if comparison.label is None:
        return [arm_table(comparison, title, notes, ids)]
    if not any(comparison.differences):
        notes.append(f"Nothing to test: no arm is like one with {comparison.label} in all else, on the same images.")
        return [arm_table(comparison, title, notes, ids)]
    return [arm_table(comparison, title, notes, ids), verdict_table(comparison, ids)]


def mixed_data(records: Sequence[RunRecord]) -> list[str]:
    """A line where the runs did not all see the same images: what no table, test or plot holds against each other."""
    datasets = sorted({str(run.config.data.dataset) for run in records})
    lines = []
    if len(datasets) > 1:
        lines.append(
            f"Runs of {len(datasets)} data sets ({', '.join(datasets)}): nothing is compared across them; "
            f"--where dataset={datasets[0]} picks one."
        )
    for dataset, digests in _digests(records).items():
        lines.append(
            f"Runs of {dataset} saw different images (data digests {', '.join(digests)}): nothing is compared across "
            f"them; --where data_digest={digests[0]} picks one."
        )
    return lines


def _digests(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """By data set and its settings, the digests of those that have several."""
    found: dict[str, set[str]] = {}
    for run in records:
        found.setdefault(_images(run), set()).add(run.data_digest[:DIGITS])
    return {images: sorted(digests) for images, digests in found.items() if len(digests) > 1}


def _images(run: RunRecord) -> str:
    """The images that a run asked for, in words."""
    data = run.config.effective_settings()["data"]
    return " ".join(
        cell(data[name]) for name in ("dataset", "shape", "classes", "images", "image_size") if data.get(name)
    )
