"""The exact rise of the loss when one neuron is dropped: one reading of the hidden layer, no N x D x C tensor."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_N, BLOCK_D = 16, 128


@triton.jit(do_not_specialize=["examples", "classes"])
def _kernel(
    hidden_ptr,
    weight_ptr,
    logp_ptr,
    labels_ptr,
    score_ptr,
    examples,
    width,
    classes,
    PER_SAMPLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """log sum_k exp(logp_nk - h_nj W_kj) + h_nj W_yj: score_ND, or its sums over blocks of examples, score_BD.

    Two rounds over the classes, the largest exponent first: a multiplication is cheaper than the exponential that a
    single round would take to correct its sum.
    """
    block = tl.program_id(1)
    n = block * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    present, inside = n < examples, d < width
    here = present[:, None] & inside[None, :]
    row = n.to(tl.int64)
    hidden = tl.load(hidden_ptr + row[:, None] * width + d[None, :], mask=here, other=0.0).to(tl.float32)

    largest = tl.full((BLOCK_N, BLOCK_D), float("-inf"), tl.float32)
    for k in range(classes):
        weight = tl.load(weight_ptr + k * width + d, mask=inside, other=0.0).to(tl.float32)
        logp = tl.load(logp_ptr + row * classes + k, mask=present, other=0.0)
        largest = tl.maximum(largest, logp[:, None] - hidden * weight[None, :])
    total = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for k in range(classes):
        weight = tl.load(weight_ptr + k * width + d, mask=inside, other=0.0).to(tl.float32)
        logp = tl.load(logp_ptr + row * classes + k, mask=present, other=0.0)
        total += tl.exp(logp[:, None] - hidden * weight[None, :] - largest)

    label = tl.load(labels_ptr + n, mask=present, other=-1)
    known = (label >= 0) & (label < classes)  # nothing is read beyond the weight for a label that is none
    right = tl.load(weight_ptr + label[:, None] * width + d[None, :], mask=known[:, None] & here, other=0.0)
    rise = tl.log(total) + largest + hidden * right.to(tl.float32)
    if PER_SAMPLE:
        tl.store(score_ptr + row[:, None] * width + d[None, :], rise, mask=here)
    else:
        summed = tl.sum(tl.where(here, rise, 0.0), 0)
        tl.store(score_ptr + block.to(tl.int64) * width + d, summed, mask=inside)


def launch(hidden_ND: Tensor, weight_CD: Tensor, logp_NC: Tensor, labels_N: Tensor, per_sample: bool) -> Tensor:
    """score_ND, or score_D. Blocks of examples are added up by torch, always in the same order."""
    hidden_ND, weight_CD, labels_N = hidden_ND.contiguous(), weight_CD.contiguous(), labels_N.contiguous()
    logp_NC = logp_NC.float().contiguous()
    examples, width = hidden_ND.shape
    blocks = triton.cdiv(examples, BLOCK_N)
    shape = (examples if per_sample else blocks, width)
    score = torch.empty(shape, dtype=torch.float32, device=hidden_ND.device)
    if examples:
        with torch.cuda.device_of(hidden_ND):
            _kernel[(triton.cdiv(width, BLOCK_D), blocks)](
                hidden_ND,
                weight_CD,
                logp_NC,
                labels_N,
                score,
                examples,
                width,
                len(weight_CD),
                PER_SAMPLE=per_sample,
                BLOCK_N=BLOCK_N,
                BLOCK_D=BLOCK_D,
            )
    return score if per_sample else score.sum(0)
