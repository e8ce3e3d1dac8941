"""How much each neuron of the layer before the last helps the right answer: the higher, the sooner it is dropped.

Shapes: N examples, D neurons, C classes. Every score function maps ``(layer, omega, per_sample, generator)`` to
``score_ND``, or, with ``per_sample=False``, to ``score_D``, its sum over the batch. None builds an N x D x C tensor.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Score = Callable[["LastLayer", float, bool, "torch.Generator | None"], Tensor]

SCORE_BYTES = 8 * 2**20  # working memory of `single`; about the size of a CPU's cache


class LastLayer(NamedTuple):
    """The last affine layer and what enters it: logits_NC = hidden_ND @ weight_CD.T + bias_C."""

    hidden_ND: Tensor
    weight_CD: Tensor
    bias_C: Tensor | None
    labels_N: Tensor | None


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


def heuristic(layer: LastLayer, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
    """V_j = h_j W_yj - omega h_j sum_(k != y) W_kj, section 4.1; time O(ND + CD).

    The sum over wrong classes is the column sum less the right class, so one gather of W's rows by label suffices:
    V_j = h_j ((1 + omega) W_yj - omega sum_k W_kj). For a batch with no more classes than examples it is quicker to add
    up the hidden layer by class first.
    """
    hidden_ND, weight_CD, _, labels_N = layer
    assert labels_N is not None
    total_D, classes = weight_CD.sum(0), weight_CD.shape[0]
    if per_sample:
        helpful_CD = torch.add((1.0 + omega) * weight_CD, total_D, alpha=-omega)
        return F.embedding(labels_N, helpful_CD) * hidden_ND
    if classes <= hidden_ND.shape[0]:
        by_class_CD = F.one_hot(labels_N, classes).to(hidden_ND.dtype).T @ hidden_ND
        return (1.0 + omega) * (by_class_CD * weight_CD).sum(0) - omega * total_D * by_class_CD.sum(0)
    right_D = (F.embedding(labels_N, weight_CD) * hidden_ND).sum(0)
    return (1.0 + omega) * right_D - omega * total_D * hidden_ND.sum(0)


def gradient(layer: LastLayer, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
    """V_j = h_j (W_yj - sum_k p_k W_kj) with p = softmax(z): the first-order rise of the loss, -h_j dl/dh_j.

    It mends what section 4.1 says of its own heuristic, that a wrong class with a low score should not count. ``omega``
    does not enter.
    """
    logits_NC = F.linear(layer.hidden_ND, layer.weight_CD, layer.bias_C)
    return against(layer, logits_NC.softmax(1), per_sample)


def against(layer: LastLayer, probability_NC: Tensor, per_sample: bool) -> Tensor:
    """V_j(p) = h_j (W_yj - sum_k p_k W_kj): what neuron j says for the right class against all, weighted by p."""
    hidden_ND, weight_CD, _, labels_N = layer
    assert labels_N is not None
    difference_NC = F.one_hot(labels_N, weight_CD.shape[0]).to(weight_CD.dtype) - probability_NC
    if per_sample:
        return (difference_NC @ weight_CD).mul_(hidden_ND)
    return ((difference_NC.T @ hidden_ND) * weight_CD).sum(0)


def least_useful(layer: LastLayer, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
    """The heuristic turned round: drops the neurons that help the right answer least. A control."""
    return heuristic(layer, omega, per_sample, generator).neg_()


def magnitude(layer: LastLayer, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
    """|h_j|, whatever it says: a control. ``omega`` and the labels do not enter."""
    size_ND = layer.hidden_ND.abs()
    return size_ND if per_sample else size_ND.sum(0)


def single(layer: LastLayer, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
    """The exact rise of the loss when neuron j alone is dropped, L_(j->0) - L, section 4.1, without a forward pass.

    With p = softmax(z): L_(j->0) - L = log sum_k p_k exp(-h_j W_kj) + h_j W_yj. It takes N D C exponentials, worked
    off in blocks of at most ``SCORE_BYTES``. ``omega`` does not enter.
    """
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    logp_NC = F.log_softmax(F.linear(hidden_ND, weight_CD, bias_C), dim=1)
    (examples, width), classes = hidden_ND.shape, weight_CD.shape[0]
    items = max(SCORE_BYTES // (classes * logp_NC.element_size()), 1)  # N x D products a block may hold
    neurons = min(width, items)
    rows = max(items // neurons, 1)
    score = logp_NC.new_zeros((examples, width) if per_sample else width)
    for n in range(0, examples, rows):
        for d in range(0, width, neurons):
            hidden_nd, weight_Cd = hidden_ND[n : n + rows, d : d + neurons], weight_CD[:, d : d + neurons]
            terms_nCd = (hidden_nd.unsqueeze(1) * weight_Cd).neg_().add_(logp_NC[n : n + rows].unsqueeze(2))
            rise_nd = torch.logsumexp(terms_nCd, 1)
            rise_nd += hidden_nd * F.embedding(labels_N[n : n + rows], weight_Cd)
            if per_sample:
                score[n : n + rows, d : d + neurons] = rise_nd
            else:
                score[d : d + neurons] += rise_nd.sum(0)
    return score


def random(layer: LastLayer, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
    """Uniform noise, so that the top rho are a uniformly random set of exactly rho neurons: the control."""
    hidden_ND = layer.hidden_ND
    shape = hidden_ND.shape if per_sample else hidden_ND.shape[1:]
    return torch.rand(shape, generator=generator, device=hidden_ND.device)


SCORES: dict[str, Score] = {
    "heuristic": heuristic,
    "single": single,
    "gradient": gradient,
    "least-useful": least_useful,
    "magnitude": magnitude,
    "random": random,
}
