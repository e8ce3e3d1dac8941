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
from maldrop_cli.analysis.settings import NUMERIC
from maldrop_cli.analysis.stats import Interval
from maldrop_cli.names import MaldropError, Metric
from maldrop_cli.plots import style
from maldrop_cli.render.arms import labels
from maldrop_cli.render.runs import shared_settings
from maldrop_cli.render.tables import number, plural, plus_minus

PANELS = (Metric.VAL_LOSS, Metric.VAL_TOP1, Metric.VAL_TOP5)
BAND = 0.15  # opacity
MAX_MARKED = 20  # epochs with a marker each; of more, about that many have one
ROW = 0.3  # inches of a bar
X_LABELS = {"lr": "learning rate", "p": "p, rate of dropping", "batch_size": "batch size (images)"}
OF_UNITS = ("rho", "rho_end")  # settings that count neurons, channels or weights


def learning(arms: Sequence[Arm]) -> Figure:
    """Learning curves, as the paper's figures 2 to 4: validation loss, top-1 and top-5 by epoch. One line an arm with
    its 95 % band, in three panels; of one arm alone, the training loss as well."""
    rows = style.together(range(len(arms)))
    figure, grid = style.canvas(10, 3.2 if len(rows) == 1 else 2.6, lines=len(arms), rows=len(rows), panels=len(PANELS))
    handles = _curves(grid, PANELS, arms, [np.arange(1.0, arm.config.epochs + 1) for arm in arms])
    names, last = labels(arms), max(arm.config.epochs for arm in arms)
    margin = 0.04 * (last - 1) or 0.5
    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # there is no epoch 1.5
        axes.set(xlim=(1 - margin, last + margin), xlabel="epoch")
    if len(arms) == 1:
        epochs = range(1, last + 1)
        mean, _ = curve([arms[0].metric(Metric.TRAIN_LOSS, epoch) for epoch in epochs])
        handles += figure.axes[0].plot(epochs, mean, color=style.GREY, marker="x", linestyle=":")
        names.append("its training loss")
        figure.axes[0].relim()
        figure.axes[0].autoscale(axis="y")
        figure.axes[0].set_ylabel("loss (nats)")
    style.legends(grid, rows, handles, names)
    return figure


def time(arms: Sequence[Arm], measured: str) -> Figure:
    """A measurement against training time: which variant is ahead after as many seconds. One line an arm: each epoch's
    mean, with its 95 % band, at the mean of the seconds trained until its end. A thin line stands where the first arm
    was done; the legend has the means there, between epochs on the straight line."""
    rows = style.together(range(len(arms)))
    figure, grid = style.canvas(7, 4.0 if len(rows) == 1 else 2.6, lines=len(arms), rows=len(rows))
    times = [[np.cumsum([row.train_seconds for row in run.epochs]) for run in arm.done.values()] for arm in arms]
    seconds = [np.mean(of_seeds, axis=0) for of_seeds in times]
    handles = _curves(grid, [measured], arms, seconds)
    ends = [float(at[-1]) for at in seconds]
    for axes in figure.axes:
        axes.set(xlim=(0, 1.03 * max(ends)), xlabel="training time (s), evaluation and loading left out")
    if len({run.machine for arm in arms for run in arm.done.values()}) > 1:
        style.caption(figure, "Trained on different machines: these times do not compare.")
    names, title = labels(arms), None
    if len(arms) > 1:
        title = f"at {min(ends):.3g} s, where the first is done:"
        for axes in figure.axes:
            axes.axvline(min(ends), color=style.GREY, linewidth=0.8, zorder=1)
        for index, (at, line) in enumerate(zip(seconds, handles, strict=True)):
            reached = np.interp(min(ends), at, np.asarray(line.get_ydata()), left=np.nan)
            names[index] += f": {number(float(reached), 2)}"
    style.legends(grid, rows, handles, names, title)
    return figure


