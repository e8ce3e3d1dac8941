"""How many neurons to drop in a training batch: the paper's five schedules, section 4.4, and three smooth ones.

Each is a pure function of ``(rho, width, step)``. ``rho`` is the user's base count, ``width`` the L of the paper, the
number of neurons in the layer; i is the epoch, from 0. What is no whole number is rounded half up. Last, the prior of
nested dropout, which draws how many.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Where training stands, and what the schedules are set to.

    ``epoch`` and ``batch`` count from 0; ``batch`` runs on through all epochs. ``period`` is of ``periodic``, ``rng``
    of ``randomized``, ``rate`` of the smooth logistics, ``rho_end`` and ``horizon`` are of ``linear``.
    """

    epoch: int
    batch: int
    period: int = 5
    rng: random.Random | None = None
    rate: float = 0.5
    rho_end: int = 0
    horizon: int = 10


def standard(rho: int, width: int, step: Step) -> int:
    """rho, always."""
    return rho


def randomized(rho: int, width: int, step: Step) -> int:
    """A whole number drawn from Uniform{0, ..., L} for every batch; ``rho`` does not enter, it only names a trial."""
    if step.rng is None:
        raise ValueError("the randomized schedule needs step.rng, its source of randomness")
    return step.rng.randint(0, width)


def forward(rho: int, width: int, step: Step) -> int:
    """rho_i = L / (1 + exp(-(rho + i))), equation (1) as printed."""
    return _half_up(width / (1.0 + math.exp(-(rho + step.epoch))))


def reverse(rho: int, width: int, step: Step) -> int:
    """rho_i = L (1 - 1 / (1 + exp(-(rho + i)))), equation (2) as printed."""
    decay = math.exp(-(rho + step.epoch))
    return _half_up(width * (decay / (1.0 + decay)))  # the same, without the cancellation in 1 - 1/(1 + decay)


def periodic(rho: int, width: int, step: Step) -> int:
    """rho in every ``period``-th batch (the first such batch is number ``period``, counting from 1), else 0."""
    return rho if (step.batch + 1) % step.period == 0 else 0


def forward_smooth(rho: int, width: int, step: Step) -> int:
    """rho_i = L / (1 + ((L - rho) / rho) exp(-r i)): the logistic that is rho at i = 0 and rises to L.

    r is the ``rate``, by which the log-odds of dropping a neuron rise each epoch; constant where rho is 0 or L. The
    paper's section 6 asks for it: "a smoother way of annealing along the logistic".
    """
    decay = math.exp(-step.rate * step.epoch)
    return _half_up(width * rho / (rho + (width - rho) * decay)) if 0 < rho < width else rho


def reverse_smooth(rho: int, width: int, step: Step) -> int:
    """rho_i = L / (1 + ((L - rho) / rho) exp(r i)): the mirror image of :func:`forward_smooth`, which falls to 0."""
    decay = math.exp(-step.rate * step.epoch)  # above and below the line, where exp(r i) would overflow
    return _half_up(width * rho * decay / (rho * decay + (width - rho))) if 0 < rho < width else rho


def linear(rho: int, width: int, step: Step) -> int:
    """rho_i = rho + (rho_end - rho) i / (horizon - 1), and rho_end from i = horizon - 1 on; rho in the first epoch."""
    last = step.horizon - 1
    if step.epoch == 0 or step.epoch >= last:
        return step.rho_end if step.epoch else rho
    return rho + (2 * (step.rho_end - rho) * step.epoch + last) // (2 * last)  # exact, half up


def stop_probability(width: int, p: float) -> float:
    """The parameter q of the geometric prior under which a share ``p`` of the neurons is dropped in the mean.

    With b = min(geometric(q), D): E b = (1 - (1-q)^D) / q = (1 - p) D, which falls from D to 1 as q rises from 0 to 1;
    solved by bisection. ValueError unless 0 <= p <= 1.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p is {p}, and must be from 0 to 1")
    kept = (1.0 - p) * width
    if kept >= width:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        mean = -math.expm1(width * math.log1p(-middle)) / middle if 0 < middle < 1 else width
        low, high = (middle, high) if mean > kept else (low, middle)
    return high


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


SCHEDULES: dict[str, Callable[[int, int, Step], int]] = {
    "standard": standard,
    "randomized": randomized,
    "forward": forward,
    "reverse": reverse,
    "periodic": periodic,
    "forward-smooth": forward_smooth,
    "reverse-smooth": reverse_smooth,
    "linear": linear,
}
