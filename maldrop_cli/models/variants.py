"""From settings to the regulariser that they name."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from maldrop_cli.config import SPATIAL, Dropout, RunConfig, Schedule, Selector, Unit, UsageError
from maldrop_cli.dropout import (
    SCHEDULES,
    Composition,
    DropConnect,
    MalDropConnect,
    NestedDropout,
    Regulariser,
    SpatialDropout,
    Step,
    TargetedDropout,
    VanillaDropout,
)
from maldrop_cli.dropout.worst import too_many_sets


@dataclass(frozen=True)
class Head:
    """The last affine layer: D neurons, which may make up channels (None: they don't), before C classes."""

    width: int
    classes: int
    channels: int | None = None

    def units(self, unit: Unit) -> int:
        """How many neurons, channels or weights there are to drop."""
        return {Unit.NEURON: self.width, Unit.CHANNEL: self.channels or 0, Unit.WEIGHT: self.width * self.classes}[unit]


def check_variant(config: RunConfig, head: Head) -> None:
    """UsageError where ``config.dropout`` can't be had before this head: channels that are not there, or more sets of
    neurons than ``exhaustive`` tries."""
    if config.dropout in SPATIAL and head.channels is None:
        raise UsageError(
            "dropout",
            f"{config.dropout} drops channels, and the {head.width:,} neurons before the last layer of "
            f"{config.model} are no longer arranged in any; --model cnn has them",
        )
    if "selector" in config.effective_settings() and config.selector is Selector.EXHAUSTIVE:
        for rho in _possible_rhos(config, head.width):
            if refusal := too_many_sets(head.width, rho):
                raise UsageError("selector", f"{refusal}")


def _possible_rhos(config: RunConfig, width: int) -> set[int]:
    """All that the schedule may ask for, and where it asks for any, the half of which there are most sets."""
    if config.schedule is Schedule.RANDOMIZED:
        return {width // 2}
    return {config.rho} if (rhos := rhos_of(config, width)) is None else set(rhos)


def rho_of(config: RunConfig, width: int, epoch: int, batch: int, rng: random.Random | None = None) -> int:
    """How many of ``width`` neurons the run's schedule drops; ``epoch`` and ``batch`` as in :class:`Step`."""
    step = Step(
        epoch,
        batch,
        period=config.period,
        rng=rng,
        rate=config.rate,
        rho_end=config.rho_end,
        horizon=config.horizon,
    )
    return SCHEDULES[config.schedule.value](config.rho, width, step)


def rhos_of(config: RunConfig, units: int) -> tuple[int, ...] | None:
    """rho in each epoch, or None where it changes from batch to batch."""
    if config.schedule is Schedule.RANDOMIZED:
        return None
    if config.schedule is Schedule.PERIODIC and config.period > 1 and config.rho > 0:
        return None
    return tuple(rho_of(config, units, epoch, batch=0) for epoch in range(config.epochs))


@dataclass(frozen=True)
class EpochRho:
    """rho in the batches of one epoch: the least, the most, and the mean to be expected."""

    low: int
    high: int
    mean: float


def rho_by_epoch(config: RunConfig, units: int) -> list[EpochRho]:
    if not config.has_rho:
        return []
    if config.schedule is Schedule.RANDOMIZED:
        return [EpochRho(0, units, units / 2)] * config.epochs
    if config.schedule is Schedule.PERIODIC:
        low = config.rho if config.period == 1 else 0
        return [EpochRho(low, config.rho, config.rho / config.period)] * config.epochs
    rhos = [rho_of(config, units, epoch, batch=0) for epoch in range(config.epochs)]
    return [EpochRho(rho, rho, rho) for rho in rhos]


Builder = Callable[[RunConfig, Head, "torch.Generator | None"], Regulariser]


def _targeted(config: RunConfig, head: Head, generator: torch.Generator | None) -> Regulariser:
    return TargetedDropout(
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


def _vanilla(config: RunConfig, head: Head, generator: torch.Generator | None) -> Regulariser:
    return VanillaDropout(config.p)


def _nested(config: RunConfig, head: Head, generator: torch.Generator | None) -> Regulariser:
    return NestedDropout(
        head.width,
        p=config.p,
        granularity=config.granularity.value,
        pass_rate=config.pass_rate.value,
        generator=generator,
    )


def _maldropconnect(config: RunConfig, head: Head, generator: torch.Generator | None) -> Regulariser:
    return MalDropConnect(
        head.width, head.classes, rho=config.rho, omega=config.omega, pass_rate=config.pass_rate.value
    )


def _one_after_the_other(*builders: Builder) -> Builder:
    return lambda config, head, generator: Composition(*(build(config, head, generator) for build in builders))


VARIANTS: dict[Dropout, Builder] = {
    Dropout.NONE: lambda config, head, generator: Regulariser(),
    Dropout.VANILLA: _vanilla,
    Dropout.MALDROP: _targeted,
    Dropout.RANDOM: _targeted,
    Dropout.NESTED: _nested,
    Dropout.DROPCONNECT: lambda config, head, generator: DropConnect(config.p),
    Dropout.MALDROPCONNECT: _maldropconnect,
    Dropout.SPATIAL: lambda config, head, generator: SpatialDropout(head.channels or head.width, config.p),
    Dropout.SPATIAL_MALDROP: _targeted,
    Dropout.VANILLA_MALDROP: _one_after_the_other(_vanilla, _targeted),
    Dropout.MALDROP_VANILLA: _one_after_the_other(_targeted, _vanilla),
}


def build_regulariser(config: RunConfig, head: Head, generator: torch.Generator | None) -> Regulariser:
    """The variant that ``config`` names, before this head; ``generator`` is its randomness where it draws its own."""
    return VARIANTS[config.dropout](config, head, generator)