def _curves(
    grid: Sequence[Sequence[Axes]], panels: Sequence[str], arms: Sequence[Arm], x: Sequence[style.Numbers]
) -> list[Line2D]:
    """In each panel a line an arm: each epoch's mean over the finished seeds where ``x`` says, with its band; with bars
    where there is but one epoch. Panels below each other have the same limits. Returns a line of each arm, for the
    legend."""
    bars, numbers, rows = all(len(at) == 1 for at in x), style.numbers(arms), style.together(range(len(arms)))
    same_place = len({float(at[0]) for at in x}) == 1
    for column, measured in enumerate(panels):
        curves = [
            curve([arm.metric(measured, epoch) for epoch in range(1, len(at) + 1)])
            for arm, at in zip(arms, x, strict=True)
        ]
        handles: list[Line2D] = []
        for row, members in zip(grid, rows, strict=True):
            for place, index in enumerate(members):
                where = row[column], numbers[index], x[index]
                if bars:
                    among = (place, len(members)) if same_place else (0, 1)
                    handles += style.line_with_bars(*where, *curves[index], among)
                else:
                    handles += band(*where, curves[index])
            row[column].set_ylabel(style.axis_label(measured))
            style.fit(row[column], measured, curves, math.inf if bars else 0.5)
    figure: Any = grid[0][0].get_figure(root=True)
    caption_of(figure, arms, "bars" if bars else "bands")
    return handles


