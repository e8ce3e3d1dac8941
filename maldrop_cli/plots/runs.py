"""Plots of runs: arms that have a finished run each in, a Figure out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.stats import Interval
from maldrop_cli.names import MaldropError, Metric
from maldrop_cli.plots import style
from maldrop_cli.render.arms import labels
from maldrop_cli.render.runs import shared_settings
from maldrop_cli.render.tables import number, plural

PANELS = (Metric.VAL_LOSS, Metric.VAL_TOP1, Metric.VAL_TOP5)
BAND = 0.15  # opacity
MAX_BANDS = 8  # lines; the bands of more would cover each other
MAX_MARKED = 20  # epochs with a marker each; of more, about that many have one
X_LABELS = {"lr": "learning rate", "p": "p, rate of dropping", "batch_size": "batch size (images)"}


def learning(arms: Sequence[Arm]) -> Figure:
    """Learning curves, as the paper's figures 2 to 4: validation loss, top-1 and top-5 by epoch. One line an arm with
    its 95 % band, in three panels."""
    figure, panels = style.canvas(10, 3.2, lines=len(arms), panels=len(PANELS))
    handles = _curves(figure, PANELS, arms, [np.arange(1.0, arm.config.epochs + 1) for arm in arms])
    last = max(arm.config.epochs for arm in arms)
    margin = 0.04 * (last - 1) or 0.5
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # there is no epoch 1.5
        axes.set(xlim=(1 - margin, last + margin), xlabel="epoch")
    style.legend(figure, handles, labels(arms))
    return figure


def time(arms: Sequence[Arm], measured: str) -> Figure:
    """A measurement against training time: which variant is ahead after as many seconds. One line an arm: each epoch's
    mean, with its 95 % band, at the mean of the seconds trained until its end. A thin line stands where the first arm
    was done; the legend has the means there, between epochs on the straight line."""
    figure, [axes] = style.canvas(7, 4.0, lines=len(arms))
    times = [[np.cumsum([row.train_seconds for row in run.epochs]) for run in arm.done.values()] for arm in arms]
    seconds = [np.mean(of_seeds, axis=0) for of_seeds in times]
    handles = _curves(figure, [measured], arms, seconds)
    ends = [float(at[-1]) for at in seconds]
    axes.set(xlim=(0, 1.03 * max(ends)), xlabel="training time (s), evaluation and loading left out")
    if len({run.machine for arm in arms for run in arm.done.values()}) > 1:
        style.caption(figure, "Trained on different machines: these times do not compare.")
    names, title = labels(arms), None
    if len(arms) > 1:
        axes.axvline(min(ends), color=style.GREY, linewidth=0.8, zorder=1)
        title = f"at {min(ends):.3g} s, where the first is done:"
        for index, (at, line) in enumerate(zip(seconds, handles, strict=True)):
            reached = np.interp(min(ends), at, np.asarray(line.get_ydata()), left=np.nan)
            names[index] += f": {number(float(reached), 2)}"
    style.legend(figure, handles, names, title)
    return figure


def _curves(figure: Figure, panels: Sequence[str], arms: Sequence[Arm], x: Sequence[style.Numbers]) -> list[Line2D]:
    """In each panel a line an arm: each epoch's mean over the finished seeds where ``x`` says, with bands while these
    can be told apart; with bars where there is but one epoch. Returns the lines of the last panel, for the legend."""
    interval = "bars" if all(len(at) == 1 for at in x) else "bands" if len(arms) <= MAX_BANDS else ""
    beside = len(arms) if len({float(at[0]) for at in x}) == 1 else 1
    for axes, measured in zip(figure.axes, panels, strict=True):
        handles: list[Line2D] = []
        curves: list[style.Curve] = []
        for index, (arm, at) in enumerate(zip(arms, x, strict=True)):
            mean, half = curve([arm.metric(measured, epoch) for epoch in range(1, len(at) + 1)])
            if interval == "bars":
                handles += style.line_with_bars(axes, index, at, mean, half, beside)
            else:
                handles += band(axes, index, at, (mean, half), len(arms))
            curves.append((mean, half if interval else 0 * half))
        axes.set_ylabel(style.axis_label(measured))
        style.fit(axes, measured, curves, math.inf if interval == "bars" else 0.5)
    caption_of(figure, arms, interval)
    return handles


def band(axes: Axes, index: int, at: style.Numbers, curve: style.Curve, lines: int) -> list[Line2D]:
    """Line ``index`` of so many, with its band while bands can be told apart."""
    mean, half = curve
    how = style.line_style(index)
    if lines <= MAX_BANDS:
        axes.fill_between(at, mean - half, mean + half, color=how["color"], alpha=BAND, linewidth=0)
    return axes.plot(at, mean, **how, markevery=-(-len(mean) // MAX_MARKED))


def curve(intervals: Sequence[Interval]) -> style.Curve:
    """Means and half-widths; 0 where there is none."""
    return np.array([each.mean for each in intervals]), np.nan_to_num([each.half for each in intervals])


def caption_of(figure: Figure, arms: Sequence[Arm], interval: str) -> None:
    """What the arms share, and over what the means are. ``interval``: how it is drawn, if at all."""
    counts = sorted({len(arm.done) for arm in arms})
    seeds = plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    shown = f", {interval}: 95 % t-interval" if interval else f"; bands are left out of more than {MAX_BANDS} lines"
    means = "One seed, so without an interval." if counts == [1] else f"Mean over {seeds}{shown}."
    style.caption(figure, shared_settings(arms), means)


def metric(arms: Sequence[Arm], measured: str, x: str) -> Figure:
    """A measurement at the last epoch against a setting, rho above all: the paper's figure in section 5.2.1. One line
    for all arms that are alike but for ``x``, with 95 % intervals; a level with a band for each arm on which ``x`` has
    no effect: ``none`` and ``vanilla``, where it is rho. MaldropError where no arm has a number for ``x``."""

    def value(arm: Arm) -> Any:
        return arm.config.flat_settings().get(x)

    levels = [arm for arm in arms if value(arm) is None]
    lines = _lines([arm for arm in arms if isinstance(value(arm), int | float)], x)
    if not lines:
        raise MaldropError(f"nothing to plot: in none of these runs {x} has an effect and a number; --x names another")
    figure, [axes] = style.canvas(7, 4.0, lines=len(lines) + len(levels))
    curves = [curve([level.metric(measured)]) for level in levels]
    handles: list[Line2D] = []
    for index, ([mean], [half]) in enumerate(curves):
        axes.axhspan(mean - half, mean + half, color=style.GREY, alpha=0.08, linewidth=0)
        dashes = style.line_style(index + 1)["linestyle"]
        handles.append(axes.axhline(mean, color=style.GREY, linestyle=dashes, linewidth=1.2))
    for index, line in enumerate(lines):
        curves.append(curve([arm.metric(measured) for arm in line]))
        handles += style.line_with_bars(axes, index, [value(arm) for arm in line], *curves[-1], len(lines))
    _x_axis(axes, sorted({value(arm) for line in lines for arm in line}))
    firsts = [line[0] for line in lines]
    flag, units = x.replace("_", "-"), "s, ".join(sorted({arm.config.unit for arm in firsts}))
    axes.set_xlabel(f"{flag} ({units}s)" if x in ("rho", "rho_end") else X_LABELS.get(x, flag))
    axes.set_ylabel(style.axis_label(measured))
    style.fit(axes, measured, curves)
    caption_of(figure, arms, "bars and grey bands" if levels else "bars")
    style.legend(figure, handles, [*labels(levels), *labels(firsts, without=x)])
    return figure


def _lines(arms: Sequence[Arm], x: str) -> list[list[Arm]]:
    """Arms that are alike but for ``x``, each in the order of it."""
    alike: dict[str, list[Arm]] = {}
    for arm in arms:
        alike.setdefault(repr(arm.config.flat_settings() | {x: None}), []).append(arm)
    return [sorted(line, key=lambda arm: arm.config.flat_settings()[x]) for line in alike.values()]


def _x_axis(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where half of the values would crowd in the first tenth of the axis, as 1, 2, 4 ... 4096 do."""
    if len(values) > 2 and values[0] >= 0 and np.median(values) < values[-1] / 10:
        if values[0] > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=values[1], linscale=0.5)
        axes.xaxis.set_major_formatter("{x:g}")
    # By hand, as matplotlib takes no account of lines that stand aside.
    along = axes.xaxis.get_transform()
    low, high = along.transform([values[0], values[-1]])
    margin = 0.03 * (high - low) or 0.5 * abs(high) or 0.5
    axes.set_xlim(*along.inverted().transform([low - margin, high + margin]))


