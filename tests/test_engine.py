"""Training: paired seeds, honest clocks, every variant, and runs that go wrong."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import BASE, matching_rho, run_job, runner, train

from maldrop_cli import train as engine
from maldrop_cli.data.load import ImageData
from maldrop_cli.dropout import SCHEDULES
from maldrop_cli.machine import resolve_device
from maldrop_cli.models import Normalise, build_model
from maldrop_cli.names import Dropout, PassRate, Schedule, UsageError
from maldrop_cli.record import Status
from maldrop_cli.runs.events import Event, Progressed, Trained
from maldrop_cli.runs.store import Store

CPU = torch.device("cpu")


@pytest.mark.parametrize("dropout", Dropout)
def test_training_learns(dropout: Dropout, tiny: ImageData) -> None:
    record = train(replace(BASE, dropout=dropout, epochs=8, lr=0.02, rho=matching_rho(dropout), p=0.25), tiny)
    assert record.epochs[-1].val_top1 > 90


def test_the_same_seed_gives_the_same_numbers(tiny: ImageData, device: torch.device) -> None:
    for dropout in Dropout:
        config = replace(BASE, dropout=dropout, deterministic=True, rho=matching_rho(dropout))
        runs = [train(config, tiny, device) for _ in range(2)]
        losses = [[row.train_loss for row in run.epochs] for run in runs]
        assert losses[0] == losses[1]
        assert losses[0] != [row.train_loss for row in train(replace(config, seed=1), tiny, device).epochs]
    assert not torch.are_deterministic_algorithms_enabled()


def test_arms_of_one_seed_start_alike_and_see_the_same_batches(
    tiny: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: dict[Dropout, torch.Tensor] = {}
    batches: dict[Dropout, list[torch.Tensor]] = {}
    for dropout in Dropout:
        seen: list[torch.Tensor] = []

        def build(*args, _dropout=dropout, **kwargs):  # type: ignore[no-untyped-def]
            model = build_model(*args, **kwargs)
            weights[_dropout] = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
            return model

        def watch(self: Normalise, images: torch.Tensor, _seen=seen) -> torch.Tensor:  # type: ignore[no-untyped-def]
            _seen.append(images.clone())
            return torch.addcmul(self.shift, images.float(), self.scale)

        monkeypatch.setattr(engine, "build_model", build)
        monkeypatch.setattr(Normalise, "forward", watch)
        train(replace(BASE, dropout=dropout, rho=matching_rho(dropout)), tiny)
        batches[dropout] = seen
    for dropout in Dropout:
        assert torch.equal(weights[dropout], weights[Dropout.NONE])
        assert len(batches[dropout]) == len(batches[Dropout.NONE]) == 2 * (8 + 2)
        assert all(map(torch.equal, batches[dropout], batches[Dropout.NONE]))


@pytest.mark.parametrize("dropout", Dropout)
def test_dropping_nothing_equals_no_dropout_bit_for_bit(dropout: Dropout, tiny: ImageData) -> None:
    """Pairing in the strictest sense: the variants differ by what they drop, and by nothing else."""
    none = train(replace(BASE, dropout=Dropout.NONE), tiny)
    other = train(replace(BASE, dropout=dropout, rho=0, p=0.0), tiny)
    assert [row.val_loss for row in other.epochs] == [row.val_loss for row in none.epochs]
    assert [row.drop_rate for row in other.epochs] == [0.0, 0.0]


def test_schedules_drive_rho(tiny: ImageData) -> None:
    width = 4 * 8 * 8
    periodic = train(replace(BASE, schedule=Schedule.PERIODIC, period=2, epochs=1), tiny)
    assert periodic.epochs[0].rho_mean == 16 * 4 / 8  # batches 2, 4, 6 and 8 of 8
    forward = train(replace(BASE, schedule=Schedule.FORWARD, rho=0, epochs=2), tiny)
    from maldrop_cli.dropout import Step

    expected = [SCHEDULES["forward"](0, width, Step(epoch, 0)) for epoch in (0, 1)]
    assert [row.rho_mean for row in forward.epochs] == expected
    assert [row.drop_rate for row in forward.epochs] == pytest.approx([100 * rho / width for rho in expected])


def test_linear_keeps_its_horizon_whatever_the_number_of_epochs(tiny: ImageData) -> None:
    config = replace(BASE, schedule=Schedule.LINEAR, rho=16, rho_end=8, horizon=3, epochs=4)
    assert [row.rho_mean for row in train(config, tiny).epochs] == [16, 12, 8, 8]
    assert [row.rho_mean for row in train(replace(config, epochs=2), tiny).epochs] == [16, 12]


def test_the_smooth_schedules_drop_what_they_say(tiny: ImageData) -> None:
    config = replace(BASE, schedule=Schedule.FORWARD_SMOOTH, rho=64, rate=1.0, epochs=3)
    expected = [64, round(256 / (1 + 3 / math.e)), round(256 / (1 + 3 / math.e**2))]
    rows = train(config, tiny).epochs
    assert [row.rho_mean for row in rows] == expected
    assert [row.drop_rate for row in rows] == pytest.approx([100 * rho / 256 for rho in expected])


def test_each_rho_of_randomized_is_a_trial_of_its_own(tiny: ImageData) -> None:
    trials = [train(replace(BASE, schedule=Schedule.RANDOMIZED, rho=rho), tiny) for rho in (1, 2, 1)]
    means = [[row.rho_mean for row in trial.epochs] for trial in trials]
    assert means[0] != means[1]
    assert means[0] == means[2]


def test_train_seconds_leave_evaluation_out(tiny: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    """An injected clock that only evaluation and data preparation could move."""
    now = 0.0

    def clock() -> float:
        return now

    real = engine.evaluate

    def slow(*args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal now
        now += 1000.0
        return real(*args, **kwargs)

    monkeypatch.setattr(engine, "evaluate", slow)
    record = engine.train_run(engine.start_record(BASE, tiny, "", CPU), tiny, CPU, clock=clock)
    assert [row.train_seconds for row in record.epochs] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("a_batch", "expected", "batches"),
    [
        (3.0, 30.0, [1]),  # slow: its first is all the measurement
        (0.5, 5.0, [1, 1]),  # the first warms up
        (0.1, 1.0, [1, 1, 4]),
        (0.001, 0.01, [1, 1, 4, 10]),  # quick: all there are
    ],
)
def test_an_epoch_is_timed_by_its_first_batches(
    a_batch: float, expected: float, batches: list[int], tiny: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = replace(tiny, train=tiny.train[:100])
    now, seen = 0.0, []
    real = engine.Training._train

    def train(self):  # type: ignore[no-untyped-def]
        nonlocal now
        seen.append(len(self.data.train.labels) // 10)
        now += a_batch * seen[-1]
        return real(self)

    monkeypatch.setattr(engine.Training, "_train", train)
    found = engine.seconds_of_epoch(replace(BASE, batch_size=10, fidelity_every=1), part, CPU, lambda: now)
    assert found == pytest.approx(expected)
    assert seen == batches


def test_the_device_is_synchronised_around_the_clock(tiny: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    ticks = itertools.count()

    def clock() -> float:
        events.append("clock")
        return float(next(ticks))

    monkeypatch.setattr(engine, "synchronize", lambda device: events.append("synchronize"))
    record = engine.train_run(engine.start_record(replace(BASE, epochs=1), tiny, "", CPU), tiny, CPU, clock=clock)
    assert events == ["synchronize", "clock", "synchronize", "clock"]
    assert record.epochs[0].train_seconds == 1.0


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_batches_are_told_now_and_then(
    seconds: float, tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 120 images, 17 at a time: eight batches an epoch."""
    monkeypatch.setattr("maldrop_cli.runs.runner.TELL_SECONDS", seconds)
    events: list[Event] = []
    end = run_job(runner(tiny, tmp_path), BASE, events.append)
    told = [event.epochs for event in events if isinstance(event, Progressed)]
    assert told == ([] if seconds else [batch / 8 for batch in range(1, 17)])
    assert [row.train_loss for row in end.record.epochs] == [row.train_loss for row in train(BASE, tiny).epochs]


