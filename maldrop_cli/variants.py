"""From settings to the regulariser that they name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from maldrop_cli.config import SPATIAL, Dropout, RunConfig, Selector, Unit, UsageError
from maldrop_cli.dropout import (
    Composition,
    DropConnect,
    MalDropConnect,
    NestedDropout,
    Regulariser,
    SpatialDropout,
    TargetedDropout,
    VanillaDropout,
)
from maldrop_cli.dropout.worst import MOST_SETS


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
    ``config.rho`` neurons than ``exhaustive`` tries."""
    if config.dropout in SPATIAL and head.channels is None:
        raise UsageError(
            f"--dropout: {config.dropout} drops channels, and the {head.width:,} neurons before the last layer of "
            f"{config.model} are no longer arranged in any; --model cnn has them"
        )
    if "selector" in config.identity() and config.selector is Selector.EXHAUSTIVE:
        count = math.comb(head.width, config.rho)
        if count > MOST_SETS:
            raise UsageError(
                f"--selector: exhaustive would try 10^{math.log10(count):.0f} sets of {config.rho} among {head.width} "
                f"neurons, and takes at most {MOST_SETS:,}; joint finds the worst set without trying all"
            )


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
