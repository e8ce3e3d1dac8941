"""What `timeit` measured, as rows and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from maldrop_cli.config import CNN, RunConfig
from maldrop_cli.record import describe_machine
from maldrop_cli.render.tables import Column, Table, number, plus_minus, with_interval
from maldrop_cli.timing.timings import Exponent, ScalePoint, Timing

# Section 5.1.1: seconds for ten epochs of MNIST on a Tesla K80, and our subject of the same form.
PAPER_SECONDS = {
    "none": ("no dropout", 77.0),
    "vanilla": ("vanilla dropout", 79.0),
    "heuristic": ("MalDrop, vectorised", 184.0),
    "heuristic-loop": ("MalDrop, per neuron (the paper's estimate)", 28_125.0),
}
PAPER_EPOCHS, PAPER_IMAGES = 10, 60_000
PAPER_SHAPE = (1, 32, 32)


def timing_rows(
    timings: Sequence[Timing], config: RunConfig, machine: Mapping[str, Any], how: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """One row a subject; ratios are medians of the ratios within each round, with a 95 % bootstrap interval.

    ``machine``: as :func:`maldrop_cli.record.environment` gives it. ``how``: further columns that are the same
    in all rows.
    """
    how = how or {}
    context = {
        "dataset": str(config.data.dataset),
        "model": config.model,
        "batch_size": config.batch_size,
        **how,
        **where(machine),
    }
    references = {timing.subject: timing for timing in timings}
    rows = []
    for timing in timings:
        row: dict[str, Any] = {
            "subject": timing.subject,
            "median_ms": timing.median_ms,
            "iqr_ms": timing.iqr_ms,
            "device_ms": timing.median_device_ms,
            "n_samples": len(timing.samples),
        }
        for name in ("none", "vanilla"):
            ratio, low, high = timing.ratio_to(references[name])
            row |= {f"ratio_vs_{name}": ratio, f"ratio_vs_{name}_lo": low, f"ratio_vs_{name}_hi": high}
        row |= {
            "peak_mb": timing.peak_mib,
            "raised_mask": timing.raised,
            "fidelity": timing.harm_of_joint,
            "mask_of_joint": timing.mask_of_joint,
            "mask_agreement": timing.agreement,
            "neurons_timed": timing.neurons,
            "rho": timing.rho,
            "granularity": None if timing.granularity is None else str(timing.granularity),
            **context,
        }
        rows.append(row)
    return rows


def where(machine: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that say where it was timed; ``machine`` as of :func:`timing_rows`."""
    return {key: machine[key] for key in ("device", "device_name", "threads", "torch")}


def tables(
    rows: Sequence[dict[str, Any]],
    config: RunConfig,
    shape: Sequence[int],
    machine: Mapping[str, Any],
    *,
    naive: bool,
    what: str = "A training step",
    notes: Sequence[str] = (),
) -> list[Table]:
    """The timings and, with ``naive``, the paper's beside them. ``notes``: what else to say under the table."""
    size = "x".join(map(str, shape))
    title = (
        f"{what}: {config.data.dataset} shapes ({size}), {config.model}, batch {config.batch_size}, "
        f"rho {config.rho}, granularity {config.granularity}"
    )
    notes = [
        f"{rows[0]['n_samples']} interleaved samples on {describe_machine(machine)}. IQR: interquartile range. "
        "Peak: memory that a step holds beyond the model's own.",
        *device_notes(rows),
        *_naive_notes(rows),
        *notes,
    ]
    comparable = config.model == CNN and config.depth == RunConfig.depth and tuple(shape) == PAPER_SHAPE
    if naive and not comparable:
        notes.append(
            "The paper's table (section 5.1.1) is of its CNN on MNIST: it is shown without --dataset, --model, --depth."
        )
    paper = [paper_table(rows, config.batch_size)] if naive and comparable else []
    return [timing_table(rows, title, notes), *paper]


def _naive_notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How the times of the per-neuron forms came about."""
    timed = [f"{row['subject']} {row['neurons_timed']}" for row in rows if row["neurons_timed"] is not None]
    if not timed:
        return []
    return [
        "The per-neuron forms: their scores on some of the neurons, times all by those, and a step without dropout "
        f"added. Neurons timed: {', '.join(timed)}."
    ]


def timing_table(rows: Sequence[dict[str, Any]], title: str, notes: Sequence[str]) -> Table:
    """Median, spread, ratios, memory."""

    def ratio(row: dict[str, Any], name: str) -> str:
        value, low, high = (row[f"ratio_vs_{name}{end}"] for end in ("", "_lo", "_hi"))
        if value == 1.0 and row["subject"] == name:
            return "1"
        return with_interval(value, low, high)

    columns = [
        Column("subject", [row["subject"] for row in rows], left=True),
        Column("median ms", [number(row["median_ms"], 2) for row in rows]),
        Column("IQR ms", [number(row["iqr_ms"], 2) for row in rows]),
        *device_column(rows),
        Column("× none [95 %]", [ratio(row, "none") for row in rows]),
        Column("× vanilla [95 %]", [ratio(row, "vanilla") for row in rows]),
        Column("peak MiB", [number(row["peak_mb"], 1) for row in rows]),
    ]
    if any(row["raised_mask"] is not None for row in rows):
        columns += [
            Column("raises the loss by", [number(row["raised_mask"], 3, sign=True) for row in rows]),
            Column("of joint's %", [number(row["fidelity"], 1) for row in rows]),
            Column("mask as joint's %", [number(row["mask_of_joint"], 1) for row in rows]),
        ]
    if any(row["mask_agreement"] is not None for row in rows):
        columns.append(Column("mask as the fast form's %", [number(row["mask_agreement"], 1) for row in rows]))
    return Table(title, columns, notes)


def device_column(rows: Sequence[Mapping[str, Any]], digits: int = 2) -> list[Column]:
    """Medians on the device's own clock, where it was measured."""
    if all(row["device_ms"] is None for row in rows):
        return []
    return [Column("device ms", [number(row["device_ms"], digits) for row in rows])]


