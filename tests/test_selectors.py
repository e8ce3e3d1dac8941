"""keep_mask: what must hold of every selector."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from maldrop_cli.dropout import SELECTORS, MalDropLinear, keep_mask, worst_set
from maldrop_cli.dropout.scores import SCORES, LastLayer, Options, omega_value
from maldrop_cli.dropout.selectors import scores_apart

Problem = tuple[Tensor, Tensor, Tensor, int]


@st.composite
def problems(draw: Callable[..., int]) -> Problem:
    """hidden, weight, labels and a rho that fits; every second one after a ReLU, so with ties."""
    examples, width, classes = draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    hidden = torch.randn(examples, width, generator=generator, dtype=torch.float64)
    if draw(st.integers(0, 1)):
        hidden = hidden.relu()
    weight = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (examples,), generator=generator)
    return hidden, weight, labels, draw(st.integers(0, width))


names = st.sampled_from(sorted(SELECTORS))
granularities = st.sampled_from(["batch", "sample"])


@given(problems(), names, granularities)
def test_exactly_rho_are_dropped_in_every_row(problem: Problem, name: str, granularity: str) -> None:
    hidden, weight, labels, rho = problem
    mask = keep_mask(hidden, weight, labels, rho, selector=name, granularity=granularity)
    assert mask.shape == hidden.shape
    assert mask.dtype == torch.bool
    assert ((~mask).sum(1) == rho).all()
    if granularity == "batch":
        assert (mask == mask[0]).all()


@given(problems(), st.sampled_from(sorted(set(SCORES) - {"random"})), granularities)
def test_the_highest_scores_are_dropped_in_whatever_order_the_neurons_are(
    problem: Problem, name: str, granularity: str
) -> None:
    """No kept neuron scores higher than a dropped one. Ties make indices ambiguous, so dropped scores are compared."""
    hidden, weight, labels, rho = problem
    omega = omega_value(None, hidden.shape[1], weight.shape[0])
    score = SCORES[name](LastLayer(hidden, weight, None, labels), Options(omega, True))
    if granularity == "batch":
        score = score.sum(0).expand_as(score)
    mask = keep_mask(hidden, weight, labels, rho, selector=name, granularity=granularity)
    dropped = score.masked_fill(mask, torch.inf).amin(1)
    kept = score.masked_fill(~mask, -torch.inf).amax(1)
    assert (dropped >= kept - 1e-12).all()
    order = torch.randperm(hidden.shape[1], generator=torch.Generator().manual_seed(0))
    other = keep_mask(hidden[:, order], weight[:, order], labels, rho, selector=name, granularity=granularity)
    torch.testing.assert_close(score.masked_fill(mask, 0.0).sum(1), score[:, order].masked_fill(other, 0.0).sum(1))


@settings(max_examples=60)
@given(problems(), st.sampled_from(["joint", "greedy", "exhaustive"]), granularities)
def test_permuting_the_neurons_leaves_the_loss_of_a_searched_set(problem: Problem, name: str, granularity: str) -> None:
    hidden, weight, labels, rho = problem
    order = torch.randperm(hidden.shape[1], generator=torch.Generator().manual_seed(0))

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        mask = keep_mask(hidden, weight, labels, rho, selector=name, granularity=granularity)
        losses = cross_entropy(linear(hidden * mask, weight), labels, reduction="none")
        return losses if granularity == "sample" else losses.sum()

    torch.testing.assert_close(loss(hidden, weight), loss(hidden[:, order], weight[:, order]))


def test_random_is_uniform_and_reproducible(device: torch.device) -> None:
    hidden, weight = torch.zeros(5000, 8, device=device), torch.zeros(2, 8, device=device)

    def mask(seed: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(seed)
        return keep_mask(hidden, weight, None, 2, selector="random", generator=generator)

    assert torch.equal(mask(0), mask(0))
    assert not torch.equal(mask(0), mask(1))
    dropped = (~mask(0)).sum(0)
    assert ((dropped > 1100) & (dropped < 1400)).all()  # 1,250 each; five standard deviations are 153


def test_the_bias_counts_for_single_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(64, 40, generator=generator), torch.randn(5, 40, generator=generator)
    labels = torch.randint(0, 5, (64,), generator=generator)
    bias = torch.tensor([9.0, 0.0, 0.0, 0.0, 0.0])
    for name, differs in (("heuristic", False), ("single", True)):
        masks = [keep_mask(hidden, weight, labels, 10, selector=name, bias_C=each) for each in (None, bias)]
        assert torch.equal(*masks) is not differs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": 9}, "rho must be from 0 to 8"),
        ({"rho": -1}, "rho must be from 0 to 8"),
        ({"selector": "heuristics"}, "no selector is called 'heuristics'"),
        ({"granularity": "row"}, "no granularity is called 'row'"),
        ({"labels_N": None}, "needs labels"),
        ({"labels_N": torch.zeros(3, dtype=torch.int64)}, "as many labels"),
        ({"labels_N": torch.zeros(4)}, "labels are of torch.float32; they must be whole numbers"),
        ({"labels_N": torch.zeros(4, dtype=torch.bool), "selector": "random"}, "labels are of torch.bool"),
        ({"labels_N": [0, 1, 0, 1]}, "labels are a list; they must be a tensor"),
        (
            {"labels_N": torch.tensor([0, 1, 2, 5])},
            "the label of example 2 is 2; the layer has 2 outputs, so .* 0 to 1",
        ),
        ({"labels_N": torch.tensor([0, -100, 1, 0])}, "the label of example 1 is -100"),
        ({"labels_N": torch.tensor([0, 1, 0, 255], dtype=torch.uint8)}, "the label of example 3 is 255"),
        ({"labels_N": torch.eye(4)}, r"labels are \(4, 4\); 4 examples need as many labels, the class of each"),
        ({"weight_CD": torch.zeros(1, 8)}, "an output for each class, and the layer has one"),
        ({"rho": "4"}, "rho is '4', but the layer has 8 neurons; .* a whole number of neurons, or a percentage"),
        ({"rho": "100.1%"}, "rho is '100.1%'"),
        ({"rho": "-5%"}, "rho is '-5%'"),
        ({"weight_CD": torch.zeros(2, 7)}, r"must be \(N, D\) and \(C, D\)"),
        ({"omega": "papers"}, "neither 'paper' nor 'classes'"),
        ({"iterations": -1}, "iterations is -1, and must be at least 0"),
        ({"vertices": -1}, "vertices is -1, and must be at least 0"),
    ],
)
def test_wrong_arguments_are_value_errors(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "hidden_ND": torch.zeros(4, 8),
        "weight_CD": torch.zeros(2, 8),
        "labels_N": torch.zeros(4, dtype=torch.int64),
        "rho": 2,
    }
    with pytest.raises(ValueError, match=message):
        keep_mask(**(arguments | change))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r'rho is 2\.5; rho must be from 0 to 8, .* as text, such as "6\.25%"'):
        keep_mask(**(arguments | {"rho": 2.5}))  # type: ignore[arg-type]


@pytest.mark.parametrize("selector", sorted(SELECTORS))
def test_a_label_that_is_no_class_is_an_error_for_those_that_look_at_labels(selector: str) -> None:
    hidden, weight, labels = torch.randn(2, 8), torch.randn(3, 8), torch.tensor([0, -100])
    for granularity in ("batch", "sample"):
        if selector in ("random", "magnitude"):
            keep_mask(hidden, weight, labels, 2, selector=selector, granularity=granularity)
        else:
            with pytest.raises(ValueError, match="example 1 is -100"):
                keep_mask(hidden, weight, labels, 2, selector=selector, granularity=granularity)


@pytest.mark.parametrize(
    ("percentage", "count"), [("0%", 0), ("0.1%", 1), ("6.25%", 31), (" 32.3 % ", 162), ("100%", 500)]
)
def test_a_percentage_is_rounded_half_up_and_at_least_one(percentage: str, count: int) -> None:
    hidden, weight, labels = torch.randn(2, 500), torch.randn(3, 500), torch.tensor([0, 1])
    assert keep_mask(hidden, weight, labels, percentage).logical_not().sum(1).tolist() == [count, count]
    assert MalDropLinear(500, 3, rho=percentage).rho == count


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16])
@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("selector", sorted(SELECTORS))
def test_labels_of_any_whole_type_are_those_of_int64(
    selector: str, granularity: str, dtype: torch.dtype, device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randn(6, 8, generator=generator).to(device),
        torch.randn(3, 8, generator=generator).to(device),
    )
    labels = torch.randint(0, 3, (6,), generator=generator).to(device)

    def mask(labels: Tensor) -> Tensor:
        draws = torch.Generator(device).manual_seed(0)
        return keep_mask(hidden, weight, labels, 2, selector=selector, granularity=granularity, generator=draws)

    assert torch.equal(mask(labels.to(dtype)), mask(labels))
    few, many = (worst_set(hidden, weight, each, 2, granularity=granularity) for each in (labels.to(dtype), labels))
    assert torch.equal(few.loss_N, many.loss_N)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("rho", [0, 1, 7, 40, 63, 64])
def test_single_by_bounds_drops_what_the_highest_scores_do(rho: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(rho)
    hidden = torch.randn(20, 64, dtype=torch.float64, generator=generator).relu()
    weight = scale * torch.randn(5, 64, dtype=torch.float64, generator=generator) / 8
    inputs = LastLayer(hidden, weight, None, torch.randint(0, 5, (20,), generator=generator))
    options = Options(0.1, False)
    drop = SELECTORS["single"](inputs, rho, options)
    assert sorted(drop.tolist()) == sorted(SCORES["single"](inputs, options).topk(rho).indices.tolist())
    assert not scores_apart("single", options)
    assert scores_apart("single", options._replace(per_sample=True))
    assert scores_apart("heuristic", options)
    assert not scores_apart("joint", options)
