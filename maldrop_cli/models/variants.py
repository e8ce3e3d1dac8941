"""From settings to the regulariser that they name, and to its rho in each batch and epoch."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from maldrop_cli import dropout
from maldrop_cli.config import RunConfig
from maldrop_cli.dropout import SCHEDULES, Regulariser, Step
from maldrop_cli.dropout.worst import too_many_sets
from maldrop_cli.names import SPATIAL, Dropout, Schedule, Selector, Unit, UsageError


@dataclass(frozen=True)
class Head:
    """The last affine layer: D neurons, which may make up channels (None: they don't), before C classes."""

    width: int
    classes: int
    channels: int | None = None

    def units(self, unit: Unit) -> int:
        """How many neurons, channels or weights there are to drop."""
        return {Unit.NEURON: self.width, Unit.CHANNEL: self.channels or 0, Unit.WEIGHT: self.width * self.classes}[unit]


class EpochRho(NamedTuple):
    """rho in the batches of one epoch: the lowest, the highest, and the expected mean."""

    low: int
    high: int
    mean: float


def rho_of(config: RunConfig, units: int, epoch: int, batch: int, rng: random.Random | None = None) -> int:
    """How many of ``units`` the schedule drops in a batch; ``epoch``, ``batch`` and ``rng`` as in :class:`Step`."""
    step = Step(
        epoch, batch, period=config.period, rng=rng, rate=config.rate, rho_end=config.rho_end, horizon=config.horizon
    )
    return SCHEDULES[config.schedule.value](config.rho, units, step)


def rho_by_epoch(config: RunConfig, units: int) -> list[EpochRho]:
    """rho of ``units`` in each epoch; empty where the variant has no rho."""
    if not config.has_rho:
        return []
    if config.schedule is Schedule.RANDOMIZED:
        return [EpochRho(0, units, units / 2)] * config.epochs
    if config.schedule is Schedule.PERIODIC:
        low = config.rho if config.period == 1 else 0
        return [EpochRho(low, config.rho, config.rho / config.period)] * config.epochs
    rhos = [rho_of(config, units, epoch, batch=0) for epoch in range(config.epochs)]
    return [EpochRho(rho, rho, rho) for rho in rhos]


def check_variant(config: RunConfig, head: Head) -> None:
    """UsageError where ``config.dropout`` can't be had before this head: it drops channels and there are none, or
    ``exhaustive`` would have too many sets of neurons to try."""
    if config.dropout in SPATIAL and head.channels is None:
        raise UsageError(
            "dropout",
            f"{config.dropout} drops channels, and the {head.width:,} neurons before the last layer of "
            f"{config.model} are no longer arranged in any; --model cnn has them",
        )
    if "selector" in config.effective_settings() and config.selector is Selector.EXHAUSTIVE:
        rhos = {each.high for each in rho_by_epoch(config, head.width)}
        if config.schedule is Schedule.RANDOMIZED:
            rhos = {head.width // 2}  # of which there are most sets
        for rho in rhos:
            if refusal := too_many_sets(head.width, rho):
                raise UsageError("selector", refusal)


def _targeted(config: RunConfig, head: Head, generator: torch.Generator | None) -> Regulariser:
    return dropout.TargetedDropout(
        head.width,
        head.classes,
        rho=config.rho,
        omega=config.omega,
        selector="random" if config.dropout is Dropout.RANDOM else config.selector.value,
        granularity=config.granularity.value,
        channels=head.channels if config.unit is Unit.CHANNEL else None,
        pass_rate=config.pass_rate.value,
        generator=generator,
        score_bytes=int(config.score_memory * 2**20),
        iterations=config.joint_iterations,
        vertices=config.joint_starts,
    )


VARIANTS: dict[Dropout, Callable[[RunConfig, Head, torch.Generator | None], Regulariser]] = {
    Dropout.NONE: lambda config, head, generator: Regulariser(),
    Dropout.VANILLA: lambda config, head, generator: dropout.VanillaDropout(config.p),
    Dropout.MALDROP: _targeted,
    Dropout.RANDOM: _targeted,
    Dropout.NESTED: lambda config, head, generator: dropout.NestedDropout(
        head.width, p=config.p, granularity=config.granularity, pass_rate=config.pass_rate.value, generator=generator
    ),
    Dropout.DROPCONNECT: lambda config, head, generator: dropout.DropConnect(config.p),
    Dropout.MALDROPCONNECT: lambda config, head, generator: dropout.MalDropConnect(
        head.width, head.classes, rho=config.rho, omega=config.omega, pass_rate=config.pass_rate.value
    ),
    Dropout.SPATIAL: lambda config, head, generator: dropout.SpatialDropout(head.channels or head.width, config.p),
    Dropout.SPATIAL_MALDROP: _targeted,
    Dropout.VANILLA_MALDROP: lambda config, head, generator: dropout.Composition(
        dropout.VanillaDropout(config.p), _targeted(config, head, generator)
    ),
    Dropout.MALDROP_VANILLA: lambda config, head, generator: dropout.Composition(
        _targeted(config, head, generator), dropout.VanillaDropout(config.p)
    ),
}


def build_regulariser(config: RunConfig, head: Head, generator: torch.Generator | None) -> Regulariser:
    """The variant that ``config`` names, before this head; ``generator`` is its randomness where it draws its own."""
    return VARIANTS[config.dropout](config, head, generator)
