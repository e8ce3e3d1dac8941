"""Timing: interleaved, synchronised, warm-up left out, until it is known well enough; and what it says of itself."""

import gc
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from maldrop_cli import mask_metrics
from maldrop_cli.config import Dropout, Granularity, RunConfig, Selector, UsageError
from maldrop_cli.data.load import ImageData
from maldrop_cli.dropout.naive import NAIVE
from maldrop_cli.sweep.grid import subjects as plan_subjects
from maldrop_cli.timing import Measured, Setting, Subject, harm, measure, naive, peak_mib, phases, subjects
from maldrop_cli.timing import measure as measure_function
from maldrop_cli.timing import scaling as scale
from maldrop_cli.timing.clock import MIN_ROUNDS, WARM_UP, widest_interval
from maldrop_cli.timing.events import device_timer
from maldrop_cli.timing.timings import ScalePoint, Timing, doubts, drift, exponents

CPU = torch.device("cpu")
SETTING = Setting((1, 4, 4), 3, CPU)
BASE = RunConfig(batch_size=8, rho=5)


class World:
    """Subjects that take a known time on a clock that only they move."""

    def __init__(self, costs: dict[str, float], noise: float = 0.0) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.rng = random.Random(0)
        self.subjects = [Subject(name, self.step(name, cost, noise)) for name, cost in costs.items()]

    def step(self, name: str, cost: float, noise: float):  # type: ignore[no-untyped-def]
        def step() -> None:
            cold = 1 if name in self.calls else 100
            self.now += cost * cold * (1 + noise * self.rng.uniform(-1, 1))
            self.calls.append(name)

        return step


def test_samples_are_seconds_a_step_without_the_warm_up() -> None:
    world = World({"none": 0.001, "slow": 0.5})
    measured = measure(world.subjects, CPU, ["none"], rounds=10, clock=lambda: world.now)
    assert measured.samples["none"] == pytest.approx([0.001] * 10)
    assert measured.samples["slow"] == pytest.approx([0.5] * 10)
    assert measured.sample_seconds == pytest.approx(0.02)  # twenty steps of a millisecond
    assert not measured.budget_spent


def test_warm_up_goes_on_while_steps_become_faster() -> None:
    world = World({"none": 0.5})
    falling = iter([8.0, 6.0, 4.0, 2.0, *[1.0] * 100])

    def step() -> None:
        world.now += next(falling)

    measured = measure([Subject("none", step)], CPU, ["none"], rounds=4, clock=lambda: world.now)
    assert measured.samples["none"] == [1.0] * 4


def test_subjects_are_interleaved_in_random_order() -> None:
    world = World({"a": 0.5, "b": 0.5, "c": 0.5})
    measure(world.subjects, CPU, ["a"], rounds=12, clock=lambda: world.now, rng=random.Random(1))
    rounds = [tuple(world.calls[start : start + 3]) for start in range(3 * WARM_UP, 3 * WARM_UP + 36, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 3


def test_it_stops_when_every_ratio_is_known_well_enough() -> None:
    world = World({"none": 0.5, "heuristic": 0.6}, noise=0.2)
    measured = measure(world.subjects, CPU, ["none"], precision=0.03, budget=1e9, clock=lambda: world.now)
    assert measured.widest[0] <= 0.03
    assert not measured.budget_spent
    rounds = len(measured.samples["none"])
    assert MIN_ROUNDS < rounds < 400
    early = {name: samples[: rounds - 5] for name, samples in measured.samples.items()}
    assert widest_interval(early, ["none"])[0] > 0.03 or rounds == MIN_ROUNDS
    rougher = World({"none": 0.5, "heuristic": 0.6}, noise=0.2)
    rough = measure(rougher.subjects, CPU, ["none"], precision=0.2, budget=1e9, clock=lambda: rougher.now)
    assert len(rough.samples["none"]) < rounds


def test_it_stops_when_the_budget_is_spent_and_says_so() -> None:
    world = World({"none": 0.5, "heuristic": 0.6}, noise=0.9)
    measured = measure(world.subjects, CPU, ["none"], precision=0.001, budget=30.0, clock=lambda: world.now)
    assert measured.budget_spent
    assert measured.widest[1] == "heuristic"
    assert world.now < 33 + 200 * 0.6  # the budget, a round, and the cold steps


def test_the_device_is_synchronised_around_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"none": 0.5})
    monkeypatch.setattr("maldrop_cli.timing.clock.synchronize", lambda device: world.calls.append("sync"), raising=True)
    measure(world.subjects, CPU, ["none"], rounds=1, clock=lambda: world.now)
    assert world.calls == ["sync", "none", "sync"] * (WARM_UP + 1)


