"""What a step costs, as a multiple of one without dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from maldrop_cli.plots import style
from maldrop_cli.render.tables import number

ROW = 0.27  # inches
WIDE = 5.0  # from this ratio on, the axis is logarithmic


@style.styled()
def ratios(rows: Sequence[Mapping[str, Any]], *remarks: str) -> Figure:
    """A row a subject, in the order of the table: its ratio to ``none`` with the 95 % interval; the per-neuron forms
    are hollow. ``rows``: as `timing_rows` gives them; ``remarks``: what to say above them, a line each."""
    figure, [axes] = style.canvas(7, 0.6 + ROW * len(rows))
    for place, row in enumerate(rows):
        ratio, low, high = (row[f"ratio_vs_none{end}"] for end in ("", "_lo", "_hi"))
        face = "black" if row["neurons_timed"] is None else "white"
        ends = np.nan_to_num([[ratio - low], [high - ratio]])
        axes.errorbar([ratio], [place], xerr=ends, fmt="o", color="black", mfc=face, elinewidth=1.2, capsize=2.5)
        axes.annotate(
            number(ratio, 2),
            (1, place),
            (38, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
        )
    axes.axvline(1, color=style.GREY, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(rows)), [row["subject"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    if max(row["ratio_vs_none"] for row in rows) > WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("time, as a multiple of that of none")
    for remark in remarks:
        style.remark(figure, remark)
    hollow_too = "; hollow: the per-neuron forms" if any(row["neurons_timed"] is not None for row in rows) else ""
    style.remark(figure, f"Medians of the ratios within a round, bars: 95 % bootstrap interval{hollow_too}.")
    return figure
