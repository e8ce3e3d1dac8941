"""How the cost of choosing neurons grows: with classes, width, batch or rho."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from scipy import stats

from maldrop_cli.analysis.stats import median_interval
from maldrop_cli.config import RunConfig
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.models.variants import Head, build_regulariser
from maldrop_cli.names import Axis, Selector, UsageError
from maldrop_cli.timing.clock import Samples, Step, Tick, measure

AXES: dict[Axis, tuple[int, ...]] = {  # the values that are timed
    Axis.CLASSES: (10, 32, 100, 316, 1000),
    Axis.WIDTH: (1024, 2048, 4096, 8192, 16384),
    Axis.BATCH: (32, 64, 128, 256, 512),
    Axis.RHO: (16, 64, 256, 1024),
}


@dataclass(frozen=True)
class ScalePoint:
    """Median seconds of one selector at one value of an axis, and the ends of their 95 % interval. ``device_ms``: the
    median on the device's own clock; None where the device has none."""

    selector: str
    value: int
    seconds: float
    low: float = math.nan
    high: float = math.nan
    device_ms: float | None = None


@dataclass(frozen=True)
class Exponent:
    """time ~ value ** exponent, with the half-width of its 95 % interval (nan from two values)."""

    selector: str
    exponent: float
    half: float


def scale(
    base: RunConfig,
    selectors: Sequence[Selector],
    axis: Axis,
    sizes: Mapping[str, int],
    device: torch.device,
    *,
    budget: float,
    tick: Tick = lambda what, done, total: None,
    points: list[ScalePoint],
) -> None:
    """Time scoring, selecting and masking alone, interleaved for all values of the axis. ``sizes``: one for each name
    in AXES; all but the axis's own stay. ``points``, empty at first, holds what there is even if Ctrl-C ends this.

    Raises UsageError where rho is more than a layer of the axis has.
    """
    for selector in selectors:
        cases = {}
        for value in AXES[axis]:
            here = {**sizes, axis: value}
            if here["rho"] > here["width"]:
                raise UsageError("scale", f"rho is {here['rho']}, and a layer of {here['width']} neurons is on the way")
            cases[str(value)] = _masking(replace(base, selector=selector, rho=here["rho"]), here, device)
        measured: list[Samples] = []
        try:
            measure(cases, device, list(cases)[:1], budget=budget / len(selectors), tick=tick, into=measured)
        finally:
            points += [
                ScalePoint(str(selector), int(each.name), *median_interval(each.seconds), each.median_device_ms)
                for each in measured
            ]


def _masking(config: RunConfig, sizes: Mapping[str, int], device: torch.device) -> Step:
    batch, width, classes = sizes["batch"], sizes["width"], sizes["classes"]
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(batch, width, generator=generator).relu()
    weight_CD = torch.randn(classes, width, generator=generator) / width**0.5
    labels_N = torch.randint(0, classes, (batch,), generator=generator)
    layer = LastLayer(hidden_ND.to(device), weight_CD.to(device), None, labels_N.to(device))
    regulariser = build_regulariser(config, Head(width, classes), None).to(device).train()
    return torch.no_grad()(partial(regulariser, layer))


def exponents(points: Sequence[ScalePoint]) -> list[Exponent]:
    """One for each selector, in order of appearance: least squares on logarithms."""
    found = []
    for selector in dict.fromkeys(point.selector for point in points):
        own = [point for point in points if point.selector == selector]
        fit = stats.linregress([math.log(point.value) for point in own], [math.log(point.seconds) for point in own])
        half = stats.t.ppf(0.975, len(own) - 2) * fit.stderr if len(own) > 2 else math.nan
        found.append(Exponent(selector, float(fit.slope), float(half)))
    return found