class HalfTimer:
    """A device's clock that runs on the world's, and at half its speed."""

    def __init__(self, world: World) -> None:
        self.world, self.marks = world, [0.0, 0.0]

    def start(self) -> None:
        self.world.calls.append("start")
        self.marks[0] = self.world.now

    def stop(self) -> None:
        self.world.calls.append("stop")
        self.marks[1] = self.world.now

    def milliseconds(self) -> float:
        return 500 * (self.marks[1] - self.marks[0])


def test_the_devices_own_clock_times_the_same_steps() -> None:
    world = World({"none": 0.001, "slow": 0.5}, noise=0.2)
    measured = measure(world.subjects, CPU, ["none"], rounds=5, clock=lambda: world.now, timer=HalfTimer(world))
    for name, samples in measured.samples.items():
        assert measured.device_ms[name] == pytest.approx([500 * each for each in samples])


def test_events_stand_within_the_synchronised_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"none": 0.5})
    monkeypatch.setattr("maldrop_cli.timing.clock.synchronize", lambda device: world.calls.append("sync"))
    measure(world.subjects, CPU, ["none"], rounds=1, clock=lambda: world.now, timer=HalfTimer(world))
    assert world.calls == ["sync", "start", "none", "stop", "sync"] * (WARM_UP + 1)


def test_a_cuda_timer_is_two_events_on_the_devices_own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            self.recorded = stream

        def elapsed_time(self, end: "Event") -> float:
            assert (self.recorded, end.recorded) == ("stream of cuda:1", "stream of cuda:1")
            assert self is not end
            return 1.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    timer = device_timer(torch.device("cuda:1"))
    assert timer is not None
    timer.start()
    timer.stop()
    assert timer.milliseconds() == 1.5


def test_only_cuda_has_a_clock_of_its_own(device: torch.device) -> None:
    assert device_timer(CPU) is None
    numbers = torch.ones(2**20, device=device)
    measured = measure([Subject("none", lambda: (torch.sum(numbers), None)[1])], device, ["none"], rounds=3)
    own = measured.device_ms.get("none")
    if device.type == "cpu":
        assert own is None
    else:
        assert own is not None
        assert all(0 < ms < 1100 * seconds + 0.1 for ms, seconds in zip(own, measured.samples["none"], strict=True))


def test_the_garbage_collector_waits() -> None:
    seen: list[bool] = []
    measure([Subject("none", lambda: seen.append(gc.isenabled()))], CPU, ["none"], rounds=2)
    assert not any(seen)
    assert gc.isenabled()


def test_the_subjects() -> None:
    plan = plan_subjects(BASE, [Dropout.MALDROP, Dropout.RANDOM], [Selector.HEURISTIC, Selector.SINGLE])
    made = subjects(plan, SETTING)
    assert [each.name for each in made] == ["none", "vanilla", "heuristic", "single", "random"]
    for each in made:
        each.step()


@pytest.mark.parametrize("change", [{}, {"layer": True}, {"bf16": True}, {"layer": True, "bf16": True}])
@pytest.mark.parametrize("dropout", Dropout)
def test_every_variant_can_be_timed(dropout: Dropout, change: dict[str, bool], device: torch.device) -> None:
    setting = replace(SETTING, device=device, **change)  # type: ignore[arg-type]
    [made] = subjects([replace(BASE, dropout=dropout, rho=2)], setting)
    made.step()


def test_compiled_steps() -> None:
    compiled = []
    real = torch.compile

    def watch(module):  # type: ignore[no-untyped-def]
        compiled.append(module)
        return real(module, backend="aot_eager")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", watch)
        whole, last = (subjects([BASE], replace(SETTING, compiled=True, layer=layer))[0] for layer in (False, True))
    for made in (whole, last):
        made.step()
    assert [type(module).__name__ for module in compiled] == ["Classifier", "DropoutLinear"]


