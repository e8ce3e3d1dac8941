"""Which neurons to drop: pure functions from the last layer's inputs to indices or to a mask."""

import functools
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.dropout import fused, scores, worst
from maldrop_cli.dropout.scores import SCORES, LastLayer, Options, Score, omega_value

GRANULARITIES = ("batch", "sample")

# (layer, rho, options) -> indices of the neurons to drop: drop_NR, or one drop_R for the whole batch. R is rho, or rho
# times the neurons in a channel; the indices in a row are distinct, in any order. The arguments are taken as valid.
Select = Callable[[LastLayer, int, Options], Tensor]


def precisely(select: Select, *, compiled: bool = True) -> Select:
    """``select`` at the weight's precision, whatever autocast says, and outside of autograd.

    Not ``compiled``: as it is even within ``torch.compile``, as its loops depend on rho and on numbers it has found.
    """

    @functools.wraps(select)
    @torch.no_grad()
    def wrapped(layer: LastLayer, rho: int, options: Options) -> Tensor:
        layer = layer._replace(hidden_ND=layer.hidden_ND.to(layer.weight_CD.dtype))
        call = select if compiled or not torch.compiler.is_compiling() else torch.compiler.disable(select)
        with torch.autocast(layer.hidden_ND.device.type, enabled=False):
            drop: Tensor = call(layer, rho, options)
        return drop

    return wrapped


def top_rho(score: Score) -> Select:
    """The selector that drops the rho neurons of highest ``score``, or the rho channels of highest summed score."""

    @precisely
    def select(layer: LastLayer, rho: int, options: Options) -> Tensor:
        value, area = score(layer, options), options.area
        if area == 1:
            return value.topk(rho, dim=-1, sorted=False).indices
        channels = value.view(*value.shape[:-1], -1, area).sum(-1).topk(rho, dim=-1, sorted=False).indices
        return (channels.unsqueeze(-1) * area + torch.arange(area, device=channels.device)).flatten(-2)

    return select


def scores_apart(selector: str, options: Options) -> bool:
    """Whether ``selector`` scores all neurons before it chooses: neither a search nor `single` for a batch does."""
    return selector in SCORES and (selector != "single" or options.per_sample or options.area > 1)


_top_single = top_rho(scores.single)


@precisely
def _single(layer: LastLayer, rho: int, options: Options) -> Tensor:
    """The top rho of `single`; with one mask a batch the same neurons by bounds, which score only the undecided ones.

    Not within ``torch.compile``, which would have to stop for the number of these, nor away from the CPU, where to ask
    for it stops the device.
    """
    hidden_ND = layer.hidden_ND
    may_stop = not torch.compiler.is_compiling() and hidden_ND.device.type == "cpu"
    if not may_stop or scores_apart("single", options) or not (0 < rho < hidden_ND.shape[1] and len(hidden_ND)):
        return _top_single(layer, rho, options)
    logits_NC = F.linear(hidden_ND, layer.weight_CD, layer.bias_C)
    lower_D = scores.target_scores(layer, logits_NC.softmax(1), per_sample=False)
    return scores.single_near(layer, logits_NC, lower_D, rho, options).topk(rho, sorted=False).indices


SELECTORS: dict[str, Select] = {
    **{name: top_rho(score) for name, score in SCORES.items()},
    "single": _single,
    **{name: precisely(search, compiled=False) for name, search in worst.SEARCHES.items()},
}
NEEDS_LABELS = frozenset(SELECTORS) - {"random", "magnitude"}


def check_choice(selector: str, granularity: str, area: int = 1) -> None:
    """Raise ValueError unless both names are known, and the selector can choose channels if there are any."""
    if selector not in SELECTORS:
        raise ValueError(f"no selector is called {selector!r}; there are {', '.join(SELECTORS)}")
    if granularity not in GRANULARITIES:
        raise ValueError(f"no granularity is called {granularity!r}; there are {', '.join(GRANULARITIES)}")
    if area > 1 and selector not in SCORES:
        raise ValueError(f"the selector {selector!r} has no score to sum over a channel; {', '.join(SCORES)} have")


