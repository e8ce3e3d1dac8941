"""The literal forms that the paper calls too slow: twins of the fast ones, to test and to time them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.dropout.scores import LastLayer, Options, Score


@torch.no_grad()
def heuristic_loop(layer: LastLayer, options: Options) -> Tensor:
    """V_j, section 4.1, as the text describes it: neuron by neuron, class by class."""
    hidden_ND, weight_CD, _, labels_N = layer
    assert labels_N is not None
    score_ND = torch.zeros_like(hidden_ND)
    for j in range(hidden_ND.shape[1]):
        for k in range(weight_CD.shape[0]):
            contribution_N = hidden_ND[:, j] * weight_CD[k, j]
            score_ND[:, j] += torch.where(labels_N == k, contribution_N, -options.omega * contribution_N)
    return score_ND if options.per_sample else score_ND.sum(0)


@torch.no_grad()
def single_naive(layer: LastLayer, options: Options) -> Tensor:
    """L_(j->0) - L, section 4.1, by one forward pass of the last layer for each of the D neurons."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None

    def loss_N(hidden_ND: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden_ND, weight_CD, bias_C), labels_N, reduction="none")

    before_N = loss_N(hidden_ND)
    score_ND = torch.zeros_like(hidden_ND)
    for j in range(hidden_ND.shape[1]):
        without_ND = hidden_ND.clone()
        without_ND[:, j] = 0.0
        score_ND[:, j] = loss_N(without_ND) - before_N
    return score_ND if options.per_sample else score_ND.sum(0)


NAIVE: dict[str, tuple[str, Score]] = {  # name of the naive form: name of its fast form, function
    "heuristic-loop": ("heuristic", heuristic_loop),
    "single-naive": ("single", single_naive),
}
