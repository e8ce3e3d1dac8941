"""How much each neuron before the last layer helps the right answer: those of the highest scores are dropped.

Shapes: N examples, D neurons, C classes. Every score function maps ``(layer, options)`` to ``score_ND``, or, without
``options.per_sample``, to ``score_D``, its sum over the batch. None builds an N x D x C tensor.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.dropout import fused

Score = Callable[["LastLayer", "Options"], Tensor]


class LastLayer(NamedTuple):
    """The last affine layer and what enters it: logits_NC = hidden_ND @ weight_CD.T + bias_C."""

    hidden_ND: Tensor
    weight_CD: Tensor
    bias_C: Tensor | None
    labels_N: Tensor | None


class Options(NamedTuple):
    """How neurons are scored, and how sets of them are searched for; each selector looks at what concerns it."""

    omega: float = 0.0  # weight of the wrong classes
    per_sample: bool = True  # a mask for each example, else one for the batch
    generator: torch.Generator | None = None  # the randomness of `random`
    area: int = 1  # neurons in a channel, which are dropped together; 1 except for spatial dropout
    score_bytes: int = 4 * 2**20  # working memory of `single`, by default about a CPU's cache
    iterations: int = 10  # the most rounds of `joint` from each start
    vertices: int = 16  # the most starts of `joint` beside softmax


def omega_value(omega: float | str | None, width: int, classes: int) -> float:
    """The weight of the wrong classes: None or ``paper`` is 1/(D-1) (its footnote 2), ``classes`` is 1/(C-1).

    Raises ValueError for another word.
    """
    if omega is None or omega == "paper":
        return 1.0 / max(width - 1, 1)
    if omega == "classes":
        return 1.0 / max(classes - 1, 1)
    if isinstance(omega, str):
        raise ValueError(f"omega {omega!r} is neither 'paper' nor 'classes' nor a number")
    return float(omega)


def heuristic(layer: LastLayer, options: Options) -> Tensor:
    """V_j = h_j W_yj - omega h_j sum_(k != y) W_kj, section 4.1; time O(ND + CD).

    As the sum over all classes less the right one: V_j = h_j ((1 + omega) W_yj - omega sum_k W_kj).
    """
    (hidden_ND, weight_CD, _, labels_N), omega = layer, options.omega
    assert labels_N is not None
    if not options.per_sample and fused.applies("linear_score", hidden_ND, weight_CD):
        total_D = weight_CD.sum(0, dtype=torch.float32)
        return fused.linear_score(hidden_ND, weight_CD, labels_N, total_D, 1.0 + omega, omega)
    total_D = weight_CD.sum(0)
    few_classes = 4 * weight_CD.shape[0] <= hidden_ND.shape[0]  # then C x D is by far the smaller array to work on
    if options.per_sample and few_classes:
        helpful_CD = torch.add((1.0 + omega) * weight_CD, total_D, alpha=-omega)
        return F.embedding(labels_N, helpful_CD).mul_(hidden_ND)
    if options.per_sample:
        helpful_ND = F.embedding(labels_N, weight_CD).mul_(1.0 + omega)
        return helpful_ND.sub_(omega * total_D).mul_(hidden_ND)
    if few_classes:
        by_class_CD = summed_by_class(hidden_ND, labels_N, weight_CD)
        right_D, hidden_D = (by_class_CD * weight_CD).sum(0), by_class_CD.sum(0)
    else:
        right_D, hidden_D = F.embedding(labels_N, weight_CD).mul_(hidden_ND).sum(0), hidden_ND.sum(0)
    return (1.0 + omega) * right_D - omega * total_D * hidden_D


def summed_by_class(hidden_ND: Tensor, labels_N: Tensor, weight_CD: Tensor) -> Tensor:
    """sum of h_n over the examples of each class, as large as ``weight_CD``."""
    if hidden_ND.device.type == "cpu" and hidden_ND.dtype == weight_CD.dtype and hidden_ND.dtype.itemsize >= 4:
        return torch.zeros_like(weight_CD).index_add_(0, labels_N, hidden_ND)
    # elsewhere adding by index has no fixed order, and in half precision loses what a product keeps
    return F.one_hot(labels_N, weight_CD.shape[0]).to(hidden_ND.dtype).T @ hidden_ND


def weight_scores(layer: LastLayer, omega: float) -> Tensor:
    """The heuristic for single weights, summed over the batch: score_CD, whose sum over the classes is V_j.

    W_kj adds h_j W_kj to class k, which counts where k is the right class and by -omega where it is not, so V_kj =
    W_kj ((1 + omega) S_kj - omega sum_n h_nj), with S_kj the sum of h_nj over the examples of class k.
    """
    weight_CD, labels_N = layer.weight_CD, layer.labels_N
    assert labels_N is not None
    hidden_ND = layer.hidden_ND.to(weight_CD.dtype)
    with torch.autocast(hidden_ND.device.type, enabled=False):
        by_class_CD = summed_by_class(hidden_ND, labels_N, weight_CD)
        return weight_CD * ((1.0 + omega) * by_class_CD - omega * hidden_ND.sum(0))


def gradient(layer: LastLayer, options: Options) -> Tensor:
    """V_j = h_j (W_yj - sum_k p_k W_kj) with p = softmax(z): the loss increase to first order, -h_j dl/dh_j. It mends
    what section 4.1 says of its own heuristic, that a wrong class with a low score should not count."""
    logits_NC = F.linear(layer.hidden_ND, layer.weight_CD, layer.bias_C)
    return target_scores(layer, logits_NC.softmax(1), options.per_sample)


def target_scores(layer: LastLayer, probability_NC: Tensor, per_sample: bool) -> Tensor:
    """V_j(p) = h_j (W_yj - sum_k p_k W_kj): what neuron j adds to the right logit, less its mean over p."""
    hidden_ND, weight_CD, _, labels_N = layer
    assert labels_N is not None
    difference_NC = F.one_hot(labels_N, weight_CD.shape[0]).to(weight_CD.dtype) - probability_NC
    if per_sample:
        return (difference_NC @ weight_CD).mul_(hidden_ND)
    return ((difference_NC.T @ hidden_ND) * weight_CD).sum(0)


def least_useful(layer: LastLayer, options: Options) -> Tensor:
    """The heuristic with the other sign: drops the neurons that help the right answer least. A control."""
    return heuristic(layer, options).neg_()


def magnitude(layer: LastLayer, options: Options) -> Tensor:
    """|h_j|: a control. ``omega`` and the labels do not enter."""
    size_ND = layer.hidden_ND.abs()
    return size_ND if options.per_sample else size_ND.sum(0)


def random(layer: LastLayer, options: Options) -> Tensor:
    """Uniform noise, so that the top rho are a uniformly random set of exactly rho neurons: the control."""
    hidden_ND = layer.hidden_ND
    shape = hidden_ND.shape if options.per_sample else hidden_ND.shape[1:]
    return uniform(shape, options.generator, hidden_ND.device)


def uniform(
    shape: Sequence[int], generator: torch.Generator | None, device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """``torch.rand``. RuntimeError where activation checkpointing recomputes a forward pass, within the backward one,
    and the ``generator`` would draw another mask: torch restores only its own."""
    if generator is not None and not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "activation checkpointing recomputes this layer, and its generator would draw another mask than before: "
            "leave generator out, as torch restores its own, or keep the layer out of the checkpoint"
        )
    return torch.rand(shape, generator=generator, device=device, dtype=dtype)


def single(layer: LastLayer, options: Options, logits_NC: Tensor | None = None) -> Tensor:
    """The exact loss increase when neuron j alone is dropped, L_(j->0) - L, section 4.1, without a forward pass.

    With p = softmax(z): L_(j->0) - L = log sum_k p_k exp(-h_j W_kj) + h_j W_yj. It takes N D C exponentials, class by
    class in blocks of at most ``options.score_bytes``. ``logits_NC``: z, where the layer has only some of its neurons.
    """
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    logits_NC = F.linear(hidden_ND, weight_CD, bias_C) if logits_NC is None else logits_NC
    logp_NC = F.log_softmax(logits_NC, dim=1)
    if fused.applies("single_score", hidden_ND, weight_CD):
        return fused.single_score(hidden_ND, weight_CD, logp_NC, labels_N, options.per_sample)
    examples, width = hidden_ND.shape
    may_overflow = torch.compiler.is_compiling() or _may_overflow(hidden_ND, weight_CD)
    items = max(options.score_bytes // (4 * logp_NC.element_size()), 1)  # of the four arrays of a block
    neurons = max(min(width, items), 1)
    rows = max(items // neurons, 1)
    score = logp_NC.new_zeros((examples, width) if options.per_sample else width)
    for n in range(0, examples, rows):
        for d in range(0, width, neurons):
            hidden_nd, weight_Cd = hidden_ND[n : n + rows, d : d + neurons], weight_CD[:, d : d + neurons]
            increase_nd = _log_sum(hidden_nd, weight_Cd, logp_NC[n : n + rows], may_overflow)
            increase_nd.addcmul_(hidden_nd, F.embedding(labels_N[n : n + rows], weight_Cd))
            if options.per_sample:
                score[n : n + rows, d : d + neurons] = increase_nd
            else:
                score[d : d + neurons] += increase_nd.sum(0)
    return score


def _log_sum(hidden_nd: Tensor, weight_Cd: Tensor, logp_nC: Tensor, may_overflow: bool) -> Tensor:
    """log sum_k exp(logp_k - h_j W_kj), class by class; if it ``may_overflow``, with the largest exponent taken out."""

    def exponents() -> Iterator[Tensor]:
        for weight_d, logp_n in zip(weight_Cd, logp_nC.unbind(1), strict=True):
            yield torch.addcmul(logp_n.unsqueeze(1), hidden_nd, weight_d, value=-1)

    if not may_overflow:
        return functools.reduce(Tensor.add_, (each_nd.exp_() for each_nd in exponents())).log_()
    largest_nd = functools.reduce(torch.maximum, exponents())
    sum_nd = functools.reduce(Tensor.add_, (each_nd.sub_(largest_nd).exp_() for each_nd in exponents()))
    return sum_nd.log_().add_(largest_nd)


def _may_overflow(hidden_ND: Tensor, weight_CD: Tensor) -> bool:
    """Whether exp(h_j W_kj) might leave the numbers' range: as the largest p_k is at least 1/C, half of it is safe."""
    if hidden_ND.numel() == 0:
        return False
    largest = torch.stack([torch.stack(tensor.aminmax()).abs().amax() for tensor in (hidden_ND, weight_CD)])
    return bool(largest.prod() > 0.45 * math.log(torch.finfo(weight_CD.dtype).max))


