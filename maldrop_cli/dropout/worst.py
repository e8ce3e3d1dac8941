"""The jointly worst set of neurons: what the paper calls impossible to compute (section 6).

The loss after dropping a set S is l(S) = logsumexp z(S) - z_y(S), and z(S) = z - sum_(j in S) h_j W_:j. As logsumexp
is a maximum over distributions p on the classes, with H the entropy,

    max_S l(S) = max_p [ p.z - z_y + H(p) + sum of the rho largest V_j(p) ],   V_j(p) = h_j (W_yj - sum_k p_k W_kj),

so the search over binom(D, rho) sets is one over C numbers. For a fixed p the best S is the top rho of V(p), for a
fixed S the best p is softmax z(S). Alternating between the two, the loss never falls, and it stops at a fixed point;
several starts are tried and the best is kept. As the sum of the rho largest is convex in p, no set does more harm than

    logsumexp_k (z_k - z_y + T_k),   T_k = the sum of the rho largest h_j (W_yj - W_kj),   T_y = 0,

the ceiling. Shapes as in scores.py; drop_NR are the R = rho neurons dropped from each example, drop_R those dropped
from all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.dropout.scores import LastLayer, against, gradient, heuristic, single

ITERATIONS = 10
MOST_VERTICES = 16  # starts beside softmax
MOST_SETS = 100_000  # that `exhaustive` tries
SETS_AT_ONCE = 2048


class WorstSet(NamedTuple):
    """The worst set found, and how much worse any set could be.

    ``keep_ND``: True where a neuron passes. ``loss_N``: each example's loss without the others. ``ceiling_N``: no set
    of rho neurons, even one chosen for that example alone, gives it a higher loss. ``iterations``: rounds of ascent
    until nothing improved, of the start that took longest.
    """

    keep_ND: Tensor
    loss_N: Tensor
    ceiling_N: Tensor
    iterations: int


def ascend(layer: LastLayer, rho: int, omega: float, per_sample: bool, iterations: int) -> tuple[Tensor, Tensor, int]:
    """(drop, loss_N, rounds) of the best start; with ``per_sample``, of the best start of each example."""
    best_drop, best_N, rounds = None, None, 0
    for score in _starts(layer, rho, omega, per_sample):
        drop = _top(score, rho)
        loss_N, logits_NC = _without(layer, drop)
        for number in range(1, iterations + 1):
            next_drop = _top(against(layer, logits_NC.softmax(1), per_sample), rho)
            next_N, logits_NC = _without(layer, next_drop)
            if not bool(_better(next_N, loss_N, per_sample).any()):
                break
            drop, loss_N = _best(next_drop, next_N, drop, loss_N, per_sample)
            rounds = max(rounds, number)
        if best_drop is None or best_N is None:
            best_drop, best_N = drop, loss_N
        else:
            best_drop, best_N = _best(drop, loss_N, best_drop, best_N, per_sample)
    assert best_drop is not None
    assert best_N is not None
    return best_drop, best_N, rounds


def ceilings(layer: LastLayer, rho: int) -> Tensor:
    """ceiling_N, see the top of this file."""
    return _class_ceilings(layer, rho).logsumexp(1)


def joint(layer: LastLayer, rho: int, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
    """The jointly worst set, by ascent from the default starts."""
    return ascend(layer, rho, omega, per_sample, ITERATIONS)[0]


def greedy(layer: LastLayer, rho: int, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
    """One neuron at a time: the one whose loss raises the loss most, exactly, given those already gone."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    hidden_ND = hidden_ND.clone()
    shape = (hidden_ND.shape[0], 0) if per_sample else (0,)
    drop = torch.empty(shape, dtype=torch.int64, device=hidden_ND.device)
    for _ in range(rho):
        score = single(LastLayer(hidden_ND, weight_CD, bias_C, labels_N), omega, per_sample, None)
        score.scatter_(-1, drop, -torch.inf)
        worst = score.argmax(-1, keepdim=True)
        drop = torch.cat([drop, worst], dim=-1)
        if per_sample:
            hidden_ND.scatter_(1, worst, 0.0)
        else:
            hidden_ND.index_fill_(1, worst, 0.0)
    return drop


