"""Exactly rho neurons of highest score dropped in each row: scored, chosen, masked and counted in one pass.

A program takes a whole row. The score of rank rho is found by its bits, two at a time: keys are integers in the order
of the scores, and each round counts how many keys reach the three values that the next two bits could be.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS_PER_WARP = 256


@triton.jit
def _keys(score, inside):
    """uint32 in the order of the scores, as topk has it: -0 is 0, NaN above all. Where not ``inside``, below all."""
    score = tl.where(score == 0.0, 0.0, score)
    bits = score.to(tl.uint32, bitcast=True)
    key = tl.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    key = tl.where(score == score, key, 0xFFFFFFFF)
    return tl.where(inside, key, 0).to(tl.uint32)


@triton.jit
def _highest(key, rho):
    """Whether each key is one of the rho highest; of equal ones the first are. At least rho keys are above 0.

    The three counts of a round are added up at once, in 20 bits each of an int64. As soon as exactly rho keys reach the
    threshold it parts them from the rest; otherwise it ends as the key of rank rho.
    """
    threshold = tl.full((), 0, tl.uint32)
    step = tl.full((), 1 << 30, tl.uint32)
    reach = tl.full((), -1, tl.int32)  # how many keys reach the threshold
    while (reach != rho) & (step > 0):
        one, two, three = threshold + step, threshold + 2 * step, threshold + 3 * step
        counts = (key >= one).to(tl.int64) + ((key >= two).to(tl.int64) << 20) + ((key >= three).to(tl.int64) << 40)
        counts = tl.sum(counts)
        reach_one = (counts & 0xFFFFF).to(tl.int32)
        reach_two = ((counts >> 20) & 0xFFFFF).to(tl.int32)
        reach_three = (counts >> 40).to(tl.int32)
        reach = tl.where(reach_one >= rho, reach_one, reach)
        reach = tl.where(reach_two >= rho, reach_two, reach)
        reach = tl.where(reach_three >= rho, reach_three, reach)
        threshold = tl.where(reach_one >= rho, one, threshold)
        threshold = tl.where(reach_two >= rho, two, threshold)
        threshold = tl.where(reach_three >= rho, three, threshold)
        step = step >> 2
    chosen = key >= threshold
    if reach != rho:
        above, equal = key > threshold, key == threshold
        missing = rho - tl.sum(above.to(tl.int32))
        chosen = above | (equal & (tl.cumsum(equal.to(tl.int32)) <= missing))
    return chosen


@triton.jit(do_not_specialize=["rho", "classes"])
def _kernel(
    hidden_ptr,
    source_ptr,
    weight_ptr,
    labels_ptr,
    masked_ptr,
    drop_ptr,
    drops_ptr,
    source_stride,
    width,
    classes,
    right,
    other,
    rho,
    LINEAR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``source`` is the score itself, or, if LINEAR, a: the score is then h_j (right W_yj - other a_j)."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < width
    hidden = tl.load(hidden_ptr + row * width + d, mask=inside, other=0.0)
    score = tl.load(source_ptr + row * source_stride + d, mask=inside, other=0.0)
    if LINEAR:
        label = tl.load(labels_ptr + row)
        known = (label >= 0) & (label < classes)  # nothing is read beyond the weight for a label that is none
        weight = tl.load(weight_ptr + label * width + d, mask=inside & known, other=0.0)
        score = hidden.to(tl.float32) * (right * weight.to(tl.float32) - other * score)
    drop = _highest(_keys(score, inside), rho)
    tl.store(masked_ptr + row * width + d, tl.where(drop, 0.0, hidden), mask=inside)
    tl.store(drop_ptr + row * width + d, drop, mask=inside)
    tl.atomic_add(drops_ptr + d, 1, mask=drop, sem="relaxed")  # of whole numbers: the order does not matter


def launch(
    hidden_ND: Tensor,
    source: Tensor,
    weight_CD: Tensor | None,
    labels_N: Tensor | None,
    right: float,
    other: float,
    rho: int,
    drops_D: Tensor,
) -> tuple[Tensor, Tensor]:
    """(hidden_ND without the dropped, drop_ND); adds to ``drops_D`` how many rows each neuron was dropped in.

    ``source`` is score_ND, or, with ``weight_CD`` and ``labels_N``, the a of the kernel: (D,) or (N, D), in float32.
    """
    linear = weight_CD is not None
    hidden_ND, source = hidden_ND.contiguous(), source.contiguous()
    if weight_CD is not None and labels_N is not None:
        weight_CD, labels_N = weight_CD.contiguous(), labels_N.contiguous()
    examples, width = hidden_ND.shape
    block = triton.next_power_of_2(width)
    masked_ND, drop_ND = torch.empty_like(hidden_ND), torch.empty_like(hidden_ND, dtype=torch.bool)
    if examples:
        with torch.cuda.device_of(hidden_ND):
            _kernel[(examples,)](
                hidden_ND,
                source,
                weight_CD,
                labels_N,
                masked_ND,
                drop_ND,
                drops_D,
                width if source.ndim == 2 else 0,
                width,
                0 if weight_CD is None else len(weight_CD),
                right,
                other,
                rho,
                LINEAR=linear,
                BLOCK=block,
                num_warps=min(max(block // ELEMENTS_PER_WARP, 1), 32),
            )
    return masked_ND, drop_ND