def single_near(layer: LastLayer, logits_NC: Tensor, lower_D: Tensor, rho: int, options: Options) -> Tensor:
    """score_D with the same ``rho`` highest, fewer than all, as :func:`single` summed over the batch, which is worked
    out only where bounds don't tell whether a neuron is among them; the others keep ``lower_D``, their `gradient`.

    With p = softmax(z), x_k = h_j W_kj and u = E_p x - x, the increase is V_j + log E_p exp(u), where V_j is the score
    of :func:`gradient`, E_p u = 0 and u <= m = |h_j| r, r = max_k W_kj - min_k W_kj. By Jensen it is at least V_j; as
    exp(u) <= 1 + u + u^2 e^m / 2, it is at most V_j + Var_p(x) e^m / 2. The variance is at most
    h_j^2 r^2 min(1/4, 1 - max_k p_k), which is cheap; for those that this leaves undecided it is worked out. To gather
    neurons is quick where ``hidden_ND`` is the transpose of a contiguous array.
    """
    hidden_ND, weight_CD, _, _ = layer
    if fused.applies("single_score", hidden_ND, weight_CD):
        return single(layer, options, logits_NC)
    probability_NC, square_ND = logits_NC.softmax(1), hidden_ND.square()
    range_D = weight_CD.amax(0) - weight_CD.amin(0)
    factor_D = (square_ND.amax(0).sqrt_() * range_D).exp_().mul_(0.5)  # e^m / 2
    rounding = len(hidden_ND) * torch.finfo(hidden_ND.dtype).eps  # e^m would make much of what differences lose
    spread_N = (1.0 + rounding - probability_NC.amax(1)).clamp_(max=0.25)
    upper_D = torch.addcmul(lower_D, factor_D, (spread_N @ square_ND) * range_D.square())

    near = _undecided(lower_D, upper_D, rho)
    hidden_Nd, weight_Cd = hidden_ND.T[near].T, weight_CD.index_select(1, near)
    mean_d = (probability_NC @ weight_Cd).mul_(hidden_Nd).square_().sum(0)
    square_d = (probability_NC.T @ square_ND.T[near].T).mul_(weight_Cd).mul_(weight_Cd).sum(0)
    variance_d = (square_d - mean_d).clamp_(min=0.0).add_(square_d, alpha=rounding)
    upper_D[near] = torch.minimum(upper_D[near], torch.addcmul(lower_D[near], factor_D[near], variance_d))

    near = _undecided(lower_D, upper_D, rho)
    part = layer._replace(hidden_ND=hidden_ND.T[near].T, weight_CD=weight_CD.index_select(1, near))
    return lower_D.index_copy(0, near, single(part, options, logits_NC))