def exhaustive(layer: LastLayer, rho: int, omega: float, per_sample: bool, generator: torch.Generator | None) -> Tensor:
    """The worst of all binom(D, rho) sets. ValueError, naming the count, where there are more than ``MOST_SETS``."""
    examples, width = layer.hidden_ND.shape
    count = math.comb(width, rho)
    if count > MOST_SETS:
        raise ValueError(
            f"the selector 'exhaustive' would have to try {count:.3g} sets of {rho} among {width} neurons; "
            f"it takes at most {MOST_SETS:,} ('joint' finds the worst set without trying all)"
        )
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    logits_NC = F.linear(hidden_ND, weight_CD, bias_C)
    share_NDC = hidden_ND.unsqueeze(2) * weight_CD.T  # what each neuron adds to each logit; D is small here
    sets = list(itertools.combinations(range(width), rho))
    sets_MR = torch.tensor(sets, dtype=torch.int64, device=hidden_ND.device).reshape(count, rho)
    losses, drops = [], []
    for sets_BR in sets_MR.split(SETS_AT_ONCE):
        gone_BD = torch.zeros(len(sets_BR), width, dtype=weight_CD.dtype, device=weight_CD.device)
        gone_BD.scatter_(1, sets_BR, 1.0)
        after_NBC = logits_NC.unsqueeze(1) - torch.einsum("bd,ndc->nbc", gone_BD, share_NDC)
        right_NB = after_NBC.gather(2, labels_N.view(-1, 1, 1).expand(-1, len(sets_BR), 1)).squeeze(2)
        loss_NB = after_NBC.logsumexp(2) - right_NB
        loss, index = (loss_NB if per_sample else loss_NB.sum(0)).max(-1)
        losses.append(loss)
        drops.append(sets_BR[index])
    winner = torch.stack(losses).argmax(0)
    drop = torch.stack(drops)
    return drop[winner, torch.arange(examples, device=drop.device)] if per_sample else drop[winner]


def _top(score: Tensor, rho: int) -> Tensor:
    return score.topk(rho, dim=-1, sorted=False).indices


def _without(layer: LastLayer, drop: Tensor) -> tuple[Tensor, Tensor]:
    """(loss_N, logits_NC) once ``drop`` is dropped."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    if drop.ndim == 1:
        logits_NC = F.linear(hidden_ND, weight_CD.index_fill(1, drop, 0.0), bias_C)
    else:
        logits_NC = F.linear(hidden_ND.scatter(1, drop, 0.0), weight_CD, bias_C)
    return F.cross_entropy(logits_NC, labels_N, reduction="none"), logits_NC


def _better(one_N: Tensor, other_N: Tensor, per_sample: bool) -> Tensor:
    """Where ``one`` is the higher loss: bool_N, or, of a whole batch, a single bool."""
    return one_N > other_N if per_sample else one_N.sum() > other_N.sum()


def _best(one: Tensor, one_N: Tensor, other: Tensor, other_N: Tensor, per_sample: bool) -> tuple[Tensor, Tensor]:
    """The sets of higher loss and their losses, example by example or for the batch as a whole."""
    better = _better(one_N, other_N, per_sample)
    return torch.where(better.unsqueeze(-1), one, other), torch.where(better, one_N, other_N)


def _starts(layer: LastLayer, rho: int, omega: float, per_sample: bool) -> Iterator[Tensor]:
    """Scores whose top rho begin an ascent: softmax, and the vertices e_k of highest ceiling. For a batch, also those
    of the other selectors, so that `joint` is never below them."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    classes, device = weight_CD.shape[0], weight_CD.device
    identity_CC = torch.eye(classes, dtype=weight_CD.dtype, device=device)
    yield gradient(layer, omega, per_sample, None)
    if per_sample:
        wrong_NC = _class_ceilings(layer, rho).scatter(1, labels_N.unsqueeze(1), -torch.inf)
        for vertex_N in wrong_NC.topk(min(MOST_VERTICES, classes - 1), dim=1).indices.unbind(1):
            yield against(layer, identity_CC[vertex_N], True)
        return
    yield heuristic(layer, omega, False, None)
    yield single(layer, omega, False, None)
    softmax_NC = F.linear(hidden_ND, weight_CD, bias_C).softmax(1)
    for vertex in _batch_vertices(layer, rho):
        others = (labels_N != vertex).unsqueeze(1)
        yield against(layer, torch.where(others, identity_CC[vertex], softmax_NC), False)


def _batch_vertices(layer: LastLayer, rho: int) -> Tensor:
    """The classes to begin from with a whole batch: all, or the ``MOST_VERTICES`` that its examples come closest to."""
    classes = layer.weight_CD.shape[0]
    if classes <= MOST_VERTICES:
        return torch.arange(classes, device=layer.weight_CD.device)
    assert layer.labels_N is not None
    wrong_NC = _class_ceilings(layer, rho).scatter(1, layer.labels_N.unsqueeze(1), -torch.inf)
    return wrong_NC.softmax(1).sum(0).topk(MOST_VERTICES).indices


def _class_ceilings(layer: LastLayer, rho: int) -> Tensor:
    """z_k - z_y + T_k, shape (N, C): how far class k comes above the right one if the rho neurons go that tell the two
    apart most. Class by class, so that no N x D x C tensor is built."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    logits_NC = F.linear(hidden_ND, weight_CD, bias_C)
    right_ND = F.embedding(labels_N, weight_CD)
    tops = [(hidden_ND * (right_ND - weight_D)).topk(rho, dim=1, sorted=False).values.sum(1) for weight_D in weight_CD]
    return logits_NC - logits_NC.gather(1, labels_N.unsqueeze(1)) + torch.stack(tops, 1)