def check_rho(rho: int | str, units: int, unit: str = "neuron") -> int:
    """``rho`` as a count; a percentage such as ``"6.25%"`` is that of the ``units``, rounded half up, but at least 1 if
    it is above 0. ValueError unless 0 <= rho <= units, TypeError for any other number that is not whole."""
    if isinstance(rho, str):
        percentage = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*", rho)
        exact = float(percentage[1]) * units / 100 if percentage else math.inf
        if exact <= units:
            return max(math.floor(round(exact, 9) + 0.5), int(exact > 0))
    elif not hasattr(rho, "__index__"):
        raise TypeError(f"rho is {rho!r}; {_allowed(units, unit)}")
    elif 0 <= (count := operator.index(rho)) <= units:
        return count
    raise ValueError(f"rho is {rho!r}, but the layer has {units} {unit}s; {_allowed(units, unit)}")


def _allowed(units: int, unit: str) -> str:
    return f'rho must be from 0 to {units}, a whole number of {unit}s, or a percentage as text, such as "6.25%"'


def check_layer(layer: LastLayer, what: str, needs_labels: bool) -> LastLayer:
    """The layer with its labels as int64. Raise ValueError unless the shapes fit, the labels are whole numbers, of any
    type, and, if ``what`` needs them, they are there and each is one of at least two classes."""
    hidden_ND, weight_CD, _, labels_N = layer
    if hidden_ND.ndim != 2 or weight_CD.ndim != 2 or hidden_ND.shape[1] != weight_CD.shape[1]:
        raise ValueError(
            f"hidden is {tuple(hidden_ND.shape)} and weight {tuple(weight_CD.shape)}; they must be (N, D) and (C, D)"
        )
    if labels_N is None and needs_labels:
        raise ValueError(f"{what} needs labels: as an argument, or, for a network, 'with maldrop_cli.labels(...)'")
    if labels_N is None:
        return layer
    if not isinstance(labels_N, Tensor):
        raise ValueError(f"labels are a {type(labels_N).__name__}; they must be a tensor, the class of each example")
    if labels_N.shape != hidden_ND.shape[:1]:
        wanted = f"{hidden_ND.shape[0]} examples need as many labels, the class of each"
        raise ValueError(f"labels are {tuple(labels_N.shape)}; {wanted}")
    if labels_N.is_floating_point() or labels_N.is_complex() or labels_N.dtype == torch.bool:
        raise ValueError(f"labels are of {labels_N.dtype}; they must be whole numbers, the class of each example")
    labels_N = labels_N.long()
    if needs_labels:
        _check_classes(labels_N, len(weight_CD), what)
    return layer._replace(labels_N=labels_N)


def _check_classes(labels_N: Tensor, classes: int, what: str) -> None:
    """ValueError, naming the first example, for a label that is no class: on the CPU, and not within torch.compile, as
    to look would stop the device there."""
    if classes < 2:
        raise ValueError(f"{what} needs an output for each class, and the layer has one; give two classes two outputs")
    if labels_N.device.type != "cpu" or torch.compiler.is_compiling() or len(labels_N) == 0:
        return
    low, high = labels_N.aminmax()
    if int(low) < 0 or int(high) >= classes:
        n = int(((labels_N < 0) | (labels_N >= classes)).nonzero()[0])
        allowed = f"the layer has {classes} outputs, so labels are from 0 to {classes - 1}"
        raise ValueError(
            f"the label of example {n} is {int(labels_N[n])}; {allowed}: leave out examples without a class"
        )


