"""The cost of choosing neurons along an axis. Both scales are logarithmic: a power is a straight line, its exponent the
slope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from maldrop_cli.plots import style
from maldrop_cli.render.tables import plus_minus
from maldrop_cli.timing.scaling import Exponent, ScalePoint

LABELS = {"width": "width of the layer (neurons)", "batch": "batch (images)", "rho": "rho (neurons)"}
MARGIN = 1.15  # a factor
LEAST_SPAN = 10.0  # what the time axis spans at least, so that a constant with a little noise looks like one
FEW_TICKS = 1000.0  # below this span of the time axis, ticks at 1, 2, 5 as well
REFERENCE: dict[str, Any] = {"color": "#bdbdbd", "linewidth": 0.7, "zorder": 1}


@style.styled()
def scale(points: Sequence[ScalePoint], exponents: Sequence[Exponent], axis: str, *remarks: str) -> Figure:
    """One line a selector, its medians in milliseconds with 95 % intervals, its exponent in the legend; slanted
    lines of the grid have exponent 1, level ones 0. ``remarks``: what to say above it, a line each."""
    style.check_count(len(exponents))
    figure, [axes] = style.canvas(7, 4.0)
    handles: list[Artist] = []
    for index, each in enumerate(exponents):
        own = [point for point in points if point.selector == each.selector]
        at, median = (
            np.array(values, float) for values in zip(*((p.value, 1000 * p.seconds) for p in own), strict=True)
        )
        ends = np.array([(1000 * point.low, 1000 * point.high) for point in own]).T
        look = style.line_style(index) | {"transform": style.aside(axes, index, len(exponents))}
        style.bars(axes, at, median, np.nan_to_num(np.abs(ends - median)), look)
        handles += axes.plot(at, median, **look)
    _scales(
        axes, sorted({point.value for point in points}), [1000 * each for point in points for each in _reach(point)]
    )
    _references(axes)
    axes.set_xlabel(LABELS.get(axis, axis))
    axes.set_ylabel("scoring, selecting and masking (ms)")
    for remark in remarks:
        style.remark(figure, remark)
    single = "; without a bar: one sample" if any(math.isnan(point.low) for point in points) else ""
    style.remark(figure, f"Medians of interleaved samples, bars: 95 % bootstrap interval{single}.")
    names = [f"{each.selector}: e = {plus_minus(each.exponent, each.half, 2)}" for each in exponents]
    style.legend(
        figure,
        [*handles, Line2D([], [], **REFERENCE)],
        [*names, "e = 1 (level lines: e = 0)"],
        f"time ~ {axis} ^ e, by least squares, ±: 95 % interval",
    )
    return figure


def _reach(point: ScalePoint) -> list[float]:
    return [value for value in (point.low, point.seconds, point.high) if math.isfinite(value)]


def _scales(axes: Axes, values: Sequence[int], times: Sequence[float]) -> None:
    """Ticks along x where something was measured, along y at round numbers; limits a little beyond both."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(values)
    axes.set_xlim(values[0] / MARGIN, values[-1] * MARGIN)
    low, high = min(times), max(times)
    spare = max(1.0, LEAST_SPAN / (high / low)) ** 0.5 * MARGIN
    axes.set_ylim(low / spare, high * spare)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < FEW_TICKS else (1,)))
    for along in (axes.xaxis, axes.yaxis):
        along.set_minor_locator(NullLocator())
        along.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _references(axes: Axes) -> None:
    """Lines of exponent 1, one a decade, all over the panel."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for decade in range(math.floor(math.log10(bottom * left / right)), math.ceil(math.log10(top)) + 1):
        start = 10.0**decade
        axes.plot([left, right], [start, start * right / left], **REFERENCE, scalex=False, scaley=False)
