"""The mask report: how many neurons passed how often over all of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.stats import t_interval
from maldrop_cli.config import MaldropError
from maldrop_cli.plots import style
from maldrop_cli.render.runs import shared_settings
from maldrop_cli.render.tables import plural

BINS = 10


def masks(arms: Sequence[Arm]) -> Figure:
    """One line an arm: the share of its neurons (or weights) with a pass rate in each tenth, its mean over the finished
    seeds, on a logarithmic scale, as most neurons pass nearly always. Tenths without any are left out."""
    counting = [arm for arm in arms if any(run.pass_histogram for run in arm.done.values())]
    if not counting:
        raise MaldropError("nothing to plot: none of these variants counts what it drops, as maldrop does")
    style.check_count(len(counting))
    figure, [axes] = style.canvas(7, 4.0)
    middles = np.arange(BINS) * 100 / BINS + 50 / BINS
    handles = []
    for index, arm in enumerate(counting):
        shares = np.array([t_interval(column).mean for column in zip(*_shares(arm), strict=True)])
        handles += axes.plot(middles, np.where(shares > 0, shares, np.nan), **style.line_style(index))
    axes.set_yscale("log")
    axes.set_xlim(0, 100)
    axes.set_xticks(np.arange(0, 101, 100 // BINS))
    axes.set_xlabel("pass rate over all of training (%), in tenths")
    axes.set_ylabel("neurons or weights in the tenth (%)")
    axes.yaxis.set_major_formatter(lambda share, position: f"{share:g}")
    style.remark(figure, shared_settings(counting))
    style.remark(figure, f"Mean over {plural(max(len(arm.done) for arm in counting), 'seed')}.")
    style.legend(figure, handles, style.labels(counting))
    return figure


def _shares(arm: Arm) -> list[list[float]]:
    """In percent, one list of tenths a seed."""
    return [
        [100 * count / sum(run.pass_histogram) for count in run.pass_histogram]
        for run in arm.done.values()
        if run.pass_histogram
    ]
