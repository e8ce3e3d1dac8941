"""Plots of `timeit`: what a step costs beside one without dropout, and how the cost grows along an axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from maldrop_cli.plots import style
from maldrop_cli.render.tables import number, plus_minus

if TYPE_CHECKING:
    from maldrop_cli.timing.scaling import Exponent, ScalePoint

ROW = 0.27  # inches
MAX_LINEAR = 5.0  # above this ratio, the axis is logarithmic
LABELS = {"width": "width of the layer (neurons)", "batch": "batch (images)", "rho": "rho (neurons)"}
MARGIN = 1.15  # a factor
MIN_SPAN = 10.0  # a factor, of the time axis, so that a constant with a little noise looks like one
FEW_TICKS = 1000.0  # below this span of the time axis, ticks at 1, 2, 5 as well
REFERENCE: dict[str, Any] = {"color": "#bdbdbd", "linewidth": 0.7, "zorder": 1}


@style.styled()
def ratios(rows: Sequence[Mapping[str, Any]], *captions: str) -> Figure:
    """What a step costs, as a multiple of one without dropout. A row a subject, in the order of the table: its ratio to
    ``none`` with the 95 % interval; the per-neuron forms are hollow. ``rows``: as `timing_rows` gives them;
    ``captions``: what to say above them, a line each."""
    figure, [[axes]] = style.canvas(7, 0.6 + ROW * len(rows))
    for place, row in enumerate(rows):
        ratio, low, high = (row[f"ratio_vs_none{end}"] for end in ("", "_lo", "_hi"))
        face = "black" if row["neurons_timed"] is None else "white"
        ends = np.nan_to_num([[ratio - low], [high - ratio]])
        axes.errorbar([ratio], [place], xerr=ends, fmt="o", color="black", mfc=face, elinewidth=1.2, capsize=2.5)
        axes.annotate(
            number(ratio, 2), (1, place), (38, 0), ("axes fraction", "data"), "offset points", ha="right", va="center"
        )
    axes.axvline(1, color=style.GREY, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(rows)), [row["subject"] for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="time, as a multiple of that of none")
    axes.grid(visible=False, axis="y")
    if max(row["ratio_vs_none"] for row in rows) > MAX_LINEAR:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
    hollow = "; hollow: the per-neuron forms" if any(row["neurons_timed"] is not None for row in rows) else ""
    few = "; no bar: too few samples" if np.isnan([row["ratio_vs_none_lo"] for row in rows]).any() else ""
    bars = f"bars: 95 % bootstrap interval{few}"
    style.caption(figure, *captions, f"Medians of the ratios within a round, {bars}{hollow}.")
    return figure


@style.styled()
def scale(points: Sequence[ScalePoint], exponents: Sequence[Exponent], axis: str, *captions: str) -> Figure:
    """The cost of choosing neurons along an axis. Both scales are logarithmic: a power is a straight line, its exponent
    the slope. One line a selector, its medians in milliseconds with 95 % intervals, its exponent in the legend; slanted
    lines of the grid have exponent 1, level ones 0. ``captions``: what to say above it, a line each."""
    figure, [[axes]] = style.canvas(7, 4.0, lines=len(exponents))
    values = np.array([point.value for point in points])
    times = 1000 * np.array([(point.low, point.seconds, point.high) for point in points])
    handles: list[Line2D] = []
    for index, each in enumerate(exponents):
        own = [point.selector == each.selector for point in points]
        low, median, high = times[own].T
        half = np.nan_to_num(np.abs([median - low, high - median]))
        handles += style.line_with_bars(axes, index, values[own], median, half, (index, len(exponents)))
    axes.set(xlabel=LABELS.get(axis, axis), ylabel="scoring, selecting and masking (ms)")
    _grid(axes, np.unique(values), np.nanmin(times), np.nanmax(times))
    few = "; no bar: too few samples" if np.isnan(times).any() else ""
    style.caption(figure, *captions, f"Medians of interleaved samples, bars: 95 % bootstrap interval{few}.")
    names = [f"{each.selector}: e = {plus_minus(each.exponent, each.half, 2)}" for each in exponents]
    names.append("e = 1 (level lines: e = 0)")
    handles.append(Line2D([], [], **REFERENCE))
    style.legend(figure, handles, names, f"time ~ {axis} ^ e, by least squares, ±: 95 % interval")
    return figure


def _grid(axes: Axes, values: style.Numbers, low: float, high: float) -> None:
    """Ticks along x where something was measured, along y at round numbers; limits a little beyond both; lines of
    exponent 1, one a decade, all over the panel."""
    spare = max(1.0, MIN_SPAN / (high / low)) ** 0.5 * MARGIN
    left, right, bottom, top = values[0] / MARGIN, values[-1] * MARGIN, low / spare, high * spare
    axes.set(xscale="log", yscale="log", xticks=values, xlim=(left, right), ylim=(bottom, top))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < FEW_TICKS else (1,)))
    for along in (axes.xaxis, axes.yaxis):
        along.set_minor_locator(NullLocator())
        along.set_major_formatter("{x:g}")
    for decade in range(math.floor(math.log10(bottom * left / right)), math.ceil(math.log10(top)) + 1):
        ends = [10.0**decade, 10.0**decade * right / left]
        axes.plot([left, right], ends, **REFERENCE, scalex=False, scaley=False)
