"""Each fast score against its literal twin, in float64."""

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from maldrop_cli.dropout.naive import NAIVE
from maldrop_cli.dropout.scores import SCORES, LastLayer, Options, omega_value, summed_by_class


def layer(
    examples: int, width: int, classes: int, *, relu: bool = False, seed: int = 0, device: torch.device | str = "cpu"
) -> LastLayer:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(examples, width, dtype=torch.float64, generator=generator)
    weight = torch.randn(classes, width, dtype=torch.float64, generator=generator)
    bias = torch.randn(classes, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, classes, (examples,), generator=generator)
    hidden = hidden.relu() if relu else hidden
    return LastLayer(*(tensor.to(device) for tensor in (hidden, weight, bias, labels)))


SIZES = [(1, 1, 2), (1, 5, 3), (7, 13, 2), (16, 64, 10), (3, 20, 40)]


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("naive", NAIVE)
@pytest.mark.parametrize("omega", [0.0, 0.01, 1.0, -2.0])
def test_fast_equals_naive(
    naive: str, size: tuple[int, int, int], omega: float, per_sample: bool, device: torch.device
) -> None:
    fast_name, slow = NAIVE[naive]
    for relu in (False, True):
        inputs = layer(*size, relu=relu, seed=sum(size), device=device)
        fast = SCORES[fast_name](inputs, Options(omega, per_sample))
        torch.testing.assert_close(fast, slow(inputs, Options(omega, per_sample)), rtol=1e-10, atol=1e-12)


def test_the_heuristic_on_paper() -> None:
    """h = (2, -1), W = [[1, 3], [5, 7]], y = 0, omega = 1/2: V_1 = 2*1 - 2*5/2 = -3, V_2 = -1*3 + 1*7/2 = 1/2."""
    inputs = LastLayer(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 3.0], [5.0, 7.0]]), None, torch.tensor([0]))
    torch.testing.assert_close(SCORES["heuristic"](inputs, Options(0.5, True)), torch.tensor([[-3.0, 0.5]]))


@pytest.mark.parametrize("budget", [1, 100, 1000, 10_000, 10**9])
@pytest.mark.parametrize("per_sample", [True, False])
def test_single_does_not_depend_on_its_blocks(budget: int, per_sample: bool) -> None:
    inputs = layer(6, 11, 4)
    whole = SCORES["single"](inputs, Options(per_sample=per_sample))
    blocks = SCORES["single"](inputs, Options(per_sample=per_sample, score_bytes=budget))
    torch.testing.assert_close(blocks, whole)


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_single_stands_large_logits(scale: float) -> None:
    inputs = layer(5, 8, 3)._replace(bias_C=None)
    big = LastLayer(inputs.hidden_ND.float() * scale, inputs.weight_CD.float(), None, inputs.labels_N)
    assert SCORES["single"](big, Options(0.0, True)).isfinite().all()


def test_gradient_is_minus_hidden_times_its_gradient_and_the_controls() -> None:
    inputs = layer(7, 13, 5)
    hidden, weight, bias, labels = inputs
    assert labels is not None
    cross_entropy(linear(hidden.requires_grad_(), weight, bias), labels, reduction="sum").backward()
    assert hidden.grad is not None
    inputs = inputs._replace(hidden_ND=hidden.detach())
    gradient, magnitude, least, most = (
        SCORES[name](inputs, Options(0.3, True)) for name in ("gradient", "magnitude", "least-useful", "heuristic")
    )
    torch.testing.assert_close(gradient, -hidden.detach() * hidden.grad)
    assert torch.equal(magnitude, hidden.detach().abs())
    assert torch.equal(least, -most)


@pytest.mark.parametrize("name", [name for name in SCORES if name != "random"])
def test_the_batch_score_is_the_sum_over_samples(name: str, device: torch.device) -> None:
    inputs = layer(12, 30, 6, device=device)
    per_sample = SCORES[name](inputs, Options(0.3, True))
    torch.testing.assert_close(SCORES[name](inputs, Options(0.3, False)), per_sample.sum(0))


def test_no_score_builds_an_examples_by_neurons_by_classes_tensor() -> None:
    """Of the heuristic: its largest tensor is N x D or C x D."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    inputs = layer(32, 50, 20)
    with Watch():  # type: ignore[no-untyped-call]
        SCORES["heuristic"](inputs, Options(0.1, True))
    assert largest == 32 * 50


def test_omega() -> None:
    assert omega_value(None, 4096, 10) == omega_value("paper", 4096, 10) == 1 / 4095
    assert omega_value("classes", 4096, 10) == 1 / 9
    assert omega_value(0.25, 4096, 10) == 0.25
    assert omega_value("paper", 1, 10) == 1.0
    with pytest.raises(ValueError, match="neither"):
        omega_value("clases", 4096, 10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_hidden_layer_by_class(dtype: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_ND, weight_CD = torch.rand(400, 5, generator=generator), torch.zeros(3, 5)
    labels_N = torch.randint(0, 2, (400,), generator=generator)  # no example of the third
    found_CD = summed_by_class(hidden_ND.to(device, dtype), labels_N.to(device), weight_CD.to(device, dtype))
    literal_CD = torch.stack([hidden_ND.to(dtype).double()[labels_N == k].sum(0) for k in range(3)])
    assert found_CD.dtype == dtype
    torch.testing.assert_close(found_CD.cpu(), literal_CD.to(dtype))  # a sum in bfloat16 would be off by a tenth
