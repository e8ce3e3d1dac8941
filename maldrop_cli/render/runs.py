"""Runs, arms and sweep points as rows (for files) and tables (for people)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from maldrop_cli.analysis.arms import Arm, marked_epochs, time_ratio
from maldrop_cli.analysis.compare import Comparison
from maldrop_cli.analysis.settings import NUMERIC, varying
from maldrop_cli.analysis.stats import Difference, Outcome
from maldrop_cli.config import CNN, RunConfig, Schedule
from maldrop_cli.record import EpochRow, RunRecord, Status, describe_machine
from maldrop_cli.render import masks
from maldrop_cli.render.tables import (
    Column,
    Table,
    duration,
    interval_column,
    number_column,
    plural,
)

FIRST = ("dataset", "model", "dropout", "selector", "schedule", "rho", "omega", "granularity", "p")  # columns of a row
FURTHER = (
    *("epochs", "batch_size", "lr", "momentum", "weight_decay", "period", "rate", "rho_end", "horizon", "pass_rate"),
    *("joint_iterations", "joint_starts", "fidelity_every", "depth"),
    *("image_size", "shape", "classes", "images", "deterministic"),
)
ENVIRONMENT = ("device", "device_name", "threads", "workers", "torch")
SATURATED = 0.001  # a layer that drops all but this share of its neurons, or no more than it, is saturated

# The words of a variant's name, in their order: what is said by its value alone, and what is said even at its default.
NAMED = (
    *("schedule", "period", "rate", "rho", "rho_end", "horizon", "p", "selector", "omega"),
    *("joint_iterations", "joint_starts", "granularity", "pass_rate"),
)
BY_VALUE = ("schedule", "selector", "granularity")
ALWAYS = ("period", "rate", "rho", "rho_end", "p")
_OF_SCHEDULES = ("period", "rate", "rho_end", "horizon")
_METRICS = ("val_top1", "val_top5", "val_loss", "train_loss", "drop_rate", "rho_mean", *masks.MEASURED)  # of an arm


def setting_cells(config: RunConfig, names: Sequence[str]) -> dict[str, Any]:
    """Columns that say what was trained; None where a setting has no effect."""
    effective = config.flat_settings()

    def plain(value: Any) -> Any:
        return cell(value) if isinstance(value, str | tuple) else value

    return {name: plain(effective.get(name)) for name in names}


def cell(value: object) -> str:
    """The value of a setting, as text."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def name(config: RunConfig, without: str = "", also: Collection[str] = ()) -> str:
    """A variant in few words. ``without``: a setting that is left out; ``also``: settings that are said even where
    they are at their default."""
    effective = config.effective_settings()
    words = [str(config.dropout)]
    for field in NAMED:
        if field not in effective or field == without:
            continue
        default = config.epochs if field == "horizon" else getattr(RunConfig, field)
        if field in ALWAYS or field in also or effective[field] != default:
            prefix = "" if field in BY_VALUE else f"{field.replace('_', '-')}="
            words.append(prefix + cell(effective[field]))
    return " ".join(words)


def schedule_settings(configs: Iterable[RunConfig]) -> list[str]:
    """A line with the settings of the schedules that have some; none where no schedule has."""
    parts: dict[str, None] = {}
    for config in configs:
        effective = config.effective_settings()
        own = [
            f"{key.replace('_', '-')} {effective[key]}"
            for key in ("period", "rate", "rho_end", "horizon")
            if key in effective
        ]
        if own:
            parts[f"{config.schedule}: {', '.join(own)}"] = None
    return [f"{'; '.join(parts)}."] if parts else []


def settings_line(config: RunConfig) -> str:
    """What all arms of a table share, in a line."""
    size = f" {config.data.image_size}px" if config.data.image_size else ""
    depth = f" depth {config.depth}" if config.model == CNN and config.depth != RunConfig.depth else ""
    decay = f", weight decay {config.weight_decay:g}" if config.weight_decay else ""
    return (
        f"{config.data.dataset}{size}, {config.model}{depth}, {plural(config.epochs, 'epoch')}, "
        f"SGD lr {config.lr:g}, momentum {config.momentum:g}, batch {config.batch_size}{decay}"
    )


