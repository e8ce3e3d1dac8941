"""A measurement at the last epoch against a setting, rho above all: the paper's figure in section 5.2.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.settings import settings_of
from maldrop_cli.config import MaldropError, Metric
from maldrop_cli.plots import style

X_LABELS = {"lr": "learning rate", "p": "p, rate of dropping", "batch_size": "batch size (images)"}


def metric(arms: Sequence[Arm], measured: Metric, x: str) -> Figure:
    """One line for all arms that are alike but for ``x``, with 95 % intervals; a level with a band for each arm on
    which ``x`` has no effect: ``none`` and ``vanilla``, where it is rho.

    MaldropError where no arm has a number for ``x``.
    """
    levels = [arm for arm in arms if settings_of(arm.config).get(x) is None]
    lines = _lines([arm for arm in arms if isinstance(settings_of(arm.config).get(x), int | float)], x)
    if not lines:
        raise MaldropError(f"nothing to plot: in none of these runs {x} has an effect and a number; --x names another")
    style.check_count(len(lines) + len(levels))
    figure, [axes] = style.canvas(7, 4.0)
    handles: list[Artist] = []
    curves = []
    for index, level in enumerate(levels):
        mean, half = style.numbers([level.metric(measured)])
        look: dict[str, Any] = {"color": style.GREY, "linestyle": style.DASHES[(index + 1) % len(style.DASHES)]}
        axes.axhspan(float(mean[0] - half[0]), float(mean[0] + half[0]), color=style.GREY, alpha=0.08, linewidth=0)
        handles.append(axes.axhline(float(mean[0]), **look, linewidth=1.2))
        curves.append((mean, half))
    for index, line in enumerate(lines):
        at = [settings_of(arm.config)[x] for arm in line]
        mean, half = style.numbers([arm.metric(measured) for arm in line])
        look = style.line_style(index) | {"transform": style.aside(axes, index, len(lines))}
        style.bars(axes, np.array(at, float), mean, half, look)
        handles += axes.plot(at, mean, **look)
        curves.append((mean, half))
    _scale(axes, [settings_of(arm.config)[x] for line in lines for arm in line])
    axes.set_xlabel(_label(x, [line[0] for line in lines]))
    axes.set_ylabel(style.LABELS[measured])
    style.fit(axes, measured, curves)
    style.heading(figure, arms, "bars and grey bands" if levels else "bars")
    style.legend(figure, handles, [*style.labels(levels), *style.labels([line[0] for line in lines], without=x)])
    return figure


def _lines(arms: Sequence[Arm], x: str) -> list[list[Arm]]:
    """Arms that are alike but for ``x``, each in the order of it."""
    alike: dict[str, list[Arm]] = {}
    for arm in arms:
        key = repr({name: value for name, value in settings_of(arm.config).items() if name != x})
        alike.setdefault(key, []).append(arm)
    return [sorted(line, key=lambda arm: settings_of(arm.config)[x]) for line in alike.values()]


def _label(x: str, arms: Sequence[Arm]) -> str:
    """What stands along the axis, with its unit."""
    if x not in ("rho", "rho_end"):
        return X_LABELS.get(x, x.replace("_", "-"))
    units = {arm.config.unit for arm in arms}
    return f"{x.replace('_', '-')} ({'s, '.join(sorted(units))}s)"


def _scale(axes: Axes, at: Sequence[float]) -> None:
    """Logarithmic where half of the points would crowd in the first tenth of the axis, as 1, 2, 4 ... 4096 do."""
    values = np.array(sorted(set(at)), float)
    if len(values) > 2 and values[0] >= 0 and np.median(values) < values[-1] / 10:
        if values[0] > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=values[1], linscale=0.5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    # By hand, as matplotlib takes no account of lines that stand aside.
    along = axes.xaxis.get_transform()
    low, high = along.transform([values[0], values[-1]])
    margin = 0.03 * (high - low) or 0.5 * abs(high) or 0.5
    axes.set_xlim(*along.inverted().transform([low - margin, high + margin]))
