"""How many neurons to drop in a training batch: the paper's five schedules, section 4.4.

Each is a pure function of ``(rho, width, step)``. ``rho`` is the user's base count, ``width`` the L of the paper,
the number of neurons in the layer.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Where training stands. ``epoch`` and ``batch`` count from 0; ``batch`` runs on through all epochs."""

    epoch: int
    batch: int
    period: int = 5
    rng: random.Random | None = None


Schedule = Callable[[int, int, Step], int]


def standard(rho: int, width: int, step: Step) -> int:
    """rho, always."""
    return rho


def randomized(rho: int, width: int, step: Step) -> int:
    """A whole number drawn from Uniform{0, ..., L} for every batch; ``rho`` does not enter, it only names a trial."""
    if step.rng is None:
        raise ValueError("the randomized schedule needs step.rng, its source of randomness")
    return step.rng.randint(0, width)


def forward(rho: int, width: int, step: Step) -> int:
    """rho_i = L / (1 + exp(-(rho + i))), equation (1) as printed; i = 0 in the first epoch, rounded half up."""
    return _half_up(width / (1.0 + math.exp(-(rho + step.epoch))))


def reverse(rho: int, width: int, step: Step) -> int:
    """rho_i = L (1 - 1 / (1 + exp(-(rho + i)))), equation (2) as printed; i = 0 in the first epoch, rounded half up."""
    decay = math.exp(-(rho + step.epoch))
    return _half_up(width * (decay / (1.0 + decay)))  # the same, without the cancellation in 1 - 1/(1 + decay)


def periodic(rho: int, width: int, step: Step) -> int:
    """rho in every ``period``-th batch (the first such batch is number ``period``, counting from 1), else 0."""
    return rho if (step.batch + 1) % step.period == 0 else 0


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


SCHEDULES: dict[str, Schedule] = {
    "standard": standard,
    "randomized": randomized,
    "forward": forward,
    "reverse": reverse,
    "periodic": periodic,
}
