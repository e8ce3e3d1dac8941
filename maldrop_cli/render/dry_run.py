"""What schedules will do, before anything is trained: rho epoch by epoch, in numbers and drawn in characters."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maldrop_cli.config import RunConfig, Schedule
from maldrop_cli.models.variants import Head, rho_by_epoch
from maldrop_cli.render.arms import point_columns
from maldrop_cli.render.runs import (
    FIRST,
    FURTHER,
    is_annealed,
    name,
    saturation,
    schedule_settings,
    setting_cells,
    settings_line,
)
from maldrop_cli.render.tables import Column, Table, number, plural

BAR = 40  # characters that stand for the whole layer
SPARK = 40  # most epochs that a sparkline has room for


@dataclass(frozen=True)
class Characters:
    """What a chart is drawn with. ``parts``: shares of the layer from above nothing to below everything, evenly;
    ``bar``: the last character of a bar, by how much of it is filled."""

    nothing: str
    parts: str
    everything: str
    bar: str
    legend: str


BLOCKS = Characters("·", "▁▂▃▄▅▆▇", "█", "▏▎▍▌▋▊▉█", "· none, ▁ to ▇ some, █ all")
ASCII = Characters(".", "0123456789", "#", "#", ". none, 0 to 9 tenths, # all")


def characters(encoding: str | None) -> Characters:
    """Block characters where a stream of that encoding has them, else ASCII."""
    try:
        "".join((BLOCKS.nothing, BLOCKS.parts, BLOCKS.everything, BLOCKS.bar)).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def spark(shares: Sequence[float], drawn: Characters) -> str:
    """One character for each share from 0 to 1. Only exactly 0 and exactly 1 look like nothing and everything."""

    def character(share: float) -> str:
        if share <= 0:
            return drawn.nothing
        if share >= 1:
            return drawn.everything
        return drawn.parts[math.floor(share * len(drawn.parts))]

    return "".join(map(character, shares))


def bar(share: float, cells: int, drawn: Characters) -> str:
    """A bar as long as ``share`` of ``cells`` characters, rounded up, and the way to the end in dots."""
    steps = len(drawn.bar)
    full, rest = divmod(math.ceil(share * cells * steps), steps)
    filled = drawn.bar[-1] * full + (drawn.bar[rest - 1] if rest else "")
    return filled.ljust(cells, drawn.nothing)


def dry_rows(points: Sequence[RunConfig], head: Heads, extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a point and epoch. ``extra``: columns that are the same in all rows."""
    return [
        {
            **setting_cells(config, FIRST),
            **extra,
            "epoch": epoch,
            "rho_min": each.low if each else None,
            "rho_max": each.high if each else None,
            "rho_mean": each.mean if each else None,
            **setting_cells(config, FURTHER),
            "hidden_width": head(config).width,
        }
        for config in points
        for epoch, each in enumerate(rho_by_epoch(config, head(config).units(config.unit)) or [None] * config.epochs, 1)
    ]


Heads = Callable[[RunConfig], Head]  # the last layer of a run


def train_chart(config: RunConfig, head: Head, notes: Sequence[str] = (), drawn: Characters | None = None) -> Table:
    """One run: a bar for each stretch of epochs with the same rho."""
    drawn = drawn or characters(getattr(sys.stdout, "encoding", None))
    units = head.units(config.unit)
    rhos = rho_by_epoch(config, units)
    starts = [epoch for epoch in range(config.epochs) if epoch == 0 or (rhos and rhos[epoch] != rhos[epoch - 1])]
    ends = [*starts[1:], config.epochs]
    shown = [rhos[start] if rhos else None for start in starts]
    columns = [
        Column("epoch", [_range(start + 1, end) for start, end in zip(starts, ends, strict=True)]),
        Column("rho", [_range(each.low, each.high) if each else "–" for each in shown]),
        Column(f"% of {config.unit}s", [number(100 * each.mean / units, 2) if each else "–" for each in shown]),
        Column(f"of {units}", [bar(each.mean / units, BAR, drawn) if each else "" for each in shown], left=True),
    ]
    words = _per_batch(config, units)
    notes = [*([f"rho is {words}; the chart shows its mean."] if words else []), *notes]
    if not rhos:
        notes = [f"{config.dropout} has no rho: it drops no set number of neurons.", *notes]
    return Table(f"Dry run of {name(config)}: {settings_line(config)}, seed {config.seed}", columns, notes)


def sweep_chart(
    points: Sequence[RunConfig], head: Heads, title: str, notes: Sequence[str] = (), drawn: Characters | None = None
) -> Table:
    """One row a point: rho at the first and the last epoch, and a sparkline or, where rho changes from batch to
    batch, words."""
    drawn = drawn or characters(getattr(sys.stdout, "encoding", None))
    epochs = points[0].epochs
    at = (
        sorted({round(index * (epochs - 1) / (SPARK - 1)) for index in range(SPARK)})
        if epochs > SPARK
        else range(epochs)
    )
    units = [head(config).units(config.unit) for config in points]
    series = [rho_by_epoch(config, each) for config, each in zip(points, units, strict=True)]
    charts = [
        _per_batch(config, each) or spark([rhos[epoch].mean / each for epoch in at], drawn) if rhos else ""
        for config, rhos, each in zip(points, series, units, strict=True)
    ]
    columns = [
        *point_columns(points),
        *(
            Column(f"rho @{epoch + 1}", [_short(rhos[epoch].mean) if rhos else "" for rhos in series])
            for epoch in sorted({0, epochs - 1})
        ),
        Column("rho by epoch", charts, left=True),
    ]
    scope = "a character an epoch" if epochs <= SPARK else f"{len(at)} of {epochs} epochs, evenly spread"
    counted = zip(points, units, strict=True)
    whole = " or ".join(dict.fromkeys(f"{count} {config.unit}s" for config, count in counted if config.has_rho))
    legend = f"rho @N: its mean in epoch N. rho by epoch, {scope}: {drawn.legend} of the {whole}."
    rates = [
        [100 * each.mean / count for each in rhos]
        for config, rhos, count in zip(points, series, units, strict=True)
        if is_annealed(config)
    ]
    return Table(f"Dry run: {title}", columns, [legend, *schedule_settings(points), *notes, *saturation(rates)])


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
