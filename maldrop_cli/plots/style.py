"""What all plots share: how they look, and how arms are called in them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation, Transform

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.settings import settings_of, varying
from maldrop_cli.analysis.stats import Interval
from maldrop_cli.config import MaldropError, Metric
from maldrop_cli.render.runs import name, shared_settings
from maldrop_cli.render.tables import plural

Numbers = npt.NDArray[np.float64]

LABELS = {
    Metric.VAL_TOP1: "validation top-1 (%)",
    Metric.VAL_TOP5: "validation top-5 (%)",
    Metric.VAL_LOSS: "validation loss (nats)",
    Metric.TRAIN_LOSS: "training loss (nats)",
    Metric.TRAIN_SECONDS: "training time of an epoch (s)",
    Metric.DROP_RATE: "dropped (%)",
}
BOUNDS = {  # which no band can leave
    **dict.fromkeys((Metric.VAL_TOP1, Metric.VAL_TOP5, Metric.DROP_RATE), (0.0, 100.0)),
    **dict.fromkeys((Metric.VAL_LOSS, Metric.TRAIN_LOSS, Metric.TRAIN_SECONDS), (0.0, np.inf)),
}

# Okabe and Ito's colours, which the colour-blind can tell apart, without the yellow that white swallows. Marker and
# dash tell the lines apart in grey.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7")
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
MAX_LINES = 24  # beyond it, neither eye nor legend keeps them apart
GREY = "#666666"
BAND = 0.15  # opacity
MAX_BANDS = 8  # lines; the bands of more would cover each other
MAX_MARKED = 20  # epochs with a marker each; of more, about that many have one
LINE = 0.2  # inches that a line of text takes
SIDESTEP = 2.5  # points between lines whose bars would stand on each other

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it along: the same on every machine
    "font.size": 9,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "savefig.dpi": 110,
    "svg.fonttype": "none",  # text that can be found and copied; where DejaVu Sans lacks, others are narrower
    "svg.hashsalt": "maldrop",  # names in the file depend on nothing but the picture
}


@contextmanager
def styled() -> Iterator[None]:
    """Within it, matplotlib's settings are ours, whatever the user's matplotlibrc says; after it, what they were."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, _STYLE))
        yield


