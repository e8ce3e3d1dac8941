"""Fused kernels for CUDA, written in Triton: whether they can be used, and what they compute.

Eager code hands over to them in three places and no others: ``scores.heuristic`` and ``scores.single`` where
:func:`scores_apply`, and ``dispatch`` where :func:`applies`. This module imports no Triton. The kernels, a file each,
are imported by the first call that needs one, so that everything works without Triton where there is no CUDA.

``MALDROP_FUSED=0`` in the environment turns them off. With ``TRITON_INTERPRET=1`` Triton interprets them on the CPU,
slowly: so they are tested without a GPU. Both are read when this module is imported.

Each kernel is an operator of torch (``torch.ops.maldrop``), which ``torch.compile`` takes as a whole. A label that is
no class reads nothing and counts as a weight of 0; unlike in the eager code, it is not found before the loss sees it.
"""

import importlib.util
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

ENABLED = os.environ.get("MALDROP_FUSED", "1") != "0"
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
HAS_TRITON = torch.version.cuda is not None and importlib.util.find_spec("triton") is not None
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
WIDEST = 16_384  # a whole row of the hidden layer has to fit into the registers of one multiprocessor


def applies(hidden_ND: Tensor, weight_CD: Tensor) -> bool:
    """Whether the kernels can take these tensors: enabled, on a device with Triton, of a dtype that they know."""
    dtypes_fit = hidden_ND.dtype in DTYPES and weight_CD.dtype in DTYPES
    return ENABLED and dtypes_fit and hidden_ND.device == weight_CD.device and _run_on(hidden_ND.device)


def scores_apply(hidden_ND: Tensor, weight_CD: Tensor) -> bool:
    """:func:`applies`, for scores, through which the kernels pass no gradient: selectors never ask for one."""
    differentiated = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_CD.requires_grad)
    return not differentiated and applies(hidden_ND, weight_CD)


def _run_on(device: torch.device) -> bool:
    if device.type == "cuda":
        return HAS_TRITON and torch.cuda.get_device_properties(device).major >= 8  # below it Triton supports nothing
    return INTERPRETED and device.type == "cpu"


# --- what they compute -----------------------------------------------------------------------------------------------


def linear_score(hidden_ND: Tensor, weight_CD: Tensor, labels_N: Tensor, omega: float) -> Tensor:
    """score_D = sum_n h_nj ((1 + omega) W_yj - omega sum_k W_kj): the heuristic, summed over the batch, in float32."""
    total_D = weight_CD.sum(0, dtype=torch.float32)
    score_D: Tensor = torch.ops.maldrop.linear_score(hidden_ND, weight_CD, labels_N, total_D, 1.0 + omega, omega)
    return score_D


def single_score(hidden_ND: Tensor, weight_CD: Tensor, logp_NC: Tensor, labels_N: Tensor, per_sample: bool) -> Tensor:
    """score_ND = log sum_k exp(logp_nk - h_nj W_kj) + h_nj W_yj, or score_D, its sum over the batch; in float32."""
    score: Tensor = torch.ops.maldrop.single_score(hidden_ND, weight_CD, logp_NC, labels_N, per_sample)
    return score


class Ranking(NamedTuple):
    """By what the neurons of each row are ranked, in float32.

    ``source`` is score_ND itself; or, with a weight and labels, the score is h_nj (right W_yj - other source_j), and
    ``source`` is one row for all, (D,), or one for each, (N, D).
    """

    source: Tensor
    weight_CD: Tensor | None = None
    labels_N: Tensor | None = None
    right: float = 1.0
    other: float = 1.0


def drop_highest(hidden_ND: Tensor, ranking: Ranking, rho: int, drops_D: Tensor) -> Tensor:
    """hidden_ND without the rho neurons of each row that are ranked highest, of equal ones the first.

    Differentiable: the gradient is that of the mask. Adds to ``drops_D`` (int64) how many rows each was dropped in.
    """
    masked_ND: Tensor = _DropHighest.apply(hidden_ND, *ranking, rho, drops_D)
    return masked_ND


def highest_mask(hidden_ND: Tensor, ranking: Ranking, rho: int) -> Tensor:
    """drop_ND, True at the neurons that :func:`drop_highest` drops."""
    drops_D = torch.zeros(hidden_ND.shape[1], dtype=torch.int64, device=hidden_ND.device)
    _, drop_ND = torch.ops.maldrop.drop_highest(hidden_ND, *ranking, rho, drops_D)
    drop: Tensor = drop_ND
    return drop


class _DropHighest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, *others: Any) -> Tensor:
        masked_ND, drop_ND = torch.ops.maldrop.drop_highest(hidden_ND, *others)
        ctx.save_for_backward(drop_ND)
        masked: Tensor = masked_ND
        return masked

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (drop_ND,) = ctx.saved_tensors
        zero = grads[0].new_zeros(())  # a bare 0.0 would be copied to the device, which waits, and breaks CUDA graphs
        return torch.where(drop_ND, zero, grads[0]), *[None] * 7


# --- as operators of torch -------------------------------------------------------------------------------------------
# Not by torch.library.custom_op, which is as simple but adds 20 microseconds to each call, more than a kernel runs.


def _linear_score(*inputs: Any) -> Tensor:
    from maldrop_cli.dropout.fused import linear

    return linear.launch(*inputs)


def _single_score(*inputs: Any) -> Tensor:
    from maldrop_cli.dropout.fused import single

    return single.launch(*inputs)


def _drop_highest(*inputs: Any) -> tuple[Tensor, Tensor]:
    from maldrop_cli.dropout.fused import highest

    return highest.launch(*inputs)


def _shape_of_linear_score(hidden_ND: Tensor, *others: Any) -> Tensor:
    return hidden_ND.new_empty(hidden_ND.shape[1], dtype=torch.float32)


def _shape_of_single_score(
    hidden_ND: Tensor, weight_CD: Tensor, logp_NC: Tensor, labels_N: Tensor, each: bool
) -> Tensor:
    return hidden_ND.new_empty(hidden_ND.shape if each else hidden_ND.shape[1:], dtype=torch.float32)


def _shape_of_drop_highest(hidden_ND: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return hidden_ND.new_empty(hidden_ND.shape), hidden_ND.new_empty(hidden_ND.shape, dtype=torch.bool)


_LIBRARY = torch.library.Library("maldrop", "DEF")
for _schema, _run, _shape in (
    (
        "linear_score(Tensor hidden_ND, Tensor weight_CD, Tensor labels_N, Tensor total_D, float right, float other)"
        " -> Tensor",
        _linear_score,
        _shape_of_linear_score,
    ),
    (
        "single_score(Tensor hidden_ND, Tensor weight_CD, Tensor logp_NC, Tensor labels_N, bool per_sample) -> Tensor",
        _single_score,
        _shape_of_single_score,
    ),
    (
        "drop_highest(Tensor hidden_ND, Tensor source, Tensor? weight_CD, Tensor? labels_N, float right, float other,"
        " SymInt rho, Tensor(a!) drops_D) -> (Tensor, Tensor)",
        _drop_highest,
        _shape_of_drop_highest,
    ),
):
    _name = _LIBRARY.define(_schema)
    _LIBRARY.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"maldrop::{_name}", _shape, lib=_LIBRARY)
