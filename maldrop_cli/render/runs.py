"""Runs as rows (for files) and tables (for people), and the words for settings and machines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from statistics import median_high, median_low
from typing import Any

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.config import RunConfig
from maldrop_cli.names import CNN, Schedule, Unit, value_text
from maldrop_cli.record import PROBED, ROBUSTNESS, TUNE, EpochRow, RunRecord, Status, describe_machine, measured_names
from maldrop_cli.render.tables import Column, Table, duration, number, number_column, plural

FIRST = ("dataset", "model", "dropout", "selector", "schedule", "rho", "omega", "granularity", "p")  # columns of a row
FURTHER = (
    *("epochs", "batch_size", "lr", "momentum", "weight_decay", "period", "rate", "rho_end", "horizon", "pass_rate"),
    *("joint_iterations", "joint_starts", "fidelity_every", "depth", "train_images", "tune_split"),
    *("image_size", "shape", "classes", "images", "deterministic"),
)
ENVIRONMENT = ("device", "device_name", "threads", "workers", "torch")
SHOWN = {  # what an EpochRow measures, in the order of files: its column's heading, decimals, and Column.spare
    "train_loss": ("train loss", 4, 8),
    "val_loss": ("val loss", 4, 4),
    "val_top1": ("top-1 %", 2, 0),
    "val_top5": ("top-5 %", 2, 7),
    "train_seconds": ("train s", 2, 6),
    "drop_rate": ("dropped %", 2, 6),
    "rho_mean": ("rho", 0, 3),
    "turnover": ("turnover %", 1, 2),
    "probe_loss": ("probe loss", 4, 3),
    "raised_mask": ("raised by mask", 3, 1),
    "raised_joint": ("raised by worst set", 3, 1),
    "raised_ceiling": ("raised at most", 3, 2),
    "fidelity": ("mask in % of worst set", 1, 1),
}
OF_MASKS = ("turnover", *PROBED, "fidelity")  # those of SHOWN that are about masks
REPORTED = ("never_passed", "always_passed")  # of RunRecord, about all its masks
TUNE_TOP1 = f"{TUNE}val_top1"
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
    values = {name: effective.get(name) for name in names}
    return {name: value_text(value) if isinstance(value, str | tuple) else value for name, value in values.items()}


def name(config: RunConfig, without: str = "", also: Collection[str] = ()) -> str:
    """A variant in few words. ``without``: a setting that is left out; ``also``: settings that are said even where
    they are at their default."""
    effective = config.effective_settings()
    words = [str(config.dropout)]
    for field in NAMED:
        default = config.epochs if field == "horizon" else getattr(RunConfig, field)
        told = field in ALWAYS or field in also or effective.get(field) != default
        if told and field in effective and field != without:
            prefix = "" if field in BY_VALUE else f"{field.replace('_', '-')}="
            words.append(prefix + value_text(effective[field]))
    return " ".join(words)


def label(config: RunConfig) -> str:
    """A run in few words."""
    return f"{name(config)}, seed {config.seed}"


def schedule_settings(configs: Iterable[RunConfig]) -> list[str]:
    """A line with the settings of the schedules that have some; none where no schedule has."""
    parts: dict[str, None] = {}
    for config in configs:
        effective = config.effective_settings()
        if own := [f"{key.replace('_', '-')} {effective[key]}" for key in _OF_SCHEDULES if key in effective]:
            parts[f"{config.schedule}: {', '.join(own)}"] = None
    return [f"{'; '.join(parts)}."] if parts else []


def settings_line(config: RunConfig) -> str:
    """What all arms of a table share, in a line."""
    size = f" {config.data.image_size}px" if config.data.image_size else ""
    depth = f" depth {config.depth}" if config.model == CNN and config.depth != RunConfig.depth else ""
    decay = f", weight decay {value_text(config.weight_decay)}" if config.weight_decay else ""
    return (
        f"{config.data.dataset}{size}, {config.model}{depth}, {plural(config.epochs, 'epoch')}, "
        f"SGD lr {value_text(config.lr)}, momentum {value_text(config.momentum)}, batch {config.batch_size}{decay}"
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


def metric_name(metric: str) -> str:
    """A measurement in words: ``top-1``, ``occlude 0.5`` (top-1 with that hidden), ``mean of occlude``."""
    if metric.startswith(TUNE):
        return f"tuning {metric_name(metric.removeprefix(TUNE))}"
    if metric.startswith("top1_"):
        hidden, _, severity = metric.removeprefix("top1_").partition("_")
        return f"{hidden} {severity}" if severity else f"mean of {'all' if hidden == ROBUSTNESS else hidden}"
    return {"val_top1": "top-1", "val_top5": "top-5", "val_loss": "loss"}.get(metric, metric.replace("_", " "))


def hidden_note(names: Sequence[str]) -> list[str]:
    """A line about the measurements under perturbations; none where there are none."""
    if not names:
        return []
    first = metric_name(names[0])
    return [f"{first} ...: top-1 with so much hidden, in the last epoch (docs/method.md, What a network keeps)."]


def epoch_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row an epoch; a run that failed before its first still has a row."""
    wholes, further = zip(records, run_rows(records), strict=True), measured_names(records)
    return [whole | _measured(row, further) for run, whole in wholes for row in run.epochs or [None]]