def device_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How they came about."""
    if all(row["device_ms"] is None for row in rows):
        return []
    return ["Device ms: the same steps between two events on the device, its waiting for the host included."]


def paper_table(rows: Sequence[dict[str, Any]], batch_size: int) -> Table:
    """Section 5.1.1 beside ours: seconds for ten epochs of 60,000 images, from the median step."""
    steps = PAPER_EPOCHS * math.ceil(PAPER_IMAGES / batch_size)
    ours = {row["subject"]: row for row in rows if row["subject"] in PAPER_SECONDS}
    forms = [name for name in PAPER_SECONDS if name in ours]
    seconds = {name: ours[name]["median_ms"] / 1000 * steps for name in forms}
    columns = [
        Column("form", [f"{PAPER_SECONDS[name][0]}: {name}" for name in forms], left=True),
        Column("paper s", [f"{PAPER_SECONDS[name][1]:,.0f}" for name in forms]),
        Column("ours s", [f"{seconds[name]:,.0f}" for name in forms]),
        Column("paper × none", [number(PAPER_SECONDS[name][1] / PAPER_SECONDS["none"][1], 2) for name in forms]),
        Column("ours × none", [number(seconds[name] / seconds["none"], 2) for name in forms]),
    ]
    notes = [
        f"Ours: the median step times {steps:,} steps (batch {batch_size}); evaluation and data loading are not in it. "
        "The paper's: MNIST on a Tesla K80."
    ]
    return Table("Ten epochs of 60,000 images, the paper's section 5.1.1 beside ours", columns, notes)


def phase_table(phases: Mapping[str, Mapping[str, float]]) -> Table:
    """Where the time of a step goes, in milliseconds, one row a subject."""
    names = list(phases)
    parts = list(next(iter(phases.values())))
    columns = [
        Column("subject", names, left=True),
        *(Column(f"{part} ms", [number(1000 * phases[name][part], 2) for name in names]) for part in parts),
        Column("sum ms", [number(1000 * sum(phases[name].values()), 2) for name in names]),
    ]
    notes = [
        "forward: to the hidden layer. score: alone. select: the selector beyond that. mask: the last layer and the "
        "loss beyond the selector. The device is synchronised after each, which a whole step is not."
    ]
    return Table("Phases of a step, medians", columns, notes)


def scale_title(axis: str) -> str:
    """What is timed."""
    return f"Scoring, selecting and masking, without the last layer, along {axis}"


def scale_table(
    rows: Sequence[Mapping[str, Any]], exponents: Sequence[Exponent], fixed: str, notes: Sequence[str] = ()
) -> Table:
    """Cost along an axis, one row a selector and value, as :func:`scale_rows` gives them, with the fitted exponent in
    the notes. ``fixed``: what stays as it is along the axis. ``notes``: what else to say under the table."""
    axis = rows[0]["axis"]

    medians = [[row[f"median_ms{end}"] for end in ("", "_lo", "_hi")] for row in rows]
    columns = [
        Column("selector", [row["subject"] for row in rows], left=True),
        Column(axis, [str(row["value"]) for row in rows]),
        Column("median ms [95 %]", [with_interval(*each) for each in medians]),
        *device_column(rows, 3),
    ]
    growth = [
        f"{each.selector}: time grows as {axis} to the power {plus_minus(each.exponent, each.half, 2)} (least squares)."
        for each in exponents
    ]
    return Table(f"{scale_title(axis)}: {fixed}", columns, [*growth, *device_notes(rows), *notes])


def scale_rows(
    points: Sequence[ScalePoint], exponents: Sequence[Exponent], axis: str, context: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row a selector and value."""
    by_selector = {each.selector: each for each in exponents}
    return [
        {
            "subject": point.selector,
            "axis": axis,
            "value": point.value,
            "median_ms": 1000 * point.seconds,
            "median_ms_lo": 1000 * point.low,
            "median_ms_hi": 1000 * point.high,
            "device_ms": point.device_ms,
            "exponent": by_selector[point.selector].exponent,
            "exponent_ci95": by_selector[point.selector].half,
            **context,
        }
        for point in points
    ]
