"""Learning curves: validation loss, top-1 and top-5 by epoch, as the paper's figures 2 to 4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.config import Metric
from maldrop_cli.plots import style

PANELS = (Metric.VAL_LOSS, Metric.VAL_TOP1, Metric.VAL_TOP5)


def learning(arms: Sequence[Arm]) -> Figure:
    """One line an arm with its 95 % band, in three panels."""
    style.check_count(len(arms))
    figure, panels = style.canvas(10, 3.2, len(PANELS))
    last = max(arm.config.epochs for arm in arms)
    margin = 0.04 * (last - 1) or 0.5
    epochs = [np.arange(1.0, arm.config.epochs + 1) for arm in arms]
    for axes, measured in zip(panels, PANELS, strict=True):
        handles, interval = style.draw_curves(axes, measured, epochs, arms)
        style.whole_numbers(axes)
        axes.set_xlim(1 - margin, last + margin)
        axes.set_xlabel("epoch")
    style.heading(figure, arms, interval)
    style.legend(figure, handles, style.labels(arms))
    return figure