def test_a_step_trains() -> None:
    """The subject is a whole step: the loss on its one batch falls."""
    seen: list[float] = []
    real = torch.nn.functional.cross_entropy

    def watch(*args, **kwargs):  # type: ignore[no-untyped-def]
        loss = real(*args, **kwargs)
        seen.append(loss.item())
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", watch)
        none = subjects([replace(BASE, dropout=Dropout.NONE, lr=0.1)], SETTING)[0]
        for _ in range(20):
            none.step()
    assert seen[-1] < 0.5 * seen[0]


@pytest.mark.parametrize("granularity", Granularity)
def test_naive_forms_give_the_same_masks(granularity: Granularity) -> None:
    plan = [replace(BASE, granularity=granularity, selector=each) for each in (Selector.HEURISTIC, Selector.SINGLE)]
    found = naive.naive_timings(plan, SETTING, budget=1.0)
    assert {name: each.agreement for name, each in found.items()} == dict.fromkeys(NAIVE, 100.0)
    assert all(each.neurons == 64 for each in found.values())  # all of them: there is time
    assert all(len(each.seconds) == naive.REPEATS for each in found.values())


def test_naive_forms_are_timed_on_as_many_neurons_as_there_is_time_for() -> None:
    """A clock on which a call takes a second whatever it does: the first four neurons are all there is time for."""
    now = [0.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    found = naive.naive_timings([BASE], SETTING, budget=2.0, clock=clock)
    [timing] = found.values()
    assert timing.neurons == naive.FIRST_NEURONS
    assert timing.seconds == pytest.approx([0.5 * 64 / naive.FIRST_NEURONS] * naive.REPEATS)


def test_another_mask_would_be_found() -> None:
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


def test_harm_beside_the_times(tiny: ImageData, device: torch.device) -> None:
    base = replace(BASE, rho=16, batch_size=30)
    plan = plan_subjects(base, [Dropout.MALDROP, Dropout.RANDOM], [Selector.HEURISTIC, Selector.JOINT])
    found = harm.harm(plan, tiny, device, images=90)
    assert set(found) == {"heuristic", "joint", "random"}
    assert found["joint"].agreement == 100
    assert found["joint"].mask == pytest.approx(found["joint"].joint, abs=1e-6)
    assert found["random"].mask < found["heuristic"].mask < found["joint"].mask
    assert found["heuristic"].joint == found["random"].joint  # the same network
    assert isinstance(found["heuristic"], mask_metrics.Fidelity)


def test_phases_add_up() -> None:
    """On a clock that counts how often it is read, every phase but the last is one tick long."""
    ticks = iter(range(10**6))
    found = phases.phases([replace(BASE, dropout=Dropout.NONE), BASE], SETTING, 3, clock=lambda: float(next(ticks)))
    assert set(found) == {"none", "heuristic"}
    for parts in found.values():
        assert tuple(parts) == phases.PHASES
        assert parts["forward"] == parts["backward"] == parts["optimizer"] == 1
    assert found["heuristic"]["score"] == 1
    assert found["none"]["score"] == found["none"]["select"] == 0


@pytest.mark.parametrize("axis", scale.AXES)
def test_scale_times_every_value_of_an_axis(axis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scale.AXES, axis, (6, 9))
    size = scale.Size(classes=3, width=12, batch=4, rho=5)
    points = scale.scale(BASE, [Selector.HEURISTIC, Selector.GRADIENT], axis, size, CPU, budget=0.1)
    assert [(each.selector, each.value) for each in points] == [
        (selector, value) for selector in ("heuristic", "gradient") for value in (6, 9)
    ]
    assert all(each.seconds > 0 for each in points)


def test_scale_tells_medians_with_intervals_and_the_devices_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scale.AXES, "batch", (6, 9))
    samples = {"6": [0.1, 0.2, 0.4], "9": [0.3]}
    measured = Measured(samples, (0.0, ""), False, 0.02, {"6": [90.0, 150.0, 390.0]})
    monkeypatch.setattr(scale, "measure", lambda subjects, device, references, **how: measured)
    size = scale.Size(classes=3, width=12, batch=4, rho=5)
    known, single = scale.scale(BASE, [Selector.HEURISTIC], "batch", size, CPU, budget=1.0)
    assert known == ScalePoint("heuristic", 6, 0.2, 0.1, 0.4, 150.0)
    assert (single.seconds, single.device_ms) == (0.3, None)
    assert math.isnan(single.low)
    assert size.without("batch") == {"classes": 3, "width": 12, "rho": 5}


