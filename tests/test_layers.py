"""The layer: what it drops, what it counts, and what it does at test time."""

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from maldrop_cli import MalDropLinear
from maldrop_cli import labels as with_labels
from maldrop_cli.dropout import (
    Composition,
    CountedDropout,
    DropoutLinear,
    MalDropConnect,
    NestedDropout,
    Regulariser,
    TargetedDropout,
    VanillaDropout,
    keep_mask,
)

N, D, C, RHO = 6, 20, 4, 5


def pass_rates(layer: DropoutLinear) -> Tensor:
    assert isinstance(layer.regulariser, CountedDropout)
    return layer.regulariser.pass_rates()


def batch(
    device: torch.device | str = "cpu", seed: int = 0, examples: int = N, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(examples, D, generator=generator).relu()
    return hidden.to(device, dtype), torch.randint(0, C, (examples,), generator=generator).to(device)


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("selector", ["heuristic", "single"])
def test_training_is_the_masked_linear_layer_with_its_gradients(
    granularity: str, selector: str, device: torch.device
) -> None:
    layer = MalDropLinear(D, C, rho=RHO, granularity=granularity, selector=selector).to(device)
    hidden, labels = batch(device)
    hidden.requires_grad_()
    cross_entropy(layer(hidden, labels), labels).backward()

    literal = copy.deepcopy(layer)
    other = hidden.detach().clone().requires_grad_()
    mask = keep_mask(
        other, literal.weight, labels, RHO, bias_C=literal.bias, selector=selector, granularity=granularity
    )
    literal.zero_grad()
    logits = linear(other * mask, literal.weight, literal.bias)
    cross_entropy(logits, labels).backward()

    layer.eval()
    torch.testing.assert_close(pass_rates(layer), mask.float().mean(0))
    layer.train()
    for mine, theirs in ((hidden, other), (layer.weight, literal.weight), (layer.bias, literal.bias)):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_test_time_scales_by_the_pass_rate(granularity: str, dtype: torch.dtype, device: torch.device) -> None:
    layer = MalDropLinear(D, C, rho=RHO, granularity=granularity).to(device, dtype)
    drops = torch.zeros(D, dtype=torch.float64, device=device)
    total = 0
    for seed, examples in enumerate((6, 6, 1)):  # the last batch is smaller: examples count, not batches
        hidden, labels = batch(device, seed, examples, dtype)
        drops += (~keep_mask(hidden, layer.weight, labels, RHO, granularity=granularity)).sum(0)
        layer(hidden, labels)
        total += examples
    layer.eval()
    hidden, _ = batch(device, 9, dtype=dtype)
    scaled = hidden * (1 - drops / total).to(dtype)
    close = 1e-14 if dtype == torch.float64 else 1e-5  # the rates are as precise as the weight
    torch.testing.assert_close(layer(hidden), linear(scaled, layer.weight, layer.bias), rtol=close, atol=close)
    assert isinstance(layer.regulariser, TargetedDropout)
    assert int(layer.regulariser.examples) == total  # evaluation does not count
    assert layer.regulariser.drop_totals() == (RHO * total, D * total)


def test_without_dropout_and_with_rho_zero_it_is_a_linear_layer_that_counts_its_batches() -> None:
    layer = MalDropLinear(D, C, rho=0)
    hidden, labels = batch()
    plain = linear(hidden, layer.weight, layer.bias)
    assert torch.equal(layer.eval()(hidden), plain)  # before any training everything passes
    assert torch.equal(layer.train()(hidden, labels), plain)
    none = DropoutLinear(D, C, regulariser=Regulariser())
    assert torch.equal(none(hidden, labels), linear(hidden, none.weight, none.bias))
    assert none.regulariser.drop_totals() == (0, 0)
    layer.rho = D
    torch.testing.assert_close(layer(hidden, labels), layer.bias.expand(N, C))
    torch.testing.assert_close(pass_rates(layer), torch.full((D,), 0.5))


def test_labels_are_required_while_training_only() -> None:
    layer = MalDropLinear(D, C, rho=RHO)
    hidden, _ = batch()
    with pytest.raises(ValueError, match="needs the labels"):
        layer(hidden)
    assert layer.eval()(hidden).shape == (N, C)


@pytest.mark.parametrize(
    "wrong", [{"rho": D + 1}, {"rho": -1}, {"selector": "x"}, {"granularity": "x"}, {"omega": "x"}]
)
def test_wrong_settings_are_value_errors(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"-1|21|'x'"):
        MalDropLinear(D, C, **({"rho": 1} | wrong))  # type: ignore[arg-type]
    layer = MalDropLinear(D, C, rho=1)
    with pytest.raises(ValueError, match="must be from 0 to 20"):
        layer.rho = 21
    assert layer.rho == 1
    with pytest.raises(TypeError, match=r"rho is 0\.0625; rho must be from 0 to 20"):
        layer.rho = 0.0625  # type: ignore[assignment]
    layer.rho = "25%"
    assert layer.rho == 5


@pytest.mark.parametrize(
    "make", [lambda: TargetedDropout(D, C, rho="25%"), lambda: MalDropConnect(D, C, rho="6.25%")], ids=["D", "CD"]
)
def test_a_label_that_is_no_class_counts_nothing(make: Callable[[], Regulariser]) -> None:
    layer, (hidden, labels) = DropoutLinear(D, C, regulariser=make()), batch()
    assert layer.regulariser.rho == 5
    labels[3] = C
    with pytest.raises(ValueError, match="the label of example 3 is 4; the layer has 4 outputs, so labels are from 0"):
        layer(hidden, labels)
    assert layer.regulariser.drop_totals() == (0, 0)
    with pytest.raises(ValueError, match="needs an output for each class, and the layer has one"):
        MalDropLinear(D, 1, rho=1)(hidden, labels)


def test_it_can_be_pickled_and_copied() -> None:
    layer = MalDropLinear(D, C, rho=RHO)
    layer(*batch())
    hidden, _ = batch(seed=3)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert torch.equal(other.eval()(hidden), layer.eval()(hidden))


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_a_call_that_raises_counts_nothing(granularity: str) -> None:
    layer = MalDropLinear(D, C, rho=RHO, granularity=granularity)
    hidden, labels = batch()
    for wrong_hidden, wrong_labels in (
        (hidden, labels[:1]),
        (hidden, labels + C),
        (hidden[:, :-1], labels),
        (hidden.unsqueeze(1), labels),
    ):
        with pytest.raises((ValueError, IndexError, RuntimeError)):
            layer(wrong_hidden, wrong_labels)
    assert layer.regulariser.drop_totals() == (0, 0)


def test_autocast_does_not_blur_the_scores() -> None:
    """The mask under bf16 autocast is that of the float32 scores."""
    layer = MalDropLinear(D, C, rho=RHO)
    hidden, labels = batch()
    mask = keep_mask(hidden, layer.weight, labels, RHO, granularity="batch")
    with torch.autocast("cpu", torch.bfloat16):
        layer(hidden, labels)
        assert torch.equal(keep_mask(hidden, layer.weight, labels, RHO, granularity="batch"), mask)
    assert isinstance(layer.regulariser, TargetedDropout)
    assert torch.equal(layer.regulariser.drops == 0, mask[0])


def test_it_is_a_drop_in_for_linear() -> None:
    """Same parameters under the same names, same initialisation from the same stream."""
    torch.manual_seed(0)
    ours = MalDropLinear(D, C, rho=RHO)
    torch.manual_seed(0)
    theirs = nn.Linear(D, C)
    assert dict(ours.named_parameters()).keys() == dict(theirs.named_parameters()).keys()
    assert torch.equal(ours.weight, theirs.weight)
    assert isinstance(ours, nn.Linear)


def test_vanilla_is_nn_dropout_itself() -> None:
    layer = DropoutLinear(D, C, regulariser=VanillaDropout(0.3))
    hidden, _ = batch()
    torch.manual_seed(1)
    mine = layer(hidden)
    torch.manual_seed(1)
    assert torch.equal(mine, linear(nn.Dropout(0.3)(hidden), layer.weight, layer.bias))
    assert torch.equal(layer.eval()(hidden), linear(hidden, layer.weight, layer.bias))


def test_vanilla_reports_the_rate_it_realised() -> None:
    torch.manual_seed(0)
    regulariser = VanillaDropout(0.3)
    layer = DropoutLinear(5000, C, regulariser=regulariser)
    for _ in range(4):
        layer(torch.rand(2, 5000) + 0.1)
    dropped, offered = regulariser.drop_totals()
    assert offered == 20_000  # the first example of each batch
    assert 0.28 < dropped / offered < 0.32


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("name", ["random", "nested"])
def test_activation_checkpointing_draws_the_same_mask_again_or_refuses(
    name: str, granularity: str, reentrant: bool
) -> None:
    """torch restores its own random state for the recomputation, but not that of a generator of one's own."""

    def gradient(checkpointed: bool, generator: torch.Generator | None = None) -> Tensor:
        how: dict[str, Any] = {"granularity": granularity, "generator": generator}
        regulariser: CountedDropout = NestedDropout(D, **how)
        if name == "random":
            regulariser = TargetedDropout(D, C, rho=RHO, selector="random", **how)
        torch.manual_seed(0)
        layer, (hidden, labels) = DropoutLinear(D, C, regulariser=regulariser), batch()
        hidden.requires_grad_()
        run = partial(checkpoint, layer, use_reentrant=reentrant) if checkpointed else layer
        cross_entropy(run(hidden, labels), labels).backward()
        assert layer.weight.grad is not None
        return layer.weight.grad

    torch.testing.assert_close(gradient(True), gradient(False))
    gradient(False, torch.Generator().manual_seed(1))
    with pytest.raises(RuntimeError, match="its generator would draw another mask than before: leave generator out"):
        gradient(True, torch.Generator().manual_seed(1))


SEVERAL: list[Callable[[], Regulariser]] = [
    lambda: TargetedDropout(D, C, rho=RHO),
    lambda: MalDropConnect(D, C, rho=RHO),
    lambda: NestedDropout(D),
    lambda: VanillaDropout(),
    lambda: Composition(VanillaDropout(), TargetedDropout(D, C, rho=RHO)),
]


@pytest.mark.parametrize("through", ["the layer", "all modules"])
@pytest.mark.parametrize("make", SEVERAL)
def test_reset_parameters_forgets_what_was_counted(make: Callable[[], Regulariser], through: str) -> None:
    """As cross-validation does between folds: the same weights give the same logits again."""
    layer, (hidden, labels) = DropoutLinear(D, C, regulariser=make()), batch()

    def reset() -> None:
        torch.manual_seed(0)
        for module in [layer] if through == "the layer" else layer.modules():
            getattr(module, "reset_parameters", lambda: None)()

    reset()
    expected = layer.eval()(hidden)
    layer.train()(hidden, labels)
    assert layer.regulariser.drop_totals()[1] > 0
    reset()
    assert torch.equal(layer.eval()(hidden), expected)
    assert {int(count.sum()) for count in layer.buffers()} == {0}


@pytest.mark.parametrize("make", SEVERAL)
def test_counts_begin_at_zero_after_to_empty(make: Callable[[], Regulariser]) -> None:
    with torch.device("meta"):
        layer = DropoutLinear(D, C, regulariser=make())
    nn.Sequential(layer).to_empty(device="cpu")
    assert {int(count.sum()) for count in layer.buffers()} == {0}
    layer.reset_parameters()
    hidden, labels = batch()
    assert layer(hidden, labels).shape == (N, C)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
@pytest.mark.parametrize("make", SEVERAL)
def test_a_layer_takes_labels_of_any_whole_type(make: Callable[[], Regulariser], dtype: torch.dtype) -> None:
    layer, (hidden, labels) = DropoutLinear(D, C, regulariser=make()), batch()

    def logits(labels: Tensor) -> Tensor:
        torch.manual_seed(0)
        return layer.forward(hidden, labels)

    assert torch.equal(logits(labels.to(dtype)), logits(labels))


@pytest.mark.parametrize("labels", [torch.zeros(N), torch.zeros(N, dtype=torch.bool)])
def test_labels_that_are_no_whole_numbers_are_refused(labels: Tensor) -> None:
    layer = MalDropLinear(D, C, rho=RHO)
    with pytest.raises(ValueError, match="they must be whole numbers, the class of each example"):
        layer(batch()[0], labels)
    assert layer.regulariser.drop_totals() == (0, 0)


def test_moving_a_layer_keeps_its_counts(device: torch.device) -> None:
    layer = MalDropLinear(D, C, rho=RHO)
    layer(*batch())
    totals = layer.regulariser.drop_totals()
    assert layer.to(device).double().regulariser.drop_totals() == totals


@pytest.mark.parametrize("make", SEVERAL)
def test_the_transforms_of_torch_func_are_refused_while_training_only(make: Callable[[], Regulariser]) -> None:
    layer, (hidden, labels) = DropoutLinear(D, C, regulariser=make()), batch()
    weights = {name: each.detach() for name, each in layer.named_parameters()}

    def loss(weights: dict[str, Tensor], hidden_D: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(layer, weights, (hidden_D[None], label[None]))
        return cross_entropy(logits, label[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
    with pytest.raises(RuntimeError, match=r"counts what it drops, which torch\.func \(grad, vmap\) does not allow"):
        each(weights, hidden, labels)
    with pytest.raises(RuntimeError, match="counts what it drops"):
        grad(loss)(weights, hidden[0], labels[0])
    assert layer.regulariser.drop_totals() == (0, 0)
    layer.eval()
    assert each(weights, hidden, labels)["weight"].shape == (N, C, D)


def test_random_draws_from_its_generator_alone() -> None:
    def trained(seed: int) -> Tensor:
        regulariser = TargetedDropout(D, C, rho=RHO, selector="random", generator=torch.Generator().manual_seed(seed))
        layer = DropoutLinear(D, C, regulariser=regulariser)
        state = torch.get_rng_state()
        layer(batch()[0])
        assert torch.equal(torch.get_rng_state(), state)
        return regulariser.drops

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def counted(layer: DropoutLinear) -> list[int]:
    assert isinstance(layer.regulariser, CountedDropout)
    return [*layer.regulariser.drops.tolist(), int(layer.regulariser.examples)]


def test_labels_reach_a_network_whose_forward_takes_none() -> None:
    hidden, labels = batch()
    layer = MalDropLinear(D, C, rho=RHO)
    network, twin = nn.Sequential(nn.Identity(), layer), copy.deepcopy(layer)
    with with_labels(labels):
        mine = network(hidden)
        with with_labels((labels + 1) % C):  # it nests
            network(hidden)
        network(hidden)
        layer(hidden, (labels + 1) % C)  # those of the call win
        network.eval()(hidden)
    torch.testing.assert_close(mine, twin(hidden, labels))
    for each in (1, 0, 1):
        twin(hidden, (labels + each) % C)
    assert counted(layer) == counted(twin)


def test_labels_end_with_their_block_and_belong_to_their_thread() -> None:
    hidden, labels = batch()
    layer = MalDropLinear(D, C, rho=RHO)

    def fails() -> None:
        with pytest.raises(ValueError, match=r"around the network 'with maldrop_cli.labels\(...\)'"):
            layer(hidden)

    with pytest.raises(KeyError), with_labels(labels):
        raise KeyError
    fails()

    def work(shift: int) -> list[int]:
        own, other = MalDropLinear(D, C, rho=RHO), (labels + shift) % C
        own.load_state_dict(layer.state_dict())
        fails()  # although another thread is within its block
        with with_labels(other):
            barrier.wait()
            own(hidden)
            barrier.wait()
        twin = copy.deepcopy(layer)
        twin(hidden, other)
        assert counted(own) == counted(twin)
        return counted(own)

    barrier = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool, with_labels(labels):
        assert len(list(pool.map(work, range(2)))) == 2


@pytest.mark.parametrize("make", [*SEVERAL, Regulariser])
def test_each_variant_takes_labels_from_around_it(make: Callable[[], Regulariser]) -> None:
    layer, (hidden, labels) = DropoutLinear(D, C, regulariser=make()), batch()
    torch.manual_seed(0)
    expected = layer.forward(hidden, labels)
    torch.manual_seed(0)
    with with_labels(labels):
        assert torch.equal(layer(hidden), expected)
    with with_labels(labels[:1]):
        if type(layer.regulariser) is TargetedDropout:
            with pytest.raises(ValueError, match="6 examples need as many labels"):
                layer(hidden)


def test_compiled_code_takes_labels_from_around_it() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    layer, (hidden, _) = MalDropLinear(D, C, rho=RHO), batch()
    compiled, twin = torch.compile(layer, backend=counter, fullgraph=True), copy.deepcopy(layer)
    for seed in range(3):
        _, labels = batch(seed=seed)
        with with_labels(labels):
            torch.testing.assert_close(compiled(hidden), twin(hidden, labels))
    assert counter.frame_count == 1
    assert counted(layer) == counted(twin)


@pytest.mark.parametrize("make", SEVERAL)
def test_a_layer_loads_the_state_dict_of_a_linear(make: Callable[[], Regulariser]) -> None:
    linear_layer, layer = nn.Linear(D, C), DropoutLinear(D, C, regulariser=make())
    hidden, labels = batch()
    layer(hidden, labels)
    layer.load_state_dict({}, strict=False)
    assert layer.regulariser.drop_totals()[1] > 0
    layer.load_state_dict(linear_layer.state_dict())
    torch.testing.assert_close(layer.eval()(hidden), linear_layer(hidden))
    assert {int(count.sum()) for count in layer.buffers()} == {0}
    state = layer.state_dict()
    name = next(key for key in state if key.startswith("regulariser."))
    del state[name]
    with pytest.raises(RuntimeError, match=name):
        layer.load_state_dict(state)
