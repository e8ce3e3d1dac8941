"""The fused kernels against the eager code, on DEVICE. Collected by nobody but `test_fused.py`, which runs this file in
processes of their own: whether Triton interprets or compiles is settled when it is imported."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import cross_entropy, linear

from maldrop_cli import MalDropLinear
from maldrop_cli.dropout import TargetedDropout, fused, keep_mask
from maldrop_cli.dropout.scores import SCORES, LastLayer, Options, ranking
from maldrop_cli.dropout.selectors import SELECTORS, mask_of

DEVICE = torch.device("cpu" if fused.INTERPRETED else "cuda")
SIZES = [(1, 1, 2), (1, 5, 2), (3, 37, 3), (35, 70, 40)]  # (N, D, C): no powers of two, more than a block of N and D
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
PAIRS = [(each, each) for each in DTYPES] + [(torch.bfloat16, torch.float32)]  # of hidden and weight
inf, nan = float("inf"), float("nan")


def layer(
    examples: int, width: int, classes: int, hidden: torch.dtype = torch.float32, weight: torch.dtype = torch.float32
) -> LastLayer:
    """After a ReLU, so with ties."""
    generator = torch.Generator().manual_seed(width)
    hidden_ND = torch.randn(examples, width, generator=generator).relu()
    weight_CD = torch.randn(classes, width, generator=generator)
    bias_C, labels_N = (
        torch.randn(classes, generator=generator),
        torch.randint(classes, (examples,), generator=generator),
    )
    return LastLayer(
        hidden_ND.to(DEVICE, hidden), weight_CD.to(DEVICE, weight), bias_C.to(DEVICE, weight), labels_N.to(DEVICE)
    )


def exact(inputs: LastLayer) -> LastLayer:
    """The same numbers in float64, which no kernel takes."""
    hidden_ND, weight_CD, bias_C, labels_N = inputs
    return LastLayer(hidden_ND.double(), weight_CD.double(), None if bias_C is None else bias_C.double(), labels_N)


@contextmanager
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(fused, "ENABLED", False)
        yield


@pytest.fixture(autouse=True)
def no_fallback() -> None:
    """The kernels do run: otherwise each test would compare the eager code with itself."""
    for pair in PAIRS:
        inputs = layer(1, 1, 2, *pair)
        assert all(fused.applies(name, *inputs[:2]) for name in ("linear_score", "single_score", "drop_highest"))


def first_highest(score_ND: Tensor, rho: int) -> Tensor:
    """drop_ND as a stable sort has it."""
    order_ND = score_ND.sort(dim=1, descending=True, stable=True).indices
    return torch.zeros_like(score_ND, dtype=torch.bool).scatter_(1, order_ND[:, :rho], True)


def rhos(width: int) -> list[int]:
    return sorted({0, 1, width // 3, width - 1, width})


@pytest.mark.parametrize("width", [1, 2, 37, 64, 300])
@pytest.mark.parametrize("make", [torch.randn, lambda *size: torch.randn(*size).relu(), torch.ones], ids=str)
def test_exactly_rho_are_dropped_the_first_of_equal_ones(width: int, make: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    score_ND = make(2, width).to(DEVICE)
    hidden_ND = torch.ones_like(score_ND)
    for rho in rhos(width):
        drops_D = torch.full((width,), 5, device=DEVICE)
        masked_ND = fused.drop_highest(hidden_ND, fused.Ranking(score_ND), rho, drops_D)
        expected_ND = first_highest(score_ND, rho)
        assert torch.equal(masked_ND == 0, expected_ND)
        assert torch.equal(drops_D - 5, expected_ND.sum(0))


def test_zeros_infinities_and_nan_rank_as_topk_has_them() -> None:
    values = [0.0, -0.0, 1.0, inf, -inf, nan, -nan, 1.0, -1.0, 1e-45, -1e-45, 3.0, 0.0, -0.0, -inf]
    score_ND = torch.tensor([values], device=DEVICE)
    for rho in range(len(values) + 1):
        drop_ND = fused.highest_mask(torch.ones_like(score_ND), fused.Ranking(score_ND), rho)
        assert torch.equal(drop_ND.cpu(), first_highest(score_ND.cpu(), rho)), rho


@pytest.mark.parametrize(("hidden", "weight"), PAIRS, ids=str)
@pytest.mark.parametrize("selector", ["heuristic", "gradient", "least-useful"])
def test_a_mask_for_each_example_drops_the_scores_that_eager_code_drops(
    selector: str, hidden: torch.dtype, weight: torch.dtype
) -> None:
    for size in SIZES[1:3]:
        inputs, width = layer(*size, hidden, weight), size[1]
        score_ND = SCORES[selector](exact(inputs), Options(0.3))
        loose = 0.02 if selector == "gradient" and weight != torch.float32 else 1e-4  # the softmax is the weight's
        for rho in rhos(width)[:4]:
            drops_D = torch.zeros(width, dtype=torch.int64, device=DEVICE)
            ranked = ranking(inputs, selector, Options(0.3))
            assert ranked is not None
            masked_ND = fused.drop_highest(inputs.hidden_ND, ranked, rho, drops_D)
            keep_ND = ~fused.highest_mask(inputs.hidden_ND, ranked, rho)
            assert masked_ND.dtype == hidden
            assert torch.equal(masked_ND, torch.where(keep_ND, inputs.hidden_ND, 0))
            assert torch.equal(drops_D, (~keep_ND).sum(0))
            dropped_NR = score_ND[~keep_ND].view(len(score_ND), rho).sort(1).values
            torch.testing.assert_close(dropped_NR, score_ND.topk(rho, 1).values.sort(1).values, atol=loose, rtol=loose)


@pytest.mark.parametrize("selector", [name for name in SCORES if name != "random"])
def test_every_selector_drops_what_eager_code_drops(selector: str) -> None:
    """Without a ReLU and at full precision there is but one answer."""
    inputs = layer(3, 29, 4)._replace(
        hidden_ND=torch.randn(3, 29, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    )
    for granularity in ("sample", "batch"):
        masks = []
        for path in (inputs, exact(inputs)):
            hidden_ND, weight_CD, bias_C, labels_N = path
            chosen: dict[str, Any] = {"bias_C": bias_C, "selector": selector, "granularity": granularity}
            masks.append(keep_mask(hidden_ND, weight_CD, labels_N, 11, **chosen))
        assert torch.equal(*masks)


@pytest.mark.parametrize(
    ("size", "hidden", "weight"),
    [(size, *pair) for size in SIZES[1:3] for pair in PAIRS] + [(SIZES[0], *PAIRS[0]), (SIZES[3], *PAIRS[0])],
    ids=str,
)
def test_scores_are_those_of_eager_code(size: tuple[int, int, int], hidden: torch.dtype, weight: torch.dtype) -> None:
    inputs = layer(*size, hidden, weight)
    logp_NC = linear(*exact(inputs)[:3]).log_softmax(1)
    hidden_ND, weight_CD, _, labels_N = inputs
    assert labels_N is not None
    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4, "check_dtype": False}
    mine_D = fused.linear_score(hidden_ND, weight_CD, labels_N, weight_CD.sum(0, dtype=torch.float32), 1.3, 0.3)
    torch.testing.assert_close(mine_D, SCORES["heuristic"](exact(inputs), Options(0.3, False)), **close)
    for per_sample in (True, False):
        mine = fused.single_score(hidden_ND, weight_CD, logp_NC, labels_N, per_sample)
        torch.testing.assert_close(mine, SCORES["single"](exact(inputs), Options(per_sample=per_sample)), **close)
        if hidden == weight:  # selectors see to that
            assert SCORES["single"](inputs, Options(per_sample=per_sample)).dtype == torch.float32  # the kernel's


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_single_stands_large_logits(scale: float) -> None:
    inputs = layer(5, 8, 3)._replace(bias_C=None)
    score_ND = SCORES["single"](inputs._replace(hidden_ND=inputs.hidden_ND * scale), Options())
    assert score_ND.isfinite().all()


@pytest.mark.parametrize("granularity", ["sample", "batch"])
@pytest.mark.parametrize("selector", ["heuristic", "single", "gradient"])
def test_logits_gradients_and_counts_are_those_of_eager_code(
    selector: str, granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = MalDropLinear(29, 4, rho=7, selector=selector, granularity=granularity).to(DEVICE)
    start_ND, labels_N = torch.randn(6, 29), torch.randint(4, (6,)).to(DEVICE)

    def run() -> list[Tensor]:
        hidden_ND = start_ND.clone().to(DEVICE).requires_grad_()
        module.zero_grad()
        assert isinstance(module.regulariser, TargetedDropout)
        module.regulariser.drops.zero_()
        logits_NC = module(hidden_ND, labels_N)
        cross_entropy(logits_NC, labels_N).backward()
        found = [logits_NC, hidden_ND.grad, module.weight.grad, module.bias.grad, module.regulariser.drops]
        return [tensor.detach().clone() for tensor in found if tensor is not None]

    mine = run()
    with eager(monkeypatch):
        theirs = run()
    assert len(mine) == len(theirs) == 5
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_kept_neuron_that_is_0_has_a_gradient_and_a_dropped_one_that_is_infinite_has_none() -> None:
    hidden_ND = torch.zeros(1, 4, device=DEVICE, requires_grad=True)
    score_ND = torch.tensor([[1.0, 4.0, 3.0, 2.0]], device=DEVICE)
    drops_D = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    masked_ND = fused.drop_highest(hidden_ND, fused.Ranking(score_ND), 2, drops_D)
    masked_ND.backward(torch.tensor([[5.0, inf, nan, 6.0]], device=DEVICE))
    assert hidden_ND.grad is not None
    assert hidden_ND.grad.tolist() == [[5.0, 0.0, 0.0, 6.0]]


def test_rows_with_gaps_between_them_are_read_right() -> None:
    inputs = layer(4, 12, 3)
    wide = LastLayer(inputs.hidden_ND[:, ::2], inputs.weight_CD[:, ::2], None, inputs.labels_N)
    narrow = wide._replace(hidden_ND=wide.hidden_ND.contiguous(), weight_CD=wide.weight_CD.contiguous())
    for granularity in (True, False):
        masks = []
        for each in (wide, narrow):
            drop = SELECTORS["heuristic"](each, 2, Options(0.1, granularity))
            masks.append(mask_of(each.hidden_ND, drop))
        assert torch.equal(*masks)
    assert torch.equal(*(keep_mask(each.hidden_ND, each.weight_CD, each.labels_N, 2) for each in (wide, narrow)))


def test_a_label_that_is_no_class_reads_nothing() -> None:
    inputs = layer(3, 9, 2)
    labels_N = torch.tensor([-100, 2, 2**40], device=DEVICE)
    hidden_ND, weight_CD = inputs.hidden_ND, inputs.weight_CD
    logp_NC = torch.zeros(3, 2, device=DEVICE)
    right_free_D = -(0.5 * weight_CD.sum(0) * hidden_ND.sum(0))
    linear_D = fused.linear_score(hidden_ND, weight_CD, labels_N, weight_CD.sum(0), 1.5, 0.5)
    torch.testing.assert_close(linear_D, right_free_D)
    assert fused.single_score(hidden_ND, weight_CD, logp_NC, labels_N, True).isfinite().all()
    ranked = ranking(inputs._replace(labels_N=labels_N), "heuristic", Options())
    assert ranked is not None
    assert fused.highest_mask(hidden_ND, ranked, 4).sum(1).tolist() == [4, 4, 4]


def test_scores_that_want_a_gradient_are_eager() -> None:
    inputs = layer(2, 5, 3)
    inputs.weight_CD.requires_grad_()
    for name in ("heuristic", "single"):
        assert SCORES[name](inputs, Options(0.1, False)).requires_grad
        with torch.no_grad():
            assert fused.applies("linear_score", *inputs[:2])


def test_what_no_kernel_takes_is_eager() -> None:
    inputs = layer(2, 6, 3)
    for other, selector, options in (
        (exact(inputs), "heuristic", Options()),
        (inputs, "joint", Options()),
        (inputs, "heuristic", Options(per_sample=False)),
        (inputs, "heuristic", Options(area=2)),
        (layer(1, fused.MAX_WIDTH + 1, 2), "heuristic", Options()),
    ):
        assert ranking(other, selector, options) is None


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by dynamo, of itself
@pytest.mark.parametrize("granularity", ["sample", "batch"])
def test_compiled_code_takes_a_kernel_as_a_whole_for_every_rho(granularity: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    module = MalDropLinear(20, 4, rho=3, granularity=granularity).to(DEVICE)
    compiled = torch.compile(module, backend=counter)
    hidden_ND, labels_N = torch.randn(5, 20, device=DEVICE), torch.randint(4, (5,), device=DEVICE)
    for rho in (3, 2, 16, 17):
        module.rho = rho
        found = []
        for call in (compiled, module):
            module.zero_grad()
            logits_NC = call(hidden_ND, labels_N)
            cross_entropy(logits_NC, labels_N).backward()
            assert module.weight.grad is not None
            found.append((logits_NC.detach(), module.weight.grad.clone()))
        torch.testing.assert_close(*found)
    assert counter.frame_count == 1
    names = [str(node.target) for graph in counter.graphs for node in graph.graph.nodes] if counter.graphs else []
    assert any("maldrop" in name or "autograd_function" in name for name in names)
