"""Timing: interleaved, synchronised, without the warm-up, until it is known well enough; and its own warnings."""

import gc
import math
import random
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch
from torch.nn.functional import cross_entropy

from maldrop_cli import mask_metrics
from maldrop_cli.analysis.stats import median_interval
from maldrop_cli.config import RunConfig
from maldrop_cli.data.load import ImageData
from maldrop_cli.dropout.naive import NAIVE
from maldrop_cli.names import Axis, Dropout, Granularity, Selector, UsageError
from maldrop_cli.timing import cases, clock, scaling
from maldrop_cli.timing.cases import Setting, Timing
from maldrop_cli.timing.clock import DeviceTimer, Samples, cuda_timer, measure, peak_mib, widest_interval
from maldrop_cli.timing.scaling import ScalePoint, exponents
from maldrop_cli.timing.timings import drift, time_cases, time_naive, warnings, with_fidelity
from maldrop_cli.train import Training

CPU = torch.device("cpu")
SETTING = Setting((1, 4, 4), 3, CPU)
BASE = RunConfig(batch_size=8, rho=5)


class World:
    """Cases that take a known time on a clock that only they move; the first step of each is cold."""

    def __init__(self, costs: dict[str, float], noise: float = 0.0) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.rng = random.Random(0)
        self.cases = {name: partial(self.step, name, cost, noise) for name, cost in costs.items()}

    def step(self, name: str, cost: float, noise: float) -> None:
        cold = 1 if name in self.calls else 100
        self.now += cost * cold * (1 + noise * self.rng.uniform(-1, 1))
        self.calls.append(name)

    def measure(self, **how: Any) -> list[Samples]:
        return measure(self.cases, CPU, ["none"], clock=lambda: self.now, **how)

    def half_timer(self) -> DeviceTimer:
        """A device's clock that runs at half the speed of the world's."""
        marks: dict[str, float] = {}

        def mark(name: str) -> None:
            self.calls.append(name)
            marks[name] = self.now

        start, stop = partial(mark, "start"), partial(mark, "stop")
        return DeviceTimer(start, stop, lambda: 500 * (marks["stop"] - marks["start"]))


def test_samples_are_seconds_a_step_without_the_warm_up() -> None:
    world = World({"none": 0.001, "slow": 0.5})
    for samples, expected in zip(world.measure(rounds=10), (("none", 20, 0.001), ("slow", 1, 0.5)), strict=True):
        assert (samples.name, samples.steps) == expected[:2]
        assert samples.seconds == pytest.approx([expected[2]] * 10)
    assert world.calls.count("slow") == clock.MIN_WARM_UP + 10


def test_warm_up_goes_on_while_steps_become_faster() -> None:
    world = World({})
    falling = iter([8.0, 6.0, 4.0, 2.0, *[1.0] * 100])

    def step() -> None:
        world.now += next(falling)

    [samples] = measure({"none": step}, CPU, ["none"], clock=lambda: world.now, rounds=4)
    assert samples.seconds == [1.0] * 4


def test_cases_are_interleaved_in_random_order() -> None:
    world = World({"none": 0.5, "b": 0.5, "c": 0.5})
    world.measure(rounds=12)
    calls = world.calls[3 * clock.MIN_WARM_UP :]
    rounds = {tuple(calls[start : start + 3]) for start in range(0, 36, 3)}
    assert {frozenset(each) for each in rounds} == {frozenset(world.cases)}
    assert len(rounds) > 3


def test_it_stops_when_every_ratio_is_known_well_enough() -> None:
    def measured(precision: float) -> list[Samples]:
        return World({"none": 0.5, "heuristic": 0.6}, noise=0.2).measure(precision=precision, budget=1e9)

    found = measured(0.03)
    assert widest_interval(found, ["none"])[0] <= 0.03
    rounds = len(found[0].seconds)
    assert clock.MIN_ROUNDS < rounds < 400
    early = [replace(samples, seconds=samples.seconds[: rounds - 5]) for samples in found]
    assert widest_interval(early, ["none"])[0] > 0.03
    assert len(measured(0.2)[0].seconds) < rounds


