"""Fused kernels for CUDA, written in Triton: whether they apply, and each as an operator of torch.

Eager code hands over to them in ``scores.heuristic``, ``scores.single`` and ``scores.ranking``. Triton is imported by
the first call of an operator, which is checked against the eager code then, on each device and for each dtype: if it
fails there, a warning says so and the eager code stays. Read when this module is imported: ``MALDROP_FUSED=0`` in the
environment turns the kernels off, ``MALDROP_FUSED=1`` insists on them without a check; with ``TRITON_INTERPRET=1``
Triton interprets them on the CPU, slowly, which tests them without a GPU.

``torch.compile`` takes each operator (``torch.ops.maldrop``) as a whole. A label that is no class reads nothing and
counts as a weight of 0; unlike in the eager code, it is not found before the loss sees it.
"""

import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

ENABLED = os.environ.get("MALDROP_FUSED") != "0"
INSISTS = os.environ.get("MALDROP_FUSED") == "1"
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
HAS_TRITON = torch.version.cuda is not None and importlib.util.find_spec("triton") is not None
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
MAX_WIDTH = 16_384  # of a ranking: a whole row of the hidden layer has to fit into the registers of a multiprocessor


def applies(name: str, hidden_ND: Tensor, weight_CD: Tensor) -> bool:
    """Whether the operator of that ``name`` is to take these tensors: enabled, on a device with Triton, where it is
    right, of a dtype that it knows; and, for scores, no gradient is wanted: ``drop_highest`` alone has one."""
    differentiable = name == "drop_highest"
    if not differentiable and torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_CD.requires_grad):
        return False
    device, dtypes = hidden_ND.device, (hidden_ND.dtype, weight_CD.dtype)
    fits = ENABLED and DTYPES.issuperset(dtypes) and device == weight_CD.device and _run_on(device)
    return fits and (INSISTS or _is_right(name, device, *dtypes))


def _run_on(device: torch.device) -> bool:
    if device.type == "cuda":
        return HAS_TRITON and torch.cuda.get_device_properties(device).major >= 8  # Triton supports no older device
    return INTERPRETED and device.type == "cpu"


_LIBRARY = torch.library.Library("maldrop", "DEF")


def _operator(schema: str, outputs: Callable[..., Any]) -> Callable[..., Any]:
    """The function of that name in triton_kernels.py as an operator; ``outputs``: empty ones of the right shapes.

    Not by torch.library.custom_op, which is as simple but adds 20 microseconds to each call, more than a kernel runs.
    """
    name = _LIBRARY.define(schema)

    def run(*inputs: Any) -> Any:
        from maldrop_cli.dropout import triton_kernels

        return getattr(triton_kernels, name)(*inputs)

    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"maldrop::{name}", outputs, lib=_LIBRARY)
    operator: Callable[..., Any] = getattr(torch.ops.maldrop, name)
    return operator


# score_D = sum_n h_nj (right W_yj - other total_j), in float32
linear_score: Callable[..., Tensor] = _operator(
    "linear_score(Tensor hidden_ND, Tensor weight_CD, Tensor labels_N, Tensor total_D, float right, float other)"
    " -> Tensor",
    lambda hidden, *_: hidden.new_empty(hidden.shape[1], dtype=torch.float32),
)
# score_ND = log sum_k exp(logp_nk - h_nj W_kj) + h_nj W_yj, or score_D, its sum over the batch; in float32
single_score: Callable[..., Tensor] = _operator(
    "single_score(Tensor hidden_ND, Tensor weight_CD, Tensor logp_NC, Tensor labels_N, bool per_sample) -> Tensor",
    lambda hidden, weight, logp, labels, each: hidden.new_empty(hidden.shape[0 if each else 1 :], dtype=torch.float32),
)
# see drop_highest and highest_mask below
_drop_highest: Callable[..., tuple[Tensor, Tensor]] = _operator(
    "drop_highest(Tensor hidden_ND, Tensor source, Tensor? weight_CD, Tensor? labels_N, float right, float other,"
    " SymInt rho, Tensor(a!) drops_D) -> (Tensor, Tensor)",
    lambda hidden, *_: (hidden.new_empty(hidden.shape), hidden.new_empty(hidden.shape, dtype=torch.bool)),
)


class Ranking(NamedTuple):
    """By what the neurons of each row are ranked, in float32: ``source`` is score_ND; or, with a weight and labels, the
    score is h_nj (right W_yj - other source_j), and ``source`` is one row for all, (D,), or one for each, (N, D)."""

    source: Tensor
    weight_CD: Tensor | None = None
    labels_N: Tensor | None = None
    right: float = 1.0
    other: float = 1.0