def test_scale_refuses_a_rho_that_is_too_large() -> None:
    with pytest.raises(UsageError, match="rho is 2000"):
        scale.scale(BASE, [Selector.HEURISTIC], "width", scale.Size(3, 4096, 4, 2000), CPU, budget=1.0)


def test_exponents() -> None:
    points = [ScalePoint("a", n, 1e-6 * n**1.5) for n in (10, 100, 1000)]
    points += [ScalePoint("b", n, t) for n, t in ((10, 1.0), (100, 1.1), (1000, 0.9))]
    first, second = exponents(points)
    assert first.selector == "a"
    assert first.exponent == pytest.approx(1.5)
    assert first.half == pytest.approx(0, abs=1e-6)
    assert abs(second.exponent) < second.half


CALM = {
    "widest": (0.01, "heuristic"),
    "precision": 0.03,
    "budget_spent": False,
    "sample_seconds": 0.02,
    "resolution": 1e-9,
    "load": 0.1,
}
STEADY = [Timing("none", [1.0, 1.01, 0.99] * 5, 1.0), Timing("heuristic-loop", [9.0, 50.0], 1.0, neurons=4)]


def test_nothing_to_doubt() -> None:
    assert doubts(STEADY, **CALM) == []  # type: ignore[arg-type]
    assert doubts(STEADY, **CALM | {"load": None}) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("timings", "change", "words"),
    [
        (STEADY, {"budget_spent": True, "widest": (0.071, "single")}, "that of single is within ±7.1 %"),
        (STEADY, {"budget_spent": True, "widest": (math.inf, "joint")}, "that of joint has a single sample"),
        ([Timing("none", [1.0, 2.0] * 9, 1.0)], {}, "Unstable: of none"),
        ([Timing("none", [1.0] * 8 + [1.2] * 8, 1.0)], {}, "Drifting: the last third of the samples of none"),
        (STEADY, {"resolution": 1e-3}, "below 1000 ticks"),
        (STEADY, {"load": 1.7}, "load 1.7"),
    ],
)
def test_doubts(timings: list[Timing], change: dict[str, object], words: str) -> None:
    [line] = doubts(timings, **CALM | change)  # type: ignore[arg-type]
    assert words in line


@pytest.mark.parametrize(
    ("timings", "change"),
    [
        (STEADY, {"widest": (0.071, "single")}),  # --rounds: nobody asked for a precision
        ([Timing("none", [1.0, 1.2] * 9, 1.0)], {}),
        ([Timing("none", [1.0] * 8 + [1.08] * 8, 1.0)], {}),
        ([*STEADY, Timing("single-naive", [1.0] * 8 + [2.0] * 8, 1.0, neurons=4)], {}),
        (STEADY, {"resolution": 2e-5}),
        (STEADY, {"load": 0.5}),
    ],
)
def test_what_is_within_bounds_is_not_doubted(timings: list[Timing], change: dict[str, object]) -> None:
    assert doubts(timings, **CALM | change) == []  # type: ignore[arg-type]


def test_a_given_number_of_rounds_spends_no_budget() -> None:
    world = World({"none": 0.5, "heuristic": 0.6}, noise=0.9)
    measured = measure(world.subjects, CPU, ["none"], rounds=5, precision=1e-6, budget=0.1, clock=lambda: world.now)
    assert measured.widest[0] > 1e-6
    assert not measured.budget_spent


def test_drift_needs_enough_samples() -> None:
    assert drift([1.0, 2.0]) == 0
    assert math.isclose(drift([1.0] * 6 + [1.5] * 3), 0.5)


def test_the_public_name() -> None:
    assert measure_function is measure


def test_rounds_are_counted() -> None:
    world = World({"none": 0.5, "other": 0.5})
    measure(world.subjects, CPU, ["none"], rounds=7, clock=lambda: world.now)
    counts = Counter(world.calls)
    assert counts["none"] == counts["other"] == WARM_UP + 7
