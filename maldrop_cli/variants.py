"""From settings to the regulariser that they name."""

from __future__ import annotations

import math

import torch

from maldrop_cli.config import Dropout, RunConfig, Selector, UsageError
from maldrop_cli.dropout import Regulariser, TargetedDropout, VanillaDropout
from maldrop_cli.dropout.worst import MOST_SETS


def check_selector(config: RunConfig, width: int) -> None:
    """UsageError where ``exhaustive`` would have to try too many sets of ``config.rho`` among ``width`` neurons."""
    count = math.comb(width, config.rho)
    if config.dropout is Dropout.MALDROP and config.selector is Selector.EXHAUSTIVE and count > MOST_SETS:
        raise UsageError(
            f"--selector: exhaustive would try 10^{math.log10(count):.0f} sets of {config.rho} among {width} neurons, "
            f"and takes at most {MOST_SETS:,}; joint finds the worst set without trying all"
        )


def build_regulariser(config: RunConfig, width: int, classes: int, generator: torch.Generator | None) -> Regulariser:
    """The variant that ``config`` names, for a layer of ``width`` neurons before ``classes`` classes."""
    if config.dropout is Dropout.NONE:
        return Regulariser()
    if config.dropout is Dropout.VANILLA:
        return VanillaDropout(config.p)
    return TargetedDropout(
        width,
        classes,
        rho=config.rho,
        omega=config.omega,
        selector="random" if config.dropout is Dropout.RANDOM else config.selector.value,
        granularity=config.granularity.value,
        generator=generator,
    )