def test_it_stops_when_the_budget_is_spent() -> None:
    world = World({"none": 0.5, "heuristic": 0.6}, noise=0.9)
    width, whose = widest_interval(world.measure(precision=0.001, budget=30.0), ["none"])
    assert width > 0.001
    assert whose == "heuristic"
    assert world.now < 33 + 200 * 0.6  # the budget, a round, and the cold steps


@pytest.mark.parametrize("with_timer", [False, True])
def test_samples_are_synchronised_and_events_stand_within(with_timer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"none": 0.5})
    monkeypatch.setattr("maldrop_cli.timing.clock.synchronize", lambda device: world.calls.append("sync"))
    world.measure(rounds=1, timer=world.half_timer() if with_timer else None)
    sample = ["sync", "start", "none", "stop", "sync"] if with_timer else ["sync", "none", "sync"]
    assert world.calls == sample * (clock.MIN_WARM_UP + 1)


def test_the_devices_own_clock_times_the_same_steps() -> None:
    world = World({"none": 0.001, "slow": 0.5}, noise=0.2)
    for samples in world.measure(rounds=5, timer=world.half_timer()):
        assert samples.device_ms == pytest.approx([500 * each for each in samples.seconds])


def test_a_cuda_timer_is_two_events_on_the_devices_own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, end = Mock(elapsed_time=Mock(return_value=1.5)), Mock()
    event = Mock(side_effect=[begin, end])
    monkeypatch.setattr(torch.cuda, "Event", event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    timer = cuda_timer(torch.device("cuda:1"))
    timer.start()
    timer.stop()
    assert timer.milliseconds() == 1.5
    assert event.call_args_list == [call(enable_timing=True)] * 2
    assert begin.mock_calls == [call.record("stream of cuda:1"), call.elapsed_time(end)]
    assert end.mock_calls == [call.record("stream of cuda:1")]


def test_only_cuda_has_a_clock_of_its_own(device: torch.device) -> None:
    numbers = torch.ones(2**20, device=device)
    [samples] = measure({"none": numbers.sum}, device, ["none"], rounds=3)
    if device.type == "cpu":
        assert samples.device_ms is None
    else:
        assert samples.device_ms is not None
        assert all(0 < ms < 1100 * own + 0.1 for ms, own in zip(samples.device_ms, samples.seconds, strict=True))


def test_the_garbage_collector_waits() -> None:
    seen: list[bool] = []
    measure({"none": lambda: seen.append(gc.isenabled())}, CPU, ["none"], rounds=2)
    assert not any(seen)
    assert gc.isenabled()


@pytest.mark.parametrize("change", [{}, {"layer": True}, {"bf16": True}, {"layer": True, "bf16": True}])
@pytest.mark.parametrize("dropout", Dropout)
def test_every_variant_can_be_timed(dropout: Dropout, change: dict[str, bool], device: torch.device) -> None:
    setting = replace(SETTING, device=device, **change)  # type: ignore[arg-type]
    [step] = cases.training_steps([replace(BASE, dropout=dropout, rho=2)], setting).values()
    step()


def test_compiled_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = Mock(side_effect=partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(torch, "compile", compiled)
    for layer in (False, True):
        cases.training_steps([BASE], replace(SETTING, compiled=True, layer=layer))["heuristic"]()
    assert [type(each.args[0]).__name__ for each in compiled.call_args_list] == ["Classifier", "DropoutLinear"]


def test_a_step_trains() -> None:
    """A case is a whole step: the loss on its one batch falls."""
    config = replace(BASE, dropout=Dropout.NONE, lr=0.1)
    model, (images, labels) = cases.fresh_model(config, SETTING), cases.random_batch(config, SETTING)
    step, before = cases.step_of(model, config, SETTING), cross_entropy(model(images), labels)
    for _ in range(20):
        step()
    assert cross_entropy(model(images), labels) < 0.5 * before


def timed(base: RunConfig, *selectors: Selector) -> list[RunConfig]:
    """``none``, ``vanilla``, ``maldrop`` with the selectors, ``random``."""
    none, vanilla, random = (replace(base, dropout=each) for each in (Dropout.NONE, Dropout.VANILLA, Dropout.RANDOM))
    return [none, vanilla, *(replace(base, selector=selector) for selector in selectors), random]


@pytest.mark.parametrize("granularity", Granularity)
def test_naive_forms_follow_their_fast_ones_and_give_the_same_masks(granularity: Granularity) -> None:
    plan = timed(replace(BASE, granularity=granularity), Selector.HEURISTIC, Selector.SINGLE)
    timings: list[Timing] = []
    how: dict[str, Any] = {"precision": 0.03, "budget": 10.0, "naive": True, "tick": lambda *step: None}
    time_cases(plan, SETTING, rounds=4, **how, timings=timings)
    names = ["none", "vanilla", "heuristic", "heuristic-loop", "single", "single-naive", "random"]
    assert [timing.samples.name for timing in timings] == names
    for timing in timings:
        if timing.samples.name not in NAIVE:
            assert timing.neurons is None
            assert timing.peak_mib > 0
            continue
        assert (timing.agreement, timing.neurons) == (100.0, 64)  # all neurons: there is time
        assert len(timing.samples.seconds) == 3
        assert min(timing.samples.seconds) > min(timings[0].samples.seconds)
        assert math.isnan(timing.peak_mib)


def test_naive_forms_are_timed_on_as_many_neurons_as_there_is_time_for() -> None:
    """A clock on which a call takes a second whatever it does: the first four neurons are all there is time for."""
    ticks = iter(range(10**6))
    none = Samples("none", [1.0, 2.0])
    timing = time_naive("heuristic-loop", BASE, SETTING, none, budget=2.0, clock=lambda: next(ticks) / 2)
    assert timing.neurons == 4
    scores = 0.5 * 64 / 4
    assert timing.samples.seconds == pytest.approx([1 + scores, 2 + scores])


def test_overlap_finds_another_mask() -> None:
    one = torch.tensor([[True, True, False, False]])
    assert mask_metrics.overlap(one, one) == 1.0
    assert mask_metrics.overlap(one, torch.tensor([[True, False, True, False]])) == 0.5
    assert mask_metrics.overlap(one, ~torch.ones_like(one)) == 1.0


def test_peak_memory_counts_what_a_step_holds(device: torch.device) -> None:
    def step() -> None:
        one = torch.zeros(2**18, device=device)  # 1 MiB
        other = one + 1  # 2 MiB held
        del one
        torch.mul(other, 2, out=other)

    assert peak_mib(step, device) == pytest.approx(2, abs=0.1)


def test_what_the_masks_do_to_a_trained_network(tiny: ImageData, device: torch.device) -> None:
    base = replace(BASE, rho=16, batch_size=30)
    plan = timed(base, Selector.HEURISTIC, Selector.JOINT)
    training = Training(replace(base, dropout=Dropout.NONE), tiny.to(device), device)
    training.epoch()
    probe = mask_metrics.probe_images(tiny.train).to(device)
    timings = [Timing(config, Samples(cases.name_of(config), [])) for config in plan]
    timings.append(Timing(BASE, Samples("heuristic-loop", []), neurons=4))
    setting = Setting(tiny.shape, len(tiny.classes), device)
    complete = with_fidelity(timings, setting, training.model, training.normalise, probe)
    found = {timing.samples.name: timing.fidelity for timing in complete if timing.fidelity}
    assert list(found) == ["heuristic", "joint", "random"]
    assert found["joint"].overlap == 100
    assert found["joint"].mask == pytest.approx(found["joint"].joint, abs=1e-6)
    assert found["random"].mask < found["heuristic"].mask < found["joint"].mask
    assert found["heuristic"].joint == found["random"].joint  # the same network


def test_phases_are_seconds_between_two_readings() -> None:
    """On a clock that counts how often it is read, every phase is one tick long; the calls before the head's go off."""
    ticks = iter(range(10**6))
    plan = [replace(BASE, dropout=Dropout.NONE), BASE, replace(BASE, selector=Selector.JOINT)]
    found = cases.phases(plan, SETTING, 3, clock=lambda: float(next(ticks)))
    assert list(found["none"]) == list(cases.PHASES)
    ticks_of = {name: list(phases.values()) for name, phases in found.items()}
    assert ticks_of == {"none": [1, 0, 0, 1, 1, 1], "heuristic": [1, 1, 0, 0, 1, 1], "joint": [1, 1, 0, 0, 1, 1]}


SIZES = {"classes": 3, "width": 12, "batch": 4, "rho": 5}


@pytest.mark.parametrize("axis", scaling.AXES)
def test_scale_times_every_value_of_an_axis(axis: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scaling.AXES, axis, (6, 9))
    points: list[ScalePoint] = []
    scaling.scale(BASE, [Selector.HEURISTIC, Selector.GRADIENT], axis, SIZES, CPU, budget=0.1, points=points)
    assert [(each.selector, each.value) for each in points] == [
        (selector, value) for selector in ("heuristic", "gradient") for value in (6, 9)
    ]
    assert all(each.seconds > 0 for each in points)


def test_scale_gives_medians_with_intervals_and_the_devices_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scaling.AXES, Axis.BATCH, (6, 9))
    measured = [Samples("6", [0.1, 0.2, 0.4] * 4, device_ms=[90.0, 150.0, 390.0]), Samples("9", [0.3] * 10)]
    monkeypatch.setattr(scaling, "measure", lambda *rest, into, **how: into.extend(measured))
    points: list[ScalePoint] = []
    scaling.scale(BASE, [Selector.HEURISTIC], Axis.BATCH, SIZES, CPU, budget=1.0, points=points)
    known, few = points
    assert known == ScalePoint("heuristic", 6, 0.2, *median_interval([0.1, 0.2, 0.4] * 4)[1:], 150.0)
    assert known.low < 0.2 <= known.high
    assert (few.seconds, few.device_ms) == (0.3, None)
    assert math.isnan(few.low)


def test_scale_refuses_a_rho_that_is_too_large() -> None:
    with pytest.raises(UsageError, match="rho is 2000"):
        scaling.scale(BASE, [Selector.HEURISTIC], Axis.WIDTH, SIZES | {"rho": 2000}, CPU, budget=1.0, points=[])


def test_exponents() -> None:
    points = [ScalePoint("a", n, 1e-6 * n**1.5) for n in (10, 100, 1000)]
    points += [ScalePoint("b", n, t) for n, t in ((10, 1.0), (100, 1.1), (1000, 0.9))]
    first, second = exponents(points)
    assert first.selector == "a"
    assert first.exponent == pytest.approx(1.5)
    assert first.half == pytest.approx(0, abs=1e-6)
    assert abs(second.exponent) < second.half


CALM = {"precision": 0.03, "load": 0.1, "resolution": 1e-9}
STEADY, SWINGING = [1.0, 1.01, 0.99] * 5, [1.0, 1.2] * 9
LOOP = Timing(BASE, Samples("heuristic-loop", [1.0] * 8 + [50.0] * 8), neurons=4)  # only its fast form is judged


@pytest.mark.parametrize(
    ("none", "vanilla", "change", "words"),
    [
        (SWINGING, SWINGING[::-1], {}, "before every ratio was within ±3 %: that of vanilla is within ±18.0 %"),
        ([1.0] * 10, [1.0] * 10, {}, "that of vanilla has too few samples"),
        ([1.0, 2.0] * 9, [1.0, 2.0] * 9, {}, "Unstable: the interquartile range of none, vanilla is above 25 %"),
        (STEADY, [1.0] * 8 + [1.2] * 8, {"precision": 9.0}, "Drifting: the last third of the samples of vanilla"),
        (STEADY, STEADY, {"resolution": 2e-3}, "A sample lasts 2 s, below 1000 ticks"),
        (STEADY, STEADY, {"load": 1.7}, "load 1.7"),
        (STEADY, STEADY, {"load": None}, None),
        (STEADY, STEADY, {"load": 0.5}, None),
        (STEADY, STEADY, {"resolution": 1.9e-3}, None),
        (SWINGING, SWINGING[::-1], {"precision": math.inf}, None),  # --rounds: nobody asked for a precision
        (STEADY, [1.0] * 8 + [1.08] * 8, {"precision": 9.0}, None),
    ],
)
def test_warnings(none: list[float], vanilla: list[float], change: dict[str, Any], words: str | None) -> None:
    timings = [Timing(BASE, Samples("none", none, steps=2)), Timing(BASE, Samples("vanilla", vanilla, steps=2)), LOOP]
    found = warnings(timings, **CALM | change)
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_drift_needs_enough_samples() -> None:
    assert drift([1.0, 2.0]) == 0
    assert math.isclose(drift([1.0] * 6 + [1.5] * 3), 0.5)
