"""The clock: interleaved samples, until every ratio is known well enough."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from maldrop_cli.analysis.stats import ratio_interval
from maldrop_cli.machine import synchronize
from maldrop_cli.timing.events import DeviceTimer, device_timer

SAMPLE_SECONDS = 0.02  # a sample holds as many steps as fit, at least one: far above a clock's resolution
MAX_STEPS = 200
WARM_UP = 3  # steps of each subject that are thrown away at least
SETTLED = 0.1  # warm-up goes on until a step takes no less than the one before, but for this share
MAX_WARM_UP = 20
MIN_ROUNDS = 10
MAX_ROUNDS = 2000
CHECK_EVERY = 5  # rounds

Clock = Callable[[], float]
Tick = Callable[[str, int, int], None]  # what, done, in all


@dataclass(frozen=True)
class Subject:
    """Something to time: ``step`` does it once."""

    name: str
    step: Callable[[], None]


@dataclass(frozen=True)
class Measured:
    """``samples``: by subject, seconds a step, the i-th of each from the same round. ``widest``: how far the 95 %
    interval of a ratio to one of the references reaches to either side at most, as a share of the ratio, and whose.
    ``budget_spent``: the time was up before all were narrow enough. ``sample_seconds``: what the shortest sample took
    in all. ``device_ms``: by subject, milliseconds a step on the device's own clock, of the same steps as ``samples``;
    empty where the device has none."""

    samples: dict[str, list[float]]
    widest: tuple[float, str]
    budget_spent: bool
    sample_seconds: float
    device_ms: Mapping[str, list[float]] = field(default_factory=dict)


def measure(
    subjects: Sequence[Subject],
    device: torch.device,
    references: Sequence[str],
    *,
    rounds: int | None = None,
    precision: float = 0.03,
    budget: float = 60.0,
    clock: Clock = time.perf_counter,
    timer: DeviceTimer | None = None,
    tick: Tick = lambda what, done, total: None,
    rng: random.Random | None = None,
) -> Measured:
    """Time every subject once a round, in random order, until the 95 % interval of its ratio to each of the
    ``references`` is within +-``precision`` of it, or ``budget`` seconds are spent; with ``rounds``, so many times.

    A sample is of as many steps as fit into a fiftieth of a second. The device is synchronised before and after it, and
    the garbage collector waits. Warm-up is thrown away: at least three steps, and until they no longer become faster.
    ``timer``: measures the same steps on the device's own clock; by default CUDA events, on a CUDA device.
    """
    rng, timer = rng or random.Random(0), timer or device_timer(device)
    began = clock()

    def sample(subject: Subject, steps: int) -> float:
        synchronize(device)
        if timer:
            timer.start()
        begin = clock()
        for _ in range(steps):
            subject.step()
        if timer:
            timer.stop()
        synchronize(device)
        return (clock() - begin) / steps

    with _without_garbage_collection():
        steps = {}
        for subject in subjects:
            warm = _warm_up(lambda subject=subject: sample(subject, 1))  # type: ignore[misc]
            steps[subject.name] = max(1, min(MAX_STEPS, round(SAMPLE_SECONDS / max(warm, 1e-9))))
        samples: dict[str, list[float]] = {subject.name: [] for subject in subjects}
        device_ms: dict[str, list[float]] = {subject.name: [] for subject in subjects if timer}
        done, finished, spent = 0, False, False
        while not finished:
            for subject in rng.sample(list(subjects), len(subjects)):
                samples[subject.name].append(sample(subject, steps[subject.name]))
                if timer:
                    device_ms[subject.name].append(timer.milliseconds() / steps[subject.name])
            done += 1
            if rounds is not None:
                finished = done >= rounds
                tick("timing rounds", done, rounds)
                continue
            spent = clock() - began >= budget or done >= MAX_ROUNDS
            if spent or (done >= MIN_ROUNDS and done % CHECK_EVERY == 0):
                finished = spent or widest_interval(samples, references)[0] <= precision
            tick("timing, % of the budget", 100 if finished else min(99, int(100 * (clock() - began) / budget)), 100)
    widest = widest_interval(samples, references)
    shortest = min(steps[name] * min(each) for name, each in samples.items())
    return Measured(samples, widest, spent and rounds is None and widest[0] > precision, shortest, device_ms)


def widest_interval(samples: dict[str, list[float]], references: Sequence[str]) -> tuple[float, str]:
    """How far the interval of any ratio to a reference reaches to either side at most, as a share of the ratio, and the
    subject whose it is."""
    widths = [(0.0, "")]
    for reference in references:
        for name in samples.keys() - {reference}:
            ratio, low, high = ratio_interval(samples[name], samples[reference])
            side = max(high - ratio, ratio - low) / ratio
            widths.append((side if math.isfinite(side) else math.inf, name))  # of one sample, nothing is known
    return max(widths)


def _warm_up(step: Callable[[], float]) -> float:
    """Seconds of the last of the steps that are thrown away."""
    before = step()
    for number in range(2, MAX_WARM_UP + 1):
        now = step()
        if number >= WARM_UP and now > (1 - SETTLED) * before:
            break
        before = now
    return now


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