def test_evaluation_counts_by_hand() -> None:
    """Six images of six classes, logits fixed: top-1 hits 2, top-5 hits 5."""
    from maldrop_cli.data.load import Split

    logits = torch.eye(6)[[0, 1, 0, 0, 0, 0]] + torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])

    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return logits[: len(images)]

    split = Split(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.arange(6))
    loss, top1, top5 = engine.evaluate(Fixed(), Normalise((0.0,), (1.0,)), split, 6)  # type: ignore[arg-type]
    assert top1 == pytest.approx(200 / 6)
    assert top5 == pytest.approx(500 / 6)
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, split.labels)))


def test_normalise_is_the_textbook_formula() -> None:
    images = torch.randint(0, 256, (3, 2, 4, 4), dtype=torch.uint8)
    mean, std = (0.2, 0.4), (0.3, 0.1)
    expected = (images / 255 - torch.tensor(mean).view(1, 2, 1, 1)) / torch.tensor(std).view(1, 2, 1, 1)
    torch.testing.assert_close(Normalise(mean, std)(images), expected)


def test_a_loss_that_is_not_finite_ends_the_run(tiny: ImageData) -> None:
    record = train(replace(BASE, lr=1e30, epochs=5), tiny)
    assert record.status is Status.DIVERGED
    assert "not finite" in record.reason
    assert len(record.epochs) < 5
    assert record.epochs[-1].train_loss is None


def test_a_validation_loss_that_is_not_finite_ends_the_run_too(
    tiny: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "evaluate", lambda *args: (math.inf, 10.0, 50.0))
    record = train(BASE, tiny)
    assert (record.status, len(record.epochs), record.epochs[0].val_loss) == (Status.DIVERGED, 1, None)
    assert "validation loss" in record.reason


