"""Every variant, selector, schedule and granularity: trains, saves, loads, compiles, and stands half precision."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from conftest import BASE, matching_rho, train
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import cross_entropy

from maldrop_cli.config import RunConfig
from maldrop_cli.data.load import ImageData
from maldrop_cli.dropout import CountedDropout, DropoutLinear
from maldrop_cli.models.variants import Head, build_regulariser
from maldrop_cli.names import Dropout, Granularity, PassRate, Schedule, Selector, UsageError
from maldrop_cli.record import Status
from maldrop_cli.render.runs import name

HEAD = Head(width=24, classes=4, channels=6)


def combinations() -> Iterator[RunConfig]:
    """All that make sense: what does not is a UsageError, and a setting without effect stays at its default."""
    for dropout, selector, granularity in itertools.product(Dropout, Selector, Granularity):
        rho = 1 if selector is Selector.EXHAUSTIVE else matching_rho(dropout)
        try:
            config = replace(BASE, dropout=dropout, selector=selector, granularity=granularity, rho=rho)
        except UsageError:
            continue
        effective = config.effective_settings()
        if ("selector" in effective or selector is Selector.HEURISTIC) and (
            "granularity" in effective or granularity is Granularity.BATCH
        ):
            yield config


VARIANTS = list(combinations())
every_variant = pytest.mark.parametrize("config", VARIANTS, ids=name)
# These look at numbers before they go on, so their graph is in parts.
BREAKS_THE_GRAPH = (Selector.JOINT, Selector.GREEDY, Selector.EXHAUSTIVE)


def head(config: RunConfig, device: torch.device) -> DropoutLinear:
    torch.manual_seed(3)
    regulariser = build_regulariser(config, HEAD, torch.Generator(device).manual_seed(1))
    return DropoutLinear(HEAD.width, HEAD.classes, regulariser=regulariser).to(device)


def batch(examples: int, device: torch.device, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(examples, HEAD.width, generator=generator).relu()
    return hidden.to(device), torch.randint(0, HEAD.classes, (examples,), generator=generator).to(device)


def trained() -> Iterator[RunConfig]:
    """What `test_two_epochs` trains: every combination whose numbers differ."""
    for config, schedule in itertools.product(VARIANTS, Schedule):
        grows = schedule not in (Schedule.STANDARD, Schedule.PERIODIC, Schedule.LINEAR)
        too_many_sets = config.selector is Selector.EXHAUSTIVE and grows
        # with another selector in another variant, the schedule makes no difference
        scheduled = config.has_rho and (config.dropout is Dropout.MALDROP or config.selector is Selector.HEURISTIC)
        if schedule is Schedule.STANDARD or (scheduled and not too_many_sets):
            yield replace(config, schedule=schedule)


@pytest.mark.parametrize("config", list(trained()), ids=name)
def test_two_epochs(config: RunConfig, tiny: ImageData, device: torch.device) -> None:
    record = train(config, tiny, device)
    assert record.status is Status.DONE, record.reason
    assert [row.epoch for row in record.epochs] == [1, 2]
    units = Head(record.hidden_width, 3, config.depth).units(config.unit)
    for row in record.epochs:
        assert row.train_loss is not None
        assert row.val_loss is not None
        assert 0 <= row.val_top1 <= row.val_top5 <= 100
        assert (row.rho_mean is not None) is config.has_rho
        if row.rho_mean is not None and "p" not in config.effective_settings():
            assert row.drop_rate == pytest.approx(100 * row.rho_mean / units, rel=0.4)  # batches differ in size


@every_variant
def test_one_image_and_a_state_dict(config: RunConfig, device: torch.device) -> None:
    layer, other = head(config, device), head(config, device)
    for examples in (9, 1):
        hidden, labels = batch(examples, device, examples)
        cross_entropy(layer(hidden, labels), labels).backward()
    other.load_state_dict(layer.state_dict())
    hidden, _ = batch(5, device, 7)
    assert torch.equal(layer.eval()(hidden), other.eval()(hidden))
    assert other.regulariser.drop_totals() == layer.regulariser.drop_totals()


@every_variant
def test_bf16_autocast(config: RunConfig, device: torch.device) -> None:
    layer = head(config, device)
    hidden, labels = batch(9, device)
    with torch.autocast(device.type, torch.bfloat16):
        for inputs in (hidden, hidden.bfloat16()):
            inputs = inputs.clone().requires_grad_()
            logits = layer(inputs, labels)
            cross_entropy(logits, labels).backward()
            assert logits.dtype == torch.bfloat16
            assert inputs.grad is not None
            assert inputs.grad.isfinite().all()
        assert layer.eval()(hidden).isfinite().all()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by dynamo, of itself
@pytest.mark.parametrize(
    "config",
    [each for each in VARIANTS if each.dropout is Dropout.MALDROP or each.selector is Selector.HEURISTIC],
    ids=name,
)
def test_compiled_code_is_right_and_serves_every_rho(config: RunConfig, device: torch.device) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    layer = head(config, device)
    literal = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend=counter)
    hidden, labels = batch(9, device)
    counts = []
    for rho in (3, 2, 4) if config.selector is Selector.EXHAUSTIVE else (3, 2, 5, 4, 6):
        layer.regulariser.rho = literal.regulariser.rho = rho
        seed = torch.Generator(device).manual_seed(rho).get_state()
        logits = []
        for module, call in ((layer, compiled), (literal, literal)):
            torch.manual_seed(rho)
            for each in module.modules():
                generator = getattr(getattr(each, "options", each), "generator", None)
                if generator is not None:
                    generator.set_state(seed)
            logits.append(call(hidden, labels))
            module.zero_grad()
            cross_entropy(logits[-1], labels).backward()
        torch.testing.assert_close(logits[0], logits[1])
        torch.testing.assert_close(layer.weight.grad, literal.weight.grad)
        counts.append(counter.frame_count)
    assert counts[0] > 0
    assert set(counts[1:]) == {counts[1]}, "compiled anew after the first change of rho"
    if "selector" in config.effective_settings() and config.selector not in BREAKS_THE_GRAPH:
        assert set(counts) == {1}
    assert all(map(torch.equal, layer.buffers(), literal.buffers()))
    if isinstance(layer.regulariser, CountedDropout):
        assert int(layer.regulariser.examples) == 9 * len(counts)


@pytest.mark.parametrize("pass_rate", [PassRate.EPOCH, PassRate.NONE])
def test_pass_rates_at_test_time(pass_rate: PassRate, tiny: ImageData) -> None:
    """Whatever scales at test time, training does not know of it."""
    base = replace(BASE, dropout=Dropout.MALDROP)
    other, cumulative = train(replace(base, pass_rate=pass_rate), tiny).epochs, train(base, tiny).epochs
    assert [(row.train_loss, row.drop_rate) for row in other] == [(row.train_loss, row.drop_rate) for row in cumulative]
    assert other[-1].val_loss != cumulative[-1].val_loss