def line_style(index: int) -> dict[str, Any]:
    """Of the line with that number: no two of MAX_LINES are the same."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }


def check_count(lines: int) -> None:
    """MaldropError where there are too many to tell apart."""
    if lines > MAX_LINES:
        raise MaldropError(
            f"{lines} lines can't be told apart in one plot ({MAX_LINES} can); choose some of the stored runs: "
            "maldrop report DIR --where SETTING=VALUE --plot FILE"
        )


def labels(arms: Sequence[Arm], without: str = "") -> list[str]:
    """What each arm is called: its variant, and the settings that vary among the arms. ``without``: one left out."""
    several = [settings_of(arm.config) for arm in arms]
    differing = [field for field in varying(several) if field != without]
    names = [name(arm.config, without, differing) for arm in arms]
    spoken = {word for text in names for word in _fields(text)}
    further = [field for field in differing if field not in _IN_NAMES and field not in spoken]
    return [
        " ".join([text, *(f"{field.replace('_', '-')}={each[field]}" for field in further if field in each)])
        for text, each in zip(names, several, strict=True)
    ]


_IN_NAMES = ("dropout", "schedule", "selector", "granularity")  # said there by their value alone


def _fields(text: str) -> list[str]:
    return [word.partition("=")[0].replace("-", "_") for word in text.split() if "=" in word]


def canvas(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure, in inches, with its panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def heading(figure: Figure, arms: Sequence[Arm], interval: str) -> None:
    """Above everything: what the arms share, and over what the means are. ``interval``: how it is drawn, if at all."""
    counts = sorted({len(arm.done) for arm in arms})
    seeds = plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    if counts == [1]:
        means = "One seed, so without an interval."
    elif interval:
        means = f"Mean over {seeds}, {interval}: 95 % t-interval."
    else:
        means = f"Mean over {seeds}; bands are left out of more than {MAX_BANDS} lines."
    remark(figure, shared_settings(arms))
    remark(figure, means)


def remark(figure: Figure, text: str) -> None:
    """One more line above everything."""
    lines = textwrap.fill(text, int(15.5 * figure.get_figwidth()))
    figure.suptitle("\n".join(filter(None, [figure.get_suptitle(), lines])), x=0.01, ha="left", fontsize=9)
    figure.set_figheight(figure.get_figheight() + LINE * (lines.count("\n") + 1))


def legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str], title: str | None = None) -> None:
    """Below the panels, where it covers no data, in as many columns as fit; the figure grows by its rows."""
    room = 13 * figure.get_figwidth()  # characters
    columns = max(1, min(len(names), int(room // (max(map(len, names)) + 7))))
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, title=title, handlelength=3.6, alignment="left"
    )
    figure.set_figheight(figure.get_figheight() + LINE * (-(-len(names) // columns) + (title is not None)))


def numbers(intervals: Sequence[Interval]) -> tuple[Numbers, Numbers]:
    """Means, and half-widths with 0 where there is none."""
    mean = np.array([each.mean for each in intervals])
    return mean, np.nan_to_num(np.array([each.half for each in intervals]))


def aside(axes: Axes, index: int, of: int) -> Transform:
    """Moves line ``index`` a little to one side on the paper, not in the data, so that bars do not hide each other."""
    points = SIDESTEP * (index - (of - 1) / 2)
    figure = axes.get_figure(root=True)
    assert figure is not None
    return axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)


def draw_curves(axes: Axes, measured: Metric, at: Sequence[Numbers], arms: Sequence[Arm]) -> tuple[list[Artist], str]:
    """A line an arm, each epoch's mean over the finished seeds where ``at`` says, with bands while they can be told
    apart; bars where there is but one epoch. The handles for the legend, and how the intervals are drawn."""
    curves = [numbers([arm.metric(measured, epoch) for epoch in range(1, arm.config.epochs + 1)]) for arm in arms]
    single = all(len(mean) == 1 for mean, _ in curves)
    bands = not single and len(arms) <= MAX_BANDS
    handles: list[Artist] = []
    for index, (along, (mean, half)) in enumerate(zip(at, curves, strict=True)):
        look = line_style(index)
        if single and len({float(each[0]) for each in at}) == 1:
            look["transform"] = aside(axes, index, len(arms))
        if single:
            bars(axes, along, mean, half, look)
        elif bands:
            axes.fill_between(along, mean - half, mean + half, color=look["color"], alpha=BAND, linewidth=0)
        handles += axes.plot(along, mean, **look, markevery=-(-len(mean) // MAX_MARKED))
    axes.set_ylabel(LABELS[measured])
    shown = curves if single or bands else [(mean, 0 * half) for mean, half in curves]
    fit(axes, measured, shown, math.inf if single else 0.5)
    return handles, "bars" if single else "bands" if bands else ""


def bars(axes: Axes, at: Numbers, mean: Numbers, half: Numbers, look: dict[str, Any]) -> None:
    """Error bars for a line that is drawn as ``look`` says."""
    also = {key: look[key] for key in ("color", "transform") if key in look}
    axes.errorbar(at, mean, half, **also, linestyle="none", elinewidth=0.9, capsize=2, alpha=0.7)


def whole_numbers(axes: Axes) -> None:
    """Ticks along x at whole numbers alone: there is no epoch 1.5."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def fit(axes: Axes, measured: Metric, curves: Sequence[tuple[Numbers, Numbers]], reach: float = math.inf) -> None:
    """Limits along y that show all means, and intervals as far as they do not squeeze them: that of two seeds is easily
    ten times as wide as what there is to see. ``curves``: means and half-widths; ``reach``: how far on either side, as
    a share of what the means span. Intervals that go on leave the panel."""
    mean = np.concatenate([mean for mean, _ in curves])
    half = np.concatenate([half for _, half in curves])[np.isfinite(mean)]
    mean = mean[np.isfinite(mean)]
    if not len(mean):  # losses that are not finite, say: an empty panel tells that
        return
    low, high = mean.min(), mean.max()
    least, most = BOUNDS[measured]
    span = (high - low) or max(float(half.max()), abs(high) * 0.02, 1e-3)
    bottom = max((mean - half).min(), low - reach * span, least)
    top = min((mean + half).max(), high + reach * span, most)
    margin = 0.04 * ((top - bottom) or span)
    axes.set_ylim(bottom - margin, top + margin)
