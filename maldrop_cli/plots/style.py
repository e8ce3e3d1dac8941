"""What all plots share: how they look, what arms are called in them, and how they become files."""

from __future__ import annotations

import functools
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import offset_copy

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.files import write_output
from maldrop_cli.names import Dropout, MaldropError, Metric, one_line
from maldrop_cli.render.arms import in_order
from maldrop_cli.render.runs import metric_name

Item = TypeVar("Item")
Numbers = npt.NDArray[np.float64]
Curve = tuple[Numbers, Numbers]  # means, and half-widths of their intervals with 0 where there is none

LABELS: dict[str, str] = {
    Metric.VAL_TOP1: "validation top-1 (%)",
    Metric.VAL_TOP5: "validation top-5 (%)",
    Metric.VAL_LOSS: "validation loss (nats)",
    Metric.TRAIN_LOSS: "training loss (nats)",
    Metric.TRAIN_SECONDS: "training time of an epoch (s)",
    Metric.DROP_RATE: "dropped (%)",
}


def axis_label(measured: str) -> str:
    """A measurement with its unit."""
    return LABELS.get(measured) or f"validation top-1, {metric_name(measured)} (%)"


# One for each variant, in the order of names.Dropout. The first seven are Okabe and Ito's, which the colour-blind can
# tell apart, without the yellow that white swallows. Marker and dash tell the lines apart in grey.
COLOURS = (
    *("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7"),
    *("#882255", "#999933", "#332288", "#8C6D5A"),
)
FIRST_FREE = 4  # the colours of none, vanilla, maldrop and random are theirs even where they are absent
MARKERS = "osD^vPX"
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
TOGETHER = 8  # lines in a panel; more would cover each other
MAX_LINES = 8 * TOGETHER
GREY = "#666666"
TEXT_LINE = 0.2  # inches
SHIFT = 2.5  # points between lines whose error bars would cover each other

# Within it, matplotlib's settings are ours, whatever the user's matplotlibrc says; after it, what they were.
styled = functools.partial(
    matplotlib.style.context,
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "errorbar.capsize": 2,
        "figure.facecolor": "white",
        "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it along: the same on every machine
        "font.size": 9,
        "grid.color": "#e5e5e5",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.handlelength": 3.6,
        "lines.linewidth": 1.4,
        "lines.markersize": 4,
        "savefig.dpi": 110,
        "svg.fonttype": "none",  # text that can be found and copied; where DejaVu Sans lacks, others are narrower
        "svg.hashsalt": "maldrop",  # names in the file depend on nothing but the picture
    },
    after_reset=True,
)