def test_evaluation_does_not_depend_on_its_batches(tiny: ImageData) -> None:
    model, normalise = build_model(BASE, tiny.shape, 3), Normalise(tiny.mean, tiny.std)
    whole = engine.evaluate(model, normalise, tiny.val, 30)
    assert engine.evaluate(model, normalise, tiny.val, 7) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("model", ["vgg16", "vgg11_bn", "alexnet"])
def test_deterministic_adaptive_pooling_on_cuda_is_refused(model: str) -> None:
    config = replace(BASE, model=model, deterministic=True)
    engine.check_deterministic(config, CPU)
    engine.check_deterministic(replace(config, deterministic=False), torch.device("cuda:0"))
    with pytest.raises(UsageError, match=f"deterministic gradient of {model}"):
        engine.check_deterministic(config, torch.device("cuda:0"))


@pytest.mark.parametrize("model", ["cnn", "resnet18", "googlenet", "mobilenet_v3_small", "vit_b_16", "maxvit_t"])
def test_pooling_to_one_cell_is_deterministic(model: str) -> None:
    engine.check_deterministic(replace(BASE, model=model, deterministic=True), torch.device("cuda:0"))


def test_a_run_that_raises_is_a_record(tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(engine.Training, "_train", explode)
    end = run_job(runner(tiny, tmp_path), BASE)
    record = end.record
    assert (record.status, record.reason, end.reused) == (Status.FAILED, "RuntimeError: out of memory", False)
    assert Store(tmp_path).load(record.run_id) == record
    monkeypatch.undo()
    again = run_job(runner(tiny, tmp_path), BASE)  # a failed run gets another try
    assert (again.record.status, again.reused) == (Status.DONE, False)


def test_a_finished_run_is_reused_unless_fresh(tiny: ImageData, tmp_path: Path) -> None:
    events: list[Event] = []
    first = run_job(runner(tiny, tmp_path), BASE, events.append).record
    assert tuple(event.row for event in events if isinstance(event, Trained)) == first.epochs
    again = run_job(runner(tiny, tmp_path), BASE, events.append)
    assert (again.record, again.reused) == (first, True)
    fresh = run_job(runner(tiny, tmp_path, fresh=True), BASE, events.append)
    assert not fresh.reused
    assert len([event for event in events if isinstance(event, Trained)]) == 4


def test_an_unfinished_run_without_a_checkpoint_starts_over(tiny: ImageData, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Trained):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(runner(tiny, tmp_path), BASE, interrupt)
    [left] = Store(tmp_path).scan()
    assert (left.status, len(left.epochs)) == (Status.UNFINISHED, 1)
    end = run_job(runner(tiny, tmp_path), BASE)
    assert not end.reused
    assert [run.epochs for run in Store(tmp_path).scan()] == [end.record.epochs]


def test_the_run_of_another_point_is_no_finished_run(tiny: ImageData, tmp_path: Path) -> None:
    record = run_job(runner(tiny, tmp_path), BASE).record
    point = replace(BASE, rho=9)
    Store(tmp_path).write_alias(replace(record, config=point, trained_as=BASE))
    end = run_job(runner(tiny, tmp_path), point)
    assert (end.reused, end.record.trained_as) == (False, None)


def test_streams_differ_by_seed_and_purpose() -> None:
    names = [engine.stream(seed, purpose) for seed in range(50) for purpose in ("init", "order", "dropout")]
    assert len(set(names)) == 150
    assert engine.stream(0, "init") == engine.stream(0, "init")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(resolve_device("auto")) == str(resolve_device("cuda")) == "cuda:0"
    assert str(resolve_device("cuda:1")) == "cuda:1"
    for name in ("cuda:2", "gpu", "cuda:x", "meta", ""):
        with pytest.raises(UsageError, match=r"auto, cpu, cuda:0, cuda:1"):
            resolve_device(name)


@pytest.fixture(autouse=True)
def _deterministic_off() -> Iterator[None]:
    yield
    assert not torch.are_deterministic_algorithms_enabled()


def test_drop_rates_are_per_epoch_not_cumulative(tiny: ImageData) -> None:
    record = train(replace(BASE, schedule=Schedule.REVERSE, rho=0, epochs=3), tiny)
    rates = [row.drop_rate for row in record.epochs]
    assert rates[0] == pytest.approx(50)
    assert rates == sorted(rates, reverse=True)
    assert rates[1] == pytest.approx(100 / (1 + math.e), abs=0.3)


def test_the_pass_rate_of_an_epoch_is_of_that_epoch(tiny: ImageData) -> None:
    """Forward annealing drops more in the second epoch: so its own pass rates differ from those of both."""
    base = replace(BASE, schedule=Schedule.FORWARD, rho=0)
    each, both = (train(replace(base, pass_rate=name), tiny) for name in (PassRate.EPOCH, PassRate.CUMULATIVE))
    assert each.epochs[0].val_loss == both.epochs[0].val_loss
    assert each.epochs[1].val_loss != both.epochs[1].val_loss
    assert each.epochs[1].train_loss == both.epochs[1].train_loss
