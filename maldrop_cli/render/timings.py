"""What `timeit` measured, as rows and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from maldrop_cli.config import CNN, RunConfig
from maldrop_cli.render.tables import Column, Table, number
from maldrop_cli.results.records import describe_machine
from maldrop_cli.results.timings import Timing

# Section 5.1.1: seconds for ten epochs of MNIST on a Tesla K80, and our subject of the same form.
PAPER_SECONDS = {
    "none": ("no dropout", 77.0),
    "vanilla": ("vanilla dropout", 79.0),
    "heuristic": ("MalDrop, vectorised", 184.0),
    "heuristic-loop": ("MalDrop, per neuron (the paper's estimate)", 28_125.0),
}
PAPER_EPOCHS, PAPER_IMAGES = 10, 60_000
PAPER_SHAPE = (1, 32, 32)


def timing_rows(timings: Sequence[Timing], config: RunConfig, machine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a subject; ratios are medians of the ratios within each round, with a 95 % bootstrap interval.

    ``machine``: as :func:`maldrop_cli.results.records.environment` gives it.
    """
    context = {
        "dataset": str(config.data.dataset),
        "model": config.model,
        "batch_size": config.batch_size,
        "rho": config.rho,
        "granularity": str(config.granularity),
        **{key: machine[key] for key in ("device", "device_name", "threads", "torch")},
    }
    references = {timing.subject: timing for timing in timings}
    rows = []
    for timing in timings:
        row: dict[str, Any] = {
            "subject": timing.subject,
            "median_ms": timing.median_ms,
            "iqr_ms": timing.iqr_ms,
            "n_samples": len(timing.samples),
        }
        for name in ("none", "vanilla"):
            ratio, low, high = timing.ratio_to(references[name])
            row |= {f"ratio_vs_{name}": ratio, f"ratio_vs_{name}_lo": low, f"ratio_vs_{name}_hi": high}
        row |= {"peak_mb": timing.peak_mib, "mask_agreement": timing.agreement, **context}
        rows.append(row)
    return rows


def tables(
    rows: Sequence[dict[str, Any]], config: RunConfig, shape: Sequence[int], machine: Mapping[str, Any], *, naive: bool
) -> list[Table]:
    """The timings and, with ``naive``, the paper's beside them."""
    size = "x".join(map(str, shape))
    title = (
        f"A training step: {config.data.dataset} shapes ({size}), {config.model}, batch {config.batch_size}, "
        f"rho {config.rho}, granularity {config.granularity}"
    )
    notes = [
        f"{rows[0]['n_samples']} interleaved samples on {describe_machine(machine)}. IQR: interquartile range. "
        "Peak: memory that a step holds beyond the model's own."
    ]
    comparable = config.model == CNN and config.depth == RunConfig.depth and tuple(shape) == PAPER_SHAPE
    if naive and not comparable:
        notes.append(
            "The paper's table (section 5.1.1) is of its CNN on MNIST: it is shown without --dataset, --model, --depth."
        )
    paper = [paper_table(rows, config.batch_size)] if naive and comparable else []
    return [timing_table(rows, title, notes), *paper]


def timing_table(rows: Sequence[dict[str, Any]], title: str, notes: Sequence[str]) -> Table:
    """Median, spread, ratios, memory."""

    def ratio(row: dict[str, Any], name: str) -> str:
        value, low, high = (row[f"ratio_vs_{name}{end}"] for end in ("", "_lo", "_hi"))
        if value == 1.0 and row["subject"] == name:
            return "1"
        digits = 3 if value < 10 else 1
        interval = f" [{low:.{digits}f}, {high:.{digits}f}]" if math.isfinite(low) else ""
        return f"{value:.{digits}f}{interval}"

    columns = [
        Column("subject", [row["subject"] for row in rows], left=True),
        Column("median ms", [number(row["median_ms"], 2) for row in rows]),
        Column("IQR ms", [number(row["iqr_ms"], 2) for row in rows]),
        Column("× none [95 %]", [ratio(row, "none") for row in rows]),
        Column("× vanilla [95 %]", [ratio(row, "vanilla") for row in rows]),
        Column("peak MiB", [number(row["peak_mb"], 1) for row in rows]),
    ]
    if any(row["mask_agreement"] is not None for row in rows):
        columns.append(Column("mask as the fast form's %", [number(row["mask_agreement"], 1) for row in rows]))
    return Table(title, columns, notes)


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
