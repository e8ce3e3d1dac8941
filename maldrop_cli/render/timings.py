"""What `timeit` measured, as rows and tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from maldrop_cli.analysis.stats import MIN_SAMPLES, ratio_interval
from maldrop_cli.config import RunConfig
from maldrop_cli.names import CNN
from maldrop_cli.record import describe_machine, fidelity_percent
from maldrop_cli.render.tables import Column, Table, number_column, plus_minus, with_interval
from maldrop_cli.timing.cases import Setting, Timing
from maldrop_cli.timing.scaling import Exponent, ScalePoint
from maldrop_cli.timing.timings import REFERENCES

Row = Mapping[str, Any]
WHERE = ("device", "device_name", "threads", "torch")  # columns
ENDS = ("", "_lo", "_hi")  # of the columns of a value and its 95 % interval

# Section 5.1.1: seconds for ten epochs of MNIST on a Tesla K80, and our subject of the same form.
PAPER_SECONDS = {
    "none": ("no dropout", 77.0),
    "vanilla": ("vanilla dropout", 79.0),
    "heuristic": ("MalDrop, vectorised", 184.0),
    "heuristic-loop": ("MalDrop, per neuron (the paper's estimate)", 28_125.0),
}
PAPER_EPOCHS, PAPER_IMAGES, PAPER_SHAPE = 10, 60_000, (1, 32, 32)
NO_PAPER_TABLE = (
    "The paper's table (section 5.1.1) is of its CNN on MNIST: it is shown without --dataset, --model, --depth."
)
WORST_SET = (
    "Loss increase: by the mask, on a network trained for an epoch. Worst set: the jointly worst one of as many."
)
SCALE_TITLE = "Scoring, selecting and masking, without the last layer, along {}"


def timing_rows(timings: Sequence[Timing], setting: Setting, machine: Row) -> list[dict[str, Any]]:
    """One row a case; ratios are medians of the ratios within each round, with a 95 % bootstrap interval. ``machine``:
    as :func:`maldrop_cli.machine.environment` gives it."""
    references = {timing.samples.name: timing.samples.seconds for timing in timings}
    return [
        {
            "subject": timing.samples.name,
            "median_ms": timing.samples.median_ms,
            "iqr_ms": timing.samples.iqr_ms,
            "device_ms": timing.samples.median_device_ms,
            "n_samples": len(timing.samples.seconds),
            **{
                f"ratio_vs_{name}{end}": value
                for name in REFERENCES
                for end, value in zip(ENDS, ratio_interval(timing.samples.seconds, references[name]), strict=True)
            },
            "peak_mb": timing.peak_mib,
            "raised_mask": timing.fidelity and timing.fidelity.mask,
            "fidelity": timing.fidelity and fidelity_percent(timing.fidelity.mask, timing.fidelity.joint),
            "mask_of_joint": timing.fidelity and timing.fidelity.overlap,
            "mask_agreement": timing.agreement,
            "neurons_timed": timing.neurons,
            **{key: timing.config.effective_settings().get(key) for key in ("rho", "granularity")},
            "dataset": timing.config.data.dataset,
            "model": timing.config.model,
            "batch_size": timing.config.batch_size,
            "what": "layer" if setting.layer else "step",
            "amp": "bf16" if setting.bf16 else "off",
            "compiled": setting.compiled,
            **{key: machine[key] for key in WHERE},
        }
        for timing in timings
    ]


def with_samples(rows: Sequence[Row], timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """The rows with every sample, in milliseconds."""
    return [
        {**row, "samples_ms": [1000 * each for each in own.seconds], "device_samples_ms": own.device_ms}
        for row, own in zip(rows, (timing.samples for timing in timings), strict=True)
    ]


def with_before(rows: Sequence[Row], before: Mapping[str, float]) -> list[dict[str, Any]]:
    """The rows with the ratio to ``none`` in an earlier file, and that of the two; None for a subject that is new."""
    then = [before.get(row["subject"]) for row in rows]
    return [
        {**row, "before_vs_none": old, "ratio_vs_before": row["ratio_vs_none"] / old if old else None}
        for row, old in zip(rows, then, strict=True)
    ]


def before_table(rows: Sequence[Row], name: str) -> Table:
    """The rows of :func:`with_before`, in few columns. ``name``: of the file."""
    columns = [
        Column("subject", [row["subject"] for row in rows], left=True),
        *(
            number_column(heading, [row[key] for row in rows], 3)
            for heading, key in (
                ("× none before", "before_vs_none"),
                ("now", "ratio_vs_none"),
                ("now / before", "ratio_vs_before"),
            )
        ),
    ]
    note = "Ratios to none are compared, as milliseconds are those of a machine and its load."
    return Table(f"Against {name}", columns, [note])


def tables(
    rows: Sequence[Row], config: RunConfig, setting: Setting, machine: Row, *, naive: bool, notes: Sequence[str] = ()
) -> list[Table]:
    """Median, spread, ratios, memory and what the masks do; with ``naive``, the paper's table after it. ``config``: its
    settings are in the title."""

    def ratio(row: Row, name: str) -> str:
        return "1" if row["subject"] == name else with_interval(*(row[f"ratio_vs_{name}{end}"] for end in ENDS))

    columns = [
        Column("subject", [row["subject"] for row in rows], left=True),
        *_numbers(rows, "median ms", "median_ms", 2),
        *_numbers(rows, "IQR ms", "iqr_ms", 2, spare=4),
        *_numbers(rows, "device ms", "device_ms", 2, spare=2),
        *(
            Column(f"time × {name} [95 %]", [ratio(row, name) for row in rows], spare=spare)
            for spare, name in zip((0, 5), REFERENCES, strict=True)
        ),
        *_numbers(rows, "peak MiB", "peak_mb", 1, spare=2),
        *_numbers(rows, "loss increase", "raised_mask", 3, sign=True, spare=1),
        *_numbers(rows, "increase in % of worst set", "fidelity", 1, spare=3),
        *_numbers(rows, "overlap with worst set %", "mask_of_joint", 1, spare=4),
        *_numbers(rows, "overlap with fast form %", "mask_agreement", 1, spare=4),
    ]
    title = (
        f"{'The last layer' if setting.layer else 'A training step'}: {config.data.dataset} shapes "
        f"({'x'.join(map(str, setting.shape))}), {config.model}, batch {config.batch_size}, rho {config.rho}, "
        f"granularity {config.granularity}"
    )
    comparable = config.model == CNN and config.depth == RunConfig.depth and setting.shape == PAPER_SHAPE
    notes = [
        f"{rows[0]['n_samples']} interleaved samples on {describe_machine(machine)}. IQR: interquartile range. "
        "Peak: memory that a step holds beyond the model's own.",
        *_device_notes(rows),
        *([WORST_SET] if any(row["fidelity"] is not None for row in rows) else []),
        *_naive_notes(rows),
        *_interval_notes(rows, "ratio_vs_none_lo"),
        *notes,
        *([NO_PAPER_TABLE] if naive and not comparable else []),
    ]
    return [Table(title, columns, notes), *([_paper_table(rows, config.batch_size)] if naive and comparable else [])]


def _naive_notes(rows: Sequence[Row]) -> list[str]:
    timed = [f"{row['subject']} {row['neurons_timed']}" for row in rows if row["neurons_timed"] is not None]
    how = "The per-neuron forms: the scores of some of the neurons, scaled up to all, and a step without dropout."
    return [f"{how} Neurons timed: {', '.join(timed)}."] if timed else []


def _interval_notes(rows: Sequence[Row], low: str) -> list[str]:
    few = ", ".join(dict.fromkeys(row["subject"] for row in rows if not math.isfinite(row[low])))
    reason = f"fewer than {MIN_SAMPLES} samples make fewer than six blocks, and it would be too narrow"
    return [f"No 95 % interval of {few}: {reason}."] if few else []


def _device_notes(rows: Sequence[Row]) -> list[str]:
    note = "Device ms: the same steps between two events on the device, its waiting for the host included."
    return [note] if any(row["device_ms"] is not None for row in rows) else []


def _numbers(
    rows: Sequence[Row], heading: str, key: str, digits: int, *, sign: bool = False, spare: int = 0
) -> list[Column]:
    """A column, or none where no row has a value."""
    values = [row[key] for row in rows]
    return [] if set(values) == {None} else [number_column(heading, values, digits, sign, spare)]


def _paper_table(rows: Sequence[Row], batch_size: int) -> Table:
    """Section 5.1.1 beside ours: seconds for ten epochs of 60,000 images, from the median step."""
    steps = PAPER_EPOCHS * math.ceil(PAPER_IMAGES / batch_size)
    seconds = {row["subject"]: row["median_ms"] / 1000 * steps for row in rows}
    names = [name for name in PAPER_SECONDS if name in seconds]  # none is the first
    paper, ours = [PAPER_SECONDS[name][1] for name in names], [seconds[name] for name in names]
    columns = [
        Column("form", [f"{PAPER_SECONDS[name][0]}: {name}" for name in names], left=True),
        Column("paper s", [f"{each:,.0f}" for each in paper]),
        Column("ours s", [f"{each:,.0f}" for each in ours]),
        number_column("paper × none", [each / paper[0] for each in paper], 2, spare=1),
        number_column("ours × none", [each / ours[0] for each in ours], 2, spare=1),
    ]
    notes = [
        f"Ours: the median step times {steps:,} steps (batch {batch_size}), without evaluation and data loading. "
        "The paper's: MNIST on a Tesla K80."
    ]
    return Table("Ten epochs of 60,000 images, the paper's section 5.1.1 beside ours", columns, notes)


def phase_table(phases: Mapping[str, Mapping[str, float]]) -> Table:
    """Where the time of a step goes, in milliseconds, one row a case; ``phases`` in seconds."""
    seconds = [{**each, "sum": sum(each.values())} for each in phases.values()]
    columns = [
        Column("subject", list(phases), left=True),
        *(number_column(f"{part} ms", [1000 * each[part] for each in seconds], 2, spare=1) for part in seconds[0]),
    ]
    notes = [
        "forward: to the hidden layer. score: alone. select: the selector beyond that. mask: the last layer and the "
        "loss beyond the selector. The device is synchronised after each, which a whole step is not."
    ]
    return Table("Phases of a step, medians", columns, notes)


def scale_rows(
    points: Sequence[ScalePoint], exponents: Sequence[Exponent], axis: str, fixed: Row, machine: Row
) -> list[dict[str, Any]]:
    """One row a selector and value. ``fixed``: what stays the same along the axis."""
    return [
        {
            "subject": point.selector,
            "axis": axis,
            "value": point.value,
            "median_ms": 1000 * point.seconds,
            "median_ms_lo": 1000 * point.low,
            "median_ms_hi": 1000 * point.high,
            "device_ms": point.device_ms,
            "exponent": each.exponent,
            "exponent_ci95": each.half,
            **fixed,
            **{key: machine[key] for key in WHERE},
        }
        for each in exponents
        for point in points
        if point.selector == each.selector
    ]


def scale_table(rows: Sequence[Row], fixed: str, notes: Sequence[str] = ()) -> Table:
    """The rows of :func:`scale_rows`, with the exponents in the notes. ``fixed``: what stays the same, in words."""
    axis = rows[0]["axis"]
    columns = [
        Column("selector", [row["subject"] for row in rows], left=True),
        Column(axis, [str(row["value"]) for row in rows]),
        Column("median ms [95 %]", [with_interval(*(row[f"median_ms{end}"] for end in ENDS)) for row in rows]),
        *_numbers(rows, "device ms", "device_ms", 3, spare=1),
    ]
    powers = {row["subject"]: plus_minus(row["exponent"], row["exponent_ci95"], 2) for row in rows}
    growth = [f"{name}: time grows as {axis} to the power {power} (least squares)." for name, power in powers.items()]
    notes = [*growth, *_device_notes(rows), *_interval_notes(rows, "median_ms_lo"), *notes]
    return Table(f"{SCALE_TITLE.format(axis)}: {fixed}", columns, notes)
