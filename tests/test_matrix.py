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

from maldrop_cli.config import Dropout, Granularity, PassRate, RunConfig, Schedule, Selector, UsageError
from maldrop_cli.data.load import ImageData
from maldrop_cli.dropout import CountedDropout, DropoutLinear
from maldrop_cli.models.variants import Head, build_regulariser
from maldrop_cli.record import Status
from maldrop_cli.render.runs import name

HEAD = Head(width=24, classes=4, channels=6)


def combinations() -> Iterator[tuple[Dropout, Selector, Granularity]]:
    """All that make sense: what does not is a UsageError, and a setting without effect stays at its default."""
    for dropout, selector, granularity in itertools.product(Dropout, Selector, Granularity):
        try:
            config = RunConfig(dropout=dropout, selector=selector, granularity=granularity, rho=1)
        except UsageError:
            continue
        effective = config.effective_settings()
        if ("selector" in effective or selector is Selector.HEURISTIC) and (
            "granularity" in effective or granularity is Granularity.BATCH
        ):
            yield dropout, selector, granularity


VARIANTS = list(combinations())
# These look at numbers before they go on, so their graph is in parts.
BREAKS_THE_GRAPH = (Selector.JOINT, Selector.GREEDY, Selector.EXHAUSTIVE)


def config_of(dropout: Dropout, selector: Selector, granularity: Granularity) -> RunConfig:
    return replace(
        BASE,
        dropout=dropout,
        selector=selector,
        granularity=granularity,
        rho=1 if selector is Selector.EXHAUSTIVE else matching_rho(dropout),
    )


def head(config: RunConfig, device: torch.device | str = "cpu") -> DropoutLinear:
    torch.manual_seed(3)
    regulariser = build_regulariser(config, HEAD, torch.Generator(device).manual_seed(1))
    return DropoutLinear(HEAD.width, HEAD.classes, regulariser=regulariser).to(device)


def batch(examples: int = 9, device: torch.device | str = "cpu", seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(examples, HEAD.width, generator=generator).relu()
    return hidden.to(device), torch.randint(0, HEAD.classes, (examples,), generator=generator).to(device)


def trained() -> Iterator[RunConfig]:
    """What `test_two_epochs` trains: every combination whose numbers differ."""
    for (dropout, selector, granularity), schedule in itertools.product(VARIANTS, Schedule):
        config = replace(config_of(dropout, selector, granularity), schedule=schedule)
        grows = schedule not in (Schedule.STANDARD, Schedule.PERIODIC, Schedule.LINEAR)
        if selector is Selector.EXHAUSTIVE and grows:
            continue  # soon more sets than it tries
        once = dropout is not Dropout.MALDROP and selector is not Selector.HEURISTIC
        if once and schedule is not Schedule.STANDARD:
            continue  # another selector in another variant: the schedule makes no difference to it
        if config.has_rho or schedule is Schedule.STANDARD:
            yield config


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


@pytest.mark.parametrize(("dropout", "selector", "granularity"), VARIANTS)
def test_one_image_and_a_state_dict(
    dropout: Dropout, selector: Selector, granularity: Granularity, device: torch.device
) -> None:
    config = config_of(dropout, selector, granularity)
    layer = head(config, device)
    for examples in (9, 1):
        hidden, labels = batch(examples, device, examples)
        cross_entropy(layer(hidden, labels), labels).backward()
    other = head(config, device)
    other.load_state_dict(layer.state_dict())
    hidden, _ = batch(5, device, 7)
    assert torch.equal(layer.eval()(hidden), other.eval()(hidden))
    assert other.regulariser.drop_totals() == layer.regulariser.drop_totals()


@pytest.mark.parametrize(("dropout", "selector", "granularity"), VARIANTS)
def test_bf16_autocast(dropout: Dropout, selector: Selector, granularity: Granularity, device: torch.device) -> None:
    layer = head(config_of(dropout, selector, granularity), device)
    hidden, labels = batch(9, device)
    for inputs in (hidden, hidden.bfloat16()):
        inputs = inputs.clone().requires_grad_()
        with torch.autocast(device.type, torch.bfloat16):
            logits = layer(inputs, labels)
            cross_entropy(logits, labels).backward()
        assert logits.dtype == torch.bfloat16
        assert inputs.grad is not None
        assert inputs.grad.isfinite().all()
    layer.eval()
    with torch.autocast(device.type, torch.bfloat16):
        assert layer(hidden).isfinite().all()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by dynamo, of itself
@pytest.mark.parametrize(
    ("dropout", "selector", "granularity"),
    [each for each in VARIANTS if each[0] is Dropout.MALDROP or each[1] is Selector.HEURISTIC],
)
def test_compiled_code_is_right_and_serves_every_rho(
    dropout: Dropout, selector: Selector, granularity: Granularity, device: torch.device
) -> None:
    config = config_of(dropout, selector, granularity)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    layer = head(config, device)
    literal = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend=counter)
    hidden, labels = batch(9, device)
    counts = []
    for rho in (3, 2, 4) if selector is Selector.EXHAUSTIVE else (3, 2, 5, 4, 6):
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
    whole = "selector" in config.effective_settings() and selector not in BREAKS_THE_GRAPH
    assert counts == counts[:2] + [counts[1]] * (len(counts) - 2), "compiled anew after the first change of rho"
    assert not whole or set(counts) == {1}
    for mine, theirs in zip(layer.buffers(), literal.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    if isinstance(layer.regulariser, CountedDropout):
        assert int(layer.regulariser.examples) == 9 * len(counts)


@pytest.mark.parametrize("pass_rate", PassRate)
def test_pass_rates_at_test_time(pass_rate: PassRate, tiny: ImageData) -> None:
    """Whatever scales at test time, training does not know of it."""
    runs = [
        train(replace(BASE, dropout=Dropout.MALDROP, pass_rate=each), tiny) for each in (pass_rate, PassRate.CUMULATIVE)
    ]
    assert [row.train_loss for row in runs[0].epochs] == [row.train_loss for row in runs[1].epochs]
    assert [row.drop_rate for row in runs[0].epochs] == [row.drop_rate for row in runs[1].epochs]
    assert runs[0].epochs[0].val_loss != runs[1].epochs[0].val_loss or pass_rate is not PassRate.NONE