def highest_mask(hidden_ND: Tensor, ranking: Ranking, rho: int) -> Tensor:
    """drop_ND, True at the rho neurons of each row that are ranked highest, of equal ones the first."""
    drops_D = torch.zeros(hidden_ND.shape[1], dtype=torch.int64, device=hidden_ND.device)
    return _drop_highest(hidden_ND, *ranking, rho, drops_D)[1]


def drop_highest(hidden_ND: Tensor, ranking: Ranking, rho: int, drops_D: Tensor) -> Tensor:
    """hidden_ND without those, differentiable; adds to ``drops_D`` (int64) how many rows each neuron was dropped in."""
    masked_ND: Tensor = _DropHighest.apply(hidden_ND, *ranking, rho, drops_D)
    return masked_ND


class _DropHighest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, *others: Any) -> Tensor:
        masked_ND, drop_ND = _drop_highest(hidden_ND, *others)
        ctx.save_for_backward(drop_ND)
        return masked_ND

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (drop_ND,) = ctx.saved_tensors
        zero = grads[0].new_zeros(())  # a bare 0.0 would be copied to the device, which waits, and breaks CUDA graphs
        return torch.where(drop_ND, zero, grads[0]), *[None] * 7


_found_right: dict[tuple[str, torch.device, torch.dtype, torch.dtype], bool] = {}


def _is_right(name: str, device: torch.device, hidden: torch.dtype, weight: torch.dtype) -> bool:
    """Whether the operator does on ``device`` what the eager code does: tried once, with a warning if it does not."""
    key = name, device, hidden, weight
    if key not in _found_right:
        try:
            fault = "" if _agrees(*key) else "gives other numbers than the eager code"
        except Exception as error:
            fault = "fails: " + " ".join(f"{type(error).__name__}: {error}".split())[:200]
        _found_right[key] = not fault
        if fault:
            warnings.warn(
                f"the fused kernel {name} {fault}; eager code takes its place on {device} for "
                f"{str(hidden).removeprefix('torch.')} (MALDROP_FUSED=0 turns the kernels off, =1 insists on them)",
                RuntimeWarning,
                stacklevel=2,
            )
    return _found_right[key]


# as torch.compiler.assume_constant_result does, which takes a second to load: compiled code has the answer
vars(_is_right).update(_dynamo_marked_constant=True)


@torch.no_grad()
def _agrees(name: str, device: torch.device, hidden: torch.dtype, weight: torch.dtype) -> bool:
    """Compares the operator on a small input with the eager code on the same numbers in float64, which no kernel
    takes."""
    from maldrop_cli.dropout.scores import LastLayer, Options, heuristic, single

    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(5, 70, generator=generator).to(device, hidden)
    weight_CD = torch.randn(3, 70, generator=generator).to(device, weight)
    labels_N, rho, options = torch.arange(5, device=device) % 3, 20, Options(omega=0.5)
    total_D = weight_CD.sum(0, dtype=torch.float32)
    exact = LastLayer(hidden_ND.double(), weight_CD.double(), None, labels_N)
    score_ND = heuristic(exact, options)
    pairs: list[tuple[Tensor, Tensor]] = []
    if name == "linear_score":
        pairs = [(linear_score(hidden_ND, weight_CD, labels_N, total_D, 1.5, 0.5), score_ND.sum(0))]
    elif name == "single_score":
        logp_NC = (exact.hidden_ND @ exact.weight_CD.T).log_softmax(1).float()
        for each in (True, False):
            mine = single_score(hidden_ND, weight_CD, logp_NC, labels_N, each)
            pairs.append((mine, single(exact, options._replace(per_sample=each))))
    else:
        for ranked in (Ranking(total_D, weight_CD, labels_N, 1.5, 0.5), Ranking(score_ND.float())):
            drops_D = torch.zeros(70, dtype=torch.int64, device=device)
            masked_ND, drop_ND = _drop_highest(hidden_ND, *ranked, rho, drops_D)
            pairs += [(drop_ND.sum(1), torch.full_like(labels_N, rho)), (drops_D, drop_ND.sum(0))]
            pairs += [(masked_ND, hidden_ND.masked_fill(drop_ND, 0.0))]
            pairs += [(score_ND.masked_fill(~drop_ND, 0.0).sum(1), score_ND.topk(rho).values.sum(1))]
    return all(torch.allclose(mine.double(), theirs.double(), rtol=1e-3, atol=1e-3) for mine, theirs in pairs)