METADATA: dict[str, dict[str, Any]] = {  # by suffix; no dates and no versions: the same runs give the same bytes
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def save(figure: Figure, path: Path) -> None:
    """Write it as PNG, SVG or PDF, as the suffix says; MaldropError where the file can't be written."""
    suffix = path.suffix.lower()
    buffer = io.BytesIO()
    for text in figure.findobj(Text):
        shown = text.get_text()
        if "\\mathdefault" not in shown:  # as matplotlib writes powers of ten
            text.set_text("\n".join(map(one_line, shown.split("\n"))))
            text.set_parse_math("$" not in shown)  # a name may have one
    with styled():
        figure.savefig(buffer, format=suffix.removeprefix("."), metadata=METADATA[suffix])
    write_output(path, buffer.getvalue())


def together(several: Sequence[Item], by: Callable[[Item], object] = lambda item: None) -> list[list[Item]]:
    """Those that share a panel: alike in ``by``, and no more than TOGETHER."""
    alike: dict[object, list[Item]] = {}
    for item in several:
        alike.setdefault(by(item), []).append(item)
    found = []
    for group in alike.values():
        size = -(-len(group) // -(-len(group) // TOGETHER))  # 9 are 5 and 4, not 8 and 1
        found += [group[at : at + size] for at in range(0, len(group), size)]
    return found


def canvas(
    width: float, height: float, *, lines: int = 1, rows: int = 1, panels: int = 1
) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure with rows of panels, each so high, in inches. MaldropError for more lines than can be told
    apart."""
    if lines > MAX_LINES:
        raise MaldropError(
            f"{lines} lines can't be told apart in one plot ({MAX_LINES} can); choose some of the stored runs: "
            "maldrop report DIR --where SETTING=VALUE --plot FILE"
        )
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, [list(row) for row in figure.subplots(rows, panels, squeeze=False)]


def caption(figure: Figure, *texts: str) -> None:
    """Each text above everything, below those before it; the figure grows by its lines."""
    for text in texts:
        lines = textwrap.wrap(text, int(15.5 * figure.get_figwidth()))
        figure.suptitle("\n".join(filter(None, [figure.get_suptitle(), *lines])), x=0.01, ha="left", fontsize=9)
        figure.set_figheight(figure.get_figheight() + TEXT_LINE * len(lines))


def legend(figure: Figure, handles: Sequence[Line2D], names: Sequence[str], title: str | None = None) -> None:
    """Below the panels, where it covers no data, in as many columns as fit; the figure grows by its rows."""
    characters = int(13 * figure.get_figwidth())
    columns = max(1, min(len(names), characters // (max(map(len, names)) + 12)))  # 12 for the handle and the gaps
    figure.legend(handles, names, loc="outside lower center", ncols=columns, title=title, alignment="left")
    figure.set_figheight(figure.get_figheight() + TEXT_LINE * (-(-len(names) // columns) + (title is not None)))


def legends(
    grid: Sequence[Sequence[Axes]],
    rows: Sequence[Sequence[int]],
    handles: Sequence[Line2D],
    names: Sequence[str],
    title: str | None = None,
) -> None:
    """As :func:`legend`; of several rows of panels, one beside each. ``rows``: which of the ``handles`` stand in it."""
    figure: Any = grid[0][0].get_figure(root=True)
    if len(rows) == 1:
        legend(figure, handles, names, title)
        return
    for panels, members in zip(grid, rows, strict=True):
        shown = [handles[number] for number in members], [names[number] for number in members]
        panels[-1].legend(*shown, loc="center left", bbox_to_anchor=(1.02, 0.5), title=title, alignment="left")
    figure.set_figwidth(figure.get_figwidth() + 0.8 + max(map(len, [*names, title or ""])) / 13)


def numbers(arms: Sequence[Arm]) -> list[int]:
    """The number of each arm's line, whatever kind of plot it is in. The first arm of a variant, by its settings, has
    the variant's own, and thus its colour; the others have those of variants that are not there."""
    variants, order = list(Dropout), in_order(arms, [])
    own = {arm.config.dropout: id(arm) for arm in reversed(order)}
    free = [each for each in range(FIRST_FREE, len(COLOURS)) if variants[each] not in own]
    spare = (each + turn * len(COLOURS) for turn in count(not free) for each in free or range(FIRST_FREE, len(COLOURS)))
    found = {
        id(arm): variants.index(arm.config.dropout) if own[arm.config.dropout] == id(arm) else next(spare)
        for arm in order
    }
    return [found[id(arm)] for arm in arms]


def line_style(index: int) -> dict[str, Any]:
    """Of the line with that number: no two of MAX_LINES are the same."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }


def line_with_bars(
    axes: Axes, index: int, x: npt.ArrayLike, y: npt.ArrayLike, half: npt.ArrayLike, among: tuple[int, int] = (0, 1)
) -> list[Line2D]:
    """Line ``index`` with error bars. ``among``: the how manieth it is of how many at the same place; each is moved a
    little to one side, on the paper rather than in the data, so that all bars are seen. ``half``: half-widths, or those
    below and those above."""
    points = SHIFT * (among[0] - (among[1] - 1) / 2)
    moved = offset_copy(axes.transData, axes.get_figure(root=True), points, units="points")
    style = line_style(index)
    axes.errorbar(x, y, half, color=style["color"], transform=moved, linestyle="none", elinewidth=0.9, alpha=0.7)
    return axes.plot(x, y, **style, transform=moved)


def fit(axes: Axes, measured: str, curves: Sequence[Curve], reach: float = math.inf) -> None:
    """Limits along y that show all means, and their intervals up to ``reach`` times the span of the means beyond them:
    the interval of two seeds is easily ten times as wide as that span, and would squeeze the curves."""
    mean, half = np.concatenate(curves, axis=1)
    mean, half = mean[np.isfinite(mean)], half[np.isfinite(mean)]
    if not len(mean):  # losses that are not finite, say: an empty panel tells that
        return
    low, high = mean.min(), mean.max()
    span = (high - low) or max(float(half.max()), abs(high) * 0.02, 1e-3)
    bottom = max((mean - half).min(), low - reach * span, 0.0)
    top = min((mean + half).max(), high + reach * span, 100.0 if axis_label(measured).endswith("(%)") else math.inf)
    margin = 0.04 * ((top - bottom) or span)
    axes.set_ylim(bottom - margin, top + margin)
