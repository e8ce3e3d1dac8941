"""Accuracy against training time: which variant is ahead after as many seconds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from matplotlib.figure import Figure

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.stats import t_interval
from maldrop_cli.config import Metric
from maldrop_cli.plots import style
from maldrop_cli.render.tables import number


def time(arms: Sequence[Arm], measured: Metric) -> Figure:
    """One line an arm: each epoch's mean, with its 95 % band, at the mean of the seconds trained until its end. A thin
    line stands where the first arm was done; the legend has the means there, between epochs on the straight line."""
    style.check_count(len(arms))
    figure, [axes] = style.canvas(7, 4.0)
    times = [seconds(arm) for arm in arms]
    handles, interval = style.draw_curves(axes, measured, times, arms)
    axes.set_xlim(0, 1.03 * max(float(np.nanmax(at)) for at in times))
    axes.set_xlabel("training time (s), evaluation and loading left out")
    style.heading(figure, arms, interval)
    if len({run.machine for arm in arms for run in arm.done.values()}) > 1:
        style.remark(figure, "Trained on different machines: these times do not compare.")
    names, title = style.labels(arms), None
    if len(arms) > 1:
        end = min(float(np.nanmax(at)) for at in times)
        axes.axvline(end, color=style.GREY, linewidth=0.8, zorder=1)
        title = f"at {end:.3g} s, where the first is done:"
        means = [[arm.metric(measured, epoch).mean for epoch in range(1, arm.config.epochs + 1)] for arm in arms]
        reached = [float(np.interp(end, at, mean, left=np.nan)) for at, mean in zip(times, means, strict=True)]
        names = [f"{name}: {number(value, 2)}" for name, value in zip(names, reached, strict=True)]
    style.legend(figure, handles, names, title)
    return figure


def seconds(arm: Arm) -> style.Numbers:
    """At the end of each epoch, the seconds trained so far: the mean over the finished seeds."""
    runs = [list(accumulate(row.train_seconds for row in run.epochs)) for run in arm.done.values()]
    epochs = range(arm.config.epochs)
    return np.array([t_interval([run[epoch] for run in runs if epoch < len(run)]).mean for epoch in epochs])
