"""Plots of what networks keep of their accuracy when something is hidden, and of what is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.compare import TOP1
from maldrop_cli.names import MaldropError
from maldrop_cli.plots import style
from maldrop_cli.plots.runs import band, caption_of, curve
from maldrop_cli.render.arms import hidden_metrics, labels

if TYPE_CHECKING:
    from maldrop_cli.data.load import ImageData
    from maldrop_cli.robustness.plan import RobustnessPlan

EXAMPLES = 8  # images in a row
SIDE = 0.75  # inches


def robustness(arms: Sequence[Arm]) -> Figure:
    """Top-1 at the last epoch against severity, from 0, which hides nothing. A panel a perturbation, a line an arm with
    its 95 % band. MaldropError where nothing was measured."""
    severities: dict[str, list[float]] = {}
    for metric in hidden_metrics(arms):
        name, _, severity = metric.rpartition("_")
        severities.setdefault(name, [0.0]).append(float(severity))
    if not severities:
        raise MaldropError("nothing to plot: no run was measured with something hidden; --robustness does it")
    rows, numbers = style.together(range(len(arms))), style.numbers(arms)
    size = max(7.0, 2.6 * len(severities)), 3.2
    figure, grid = style.canvas(*size, lines=len(arms), rows=len(rows), panels=len(severities))
    for column, (name, found) in enumerate(severities.items()):
        at = np.array(sorted(found))
        metrics = [f"{name}_{severity:g}" if severity else TOP1 for severity in at]
        curves = [curve([arm.metric(metric) for metric in metrics]) for arm in arms]
        handles: list[Line2D] = []
        for panels, members in zip(grid, rows, strict=True):
            axes = panels[column]
            handles += [line for index in members for line in band(axes, numbers[index], at, curves[index])]
            axes.set_xlabel(name.removeprefix("top1_"))
            style.fit(axes, TOP1, curves)
            panels[0].set_ylabel(style.axis_label(TOP1))
    caption_of(figure, arms, "bands")
    style.legends(grid, rows, handles, labels(arms))
    return figure


@style.styled()
def examples(data: ImageData, plan: RobustnessPlan) -> Figure:
    """The first validation images as the runs of seed 0 see them: a row without and one for each severity of what is
    hidden in images. MaldropError where the plan hides nothing in them."""
    from maldrop_cli.robustness.evaluate import generator_of
    from maldrop_cli.robustness.perturbations import PERTURBATIONS

    batch = data.val.images[:64].cpu()
    rows = {"clean": batch} | {
        f"{name} {severity:g}": PERTURBATIONS[name].apply(batch, severity, generator_of(name, 0))
        for name, severity in plan.severities
        if not PERTURBATIONS[name].hidden
    }
    if len(rows) == 1:
        raise MaldropError("nothing to show: only neurons are hidden; try --robustness occlude=0.25,0.5")
    figure = Figure(figsize=(1.2 + SIDE * EXAMPLES, 0.2 + SIDE * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), EXAMPLES, squeeze=False)
    for panels, (name, images) in zip(grid, rows.items(), strict=True):
        panels[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axes, image in zip(panels, images, strict=False):
            axes.imshow(image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=255)
        for axes in panels:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    style.caption(figure, f"The first validation images of {data.name}, as the runs of seed 0 see them.")
    return figure