def run_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row a run, at its last epoch."""
    further = measured_names(records)
    return [
        {
            **setting_cells(run.config, FIRST),
            "seed": run.config.seed,
            **_measured(run.epochs[-1] if run.epochs else None, further),
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
        for run in records
    ]


def _measured(row: EpochRow | None, further: Sequence[str]) -> dict[str, Any]:
    return {field: row and row.value(field) for field in ("epoch", *SHOWN, *further)}


def measured(fields: Iterable[str], rows: Sequence[Any], value: Callable[[Any, str], Any]) -> list[Column]:
    """A column for each of the ``fields``, measurements of an epoch; ``value(row, field)``, a number or an Interval, is
    what it shows."""
    return [
        number_column(heading, [value(row, field) for row in rows], digits, field.startswith("raised_"), spare)
        for field in fields
        for heading, digits, spare in [SHOWN.get(field) or (_heading(field), 2, 2)]
    ]


def _heading(metric: str) -> str:
    """Of a measurement in percent that is no field of EpochRow."""
    return f"top-1 %, {metric_name(metric)}" if metric.startswith("top1_") else f"{metric_name(metric)} %"


def train_table(run: RunRecord) -> Table:
    """One run, one row an epoch."""
    rows = run.epochs
    notes = [f"{duration(run.train_seconds)} of training. {machine_line([run])}", f"Run {run.run_id}."]
    notes += saturation([(run.config, scheduled_rates([run]))])
    if run.status is not Status.DONE:
        notes.insert(0, f"{str(run.status).capitalize()}: {run.reason or 'no result'}")
    title = f"{name(run.config)}: {settings_line(run.config)}, seed {run.config.seed}"
    fields = ["train_loss", "val_loss", "val_top1", "val_top5", "rho_mean", "drop_rate", "train_seconds"]
    if any(row.raised_mask is not None for row in rows):
        fields += ["raised_mask", "raised_joint", "raised_ceiling", "fidelity"]
    hidden = [each for each in measured_names([run]) if not each.startswith(TUNE)]
    fields += [*hidden, *([TUNE_TOP1] if run.config.tune_split else [])]
    notes += hidden_note(hidden)
    columns = [Column("epoch", [str(row.epoch) for row in rows]), *measured(fields, rows, EpochRow.value)]
    return Table(title, columns, notes)


def pass_rate_table(run: RunRecord) -> Table | None:
    """How many neurons passed how often over all of training; None where nothing was counted."""
    histogram, never, always = run.pass_histogram, run.never_passed, run.always_passed
    if not histogram or never is None or always is None:
        return None
    units = sum(histogram)
    what = "weight" if run.config.unit is Unit.WEIGHT else "neuron"
    shown = {f"{10 * tenth}..{10 * (tenth + 1)}": count for tenth, count in enumerate(histogram) if count}
    columns = [
        Column("pass rate %", list(shown)),
        Column(f"{what}s", [str(count) for count in shown.values()]),
        number_column("% of them", [100 * count / units for count in shown.values()], 2),
        Column("", ["#" * max(round(BAR * count / units), 1) for count in shown.values()], left=True),
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
    rows = epoch_rows(records) if long else run_rows(records)
    variants = {run.run_id: name(run.config) for run in records}
    columns = [
        Column("data", [row["dataset"] for row in rows], left=True, spare=2),
        Column("model", [row["model"] for row in rows], left=True, spare=2),
        Column("variant", [variants[row["run_id"]] for row in rows], left=True),
        Column("lr", [value_text(row["lr"]) for row in rows], spare=3),
        Column("seed", [str(row["seed"]) for row in rows]),
        Column("epoch", [f"{row['epoch'] or 0}/{row['epochs']}" for row in rows], spare=0 if long else 1),
        *measured(("train_loss", "val_loss", "val_top1", "train_seconds"), rows, dict.__getitem__),
        Column("status", [row["status"] for row in rows], left=True, spare=1),
        Column("run", [row["run_id"] for row in rows], left=True),
    ]
    return Table(plural(len(records), "stored run"), columns, [*notes, *failures(records)])


def failures(records: Sequence[RunRecord]) -> list[str]:
    """A line for each run that did not end well, or of whose end the record is damaged."""
    failed = [run for run in records if run.status in (Status.FAILED, Status.DIVERGED) or run.reason]
    return [f"{label(run.config)}: {run.status} ({run.reason})" for run in failed]


def scheduled_rates(runs: Iterable[RunRecord]) -> list[float]:
    """The drop rate of each epoch's schedule, in percent; of a variant that drops neurons at random as well, the
    realised one is higher."""
    return [
        row.drop_rate if "p" not in run.config.effective_settings() else 100 * (row.rho_mean or 0) / run.hidden_width
        for run in runs
        for row in run.epochs
    ]


def saturation(points: Iterable[tuple[RunConfig, Sequence[float]]]) -> list[str]:
    """A line where points with the schedule of equation (1) or (2), each with its drop rates in percent, drop
    everything or nothing in most epochs."""
    equations = (Schedule.FORWARD, Schedule.REVERSE)
    annealed = [rates for config, rates in points if config.effective_settings().get("schedule") in equations]
    everything = sum(median_low(rates) >= 100 * (1 - SATURATED) for rates in annealed if rates)
    nothing = sum(median_high(rates) <= 100 * SATURATED for rates in annealed if rates)
    if not everything and not nothing:
        return []
    return [
        f"{everything + nothing} of {len(annealed)} annealed points drop everything ({everything}) or nothing "
        f"({nothing}) in most epochs: equations (1) and (2) saturate. From about rho + i = 10 on, i the epoch from 0, "
        "forward drops all there is and reverse nothing. Try --schedule forward-smooth or reverse-smooth.",
    ]
