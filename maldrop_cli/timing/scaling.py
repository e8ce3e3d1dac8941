"""How the cost of choosing neurons grows: with classes, width, batch or rho."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from maldrop_cli.analysis.stats import median_interval
from maldrop_cli.config import RunConfig, Selector, UsageError
from maldrop_cli.dropout.regularisers import TargetedDropout
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.models.variants import Head, build_regulariser
from maldrop_cli.timing.clock import Clock, Subject, Tick, measure
from maldrop_cli.timing.events import DeviceTimer
from maldrop_cli.timing.timings import ScalePoint, median_of

AXES: dict[str, tuple[int, ...]] = {  # name: the values that are timed
    "classes": (10, 32, 100, 316, 1000),
    "width": (1024, 2048, 4096, 8192, 16384),
    "batch": (32, 64, 128, 256, 512),
    "rho": (16, 64, 256, 1024),
}


@dataclass(frozen=True)
class Size:
    """Of the last layer and what enters it."""

    classes: int
    width: int
    batch: int
    rho: int

    def without(self, axis: str) -> dict[str, int]:
        """What stays as it is along ``axis``, by name."""
        return {name: value for name, value in asdict(self).items() if name != axis}


def scale(
    base: RunConfig,
    selectors: Sequence[Selector],
    axis: str,
    size: Size,
    device: torch.device,
    *,
    budget: float,
    clock: Clock = time.perf_counter,
    timer: DeviceTimer | None = None,
    tick: Tick = lambda what, done, total: None,
) -> list[ScalePoint]:
    """Scoring, selecting and masking alone, the rest of ``size`` as it is; all values of an axis interleaved.

    Raises UsageError where rho is more than a layer of the axis has.
    """
    points = []
    for selector in selectors:
        subjects = []
        for value in AXES[axis]:
            here = replace(size, **{axis: value})
            if here.rho > here.width:
                raise UsageError("scale", f"rho is {here.rho}, and a layer of {here.width} neurons is on the way")
            subjects.append(Subject(str(value), _choosing(replace(base, selector=selector), here, device)))
        share = budget / len(selectors)
        measured = measure(subjects, device, [subjects[0].name], budget=share, clock=clock, timer=timer, tick=tick)
        points += [
            ScalePoint(str(selector), int(name), *median_interval(samples), median_of(measured.device_ms.get(name)))
            for name, samples in measured.samples.items()
        ]
    return points


def _choosing(config: RunConfig, size: Size, device: torch.device) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(size.batch, size.width, generator=generator).relu()
    weight = torch.randn(size.classes, size.width, generator=generator) / size.width**0.5
    labels = torch.randint(0, size.classes, (size.batch,), generator=generator)
    layer = LastLayer(hidden.to(device), weight.to(device), None, labels.to(device))
    config = replace(config, rho=size.rho)
    regulariser = build_regulariser(config, Head(size.width, size.classes), None).to(device).train()
    assert isinstance(regulariser, TargetedDropout)

    @torch.no_grad()
    def step() -> None:
        regulariser(layer)

    return step