def shared_settings(arms: Sequence[Arm]) -> str:
    """The parts of :func:`settings_line` that are those of all arms."""
    first, *others = (settings_line(arm.config).split(", ") for arm in arms)
    return ", ".join(part for part in first if all(part in other for other in others))


def machine_line(records: Sequence[RunRecord]) -> str:
    """The machines that trained these runs."""
    if len({run.machine for run in records}) > 1:
        return (
            "Trained on different machines, or with other numbers of concurrent runs: times are compared only where "
            "these are the same (--fresh trains anew)."
        )
    workers = records[0].workers
    shared = f", {workers} runs at a time, so that times are those of a shared machine" if workers > 1 else ""
    return f"Trained on {describe_machine(records[0].environment)}{shared}."


# --- runs ------------------------------------------------------------------------------------------------------------


def epoch_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row an epoch; a run that failed before its first still has a row."""
    rows = []
    for run in records:
        whole = _run_row(run, None)
        rows += [whole | _measured(row) for row in run.epochs or [None]]
    return rows


def run_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row a run, at its last epoch."""
    return [_run_row(run, run.epochs[-1] if run.epochs else None) for run in records]


def _run_row(run: RunRecord, row: EpochRow | None) -> dict[str, Any]:
    return {
        **setting_cells(run.config, FIRST),
        "seed": run.config.seed,
        **_measured(row),
        "status": str(run.status),
        "reason": run.reason or None,
        **{field: getattr(run, field) for field in masks.REPORTED},
        "pass_histogram": " ".join(map(str, run.pass_histogram)) or None,
        **setting_cells(run.config, FURTHER),
        "hidden_width": run.hidden_width,
        "data_digest": run.data_digest,
        **{key: run.environment.get(key) for key in ENVIRONMENT},
        "run_id": run.run_id,
    }


def _measured(row: EpochRow | None) -> dict[str, Any]:
    fields = ("epoch", "train_loss", "val_loss", "val_top1", "val_top5", "train_seconds", "drop_rate", "rho_mean")
    return {field: getattr(row, field, None) for field in (*fields, *masks.MEASURED)}


def train_table(run: RunRecord) -> Table:
    """One run, one row an epoch."""
    rows = run.epochs
    notes = [f"{duration(run.train_seconds)} of training. {machine_line([run])}", f"Run {run.run_id}."]
    if is_annealed(run.config) and rows:
        notes += saturation([scheduled_rates([run])])
    if run.status is not Status.DONE:
        notes.insert(0, f"{str(run.status).capitalize()}: {run.reason or 'no result'}")
    title = f"{name(run.config)}: {settings_line(run.config)}, seed {run.config.seed}"
    columns = [
        Column("epoch", [str(row.epoch) for row in rows]),
        number_column("train loss", [row.train_loss for row in rows], 4),
        number_column("val loss", [row.val_loss for row in rows], 4),
        number_column("top-1 %", [row.val_top1 for row in rows], 2),
        number_column("top-5 %", [row.val_top5 for row in rows], 2),
        number_column("rho", [row.rho_mean for row in rows], 0),
        number_column("dropped %", [row.drop_rate for row in rows], 2),
        number_column("train s", [row.train_seconds for row in rows], 2),
        *masks.epoch_columns(rows),
    ]
    return Table(title, columns, notes)


