"""Runs as rows (for files) and tables (for people), and the words for settings and machines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.config import CNN, RunConfig, Schedule, Unit
from maldrop_cli.record import PROBED, EpochRow, RunRecord, Status, describe_machine
from maldrop_cli.render.tables import (
    Column,
    Table,
    duration,
    number,
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
MEASURED = ("turnover", *PROBED, "fidelity")  # of EpochRow, about its masks
REPORTED = ("never_passed", "always_passed")  # of RunRecord, about all its masks
BAR = 30  # characters that stand for all neurons
SATURATED = 0.001  # a layer that drops all but this share of its neurons, or no more than it, is saturated

# The words of a variant's name, in their order: what is said by its value alone, and what is said even at its default.
NAMED = (
    *("schedule", "period", "rate", "rho", "rho_end", "horizon", "p", "selector", "omega"),
    *("joint_iterations", "joint_starts", "granularity", "pass_rate"),
)
BY_VALUE = ("schedule", "selector", "granularity")
ALWAYS = ("period", "rate", "rho", "rho_end", "p")
_OF_SCHEDULES = ("period", "rate", "rho_end", "horizon")


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
        **{field: getattr(run, field) for field in REPORTED},
        "pass_histogram": " ".join(map(str, run.pass_histogram)) or None,
        **setting_cells(run.config, FURTHER),
        "hidden_width": run.hidden_width,
        "data_digest": run.data_digest,
        **{key: run.environment.get(key) for key in ENVIRONMENT},
        "run_id": run.run_id,
    }


def _measured(row: EpochRow | None) -> dict[str, Any]:
    fields = ("epoch", "train_loss", "val_loss", "val_top1", "val_top5", "train_seconds", "drop_rate", "rho_mean")
    return {field: getattr(row, field, None) for field in (*fields, *MEASURED)}


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
        *_probe_columns(rows),
    ]
    return Table(title, columns, notes)


def _probe_columns(rows: Sequence[EpochRow]) -> list[Column]:
    """The columns of the probe batch, where it was looked at."""
    if all(row.raised_mask is None for row in rows):
        return []
    return [
        number_column("raised by mask", [row.raised_mask for row in rows], 3, sign=True),
        number_column("by joint", [row.raised_joint for row in rows], 3, sign=True),
        number_column("ceiling", [row.raised_ceiling for row in rows], 3, sign=True),
        number_column("mask/joint %", [row.fidelity for row in rows], 1),
    ]


def pass_rate_table(run: RunRecord) -> Table | None:
    """How many neurons passed how often over all of training; None where nothing was counted."""
    histogram, never, always = run.pass_histogram, run.never_passed, run.always_passed
    if not histogram or never is None or always is None:
        return None
    units = sum(histogram)
    what = "weight" if run.config.unit is Unit.WEIGHT else "neuron"
    shown = [bin for bin, count in enumerate(histogram) if count]
    columns = [
        Column("pass rate %", [f"{10 * bin}..{10 * (bin + 1)}" for bin in shown]),
        Column(f"{what}s", [str(histogram[bin]) for bin in shown]),
        Column("% of them", [number(100 * histogram[bin] / units, 2) for bin in shown]),
        Column("", ["#" * max(round(BAR * histogram[bin] / units), 1) for bin in shown], left=True),
    ]
    notes = [f"{plural(never, what)} never passed, {always} always."]
    moved = [row.turnover for row in run.epochs if row.turnover is not None]
    if moved:
        first = f"{number(100 * moved[0], 1)} % at first, " if len(moved) > 1 else ""
        notes.append(
            f"Turnover, the share of the dropping that moves to other {what}s from one epoch to the next: "
            f"{first}{number(100 * moved[-1], 1)} % at last."
        )
    return Table(f"Pass rates of {units:,} {what}s over all of training", columns, notes)


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