def keep_mask(
    hidden_ND: Tensor,
    weight_CD: Tensor,
    labels_N: Tensor | None,
    rho: int | str,
    *,
    bias_C: Tensor | None = None,
    selector: str = "heuristic",
    omega: float | str | None = None,
    granularity: str = "sample",
    generator: torch.Generator | None = None,
    iterations: int = Options._field_defaults["iterations"],
    vertices: int = Options._field_defaults["vertices"],
) -> Tensor:
    """The MalDrop mask, section 4.1: bool_ND, True where a neuron passes, exactly ``rho`` False in every row.

    Args:
        hidden_ND: activations that enter the last affine layer, N examples of D neurons.
        weight_CD, bias_C: that layer, C classes. ``heuristic`` and the controls do not look at the bias.
        labels_N: the right classes, whole numbers of any type from 0 to C-1; only ``random`` and ``magnitude`` do
            without.
        rho: neurons to drop in each row, 0 to D, or a percentage of D as text, ``"6.25%"``.
        selector: ``heuristic``, ``single``, ``gradient``, ``joint``, ``greedy``, ``exhaustive``, or a control:
            ``least-useful``, ``magnitude``, ``random``.
        omega: a number, ``paper`` (the default, 1/(D-1)) or ``classes`` (1/(C-1)).
        granularity: ``sample``, a mask for each example, or ``batch``, one mask from scores summed over the batch.
        generator: the randomness of ``random``, on the device of ``hidden_ND``.
        iterations, vertices: the most rounds of ``joint`` from each start, and the most starts beside softmax.

    Raises:
        ValueError: shapes that do not fit, an unknown name, rho out of range, labels missing or no whole numbers, too
            many sets to try; a label that is no class, if it lies on the CPU, as to look would stop another device.
        TypeError: rho neither a whole number nor text.
    """
    check_choice(selector, granularity)
    layer = LastLayer(hidden_ND, weight_CD, bias_C, labels_N)
    layer = check_layer(layer, f"the selector {selector!r}", selector in NEEDS_LABELS)
    options = _options(layer, granularity, omega, generator=generator, iterations=iterations, vertices=vertices)
    return selected_mask(layer, selector, check_rho(rho, hidden_ND.shape[1]), options)


@torch.no_grad()
def worst_set(
    hidden_ND: Tensor,
    weight_CD: Tensor,
    labels_N: Tensor,
    rho: int | str,
    *,
    bias_C: Tensor | None = None,
    granularity: str = "sample",
    iterations: int = Options._field_defaults["iterations"],
    vertices: int = Options._field_defaults["vertices"],
) -> worst.WorstSet:
    """The jointly worst ``rho`` neurons and a certified ceiling: the search behind the selector ``joint``, section 6.

    Granularity ``batch``: one set for all examples; the mean of ``ceiling_N`` is a valid but loose ceiling of the mean
    loss. Arguments and errors as in :func:`keep_mask`.
    """
    check_choice("joint", granularity)
    layer = LastLayer(hidden_ND.to(weight_CD.dtype), weight_CD, bias_C, labels_N)
    layer = check_layer(layer, "worst_set", needs_labels=True)
    options = _options(layer, granularity, None, iterations=iterations, vertices=vertices)
    rho = check_rho(rho, hidden_ND.shape[1])
    with torch.autocast(hidden_ND.device.type, enabled=False):
        drop, rounds = worst.ascend(layer, rho, options)
        loss_N, _ = worst.losses_without(layer, drop)
        return worst.WorstSet(mask_of(hidden_ND, drop), loss_N, worst.class_ceilings(layer, rho).logsumexp(1), rounds)


def _options(layer: LastLayer, granularity: str, omega: float | str | None, **others: Any) -> Options:
    for name in ("iterations", "vertices"):
        if others[name] < 0:
            raise ValueError(f"{name} is {others[name]}, and must be at least 0")
    classes, width = layer.weight_CD.shape
    return Options(omega_value(omega, width, classes), granularity == "sample", **others)


def selected_mask(layer: LastLayer, selector: str, rho: int, options: Options) -> Tensor:
    """keep_ND, False at what ``selector`` chooses; the arguments are taken as valid."""
    if (ranked := scores.ranking(layer, selector, options)) is not None:
        return fused.highest_mask(layer.hidden_ND, ranked, rho).logical_not_()
    return mask_of(layer.hidden_ND, SELECTORS[selector](layer, rho, options))


def mask_of(hidden_ND: Tensor, drop: Tensor) -> Tensor:
    """bool_ND, False at ``drop``: drop_NR, or one drop_R for all rows."""
    keep = torch.ones(hidden_ND.shape, dtype=torch.bool, device=hidden_ND.device)
    return keep.scatter_(1, drop, False) if drop.ndim == 2 else keep.index_fill_(1, drop, False)