def report_table(records: Sequence[RunRecord], long: bool, notes: Sequence[str] = ()) -> Table:
    """Stored runs, one row a run or one row an epoch."""
    pairs: list[tuple[RunRecord, EpochRow | None]] = []
    for run in records:
        pairs += [(run, row) for row in run.epochs] if long and run.epochs else [(run, run.at(len(run.epochs) or 1))]

    def measured(heading: str, field: str, digits: int) -> Column:
        return number_column(heading, [getattr(row, field, None) for _, row in pairs], digits)

    columns = [
        Column("data", [str(run.config.data.dataset) for run, _ in pairs], left=True),
        Column("model", [run.config.model for run, _ in pairs], left=True),
        Column("variant", [name(run.config) for run, _ in pairs], left=True),
        Column("lr", [f"{run.config.lr:g}" for run, _ in pairs]),
        Column("seed", [str(run.config.seed) for run, _ in pairs]),
        Column("epoch", [f"{row.epoch if row else 0}/{run.config.epochs}" for run, row in pairs]),
        measured("train loss", "train_loss", 4),
        measured("val loss", "val_loss", 4),
        measured("top-1 %", "val_top1", 2),
        measured("train s", "train_seconds", 2),
        Column("status", [str(run.status) for run, _ in pairs], left=True),
        Column("run", [run.run_id for run, _ in pairs], left=True),
    ]
    return Table(plural(len(records), "stored run"), columns, [*notes, *failures(records)])


def failures(records: Sequence[RunRecord]) -> list[str]:
    """A line for each run that did not end well."""
    return [
        f"{name(run.config)}, seed {run.config.seed}: {run.status} ({run.reason})"
        for run in records
        if run.status in (Status.FAILED, Status.DIVERGED)
    ]


# --- arms ------------------------------------------------------------------------------------------------------------


def arm_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row an arm, at the last epoch."""
    rows = []
    for arm, difference, reference in zip(comparison.arms, comparison.differences, comparison.references, strict=True):
        middle = (arm.config.epochs + 1) // 2
        intervals = {
            **{field: arm.metric(field) for field in _METRICS},
            **{field: arm.of_runs(field) for field in masks.REPORTED},
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
            if field not in masks.REPORTED:
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
    columns = _named(arms) if id_columns is None else [*id_columns]
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
    ids = _named(comparison.arms) if id_columns is None else id_columns
    differences = tested.values()
    columns = [
        *(each.only(tested) for each in ids),
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
    """The mask report of the arms, where one has something to report. ``id_columns``: as of :func:`arm_table`."""
    table = masks.mask_table(arms, _named(arms) if id_columns is None else id_columns)
    return [table] if table else []


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


# --- saturation of equations (1) and (2) -----------------------------------------------------------------------------


def is_annealed(config: RunConfig) -> bool:
    """Whether the run's rho follows equation (1) or (2)."""
    return config.effective_settings().get("schedule") in (Schedule.FORWARD, Schedule.REVERSE)


def scheduled_rates(runs: Iterable[RunRecord]) -> list[float]:
    """The drop rate of each epoch's schedule, in percent; of a variant that drops neurons at random as well, the
    realised one is higher."""
    return [
        row.drop_rate if "p" not in run.config.effective_settings() else 100 * (row.rho_mean or 0) / run.hidden_width
        for run in runs
        for row in run.epochs
    ]


def saturated_arms(arms: Sequence[Arm]) -> list[str]:
    """:func:`saturation` of those arms that are annealed."""
    return saturation([scheduled_rates(arm.done.values()) for arm in arms if is_annealed(arm.config)])


def saturation(points: Sequence[Sequence[float]]) -> list[str]:
    """A line where annealed points, each given by its drop rates in percent, drop everything or nothing in most
    epochs."""
    everything = sum(_mostly(rates, 100 * (1 - SATURATED), 100.0) for rates in points)
    nothing = sum(_mostly(rates, 0.0, 100 * SATURATED) for rates in points)
    if not everything and not nothing:
        return []
    return [
        f"{everything + nothing} of {len(points)} annealed points drop everything ({everything}) or nothing "
        f"({nothing}) in most epochs: equations (1) and (2) saturate. From about rho + i = 10 on, i the epoch from 0, "
        "forward drops all there is and reverse nothing. Try --schedule forward-smooth or reverse-smooth.",
    ]


def _mostly(rates: Sequence[float], low: float, high: float) -> bool:
    """Whether more than half of ``rates`` lie from ``low`` to ``high`` percent."""
    return 2 * sum(low <= rate <= high for rate in rates) > len(rates)
