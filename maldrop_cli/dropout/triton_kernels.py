"""The three fused kernels and their launches; :mod:`maldrop_cli.dropout.fused` has the formulas and the types."""

import torch
import triton
import triton.language as tl

# A kernel of scores takes a tile of examples and neurons, the one that drops a whole row, 256 neurons for each warp.
LINEAR_TILE = {"BLOCK_N": 32, "BLOCK_D": 64}
SINGLE_TILE = {"BLOCK_N": 16, "BLOCK_D": 128}


@triton.jit
def _tile(examples, width, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """The examples n and neurons d of this program, and whether there are both."""
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    return n, d, (n < examples)[:, None] & (d < width)[None, :]


@triton.jit
def _right_weight(weight_ptr, labels_ptr, n, d, here, examples, width, classes):
    """W_yj of each example and neuron; nothing is read beyond the weight for a label that is no class."""
    label = tl.load(labels_ptr + n, mask=n < examples, other=-1)
    known = (label >= 0) & (label < classes)
    weight = tl.load(weight_ptr + label[:, None] * width + d[None, :], mask=known[:, None] & here, other=0.0)
    return weight.to(tl.float32)


@triton.jit(do_not_specialize=["examples", "classes"])
def linear_kernel(
    hidden_ptr, weight_ptr, labels_ptr, total_ptr, partial_ptr, examples, width, classes, right, other,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """partial_BD, the sum over block B of the examples of h_nj (right W_yj - other total_j)."""
    n, d, here = _tile(examples, width, BLOCK_N, BLOCK_D)
    hidden = tl.load(hidden_ptr + n.to(tl.int64)[:, None] * width + d[None, :], mask=here, other=0.0).to(tl.float32)
    weight = _right_weight(weight_ptr, labels_ptr, n, d, here, examples, width, classes)
    total = tl.load(total_ptr + d, mask=d < width, other=0.0)
    score = hidden * (right * weight - other * total[None, :])
    tl.store(partial_ptr + tl.program_id(1).to(tl.int64) * width + d, tl.sum(score, 0), mask=d < width)


@triton.jit(do_not_specialize=["examples", "classes"])
def single_kernel(
    hidden_ptr, weight_ptr, labels_ptr, logp_ptr, score_ptr, examples, width, classes,
    PER_SAMPLE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """log sum_k exp(logp_nk - h_nj W_kj) + h_nj W_yj: score_ND, or its sums over blocks of examples, score_BD.

    Two rounds over the classes, the largest exponent first: a multiplication is cheaper than the exponential that a
    single round would take to correct its sum.
    """
    n, d, here = _tile(examples, width, BLOCK_N, BLOCK_D)
    row, present, inside = n.to(tl.int64), n < examples, d < width
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
    right = _right_weight(weight_ptr, labels_ptr, n, d, here, examples, width, classes)
    increase = tl.log(total) + largest + hidden * right
    if PER_SAMPLE:
        tl.store(score_ptr + row[:, None] * width + d[None, :], increase, mask=here)
    else:
        summed = tl.sum(tl.where(here, increase, 0.0), 0)
        tl.store(score_ptr + tl.program_id(1).to(tl.int64) * width + d, summed, mask=inside)


def linear_score(hidden_ND, weight_CD, labels_N, total_D, right, other):
    """score_D."""
    inputs = hidden_ND, weight_CD, labels_N, total_D
    return _score(linear_kernel, inputs, False, right=right, other=other, **LINEAR_TILE)


def single_score(hidden_ND, weight_CD, logp_NC, labels_N, per_sample):
    """score_ND, or score_D."""
    inputs = hidden_ND, weight_CD, labels_N, logp_NC.float()
    return _score(single_kernel, inputs, per_sample, PER_SAMPLE=per_sample, **SINGLE_TILE)


def _score(kernel, inputs, per_sample, **others):
    """What ``kernel`` computes. torch adds up the blocks of examples: atomic additions would come in another order each
    time."""
    inputs = [tensor.contiguous() for tensor in inputs]
    hidden_ND, weight_CD, *_ = inputs
    examples, width = hidden_ND.shape
    blocks = triton.cdiv(examples, others["BLOCK_N"])
    score = torch.empty((examples if per_sample else blocks, width), dtype=torch.float32, device=hidden_ND.device)
    if examples:
        with torch.cuda.device_of(hidden_ND):
            grid = triton.cdiv(width, others["BLOCK_D"]), blocks
            kernel[grid](*inputs, score, examples, width, len(weight_CD), **others)
    return score if per_sample else score.sum(0)


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

    The key of rank rho is found by its bits, two at a time: each round counts how many keys reach the three values that
    the next two bits could be, all at once, in 20 bits each of an int64. As soon as exactly rho keys reach the
    threshold it parts them from the rest; otherwise it ends as the key of rank rho.
    """
    threshold = tl.full((), 0, tl.uint32)
    step = tl.full((), 1 << 30, tl.uint32)
    reach = tl.full((), -1, tl.int32)  # how many keys reach the threshold
    while (reach != rho) & (step > 0):
        one, two, three = threshold + step, threshold + 2 * step, threshold + 3 * step
        counts = (key >= one).to(tl.int64) + ((key >= two).to(tl.int64) << 20) + ((key >= three).to(tl.int64) << 40)
        counts = tl.sum(counts)
        lowest = threshold
        for digit in tl.static_range(3):
            count = ((counts >> (20 * digit)) & 0xFFFFF).to(tl.int32)
            reach = tl.where(count >= rho, count, reach)
            threshold = tl.where(count >= rho, lowest + (digit + 1) * step, threshold)
        step = step >> 2
    chosen = key >= threshold
    if reach != rho:
        above, equal = key > threshold, key == threshold
        missing = rho - tl.sum(above.to(tl.int32))
        chosen = above | (equal & (tl.cumsum(equal.to(tl.int32)) <= missing))
    return chosen


@triton.jit(do_not_specialize=["rho", "classes"])
def drop_kernel(
    hidden_ptr, source_ptr, weight_ptr, labels_ptr, masked_ptr, drop_ptr, drops_ptr,
    source_stride, width, classes, right, other, rho, LINEAR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
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


def drop_highest(hidden_ND, source, weight_CD, labels_N, right, other, rho, drops_D):
    """(hidden_ND without the dropped, drop_ND); adds to ``drops_D``. Without a weight, ``source`` is the score."""
    hidden_ND, source, weight_CD, labels_N = (
        None if tensor is None else tensor.contiguous() for tensor in (hidden_ND, source, weight_CD, labels_N)
    )
    examples, width = hidden_ND.shape
    masked_ND, drop_ND = torch.empty_like(hidden_ND), torch.empty_like(hidden_ND, dtype=torch.bool)
    tensors = hidden_ND, source, weight_CD, labels_N, masked_ND, drop_ND, drops_D
    stride, classes = width if source.ndim == 2 else 0, 0 if weight_CD is None else len(weight_CD)
    block = triton.next_power_of_2(width)
    constants = {"LINEAR": weight_CD is not None, "BLOCK": block, "num_warps": min(max(block // 256, 1), 32)}
    if examples:
        with torch.cuda.device_of(hidden_ND):
            drop_kernel[(examples,)](*tensors, stride, width, classes, right, other, rho, **constants)
    return masked_ND, drop_ND
