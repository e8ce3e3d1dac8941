"""A plot of what `compare` tests: each arm against its baseline."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from maldrop_cli.analysis.compare import Comparison, lower_is_better
from maldrop_cli.names import MaldropError
from maldrop_cli.plots import style
from maldrop_cli.render.arms import SIGNS, against, labels
from maldrop_cli.render.runs import metric_name, shared_settings

ROW = 0.3  # inches of an arm
ACROSS = 3  # panels in a row


def forest(comparison: Comparison | None) -> Figure:
    """Differences to the baseline with their 95 % intervals, as the verdicts have them: a panel a measurement, a row an
    arm, and at its end the sign of its verdict. The grey band is the margin of equivalence. MaldropError where nothing
    was tested."""
    found = {} if comparison is None else comparison.differences
    shown = {
        metric: [each if each and math.isfinite(each.interval.mean) else None for each in of_arms]
        for metric, of_arms in found.items()
    }
    shown = {metric: of_arms for metric, of_arms in shown.items() if any(of_arms)}
    if comparison is None or not shown:
        raise MaldropError("nothing to plot: no arm was tested against another; --baseline names one")
    arms = comparison.arms
    numbers, names = style.numbers(arms), labels(arms)
    rows = [row for row in range(len(arms)) if any(of_arms[row] for of_arms in shown.values())]
    across = min(len(shown), ACROSS)
    down = -(-len(shown) // across)
    figure, grid = style.canvas(2.4 + 2.6 * across, 0.8 + ROW * len(rows), lines=len(rows), rows=down, panels=across)
    panels = [axes for line in grid for axes in line]
    for axes in panels[len(shown) :]:
        axes.remove()
    for number, (axes, (metric, of_arms)) in enumerate(zip(panels, shown.items(), strict=False)):
        loss = lower_is_better(metric)
        margin = comparison.margin / 10 if loss else comparison.margin
        axes.axvspan(-margin, margin, color=style.GREY, alpha=0.15, linewidth=0)
        axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=1)
        for place, row in enumerate(rows):
            if each := of_arms[row]:
                how = style.line_style(numbers[row])
                half = np.nan_to_num(each.interval.half)
                axes.errorbar(
                    [each.interval.mean], [place], xerr=[half], fmt=how["marker"], color=how["color"], markersize=5
                )
                sign = SIGNS.get(each.outcome, "")
                axes.annotate(sign, (1, place), (4, 0), ("axes fraction", "data"), "offset points", va="center")
        axes.set_yticks(range(len(rows)), [names[row] for row in rows])
        axes.tick_params(left=number % across == 0, labelleft=number % across == 0)
        axes.set(ylim=(len(rows) - 0.5, -0.5))
        axes.set_title(metric_name(metric), fontsize="medium")
        axes.set_xlabel("difference (nats; less is better)" if loss else "difference (points)")
        axes.grid(visible=False, axis="y")
    tests = [(metric, row) for metric, of_arms in shown.items() for row, each in enumerate(of_arms) if each]
    title, _ = against(comparison, tests)
    signs = ", ".join(f"{sign}\N{NO-BREAK SPACE}{outcome}" for outcome, sign in SIGNS.items())
    several = any(each and each.interval.n > 1 for of_arms in shown.values() for each in of_arms)
    bars = "bars: 95 % t-interval, not corrected" if several else "one seed, so without an interval"
    bars += f"; grey: the margin; at the end, Holm-corrected: {signs}"
    style.caption(figure, shared_settings(arms), f"{title}; {bars}.")
    return figure
