"""What schedules will do, before anything is trained: rho epoch by epoch, in numbers and drawn in characters."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from maldrop_cli.config import RunConfig
from maldrop_cli.models.variants import Head, rho_by_epoch
from maldrop_cli.names import Schedule
from maldrop_cli.render import runs
from maldrop_cli.render.arms import point_columns
from maldrop_cli.render.tables import Column, Table, number_column, plural

BAR = 40  # characters that stand for the whole layer
SPARK = 40  # most epochs that a sparkline has room for
Heads = Callable[[RunConfig], Head]  # the last layer of a run


class Characters(NamedTuple):
    """What a chart is drawn with. ``shares``: of the layer, in order; the first is exactly nothing, the last exactly
    everything, and those between divide the rest evenly. ``bar``: the end of a bar, by how much of it is filled."""

    shares: str
    bar: str
    legend: str


BLOCKS = Characters("·▁▂▃▄▅▆▇█", "▏▎▍▌▋▊▉█", "· none, ▁ to ▇ some, █ all")
ASCII = Characters(".0123456789#", "#", ". none, 0 to 9 tenths, # all")


def characters(encoding: str | None) -> Characters:
    """Block characters where a stream of that encoding has them, else ASCII."""
    try:
        (BLOCKS.shares + BLOCKS.bar).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def spark(shares: Sequence[float], drawn: Characters) -> str:
    """A character for each share from 0 to 1."""
    between = len(drawn.shares) - 2
    return "".join(drawn.shares[(share > 0) + math.floor(share * between)] for share in shares)


def bar(share: float, cells: int, drawn: Characters) -> str:
    """A bar as long as ``share`` of ``cells`` characters, rounded up, and the way to the end in dots."""
    steps = len(drawn.bar)
    full, rest = divmod(math.ceil(share * cells * steps), steps)
    return (drawn.bar[-1] * full + drawn.bar[:rest][-1:]).ljust(cells, drawn.shares[0])


def dry_rows(points: Sequence[RunConfig], head: Heads, extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a point and epoch. ``extra``: columns that are the same in all rows."""
    return [
        {
            **runs.setting_cells(config, runs.FIRST),
            **extra,
            "epoch": epoch,
            "rho_min": rho and rho.low,
            "rho_max": rho and rho.high,
            "rho_mean": rho and rho.mean,
            **runs.setting_cells(config, runs.FURTHER),
            "hidden_width": head(config).width,
        }
        for config in points
        for epoch, rho in enumerate(rho_by_epoch(config, head(config).units(config.unit)) or [None] * config.epochs, 1)
    ]


def train_chart(config: RunConfig, head: Head, notes: Sequence[str] = (), drawn: Characters | None = None) -> Table:
    """One run: a bar for each stretch of epochs with the same rho."""
    drawn = drawn or characters(getattr(sys.stdout, "encoding", None))
    units = head.units(config.unit)
    by_epoch = enumerate(rho_by_epoch(config, units) or [None] * config.epochs, 1)
    stretches = [(rho, [epoch for epoch, _ in same]) for rho, same in groupby(by_epoch, lambda each: each[1])]
    rhos = [rho for rho, _ in stretches]
    columns = [
        Column("epoch", [_range(epochs[0], epochs[-1]) for _, epochs in stretches]),
        Column("rho", [_range(rho.low, rho.high) if rho else "–" for rho in rhos]),
        number_column(f"% of {config.unit}s", [100 * rho.mean / units if rho else None for rho in rhos], 2),
        Column(f"of {units}", [bar(rho.mean / units, BAR, drawn) if rho else "" for rho in rhos], left=True),
    ]
    if words := _per_batch(config, units):
        notes = [f"rho is {words}; the chart shows its mean.", *notes]
    if not config.has_rho:
        notes = [f"{config.dropout} has no rho: it drops no set number of neurons.", *notes]
    title = f"Dry run of {runs.name(config)}: {runs.settings_line(config)}, seed {config.seed}"
    return Table(title, columns, notes)


def sweep_chart(
    points: Sequence[RunConfig], head: Heads, title: str, notes: Sequence[str] = (), drawn: Characters | None = None
) -> Table:
    """One row a point: rho at the first and the last epoch, and a sparkline or, where rho changes from batch to
    batch, words."""
    drawn = drawn or characters(getattr(sys.stdout, "encoding", None))
    epochs = points[0].epochs
    at = sorted({round(index * (epochs - 1) / (SPARK - 1)) for index in range(SPARK)})
    layers = [(config, head(config).units(config.unit)) for config in points]
    plans = [(config, units, rho_by_epoch(config, units)) for config, units in layers]
    charts = [
        _per_batch(config, units) or spark([rhos[epoch].mean / units for epoch in at], drawn) if rhos else ""
        for config, units, rhos in plans
    ]
    columns = [
        *point_columns(points),
        *(
            Column(f"rho, epoch {epoch + 1}", [_short(rhos[epoch].mean) if rhos else "" for *_, rhos in plans], spare=1)
            for epoch in sorted({0, epochs - 1})
        ),
        Column("rho by epoch", charts, left=True),
    ]
    scope = "a character an epoch" if epochs <= SPARK else f"{len(at)} of {epochs} epochs, evenly spread"
    whole = " or ".join(dict.fromkeys(f"{units} {config.unit}s" for config, units in layers if config.has_rho))
    legend = f"rho, epoch N: its mean in it. rho by epoch, {scope}: {drawn.legend} of the {whole}."
    saturated = runs.saturation((config, [100 * rho.mean / units for rho in rhos]) for config, units, rhos in plans)
    return Table(f"Dry run: {title}", columns, [legend, *runs.schedule_settings(points), *notes, *saturated])


def plan_line(points: int, seeds: int, runs: int, done: int, out: object, left: str = "") -> str:
    """How much there would be to train. ``runs``: in all, points with the same rhos counted once. ``left``: how long
    the rest would take, in words."""
    each = f"{plural(points, 'point')} with {plural(seeds, 'seed')} each: " if seeds > 1 else ""
    fewer = f", as {plural(points * seeds - runs, 'run')} would be the same as another" if runs < points * seeds else ""
    known = f", {done} already finished in {out}" if done else ""
    return f"Nothing was trained. {each}{plural(runs, 'run')}{fewer}{known}{f'; {left}' if left else ''}."


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}..{high}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _per_batch(config: RunConfig, units: int) -> str:
    """In words, a schedule that changes rho from batch to batch; else empty."""
    if config.schedule is Schedule.RANDOMIZED:
        return f"drawn for each batch, uniformly from 0..{units}"
    if config.schedule is Schedule.PERIODIC and config.period > 1 and config.rho > 0:
        return f"{config.rho} in each {_ordinal(config.period)} batch, else 0"
    return ""


def _ordinal(count: int) -> str:
    """``2nd``, ``5th``, ``11th``."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th") if count % 100 not in (11, 12, 13) else "th"
    return f"{count}{ending}"
