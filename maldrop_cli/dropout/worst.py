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
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.dropout.scores import LastLayer, Options, against, gradient, single, single_near

MAX_SETS = 100_000  # that `exhaustive` tries
SETS_AT_ONCE = 2048
MAX_CLIMBS = 2  # of a whole batch: how many starts are climbed from, the worst ones
ROWS_AT_ONCE = 256  # starts x classes in one matrix product
MAX_BLOCKS = 8  # of neurons in such a product: threads share blocks, but not a product with so few rows


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


def ascend(layer: LastLayer, rho: int, options: Options) -> tuple[Tensor, Tensor, int]:
    """(drop, loss_N, rounds) of the best start; of the best start of each example, if each has a set of its own."""
    drop, rounds = _climbed(layer, rho, options)
    return drop, _loss(_without(layer, drop), layer.labels_N), rounds


def ceilings(layer: LastLayer, rho: int) -> Tensor:
    """ceiling_N, see the top of this file."""
    return _class_ceilings(layer, rho).logsumexp(1)


def joint(layer: LastLayer, rho: int, options: Options) -> Tensor:
    """The jointly worst set, by ascent."""
    return _climbed(layer, rho, options)[0]


def greedy(layer: LastLayer, rho: int, options: Options) -> Tensor:
    """One neuron at a time: the one whose loss raises the loss most, exactly, given those already gone."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    hidden_ND = hidden_ND.clone()
    shape = (hidden_ND.shape[0], 0) if options.per_sample else (0,)
    drop = torch.empty(shape, dtype=torch.int64, device=hidden_ND.device)
    for _ in range(rho):
        score = single(LastLayer(hidden_ND, weight_CD, bias_C, labels_N), options)
        score.scatter_(-1, drop, -torch.inf)
        worst = score.argmax(-1, keepdim=True)
        drop = torch.cat([drop, worst], dim=-1)
        if options.per_sample:
            hidden_ND.scatter_(1, worst, 0.0)
        else:
            hidden_ND.index_fill_(1, worst, 0.0)
    return drop


def exhaustive(layer: LastLayer, rho: int, options: Options) -> Tensor:
    """The worst of all binom(D, rho) sets. ValueError, naming the count, where there are more than ``MAX_SETS``."""
    examples, width = layer.hidden_ND.shape
    if refusal := too_many_sets(width, rho):
        raise ValueError(f"the selector {refusal}")
    count = math.comb(width, rho)
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
        loss, index = (loss_NB if options.per_sample else loss_NB.sum(0)).max(-1)
        losses.append(loss)
        drops.append(sets_BR[index])
    winner = torch.stack(losses).argmax(0)
    drop = torch.stack(drops)
    return drop[winner, torch.arange(examples, device=drop.device)] if options.per_sample else drop[winner]


def too_many_sets(width: int, rho: int) -> str:
    """Why ``exhaustive`` would refuse, naming the count; empty where it would not."""
    count = math.comb(width, rho)
    if count <= MAX_SETS:
        return ""
    shown = f"{count:,}" if count < 10**9 else f"10^{math.log10(count):.1f}"
    return (
        f"exhaustive would have to try {shown} sets of {rho} among {width} neurons, and takes at most {MAX_SETS:,}; "
        "joint looks for the worst set without trying all"
    )


def _top(score: Tensor, rho: int) -> Tensor:
    return score.topk(rho, dim=-1, sorted=False).indices


def _without(layer: LastLayer, drop: Tensor) -> Tensor:
    """logits_NC once ``drop`` is dropped."""
    hidden_ND, weight_CD, bias_C, _ = layer
    if drop.ndim == 1:
        return F.linear(hidden_ND, weight_CD.index_fill(1, drop, 0.0), bias_C)
    return F.linear(hidden_ND.scatter(1, drop, 0.0), weight_CD, bias_C)


def _loss(logits_NC: Tensor, labels_N: Tensor | None) -> Tensor:
    assert labels_N is not None
    return F.cross_entropy(logits_NC, labels_N, reduction="none")


def _climbed(layer: LastLayer, rho: int, options: Options) -> tuple[Tensor, int]:
    """(drop, rounds)."""
    return (_climb_samples if options.per_sample else _climb_batch)(layer, rho, options)


Look = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _climb(drop: Tensor, iterations: int, look: Look, scores: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, int]:
    """Raise ``drop``, several sets at once, one a row, until none rises any more: (the height of each row, rounds).

    ``look(drop, rows)`` gives the heights of those rows and their logits, ``scores(logits, rows)`` the V(p) of softmax.
    """
    rho, rows = drop.shape[-1], torch.arange(len(drop), device=drop.device)
    height, logits = look(drop, rows)
    for number in range(iterations):
        next_drop = _top(scores(logits, rows), rho)
        next_height, next_logits = look(next_drop, rows)
        higher = (next_height > height[rows]).nonzero().squeeze(1)
        if len(higher) == 0:
            return height, number
        rows, logits = rows[higher], next_logits[higher]  # the others have reached their fixed points
        drop[rows], height[rows] = next_drop[higher], next_height[higher]
    return height, iterations


# --- one set for each example: all examples at once, start after start -----------------------------------------------


def _climb_samples(layer: LastLayer, rho: int, options: Options) -> tuple[Tensor, int]:
    """(drop_NR, rounds)."""

    def look(drop_NR: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        part = _examples(layer, rows)
        logits_NC = _without(part, drop_NR)
        return _loss(logits_NC, part.labels_N), logits_NC

    def scores(logits_NC: Tensor, rows: Tensor) -> Tensor:
        return against(_examples(layer, rows), logits_NC.softmax(1), True)

    best_NR, best_N, most = None, None, 0
    for score_ND in _sample_starts(layer, rho, options):
        drop_NR = _top(score_ND, rho)
        loss_N, rounds = _climb(drop_NR, options.iterations, look, scores)
        most = max(most, rounds)
        if best_NR is None or best_N is None:
            best_NR, best_N = drop_NR, loss_N
        else:
            higher_N = loss_N > best_N
            best_NR = torch.where(higher_N.unsqueeze(1), drop_NR, best_NR)
            best_N = torch.where(higher_N, loss_N, best_N)
    assert best_NR is not None
    return best_NR, most


def _examples(layer: LastLayer, rows: Tensor) -> LastLayer:
    """Those examples alone."""
    if len(rows) == len(layer.hidden_ND):
        return layer
    assert layer.labels_N is not None
    return layer._replace(hidden_ND=layer.hidden_ND[rows], labels_N=layer.labels_N[rows])


def _sample_starts(layer: LastLayer, rho: int, options: Options) -> Iterator[Tensor]:
    """Scores whose top rho begin an ascent: softmax, then p all on one of the wrong classes of highest ceiling."""
    yield gradient(layer, options)
    if options.vertices == 0:
        return
    _, weight_CD, _, labels_N = layer
    assert labels_N is not None
    classes = weight_CD.shape[0]
    vertices_NM = (labels_N.unsqueeze(1) + torch.arange(1, classes, device=labels_N.device)) % classes
    if options.vertices < classes - 1:
        ceiling_NM = _class_ceilings(layer, rho).gather(1, vertices_NM)
        vertices_NM = vertices_NM.gather(1, ceiling_NM.topk(options.vertices, dim=1).indices)
    for vertex_N in vertices_NM.unbind(1):
        yield against(layer, F.one_hot(vertex_N, classes).to(weight_CD.dtype), True)


# --- one set for the batch: all starts at once -----------------------------------------------------------------------


def _climb_batch(layer: LastLayer, rho: int, options: Options) -> tuple[Tensor, int]:
    """(drop_R, rounds). Every start counts, but only from the worst few is it climbed on.

    Logits are kept as (S, C, N): a product that yields them so is quicker, and the next one takes them as they are.
    """
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    (examples, width), classes = hidden_ND.shape, len(weight_CD)
    if examples == 0 or rho in (0, width):
        return torch.arange(rho, device=hidden_ND.device), 0  # nothing is at stake, or there is nothing to choose
    hidden_DN, weight_DC = hidden_ND.T.contiguous(), weight_CD.T.contiguous()  # whole rows are quick to gather
    layer = layer._replace(hidden_ND=hidden_DN.T)
    logits_CN = F.linear(hidden_ND, weight_CD, bias_C).T.contiguous()
    right_CN = F.one_hot(labels_N, classes).T.to(weight_CD.dtype)

    def look(drop_SR: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        gone_SRN, weight_SRC = F.embedding(drop_SR, hidden_DN), F.embedding(drop_SR, weight_DC)
        logp_SCN = (logits_CN - weight_SRC.transpose(1, 2) @ gone_SRN).log_softmax(1)
        return -logp_SCN.gather(1, labels_N.expand(len(drop_SR), 1, examples)).sum((1, 2)), logp_SCN

    def scores(logp_SCN: Tensor, rows: Tensor) -> Tensor:
        return _summed(layer, right_CN - logp_SCN.exp())

    drop_SR = _top(_batch_starts(layer, logits_CN, right_CN, rho, options), rho)
    height_S, _ = look(drop_SR, torch.arange(len(drop_SR)))
    drop_SR = drop_SR[height_S.topk(min(MAX_CLIMBS, len(height_S))).indices]
    height_S, rounds = _climb(drop_SR, options.iterations, look, scores)
    return drop_SR[height_S.argmax()], rounds


def _summed(layer: LastLayer, difference_SCN: Tensor) -> Tensor:
    """score_SD = sum_n h_nj sum_k d_kn W_kj: V_j(p) summed over the batch where d is 1 for the right class, less p."""
    hidden_ND, weight_CD, _, _ = layer
    classes, width = weight_CD.shape
    blocks = math.gcd(width, MAX_BLOCKS)
    hidden_BNd = hidden_ND.unflatten(1, (blocks, -1)).transpose(0, 1)
    weight_BCd = weight_CD.unflatten(1, (blocks, -1)).transpose(0, 1)
    scores = []
    for part_SCN in difference_SCN.split(max(ROWS_AT_ONCE // classes, 1)):
        summed_BSCd = (part_SCN.flatten(0, 1).expand(blocks, -1, -1) @ hidden_BNd).unflatten(1, (-1, classes))
        scores.append(summed_BSCd.mul_(weight_BCd.unsqueeze(1)).sum(2).transpose(0, 1).flatten(1))
    return torch.cat(scores)


def _batch_starts(layer: LastLayer, logits_CN: Tensor, right_CN: Tensor, rho: int, options: Options) -> Tensor:
    """score_SD, whose top rho begin an ascent: softmax; the sets of `heuristic` and `single`, so that `joint` is never
    below them; and the classes k (p all on k for every example of another class) that the batch can be brought closest
    to. With ``options.vertices`` 0, softmax alone."""
    toward_CN = right_CN - logits_CN.softmax(0)
    if options.vertices == 0:
        return _summed(layer, toward_CN.unsqueeze(0))
    hidden_ND, weight_CD, _, _ = layer
    softmax_D, right_D = _summed(layer, torch.stack([toward_CN, right_CN]))  # right_D: sum_n h_nj W_yj
    hidden_D = hidden_ND.sum(0)
    heuristic_D = (1.0 + options.omega) * right_D - options.omega * weight_CD.sum(0) * hidden_D
    single_D = single_near(layer, logits_CN.T, softmax_D, rho, options)
    # sum_n h_nj (W_yj - W_kj), where an example of class k itself adds 0
    vertex_CD = right_D - weight_CD * hidden_D
    if options.vertices < len(vertex_CD):
        reach_C = logits_CN.sum(1) + vertex_CD.topk(rho, dim=1, sorted=False).values.sum(1)
        vertex_CD = vertex_CD[reach_C.topk(options.vertices).indices]
    return torch.cat([torch.stack([softmax_D, heuristic_D, single_D]), vertex_CD])


def _class_ceilings(layer: LastLayer, rho: int) -> Tensor:
    """z_k - z_y + T_k, shape (N, C): how far class k comes above the right one if the rho neurons go that tell the two
    apart most. Class by class, so that no N x D x C tensor is built."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    logits_NC = F.linear(hidden_ND, weight_CD, bias_C)
    right_ND = F.embedding(labels_N, weight_CD)
    tops = [(hidden_ND * (right_ND - weight_D)).topk(rho, dim=1, sorted=False).values.sum(1) for weight_D in weight_CD]
    return logits_NC - logits_NC.gather(1, labels_N.unsqueeze(1)) + torch.stack(tops, 1)


SEARCHES = {"joint": joint, "greedy": greedy, "exhaustive": exhaustive}
