"""A mask for each example, chosen and applied in one pass, where a kernel of :mod:`maldrop_cli.dropout.fused` can.

The eager way, which works everywhere, is a score of ``scores.SCORES``, ``topk`` and ``scatter``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.dropout import fused
from maldrop_cli.dropout.scores import SCORES, LastLayer, Options


def drop_samples(layer: LastLayer, selector: str, rho: int, options: Options, drops_D: Tensor) -> Tensor | None:
    """hidden_ND without the rho neurons of highest score in each row, differentiable; None where no kernel applies.

    Adds to ``drops_D`` how many rows each was dropped in.
    """
    if not _applies(layer, selector, options):
        return None
    return fused.drop_highest(layer.hidden_ND, _ranking(layer, selector, options), rho, drops_D)


def sample_mask(layer: LastLayer, selector: str, rho: int, options: Options) -> Tensor | None:
    """keep_ND, the mask of :func:`drop_samples`; None where no kernel applies."""
    if not _applies(layer, selector, options):
        return None
    return fused.highest_mask(layer.hidden_ND, _ranking(layer, selector, options), rho).logical_not_()


def _applies(layer: LastLayer, selector: str, options: Options) -> bool:
    fits = options.per_sample and options.area == 1 and layer.hidden_ND.shape[1] <= fused.WIDEST
    return fits and selector in SCORES and fused.applies(layer.hidden_ND, layer.weight_CD)


def _ranking(layer: LastLayer, selector: str, options: Options) -> fused.Ranking:
    """The scores of SCORES, up to rounding: those that are linear in h are left to the kernel to work out."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    omega = options.omega
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        if selector == "heuristic":
            return fused.Ranking(weight_CD.sum(0, dtype=torch.float32), weight_CD, labels_N, 1.0 + omega, omega)
        if selector == "least-useful":
            return fused.Ranking(weight_CD.sum(0, dtype=torch.float32), weight_CD, labels_N, -1.0 - omega, -omega)
        hidden_ND = hidden_ND.to(weight_CD.dtype)
        if selector == "gradient":
            probability_NC = F.linear(hidden_ND, weight_CD, bias_C).softmax(1)
            return fused.Ranking((probability_NC @ weight_CD).float(), weight_CD, labels_N)
        return fused.Ranking(SCORES[selector](layer._replace(hidden_ND=hidden_ND), options).float())