def _undecided(lower_D: Tensor, upper_D: Tensor, rho: int) -> Tensor:
    """Indices of the neurons of which bounds don't tell whether they are among the ``rho`` highest, fewer than all.

    One is if its lower bound is above all upper bounds but the rho highest, and is not if its upper bound is below the
    rho-th highest lower one. A bound that is NaN leaves its neuron undecided.
    """
    inside_D = lower_D > upper_D.topk(rho + 1, sorted=False).values.amin()
    outside_D = upper_D < lower_D.topk(rho, sorted=False).values.amin()
    return (inside_D | outside_D).logical_not_().nonzero().squeeze(1)


SCORES: dict[str, Score] = {
    "heuristic": heuristic,
    "single": single,
    "gradient": gradient,
    "least-useful": least_useful,
    "magnitude": magnitude,
    "random": random,
}


def ranking(layer: LastLayer, selector: str, options: Options) -> fused.Ranking | None:
    """The scores of SCORES, up to rounding, for the kernel that drops the highest of each example; None where it does
    not apply. Those that are linear in h the kernel works out itself."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    fits = options.per_sample and options.area == 1 and hidden_ND.shape[1] <= fused.MAX_WIDTH
    if not (fits and selector in SCORES and fused.applies("drop_highest", hidden_ND, weight_CD)):
        return None
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        if selector in ("heuristic", "least-useful"):
            sign = 1.0 if selector == "heuristic" else -1.0
            right, other = sign * (1.0 + options.omega), sign * options.omega
            return fused.Ranking(weight_CD.sum(0, dtype=torch.float32), weight_CD, labels_N, right, other)
        hidden_ND = hidden_ND.to(weight_CD.dtype)
        if selector == "gradient":
            probability_NC = F.linear(hidden_ND, weight_CD, bias_C).softmax(1)
            return fused.Ranking((probability_NC @ weight_CD).float(), weight_CD, labels_N)
        return fused.Ranking(SCORES[selector](layer._replace(hidden_ND=hidden_ND), options).float())
