"""The jointly worst set of neurons: what the paper calls impossible to compute (section 6).

The loss after dropping a set S is l(S) = logsumexp z(S) - z_y(S), and z(S) = z - sum_(j in S) h_j W_:j. As logsumexp
is a maximum over distributions p on the classes, with H the entropy,

    max_S l(S) = max_p [ p.z - z_y + H(p) + sum of the rho largest V_j(p) ],   V_j(p) = h_j (W_yj - sum_k p_k W_kj),

so the search over binom(D, rho) sets is one over C numbers. For a fixed p the best S is the top rho of V(p), for a
fixed S the best p is softmax z(S). Alternating between the two, the loss never falls, and it stops at a fixed point;
several starts are tried and the best is kept. As the sum of the rho largest is convex in p, no set has a loss above

    logsumexp_k (z_k - z_y + T_k),   T_k = the sum of the rho largest h_j (W_yj - W_kj),   T_y = 0,

the ceiling. Shapes as in scores.py; drop_NR are the R = rho neurons dropped from each example, drop_R those dropped
from all.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.dropout.scores import LastLayer, Options, gradient, single, single_near, target_scores

MAX_SETS = 100_000  # that `exhaustive` tries
SETS_AT_ONCE = 2048
MAX_ASCENTS = 2  # with one set for the batch: only the worst starts are improved
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


def ascend(layer: LastLayer, rho: int, options: Options) -> tuple[Tensor, int]:
    """(drop, rounds) of the best start; of the best start of each example, if each has a set of its own."""
    return (_ascend_samples if options.per_sample else _ascend_batch)(layer, rho, options)


def losses_without(layer: LastLayer, drop: Tensor) -> tuple[Tensor, Tensor]:
    """(loss_N, logits_NC) once ``drop`` is dropped: drop_NR or drop_R."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    if drop.ndim == 1:
        logits_NC = F.linear(hidden_ND, weight_CD.index_fill(1, drop, 0.0), bias_C)
    else:
        logits_NC = F.linear(hidden_ND.scatter(1, drop, 0.0), weight_CD, bias_C)
    return F.cross_entropy(logits_NC, labels_N, reduction="none"), logits_NC


def greedy(layer: LastLayer, rho: int, options: Options) -> Tensor:
    """One neuron at a time: the one whose removal raises the loss most, exactly, given those already gone."""
    hidden_ND = layer.hidden_ND.clone()
    shape = (hidden_ND.shape[0], 0) if options.per_sample else (0,)
    drop = torch.empty(shape, dtype=torch.int64, device=hidden_ND.device)
    for _ in range(rho):
        score = single(layer._replace(hidden_ND=hidden_ND), options)
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
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    examples, width = hidden_ND.shape
    if refusal := too_many_sets(width, rho):
        raise ValueError(f"the selector {refusal}")
    logits_NC = F.linear(hidden_ND, weight_CD, bias_C)
    share_NDC = hidden_ND.unsqueeze(2) * weight_CD.T  # what each neuron adds to each logit; D is small here
    sets = list(itertools.combinations(range(width), rho))
    sets_MR = torch.tensor(sets, dtype=torch.int64, device=hidden_ND.device).reshape(len(sets), rho)
    losses, drops = [], []
    for sets_BR in sets_MR.split(SETS_AT_ONCE):
        gone_BD = weight_CD.new_zeros(len(sets_BR), width).scatter_(1, sets_BR, 1.0)
        after_NBC = logits_NC.unsqueeze(1) - torch.einsum("bd,ndc->nbc", gone_BD, share_NDC)
        right_NB = after_NBC.gather(2, labels_N.view(-1, 1, 1).expand(-1, len(sets_BR), 1)).squeeze(2)
        loss_NB = after_NBC.logsumexp(2) - right_NB
        loss, index = (loss_NB if options.per_sample else loss_NB.sum(0)).max(-1)
        losses.append(loss)
        drops.append(sets_BR[index])
    best, drop = torch.stack(losses).argmax(0), torch.stack(drops)
    return drop[best, torch.arange(examples, device=drop.device)] if options.per_sample else drop[best]


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


def _ascend(
    drop: Tensor, iterations: int, evaluate: Callable[..., tuple[Tensor, Tensor]], scores: Callable[..., Tensor]
) -> tuple[Tensor, int]:
    """Improve ``drop`` in place, several sets at once, one a row, until no loss rises: (the loss of each row, rounds).

    ``evaluate(drop, rows)``: the losses of those rows and their logits; ``scores(logits, rows)``: V(p) of softmax.
    """
    rho, rows = drop.shape[-1], torch.arange(len(drop), device=drop.device)
    loss, logits = evaluate(drop, rows)
    for number in range(iterations):
        next_drop = _top(scores(logits, rows), rho)
        next_loss, next_logits = evaluate(next_drop, rows)
        higher = (next_loss > loss[rows]).nonzero().squeeze(1)
        if len(higher) == 0:
            return loss, number
        rows, logits = rows[higher], next_logits[higher]  # the others have reached their fixed points
        drop[rows], loss[rows] = next_drop[higher], next_loss[higher]
    return loss, iterations


