"""Runs, arms and sweep points as rows (for files) and tables (for people)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from maldrop_cli.analysis.arms import Arm, marked_epochs, time_ratio
from maldrop_cli.analysis.compare import Comparison
from maldrop_cli.analysis.settings import NUMERIC, settings_of, varying
from maldrop_cli.analysis.stats import Difference, Outcome
from maldrop_cli.config import CNN, FURTHER_SETTINGS, RunConfig, Schedule
from maldrop_cli.record import EpochRow, RunRecord, Status, describe_machine
from maldrop_cli.render import masks
from maldrop_cli.render.tables import TRY, Column, Table, duration, number, plural, plus_minus

EFFECTIVE = (
    *("batch_size", "lr", "momentum", "weight_decay", "period", "rate", "rho_end", "horizon", "pass_rate"),
    *("joint_iterations", "joint_starts", "fidelity_every", "depth"),
)
MACHINE = ("device", "device_name", "threads", "workers", "torch")
SATURATED = 0.001  # a layer that drops all but this share of its neurons, or no more than it, is saturated


def identity(config: RunConfig) -> dict[str, Any]:
    """The columns that say what was trained; empty where a setting has no effect."""
    effective = config.effective_settings()
    return {
        "dataset": str(config.data.dataset),
        "model": config.model,
        "dropout": str(config.dropout),
        "selector": _text(effective.get("selector")),
        "schedule": _text(effective.get("schedule")),
        "rho": effective.get("rho"),
        "omega": effective.get("omega"),
        "granularity": _text(effective.get("granularity")),
        "p": effective.get("p"),
    }


def settings(config: RunConfig) -> dict[str, Any]:
    """The other columns that tell runs apart; empty where a setting has no effect."""
    effective = config.effective_settings()
    data = effective["data"]
    shape = data.get("shape")
    return {
        "epochs": config.epochs,
        **{key: effective.get(key) for key in EFFECTIVE},
        "image_size": data["image_size"],
        "shape": "x".join(map(str, shape)) if shape else None,
        "classes": data.get("classes"),
        "images": data.get("images"),
        "deterministic": config.deterministic,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def name(config: RunConfig, without: str = "", also: Collection[str] = ()) -> str:
    """A variant in few words. ``without``: a setting that is left out; ``also``: settings that are said even where
    they are at their default."""
    effective = {field: value for field, value in config.effective_settings().items() if field != without}

    def differs(field: str) -> bool:
        """Whether the setting has an effect and is not the default, or is wanted all the same."""
        return field in effective and (field in also or bool(effective[field] != getattr(RunConfig, field)))

    words = [str(config.dropout)]
    if differs("schedule"):
        words.append(str(config.schedule))
    if "period" in effective:
        words.append(f"period={config.period}")
    if "rate" in effective:
        words.append(f"rate={config.rate:g}")
    if "rho" in effective:
        words.append(f"rho={config.rho}")
    if "rho_end" in effective:
        words.append(f"rho-end={config.rho_end}")
        if "horizon" in effective and config.horizon != config.epochs:
            words.append(f"horizon={config.horizon}")
    if "p" in effective:
        words.append(f"p={config.p:g}")
    if differs("selector"):
        words.append(str(config.selector))
    numbers = ("omega", "joint_iterations", "joint_starts")
    words += [f"{field.replace('_', '-')}={effective[field]}" for field in numbers if differs(field)]
    if differs("granularity"):
        words.append(str(config.granularity))
    if differs("pass_rate"):
        words.append(f"pass-rate={config.pass_rate}")
    return " ".join(words)


def schedule_settings(configs: Iterable[RunConfig]) -> list[str]:
    """A line with the settings of the schedules that have some; none where no schedule has."""
    settings_of = {
        config.schedule: [f"{key.replace('_', '-')} {getattr(config, key)}" for key in keys]
        for config in configs
        if "schedule" in config.effective_settings() and (keys := FURTHER_SETTINGS["schedule"].get(config.schedule))
    }
    parts = [f"{schedule}: {', '.join(values)}" for schedule, values in settings_of.items()]
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
            "Trained on different machines, or so many runs at a time: times are compared only where they are the same "
            "(--fresh trains anew)."
        )
    workers = records[0].workers
    shared = f", {workers} runs at a time, so that times are those of a shared machine" if workers > 1 else ""
    return f"Trained on {describe_machine(records[0].environment)}{shared}."


# --- runs ----------------------------------------------------------------------------------------------------------


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
    config = run.config
    return {
        **identity(config),
        "seed": config.seed,
        **_measured(row),
        "status": str(run.status),
        "reason": run.reason or None,
        **{field: getattr(run, field) for field in masks.REPORTED},
        "pass_histogram": " ".join(map(str, run.pass_histogram)) or None,
        **settings(config),
        "hidden_width": run.hidden_width,
        "data_digest": run.data_digest,
        **{key: run.environment.get(key) for key in MACHINE},
        "run_id": run.run_id,
    }


def _measured(row: EpochRow | None) -> dict[str, Any]:
    fields = ("epoch", "train_loss", "val_loss", "val_top1", "val_top5", "train_seconds", "drop_rate", "rho_mean")
    return {field: getattr(row, field, None) for field in (*fields, *masks.MEASURED)}


def train_table(run: RunRecord, smoother: str = "") -> Table:
    """One run, one row an epoch. ``smoother``: see :func:`saturation`."""
    rows = run.epochs
    notes = [f"{duration(run.train_seconds)} of training. {machine_line([run])}", f"Run {run.run_id}."]
    if is_annealed(run.config) and rows:
        notes += saturation([scheduled_rates([run])], smoother)
    if run.status is not Status.DONE:
        notes.insert(0, f"{str(run.status).capitalize()}: {run.reason or 'no result'}")
    title = f"{name(run.config)}: {settings_line(run.config)}, seed {run.config.seed}"
    return Table(title, _epoch_columns(rows), notes)


def _epoch_columns(rows: Sequence[EpochRow]) -> list[Column]:
    return [
        Column("epoch", [str(row.epoch) for row in rows]),
        Column("train loss", [number(row.train_loss, 4) for row in rows]),
        Column("val loss", [number(row.val_loss, 4) for row in rows]),
        Column("top-1 %", [number(row.val_top1, 2) for row in rows]),
        Column("top-5 %", [number(row.val_top5, 2) for row in rows]),
        Column("rho", [number(row.rho_mean, 0) for row in rows]),
        Column("dropped %", [number(row.drop_rate, 2) for row in rows]),
        Column("train s", [number(row.train_seconds, 2) for row in rows]),
        *masks.epoch_columns(rows),
    ]


def report_table(records: Sequence[RunRecord], long: bool, notes: Sequence[str] = ()) -> Table:
    """Stored runs, one row a run or one row an epoch."""
    names = {run.run_id: name(run.config) for run in records}
    pairs: list[tuple[RunRecord, EpochRow | None]] = []
    for run in records:
        pairs += [(run, row) for row in run.epochs] if long and run.epochs else [(run, run.at(len(run.epochs) or 1))]
    columns = [
        Column("data", [str(run.config.data.dataset) for run, _ in pairs], left=True),
        Column("model", [run.config.model for run, _ in pairs], left=True),
        Column("variant", [names[run.run_id] for run, _ in pairs], left=True),
        Column("lr", [f"{run.config.lr:g}" for run, _ in pairs]),
        Column("seed", [str(run.config.seed) for run, _ in pairs]),
        Column("epoch", [f"{row.epoch if row else 0}/{run.config.epochs}" for run, row in pairs]),
        Column("train loss", [number(row.train_loss if row else None, 4) for _, row in pairs]),
        Column("val loss", [number(row.val_loss if row else None, 4) for _, row in pairs]),
        Column("top-1 %", [number(row.val_top1 if row else None, 2) for _, row in pairs]),
        Column("train s", [number(row.train_seconds if row else None, 2) for _, row in pairs]),
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


# --- arms ----------------------------------------------------------------------------------------------------------


def arm_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row an arm, at the last epoch."""
    rows = []
    for arm, difference, reference in zip(comparison.arms, comparison.differences, comparison.references, strict=True):
        row: dict[str, Any] = {**identity(arm.config), "epoch": arm.config.epochs, "n_seeds": len(arm.done)}
        row["n_failed"] = len(arm.runs) - len(arm.done)
        for field in ("val_top1", "val_top5", "val_loss", "train_loss", "drop_rate", "rho_mean", *masks.MEASURED):
            interval = arm.metric(field)
            row |= {f"{field}_mean": interval.mean, f"{field}_ci95": interval.half}
        row |= {f"{field}_mean": arm.of_runs(field).mean for field in masks.REPORTED}
        first, middle = arm.metric("val_top1", 1), arm.metric("val_top1", (arm.config.epochs + 1) // 2)
        row |= {"val_top1_first_mean": first.mean, "val_top1_first_ci95": first.half}
        row |= {"val_top1_middle_mean": middle.mean, "val_top1_middle_ci95": middle.half}
        seconds, total = arm.metric("train_seconds"), arm.total_seconds()
        row |= {"train_seconds_mean": seconds.mean, "train_seconds_ci95": seconds.half}
        row |= {"total_train_seconds_mean": total.mean, "total_train_seconds_ci95": total.half}
        row["time_vs_none"] = time_ratio(arm, reference)
        row["baseline"] = comparison.label
        row |= {
            "diff_top1_mean": difference.interval.mean if difference else None,
            "diff_top1_ci95": difference.interval.half if difference else None,
            "p_value": difference.p if difference else None,
            "p_holm": difference.p_holm if difference else None,
            "verdict": str(difference.outcome) if difference else None,
            "more_seeds": difference.more_seeds if difference else None,
            "trained_as": name(arm.trained_as) if arm.trained_as else None,
            "margin": comparison.margin,
            **settings(arm.config),
            "data_digest": arm.data_digest,
            **{key: _common(run.environment.get(key) for run in arm.runs.values()) for key in MACHINE},
        }
        rows.append(row)
    return rows


def _common(values: Iterable[object]) -> object:
    """The value that all have; ``mixed`` where they differ."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else "mixed"


def arm_table(
    comparison: Comparison, title: str, notes: Sequence[str] = (), lead: Sequence[Column] | None = None
) -> Table:
    """Accuracy at the first, middle and last epoch, losses, times and drop rates, one row an arm.

    ``lead``: the columns that say which arm it is; without, its name.
    """
    arms = comparison.arms
    columns = _named(arms) if lead is None else [*lead]
    if len({arm.config.epochs for arm in arms}) == 1:
        marked: Sequence[tuple[object, int | None]] = [(epoch, epoch) for epoch in marked_epochs(arms[0].config.epochs)]
    else:
        marked = [("first", 1), ("last", None)]
    for label, epoch in marked:
        intervals = [arm.metric("val_top1", epoch) for arm in arms]
        columns.append(Column(f"top-1 % @{label}", [plus_minus(each.mean, each.half, 2) for each in intervals]))
    ratios = [time_ratio(arm, reference) for arm, reference in zip(arms, comparison.references, strict=True)]
    columns += [
        Column("train loss", [number(arm.metric("train_loss").mean, 4) for arm in arms]),
        Column("val loss", [number(arm.metric("val_loss").mean, 4) for arm in arms]),
        Column("train s", [number(arm.total_seconds().mean, 1) for arm in arms]),
        Column("× none", [number(ratio, 2) for ratio in ratios]),
        Column("dropped %", [number(arm.metric("drop_rate").mean, 2) for arm in arms]),
        Column("seeds", [_seeds(arm) for arm in arms]),
    ]
    if any(arm.trained_as for arm in arms):
        columns.append(Column("", [_shared(arm) for arm in arms], left=True))
    return Table(title, columns, notes)


def _named(arms: Sequence[Arm]) -> list[Column]:
    return [Column("dropout", [name(arm.config) for arm in arms], left=True)]


def _shared(arm: Arm) -> str:
    """Of a point that was not trained: whose runs it shows."""
    return f"the runs of {name(arm.trained_as)}" if arm.trained_as else ""


def _seeds(arm: Arm) -> str:
    return str(len(arm.done)) if len(arm.done) == len(arm.runs) else f"{len(arm.done)} of {len(arm.runs)}"


def verdict_table(comparison: Comparison, lead: Sequence[Column] | None = None) -> Table:
    """Each arm that has a baseline against it, seed by seed. ``lead``: as of :func:`arm_table`."""
    tested = [index for index, difference in enumerate(comparison.differences) if difference is not None]
    pairs = [
        (arm, difference)
        for arm, difference in zip(comparison.arms, comparison.differences, strict=True)
        if difference is not None
    ]
    if lead is None:
        lead = _named(comparison.arms)
    columns = [
        *(Column(each.heading, [each.cells[index] for index in tested], each.left) for each in lead),
        Column(
            "Δ top-1, points (95 %, uncorrected)",
            [plus_minus(d.interval.mean, d.interval.half, 2, sign=True) for _, d in pairs],
        ),
        Column("p (Holm)", [_p_value(d.p_holm) for _, d in pairs]),
        Column("verdict", [_verdict(d) for _, d in pairs], left=True),
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


# --- sweeps --------------------------------------------------------------------------------------------------------


def sweep_title(points: Sequence[RunConfig], seeds: int) -> str:
    """What all points of a sweep share."""
    first = points[0]
    one = {settings_line(point) for point in points} == {settings_line(first)}
    shared = settings_line(first) if one else "a grid over data, models or learning rates"
    selectors = list(dict.fromkeys(point.selector for point in points if "selector" in point.effective_settings()))
    words = [*selectors, f"{first.granularity} masks", plural(seeds, "seed")]
    return ", ".join([shared, *(words if len(selectors) < 2 else words[len(selectors) :])])


GRID_COLUMNS = ("dataset", "model", "selector", "lr", "p")  # of a sweep, shown where they vary


def grid_columns(points: Sequence[RunConfig]) -> list[Column]:
    """What tells the points of a sweep apart beside variant, schedule, omega and rho."""
    effective = [settings_of(point) for point in points]
    differing = varying(effective)
    return setting_columns(effective, [field for field in GRID_COLUMNS if field in differing])


def setting_columns(several: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[Column]:
    """A column for each of the settings ``names``; empty where one has no effect. ``several``: by row, as
    :func:`maldrop_cli.analysis.settings.settings_of` gives them."""
    return [
        Column(name.replace("_", "-"), [cell(each.get(name)) for each in several], left=name not in NUMERIC)
        for name in names
    ]


def cell(value: object) -> str:
    """The value of a setting, as text."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def sweep_table(comparison: Comparison, title: str, notes: Sequence[str] = (), smoother: str = "") -> Table:
    """One row a point, the references first; the best and the worst point marked.

    ``smoother``: see :func:`saturation`.
    """
    arms, epochs = comparison.arms, comparison.arms[0].config.epochs
    points = [number for number, arm in enumerate(arms) if _is_point(arm)]
    means = {number: arms[number].metric("val_top1").mean for number in points if arms[number].done}
    best = max(means, key=means.__getitem__, default=None)
    worst = min(means, key=means.__getitem__, default=None)
    marks = [""] * len(arms)
    if best is not None and worst is not None and best != worst:
        marks[best], marks[worst] = "best", "worst"
    marks = [", ".join(filter(None, [mark, _shared(arm)])) for mark, arm in zip(marks, arms, strict=True)]
    intervals = [arm.metric("val_top1") for arm in arms]
    rows = [identity(arm.config) for arm in arms]

    def cells(field: str) -> list[str]:
        return ["" if row[field] is None else str(row[field]) for row in rows]

    columns = [
        Column("dropout", cells("dropout"), left=True),
        *grid_columns([arm.config for arm in arms]),
        Column("schedule", cells("schedule"), left=True),
        Column("omega", cells("omega"), left=True),
        Column("rho", cells("rho")),
        Column(f"top-1 % @{epochs}", [plus_minus(each.mean, each.half, 2) for each in intervals]),
        Column("val loss", [number(arm.metric("val_loss").mean, 4) for arm in arms]),
        Column("train s", [number(arm.total_seconds().mean, 1) for arm in arms]),
        Column("dropped %", [number(_mean_drop(arm), 2) for arm in arms]),
        Column("seeds", [_seeds(arm) for arm in arms]),
        Column("", marks, left=True),
    ]
    marked = {}
    if any(marks) and best is not None and worst is not None:
        marked = {best: "green", worst: "red"}
    notes = [*schedule_settings(arm.config for arm in arms), *notes, *saturated_arms(arms, smoother)]
    return Table(title, columns, notes, marked)


def _is_point(arm: Arm) -> bool:
    return arm.config.has_rho


def _mean_drop(arm: Arm) -> float:
    """Realised drop rate over all epochs and seeds, in percent."""
    rates = _drop_rates(arm)
    return sum(rates) / len(rates) if rates else math.nan


def _drop_rates(arm: Arm) -> list[float]:
    """Of all epochs, over all seeds, in percent."""
    return [row.drop_rate for run in arm.done.values() for row in run.epochs]


def is_annealed(config: RunConfig) -> bool:
    """Whether the run's rho follows equation (1) or (2)."""
    return config.effective_settings().get("schedule") in (Schedule.FORWARD, Schedule.REVERSE)


def scheduled_rates(runs: Iterable[RunRecord]) -> list[float]:
    """What the schedule asked for in each epoch, in percent; of a variant that drops neurons at random as well, the
    drop rate says more than that."""
    return [
        row.drop_rate if "p" not in run.config.effective_settings() else 100 * (row.rho_mean or 0) / run.hidden_width
        for run in runs
        for row in run.epochs
    ]


def saturated_arms(arms: Sequence[Arm], smoother: str) -> list[str]:
    """:func:`saturation` of those arms that are annealed."""
    return saturation([scheduled_rates(arm.done.values()) for arm in arms if is_annealed(arm.config)], smoother)


def mask_tables(arms: Sequence[Arm], lead: Sequence[Column] | None = None) -> list[Table]:
    """The mask report of the arms, where one has something to report. ``lead``: as of :func:`arm_table`."""
    table = masks.mask_table(arms, _named(arms) if lead is None else lead)
    return [table] if table else []


def saturation(points: Sequence[Sequence[float]], smoother: str = "") -> list[str]:
    """A line where annealed points, each given by its drop rates in percent, drop everything or nothing in most
    epochs; and ``smoother``, the command that does not, in another."""
    everything = sum(_mostly(rates, 100 * (1 - SATURATED), 100.0) for rates in points)
    nothing = sum(_mostly(rates, 0.0, 100 * SATURATED) for rates in points)
    if not everything and not nothing:
        return []
    return [
        f"{everything + nothing} of {len(points)} annealed points drop everything ({everything}) or nothing "
        f"({nothing}) in most epochs: equations (1) and (2) saturate. From about rho + i = 10 on, i the epoch from 0, "
        "forward drops all there is and reverse nothing.",
        *([TRY + smoother] if smoother else []),
    ]


def _mostly(rates: Sequence[float], low: float, high: float) -> bool:
    """Whether more than half of ``rates`` lie from ``low`` to ``high`` percent."""
    return 2 * sum(low <= rate <= high for rate in rates) > len(rates)
