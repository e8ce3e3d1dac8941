"""Plots: arms or timings in, a matplotlib Figure out. Nothing trains here, and only `save` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.compare import TOP1, Comparison
from maldrop_cli.names import MaldropError, PlotKind
from maldrop_cli.plots.forest import forest
from maldrop_cli.plots.robustness import examples, robustness
from maldrop_cli.plots.runs import learning, masks, metric, time
from maldrop_cli.plots.style import caption, save, styled
from maldrop_cli.render.runs import name
from maldrop_cli.render.tables import plural

__all__ = ["KINDS", "draw", "examples", "save"]

KINDS: dict[PlotKind, Callable[[Sequence[Arm], str, str | None, Comparison | None], Figure]] = {
    PlotKind.FOREST: lambda arms, measured, x, comparison: forest(comparison),
    PlotKind.LEARNING: lambda arms, measured, x, comparison: learning(arms),
    PlotKind.METRIC: lambda arms, measured, x, comparison: metric(arms, measured, x),
    PlotKind.TIME: lambda arms, measured, x, comparison: time(arms, measured),
    PlotKind.MASKS: lambda arms, measured, x, comparison: masks(arms),
    PlotKind.ROBUSTNESS: lambda arms, measured, x, comparison: robustness(arms),
}


@styled()
def draw(
    kind: PlotKind,
    arms: Sequence[Arm],
    measured: str = TOP1,
    x: str | None = None,
    comparison: Comparison | None = None,
) -> Figure:
    """The plot of that kind. ``x``: of the kind metric, a setting; ``comparison``: of the kind forest, the tests of the
    arms. MaldropError where there is nothing to show, or more than one picture can."""
    finished = [arm for arm in arms if arm.done]
    if not finished:
        raise MaldropError(f"nothing to plot: of {plural(sum(len(arm.runs) for arm in arms), 'run')} none finished")
    if len({arm.data_digest for arm in finished}) > 1:
        raise MaldropError(
            "nothing to plot in one picture: these runs saw different images; `maldrop report` says which, and "
            "--where dataset=NAME or --where data_digest=DIGEST picks one"
        )
    figure = KINDS[kind](finished, measured, x, comparison)
    if without := [name(arm.config) for arm in arms if not arm.done]:
        caption(figure, f"Left out, as none of their runs finished: {', '.join(without)}.")
    return figure
