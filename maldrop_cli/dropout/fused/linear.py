"""The heuristic summed over the batch, in one reading of the hidden layer."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_N, BLOCK_D = 32, 64


@triton.jit(do_not_specialize=["examples", "classes"])
def _kernel(
    hidden_ptr,
    weight_ptr,
    labels_ptr,
    total_ptr,
    partial_ptr,
    examples,
    width,
    classes,
    right,
    other,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """partial_BD, the sum over block B of the examples of h_nj (right W_yj - other total_j)."""
    block = tl.program_id(1)
    n = block * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    label = tl.load(labels_ptr + n, mask=n < examples, other=-1)
    known = (label >= 0) & (label < classes)  # nothing is read beyond the weight for a label that is none
    inside = d < width
    here = (n < examples)[:, None] & inside[None, :]
    hidden = tl.load(hidden_ptr + n.to(tl.int64)[:, None] * width + d[None, :], mask=here, other=0.0)
    weight = tl.load(weight_ptr + label[:, None] * width + d[None, :], mask=known[:, None] & here, other=0.0)
    total = tl.load(total_ptr + d, mask=inside, other=0.0)
    score = hidden.to(tl.float32) * (right * weight.to(tl.float32) - other * total[None, :])
    tl.store(partial_ptr + block.to(tl.int64) * width + d, tl.sum(score, 0), mask=inside)


def launch(
    hidden_ND: Tensor, weight_CD: Tensor, labels_N: Tensor, total_D: Tensor, right: float, other: float
) -> Tensor:
    """score_D. Blocks of examples are added up by torch: atomic additions would come in a different order each time."""
    hidden_ND, weight_CD, labels_N = hidden_ND.contiguous(), weight_CD.contiguous(), labels_N.contiguous()
    examples, width = hidden_ND.shape
    blocks = triton.cdiv(examples, BLOCK_N)
    partial_BD = torch.empty((blocks, width), dtype=torch.float32, device=hidden_ND.device)
    if examples:
        with torch.cuda.device_of(hidden_ND):
            _kernel[(triton.cdiv(width, BLOCK_D), blocks)](
                hidden_ND,
                weight_CD,
                labels_N,
                total_D,
                partial_BD,
                examples,
                width,
                len(weight_CD),
                right,
                other,
                BLOCK_N=BLOCK_N,
                BLOCK_D=BLOCK_D,
            )
    return partial_BD.sum(0)
