"""The clock: interleaved samples, until every ratio is known well enough; and the peak memory of a step."""

import itertools
import math
import random
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from maldrop_cli.analysis.stats import ratio_interval
from maldrop_cli.machine import synchronize

SAMPLE_SECONDS = 0.02  # a sample holds as many steps as fit, at least one: far above a clock's resolution
MAX_STEPS = 200
MIN_WARM_UP, MAX_WARM_UP = 3, 20  # steps of each case that are thrown away
SETTLED = 0.1  # warm-up ends when a step is no longer faster than the one before by this share
MIN_ROUNDS, MAX_ROUNDS = 10, 2000
CHECK_EVERY = 5  # rounds

Step = Callable[[], object]  # does once what is timed
Clock = Callable[[], float]
Tick = Callable[[str, int, int], None]  # what, done, in all


@dataclass(frozen=True)
class Samples:
    """The times of a case. ``seconds``: a step's, the i-th from round i. ``steps``: in a sample. ``device_ms``:
    milliseconds of the same steps on the device's own clock; None where the device has none."""

    name: str
    seconds: list[float]
    steps: int = 1
    device_ms: list[float] | None = None

    @property
    def median_ms(self) -> float:
        return 1000 * median(self.seconds)

    @property
    def iqr_ms(self) -> float:
        low, high = np.percentile(self.seconds, [25, 75])
        return float(1000 * (high - low))

    @property
    def median_device_ms(self) -> float | None:
        return median(self.device_ms) if self.device_ms else None


class DeviceTimer(NamedTuple):
    """Marks the begin and the end of a sample; ``milliseconds``: between them, once the device is synchronised."""

    start: Callable[[], None]
    stop: Callable[[], None]
    milliseconds: Callable[[], float]


def cuda_timer(device: torch.device) -> DeviceTimer:
    """Two CUDA events, on the stream of ``device``: by default they would be on that of the current device."""
    stream = torch.cuda.current_stream(device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    return DeviceTimer(lambda: begin.record(stream), lambda: end.record(stream), lambda: begin.elapsed_time(end))


def measure(
    cases: Mapping[str, Step],
    device: torch.device,
    references: Sequence[str],
    *,
    rounds: int | None = None,
    precision: float = 0.03,
    budget: float = 60.0,
    clock: Clock = time.perf_counter,
    timer: DeviceTimer | None = None,
    tick: Tick = lambda what, done, total: None,
    into: list[Samples] | None = None,
) -> list[Samples]:
    """Time every case once a round, in random order, until the 95 % interval of its ratio to each of the ``references``
    is within +-``precision`` of it, or ``budget`` seconds are spent; with ``rounds``, that many times.

    A sample holds as many steps as fit into a fiftieth of a second. The device is synchronised before and after it, and
    the garbage collector is off. Warm-up steps are thrown away: at least three, and until they no longer become faster.
    ``timer``: measures the same steps on the device's own clock; by default CUDA events, on a CUDA device. ``into``:
    also holds what is returned, from the first round on, for a caller that is interrupted.
    """
    if timer is None and device.type == "cuda":
        timer = cuda_timer(device)
    rng, began = random.Random(0), clock()

    def sample(step: Step, steps: int) -> float:
        def begin() -> None:
            synchronize(device)
            if timer:
                timer.start()

        def run() -> None:
            for _ in range(steps):
                step()
            if timer:
                timer.stop()
            synchronize(device)

        return timeit.timeit(run, begin, clock, number=1) / steps  # without the garbage collector

    measured = []
    for name, step in cases.items():
        steps = round(SAMPLE_SECONDS / max(_warm_up(partial(sample, step, 1)), 1e-9))
        measured.append(Samples(name, [], max(1, min(MAX_STEPS, steps)), [] if timer else None))
    for done in itertools.count(1):
        for own in rng.sample(measured, len(measured)):
            own.seconds.append(sample(cases[own.name], own.steps))
            if timer and own.device_ms is not None:
                own.device_ms.append(timer.milliseconds() / own.steps)
        if into is not None and done == 1:
            into += measured
        if rounds is not None:
            finished = done >= rounds
            tick("timing rounds", done, rounds)
        else:
            finished = clock() - began >= budget or done >= MAX_ROUNDS
            if not finished and done >= MIN_ROUNDS and done % CHECK_EVERY == 0:
                finished = widest_interval(measured, references)[0] <= precision
            tick("timing, % of the budget", 100 if finished else min(99, int(100 * (clock() - began) / budget)), 100)
        if finished:
            break
    return measured


def widest_interval(measured: Sequence[Samples], references: Sequence[str]) -> tuple[float, str]:
    """Of all 95 % intervals of ratios to the references, the widest: how far its longer side reaches, as a share of the
    ratio (infinite without an interval), and whose it is."""
    widths = [(0.0, "")]
    for own, reference in itertools.permutations(measured, 2):
        if reference.name in references:
            ratio, low, high = ratio_interval(own.seconds, reference.seconds)
            side = max(high - ratio, ratio - low) / ratio
            widths.append((side if math.isfinite(side) else math.inf, own.name))
    return max(widths)


def _warm_up(step: Callable[[], float]) -> float:
    """Seconds of the last step that is thrown away."""
    before = step()
    for number in range(2, MAX_WARM_UP + 1):
        now = step()
        if number >= MIN_WARM_UP and now > (1 - SETTLED) * before:
            break
        before = now
    return now


def peak_mib(step: Step, device: torch.device) -> float:
    """The most memory, in MiB, that one step holds beyond what was held before it; nan where torch doesn't tell."""
    if device.type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if device.type != "cpu":
        return math.nan
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    held = itertools.accumulate((event.nbytes() for event in events if event.name() == "[memory]"), initial=0)
    return float(max(held)) / 2**20