def band(axes: Axes, index: int, at: style.Numbers, curve: style.Curve) -> list[Line2D]:
    """Line ``index`` with its band."""
    mean, half = curve
    how = style.line_style(index)
    axes.fill_between(at, mean - half, mean + half, color=how["color"], alpha=BAND, linewidth=0)
    return axes.plot(at, mean, **how, markevery=-(-len(mean) // MAX_MARKED))


def curve(intervals: Sequence[Interval]) -> style.Curve:
    """Means and half-widths; 0 where there is none."""
    return np.array([each.mean for each in intervals]), np.nan_to_num([each.half for each in intervals])


def caption_of(figure: Figure, arms: Sequence[Arm], interval: str) -> None:
    """What the arms share, and over what the means are. ``interval``: how it is drawn."""
    counts = sorted({len(arm.done) for arm in arms})
    seeds = plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    means = "One seed, so without an interval." if counts == [1] else f"Mean over {seeds}, {interval}: 95 % t-interval."
    style.caption(figure, shared_settings(arms), means)


def metric(arms: Sequence[Arm], measured: str, x: str | None) -> Figure:
    """A measurement at the last epoch against a setting, by default the one that varies most: the paper's figure in
    section 5.2.1. One line for all arms that are alike but for ``x``, with 95 % intervals; a level with a band for each
    arm on which ``x`` has no effect: ``none`` and ``vanilla``, where it is rho. What counts neurons, channels and
    weights has panels of its own. Bars, where ``x`` has a single value. MaldropError where no arm has a number for the
    ``x`` that was asked for."""
    asked, x = x, x or _swept(arms)

    def value(arm: Arm) -> Any:
        return arm.config.flat_settings().get(x)

    levels = [arm for arm in arms if value(arm) is None]
    lines = _lines([arm for arm in arms if isinstance(value(arm), int | float)], x)
    if not lines and asked:
        raise MaldropError(f"nothing to plot: in none of these runs {x} has an effect and a number; --x names another")
    if len({value(arm) for line in lines for arm in line}) < 2:
        return bars(arms, measured)
    firsts = [line[0] for line in lines]
    groups = style.together(range(len(lines)), lambda index: firsts[index].config.unit if x in OF_UNITS else None)
    size = 7, 4.0 if len(groups) == 1 else 2.8
    figure, grid = style.canvas(*size, lines=len(lines) + len(levels), rows=len(groups))
    numbers = style.numbers([*levels, *firsts])
    curves = [curve([level.metric(measured)]) for level in levels]
    curves += [curve([arm.metric(measured) for arm in line]) for line in lines]
    handles: dict[int, Line2D] = {}
    for [axes], members in zip(grid, groups, strict=True):
        for index, ([mean], [half]) in enumerate(curves[: len(levels)]):
            how = style.line_style(numbers[index])
            axes.axhspan(mean - half, mean + half, color=how["color"], alpha=BAND / 2, linewidth=0)
            handles[index] = axes.axhline(mean, color=how["color"], linestyle=how["linestyle"], linewidth=1.2)
        for place, member in enumerate(members):
            index, at = len(levels) + member, [value(arm) for arm in lines[member]]
            among = place, len(members)
            [handles[index]] = style.line_with_bars(axes, numbers[index], at, *curves[index], among)
        _x_axis(axes, sorted({value(arm) for member in members for arm in lines[member]}))
        if x in OF_UNITS and axes.get_xscale() == "linear":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        flag, unit = x.replace("_", "-"), firsts[members[0]].config.unit
        axes.set_xlabel(f"{flag} ({unit}s)" if x in OF_UNITS else X_LABELS.get(x, flag))
        axes.set_ylabel(style.axis_label(measured))
        style.fit(axes, measured, curves)
    caption_of(figure, arms, "bars and the bands of levels" if levels else "bars")
    rows = [[*range(len(levels)), *(len(levels) + member for member in members)] for members in groups]
    names = [*labels(levels), *labels(firsts, without=x)]
    style.legends(grid, rows, [handles[index] for index in range(len(names))], names)
    return figure


def _swept(arms: Sequence[Arm]) -> str:
    """The setting with the most numbers among the arms; rho, where others have no more."""
    settings = [arm.config.flat_settings() for arm in arms]
    values = {name: {each[name] for each in settings if isinstance(each.get(name), int | float)} for name in NUMERIC}
    return max(["rho", *values], key=lambda name: len(values[name]))


def bars(arms: Sequence[Arm], measured: str) -> Figure:
    """A measurement at the last epoch, a bar an arm from 0 on, with its 95 % interval and in numbers."""
    figure, [[axes]] = style.canvas(7, 0.7 + ROW * len(arms), lines=len(arms))
    mean, half = curve([arm.metric(measured) for arm in arms])
    colours = [style.line_style(index)["color"] for index in style.numbers(arms)]
    places = range(len(arms))
    axes.barh(places, np.nan_to_num(mean), xerr=half, height=0.6, color=colours, alpha=0.75, ecolor=style.GREY)
    for place, arm in enumerate(arms):
        found = arm.metric(measured)
        axes.annotate(
            plus_minus(found.mean, found.half, 2), (1, place), (6, 0), ("axes fraction", "data"), "offset points",
            va="center",
        )  # fmt: skip
    axes.set_yticks(places, labels(arms))
    axes.set(ylim=(len(arms) - 0.5, -0.5), xlabel=style.axis_label(measured))
    axes.grid(visible=False, axis="y")
    caption_of(figure, arms, "thin lines")
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
    """How many neurons passed how often over all of training. One line an arm: the share of its neurons (channels,
    weights: in panels of their own) with a pass rate in each tenth, its mean over the finished seeds, on a logarithmic
    scale, as most neurons pass nearly always. Tenths without any are left out."""
    numbers, names = style.numbers(arms), labels(arms)
    counting = [index for index, arm in enumerate(arms) if any(run.pass_histogram for run in arm.done.values())]
    if not counting:
        raise MaldropError("nothing to plot: none of these variants counts what it drops, as maldrop does")
    rows = style.together(counting, lambda index: arms[index].config.unit)
    figure, grid = style.canvas(7, 4.0 if len(rows) == 1 else 2.8, lines=len(counting), rows=len(rows))
    handles: dict[int, Line2D] = {}
    for [axes], members in zip(grid, rows, strict=True):
        for index in members:
            histograms = [np.array(run.pass_histogram) for run in arms[index].done.values() if run.pass_histogram]
            shares = np.mean([100 * each / each.sum() for each in histograms], axis=0)
            edges = np.linspace(0, 100, len(shares) + 1)
            middles = (edges[:-1] + edges[1:]) / 2
            [handles[index]] = axes.plot(
                middles, np.where(shares > 0, shares, np.nan), **style.line_style(numbers[index])
            )
        axes.set(yscale="log", xlim=(0, 100), xticks=edges, xlabel="pass rate over all of training (%), in tenths")
        axes.set_ylabel(f"{arms[members[0]].config.unit}s in the tenth (%)")
        axes.yaxis.set_major_formatter("{x:g}")
    seeds = plural(max(len(arms[index].done) for index in counting), "seed")
    style.caption(figure, shared_settings([arms[index] for index in counting]), f"Mean over {seeds}.")
    style.legends(
        grid,
        [[counting.index(index) for index in members] for members in rows],
        [handles[index] for index in counting],
        [names[index] for index in counting],
    )
    return figure