def masks(arms: Sequence[Arm]) -> Figure:
    """How many neurons passed how often over all of training. One line an arm: the share of its neurons (or weights)
    with a pass rate in each tenth, its mean over the finished seeds, on a logarithmic scale, as most neurons pass
    nearly always. Tenths without any are left out."""
    counting = [arm for arm in arms if any(run.pass_histogram for run in arm.done.values())]
    if not counting:
        raise MaldropError("nothing to plot: none of these variants counts what it drops, as maldrop does")
    figure, [axes] = style.canvas(7, 4.0, lines=len(counting))
    handles: list[Line2D] = []
    for index, arm in enumerate(counting):
        histograms = [np.array(run.pass_histogram) for run in arm.done.values() if run.pass_histogram]
        shares = np.mean([100 * each / each.sum() for each in histograms], axis=0)
        edges = np.linspace(0, 100, len(shares) + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        handles += axes.plot(middles, np.where(shares > 0, shares, np.nan), **style.line_style(index))
    axes.set(yscale="log", xlim=(0, 100), xticks=edges)
    axes.set(xlabel="pass rate over all of training (%), in tenths", ylabel="neurons or weights in the tenth (%)")
    axes.yaxis.set_major_formatter("{x:g}")
    seeds = plural(max(len(arm.done) for arm in counting), "seed")
    style.caption(figure, shared_settings(counting), f"Mean over {seeds}.")
    style.legend(figure, handles, labels(counting))
    return figure
