"""Which neurons to drop: pure functions from the last layer's inputs to indices or to a mask."""

import functools
import operator
from collections.abc import Callable

import torch
from torch import Tensor

from maldrop_cli.dropout import worst
from maldrop_cli.dropout.scores import SCORES, LastLayer, Score, omega_value

GRANULARITIES = ("batch", "sample")

# (layer, rho, omega, per_sample, generator) -> indices of the neurons to drop: drop_NR, or one drop_R for the whole
# batch. R is rho; the indices in a row are distinct and in no particular order. The arguments are taken as valid.
Select = Callable[[LastLayer, int, float, bool, torch.Generator | None], Tensor]


def precisely(select: Select) -> Select:
    """``select`` at the weight's precision, whatever autocast says, and outside of autograd."""

    @functools.wraps(select)
    @torch.no_grad()
    def wrapped(
        layer: LastLayer, rho: int, omega: float, per_sample: bool, generator: torch.Generator | None
    ) -> Tensor:
        layer = layer._replace(hidden_ND=layer.hidden_ND.to(layer.weight_CD.dtype))
        with torch.autocast(layer.hidden_ND.device.type, enabled=False):
            return select(layer, rho, omega, per_sample, generator)

    return wrapped


def top_rho(score: Score) -> Select:
    """The selector that drops the rho neurons of highest ``score``."""

    @precisely
    def select(layer: LastLayer, rho: int, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
        return score(layer, omega, per_sample, generator).topk(rho, dim=-1, sorted=False).indices

    return select


SELECTORS: dict[str, Select] = {
    **{name: top_rho(score) for name, score in SCORES.items()},
    "joint": precisely(worst.joint),
    "greedy": precisely(worst.greedy),
    "exhaustive": precisely(worst.exhaustive),
}
NEEDS_LABELS = frozenset(SELECTORS) - {"random", "magnitude"}


def check_choice(selector: str, granularity: str) -> None:
    """Raise ValueError unless both names are known."""
    if selector not in SELECTORS:
        raise ValueError(f"no selector is called {selector!r}; there are {', '.join(SELECTORS)}")
    if granularity not in GRANULARITIES:
        raise ValueError(f"no granularity is called {granularity!r}; there are {', '.join(GRANULARITIES)}")


def check_rho(rho: int, width: int) -> int:
    """``rho`` as an int; ValueError unless 0 <= rho <= width, TypeError unless it is a whole number."""
    count = operator.index(rho)
    if not 0 <= count <= width:
        raise ValueError(f"rho is {count}, but the layer has {width} neurons: rho must be from 0 to {width}")
    return count


def check_layer(layer: LastLayer, selector: str) -> None:
    """Raise ValueError unless the shapes fit and the labels that ``selector`` needs are there."""
    hidden_ND, weight_CD, _, labels_N = layer
    if hidden_ND.ndim != 2 or weight_CD.ndim != 2 or hidden_ND.shape[1] != weight_CD.shape[1]:
        raise ValueError(
            f"hidden is {tuple(hidden_ND.shape)} and weight {tuple(weight_CD.shape)}; they must be (N, D) and (C, D)"
        )
    if labels_N is None and selector in NEEDS_LABELS:
        raise ValueError(f"the selector {selector!r} needs labels")
    if labels_N is not None and labels_N.shape != hidden_ND.shape[:1]:
        raise ValueError(f"labels are {tuple(labels_N.shape)}; {hidden_ND.shape[0]} examples need as many labels")


def keep_mask(
    hidden_ND: Tensor,
    weight_CD: Tensor,
    labels_N: Tensor | None,
    rho: int,
    *,
    bias_C: Tensor | None = None,
    selector: str = "heuristic",
    omega: float | str | None = None,
    granularity: str = "sample",
    generator: torch.Generator | None = None,
) -> Tensor:
    """The MalDrop mask, section 4.1: bool_ND, True where a neuron passes, exactly ``rho`` False in every row.

    Args:
        hidden_ND: activations that enter the last affine layer, N examples of D neurons.
        weight_CD, bias_C: that layer, C classes. ``heuristic`` and the controls do not look at the bias.
        labels_N: the right classes, int64; only ``random`` and ``magnitude`` do without.
        rho: neurons to drop in each row, 0 to D.
        selector: ``heuristic``, ``single``, ``gradient``, ``joint``, ``greedy``, ``exhaustive``, or a control:
            ``least-useful``, ``magnitude``, ``random``.
        omega: a number, ``paper`` (the default, 1/(D-1)) or ``classes`` (1/(C-1)).
        granularity: ``sample``, a mask for each example, or ``batch``, one mask from scores summed over the batch.
        generator: the randomness of ``random``, on the device of ``hidden_ND``.

    Raises:
        ValueError: shapes that do not fit, an unknown name, rho out of range, labels missing; more sets than
            ``exhaustive`` tries.
        TypeError: rho not a whole number.
    """
    check_choice(selector, granularity)
    layer = LastLayer(hidden_ND, weight_CD, bias_C, labels_N)
    check_layer(layer, selector)
    classes, width = weight_CD.shape
    per_sample = granularity == "sample"
    drop = SELECTORS[selector](layer, check_rho(rho, width), omega_value(omega, width, classes), per_sample, generator)
    return _mask(hidden_ND, drop)


@torch.no_grad()
def worst_set(
    hidden_ND: Tensor,
    weight_CD: Tensor,
    labels_N: Tensor,
    rho: int,
    *,
    bias_C: Tensor | None = None,
    granularity: str = "sample",
    iterations: int = worst.ITERATIONS,
) -> worst.WorstSet:
    """The jointly worst ``rho`` neurons and a certified ceiling: the search behind the selector ``joint``, section 6.

    For granularity ``sample`` each example has a set of its own. For ``batch`` the set is one for all, ``loss_N`` the
    losses under it, and the mean of ``ceiling_N`` a valid but loose ceiling of their mean. Arguments and errors as in
    :func:`keep_mask`; ``iterations`` limits the rounds of ascent from each start.
    """
    check_choice("joint", granularity)
    layer = LastLayer(hidden_ND.to(weight_CD.dtype), weight_CD, bias_C, labels_N)
    check_layer(layer, "joint")
    count = check_rho(rho, weight_CD.shape[1])
    omega = omega_value(None, weight_CD.shape[1], weight_CD.shape[0])
    with torch.autocast(hidden_ND.device.type, enabled=False):
        drop, loss_N, rounds = worst.ascend(layer, count, omega, granularity == "sample", iterations)
        return worst.WorstSet(_mask(hidden_ND, drop), loss_N, worst.ceilings(layer, count), rounds)


def _mask(hidden_ND: Tensor, drop: Tensor) -> Tensor:
    """bool_ND, False at ``drop``: drop_NR, or one drop_R for all rows."""
    keep = torch.ones(hidden_ND.shape, dtype=torch.bool, device=hidden_ND.device)
    return keep.scatter_(1, drop, False) if drop.ndim == 2 else keep.index_fill_(1, drop, False)