def _ascend_samples(layer: LastLayer, rho: int, options: Options) -> tuple[Tensor, int]:
    """(drop_NR, rounds)."""
    labels_N = layer.labels_N
    assert labels_N is not None

    def examples(rows: Tensor) -> LastLayer:
        if len(rows) == len(labels_N):
            return layer
        return layer._replace(hidden_ND=layer.hidden_ND[rows], labels_N=labels_N[rows])

    def evaluate(drop_NR: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return losses_without(examples(rows), drop_NR)

    def scores(logits_NC: Tensor, rows: Tensor) -> Tensor:
        return target_scores(examples(rows), logits_NC.softmax(1), True)

    starts = _sample_starts(layer, rho, options)
    best_NR = _top(next(starts), rho)
    best_N, most = _ascend(best_NR, options.iterations, evaluate, scores)
    for score_ND in starts:
        drop_NR = _top(score_ND, rho)
        loss_N, rounds = _ascend(drop_NR, options.iterations, evaluate, scores)
        higher_N = loss_N > best_N
        best_NR = torch.where(higher_N.unsqueeze(1), drop_NR, best_NR)
        best_N, most = torch.where(higher_N, loss_N, best_N), max(most, rounds)
    return best_NR, most


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
        ceiling_NM = class_ceilings(layer, rho).gather(1, vertices_NM)
        vertices_NM = vertices_NM.gather(1, ceiling_NM.topk(options.vertices, dim=1).indices)
    for vertex_N in vertices_NM.unbind(1):
        yield target_scores(layer, F.one_hot(vertex_N, classes).to(weight_CD.dtype), True)


def class_ceilings(layer: LastLayer, rho: int) -> Tensor:
    """z_k - z_y + T_k, shape (N, C): how far class k comes above the right one if the rho neurons go that tell the two
    apart most; their logsumexp is the ceiling. Class by class, so that no N x D x C tensor is built."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    logits_NC = F.linear(hidden_ND, weight_CD, bias_C)
    right_ND = F.embedding(labels_N, weight_CD)
    tops = [(hidden_ND * (right_ND - weight_D)).topk(rho, dim=1, sorted=False).values.sum(1) for weight_D in weight_CD]
    return logits_NC - logits_NC.gather(1, labels_N.unsqueeze(1)) + torch.stack(tops, 1)


def _ascend_batch(layer: LastLayer, rho: int, options: Options) -> tuple[Tensor, int]:
    """(drop_R, rounds). Every start counts, but only the worst few are improved.

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

    def evaluate(drop_SR: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        gone_SRN, weight_SRC = F.embedding(drop_SR, hidden_DN), F.embedding(drop_SR, weight_DC)
        logp_SCN = (logits_CN - weight_SRC.transpose(1, 2) @ gone_SRN).log_softmax(1)
        return -logp_SCN.gather(1, labels_N.expand(len(drop_SR), 1, examples)).sum((1, 2)), logp_SCN

    def scores(logp_SCN: Tensor, rows: Tensor) -> Tensor:
        return _batch_scores(layer, right_CN - logp_SCN.exp())

    drop_SR = _top(_batch_starts(layer, logits_CN, right_CN, rho, options), rho)
    loss_S, _ = evaluate(drop_SR, torch.arange(len(drop_SR)))
    drop_SR = drop_SR[loss_S.topk(min(MAX_ASCENTS, len(loss_S))).indices]
    loss_S, rounds = _ascend(drop_SR, options.iterations, evaluate, scores)
    return drop_SR[loss_S.argmax()], rounds


def _batch_scores(layer: LastLayer, difference_SCN: Tensor) -> Tensor:
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
    """score_SD, whose top rho begin an ascent: softmax; `heuristic` and `single`, so that `joint` is never below them;
    and the classes k (p all on k for every example of another class) that can get furthest above the right one. With
    ``options.vertices`` 0, softmax alone."""
    toward_CN = right_CN - logits_CN.softmax(0)
    if options.vertices == 0:
        return _batch_scores(layer, toward_CN.unsqueeze(0))
    hidden_ND, weight_CD, _, _ = layer
    softmax_D, right_D = _batch_scores(layer, torch.stack([toward_CN, right_CN]))  # right_D: sum_n h_nj W_yj
    hidden_D = hidden_ND.sum(0)
    heuristic_D = (1.0 + options.omega) * right_D - options.omega * weight_CD.sum(0) * hidden_D
    single_D = single_near(layer, logits_CN.T, softmax_D, rho, options)
    # sum_n h_nj (W_yj - W_kj), where an example of class k itself adds 0
    vertex_CD = right_D - weight_CD * hidden_D
    if options.vertices < len(vertex_CD):
        reach_C = logits_CN.sum(1) + vertex_CD.topk(rho, dim=1, sorted=False).values.sum(1)
        vertex_CD = vertex_CD[reach_C.topk(options.vertices).indices]
    return torch.cat([torch.stack([softmax_D, heuristic_D, single_D]), vertex_CD])


SEARCHES: dict[str, Callable[[LastLayer, int, Options], Tensor]] = {
    "joint": lambda layer, rho, options: ascend(layer, rho, options)[0],
    "greedy": greedy,
    "exhaustive": exhaustive,
}
