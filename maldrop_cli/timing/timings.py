"""What was timed, the per-neuron forms that the paper calls too slow included, and how far to believe it."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from maldrop_cli.config import RunConfig
from maldrop_cli.data.load import Split
from maldrop_cli.dropout import SELECTORS, TargetedDropout
from maldrop_cli.dropout.naive import NAIVE
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.dropout.selectors import mask_of, top_rho
from maldrop_cli.machine import synchronize
from maldrop_cli.mask_metrics import fidelity, overlap
from maldrop_cli.models import Classifier, Normalise, describe_head
from maldrop_cli.models.variants import build_regulariser
from maldrop_cli.timing.cases import Setting, Timing, fresh_model, random_batch, random_layer, training_steps
from maldrop_cli.timing.clock import Clock, Samples, Tick, measure, peak_mib, widest_interval

REFERENCES = ("none", "vanilla")
NAIVE_REPEATS = 3
MIN_NEURONS = 4  # that a naive form is timed on
AGREEMENT_EXAMPLES, AGREEMENT_NEURONS = 8, 512
MAX_IQR = 0.25  # interquartile range, as a share of the median
MAX_DRIFT = 0.1  # of the median of the last third from that of the first, as a share
MIN_TO_DRIFT = 9
MIN_TICKS = 1000  # of the clock, in a sample
MAX_LOAD = 0.5  # processes that wanted to run before the timing began


def time_cases(
    configs: Sequence[RunConfig],
    setting: Setting,
    *,
    rounds: int | None,
    precision: float,
    budget: float,
    naive: bool,
    tick: Tick,
    timings: list[Timing],
) -> None:
    """Time a step of each config, the first of which is ``none``; ``rounds``, ``precision``, ``budget`` and ``tick`` as
    in :func:`measure`. ``naive``: after a selector comes its naive form, which gets a tenth of the budget.

    ``timings``, empty at first, holds what there is even if Ctrl-C ends this. :func:`with_fidelity` adds what is still
    missing."""
    cases, measured = training_steps(configs, setting), list[Samples]()
    how: dict[str, Any] = {"rounds": rounds, "precision": precision, "budget": budget, "tick": tick}
    try:
        measure(cases, setting.device, REFERENCES, **how, into=measured)
    finally:
        timings += [Timing(config, samples) for config, samples in zip(configs, measured, strict=False)]
    for timing in list(timings):
        place = timings.index(timing)
        timings[place] = replace(timing, peak_mib=peak_mib(cases[timing.samples.name], setting.device))
        forms = [name for name, (fast, _) in NAIVE.items() if naive and fast == timing.samples.name]
        timed = [time_naive(name, timing.config, setting, measured[0], budget / 10) for name in forms]
        timings[place + 1 : place + 1] = timed


def time_naive(
    name: str, config: RunConfig, setting: Setting, none: Samples, budget: float, clock: Clock = time.perf_counter
) -> Timing:
    """Time the naive form ``name`` of the config's selector on as many neurons as ``budget`` seconds allow: its step is
    a step of ``none``, without dropout, and the scores of all D neurons, which are those of ``neurons`` of them, times
    D/neurons. ``agreement`` is found in float64 on the CPU, on a few examples and neurons."""
    fast, score = NAIVE[name]
    model, (_, labels_N) = fresh_model(config, setting), random_batch(config, setting)
    assert isinstance(model.head.regulariser, TargetedDropout)
    layer, options = random_layer(model, labels_N), model.head.regulariser.options
    width = model.head.in_features

    def seconds(neurons: int) -> float:
        part = _part(layer, neurons)
        synchronize(setting.device)
        begin = clock()
        score(part, options)
        synchronize(setting.device)
        return clock() - begin

    neurons = min(MIN_NEURONS, width)
    spent = seconds(neurons)
    while neurons < width and 2 * NAIVE_REPEATS * spent < budget:
        neurons = min(2 * neurons, width)
        spent = seconds(neurons)
    steps = [step + seconds(neurons) * width / neurons for step in none.seconds[:NAIVE_REPEATS]]
    few = _part(random_layer(model.cpu().double(), labels_N.cpu()), AGREEMENT_NEURONS, AGREEMENT_EXAMPLES)
    rho = min(config.rho, few.hidden_ND.shape[1])
    drops = [select(few, rho, options) for select in (SELECTORS[fast], top_rho(score))]
    agreement = 100 * overlap(*(~mask_of(few.hidden_ND, drop) for drop in drops))
    return Timing(config, Samples(name, steps), neurons=neurons, agreement=agreement)


def _part(layer: LastLayer, neurons: int, examples: int | None = None) -> LastLayer:
    """The first ``neurons`` and, of the batch, the first ``examples``."""
    hidden_ND, weight_CD, bias_C, labels_N = layer
    assert labels_N is not None
    return LastLayer(hidden_ND[:examples, :neurons], weight_CD[:, :neurons].contiguous(), bias_C, labels_N[:examples])


def with_fidelity(
    timings: Sequence[Timing], setting: Setting, model: Classifier, normalise: Normalise, probe: Split
) -> list[Timing]:
    """The timings, complete with what the masks do to ``model``, a trained classifier, on the images ``probe``."""
    complete = []
    for timing in timings:
        if timing.neurons is None:
            head = describe_head(timing.config, setting.shape, setting.classes)
            model.head.regulariser = build_regulariser(timing.config, head, None).to(setting.device)
            timing = replace(timing, fidelity=fidelity(model, normalise, probe, timing.config.rho, seed=0))
        complete.append(timing)
    return complete


def warnings(
    timings: Sequence[Timing],
    *,
    precision: float,
    load: float | None,
    resolution: float = time.get_clock_info("perf_counter").resolution,
) -> list[str]:
    """What the reader should know before believing the times, a line each.

    ``precision``: as for :func:`measure`; infinite where the number of rounds was given. ``load``: how many processes
    wanted to run before the timing began; None where the system doesn't tell. ``resolution``: of the clock, in seconds.
    """
    fast = [timing.samples for timing in timings if timing.neurons is None]
    width, whose = widest_interval(fast, REFERENCES)
    known = f"is within ±{100 * width:.1f} %" if math.isfinite(width) else "has too few samples"
    unstable = ", ".join(each.name for each in fast if each.iqr_ms > MAX_IQR * each.median_ms)
    drifting = ", ".join(each.name for each in fast if abs(drift(each.seconds)) > MAX_DRIFT)
    shortest = min(each.steps * min(each.seconds) for each in fast)
    lines = {
        f"--budget was spent before every ratio was within ±{100 * precision:g} %: that of {whose} {known}.": (
            width > precision
        ),
        f"Unstable: the interquartile range of {unstable} is above {100 * MAX_IQR:g} % of the median. The ratios "
        "suffer less from this than the times, and least with one thread (--threads 1).": bool(unstable),
        f"Drifting: the last third of the samples of {drifting} differs from the first by more than "
        f"{100 * MAX_DRIFT:g} %.": bool(drifting),
        f"A sample lasts {shortest:.2g} s, below {MIN_TICKS} ticks of a clock of {resolution:.1g} s.": (
            shortest < MIN_TICKS * resolution
        ),
    }
    return [line for line, applies in lines.items() if applies] + other_work(load)


def other_work(load: float | None) -> list[str]:
    """A line where there was some; ``load`` as in :func:`warnings`."""
    if load is None or load <= MAX_LOAD:
        return []
    return [f"Other work ran on this machine before the timing began (load {load:.1f})."]


def drift(samples: Sequence[float]) -> float:
    """By what share the median of the last third differs from that of the first; 0 for a few samples."""
    if len(samples) < MIN_TO_DRIFT:
        return 0.0
    third = len(samples) // 3
    return median(samples[-third:]) / median(samples[:third]) - 1
