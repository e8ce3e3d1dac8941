"""The per-neuron forms that the paper calls too slow, timed on as many neurons as there is time for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maldrop_cli.config import Granularity, RunConfig
from maldrop_cli.dropout import SELECTORS
from maldrop_cli.dropout.naive import NAIVE
from maldrop_cli.dropout.scores import LastLayer, Options, omega_value
from maldrop_cli.dropout.selectors import mask_of, top_rho
from maldrop_cli.machine import synchronize
from maldrop_cli.mask_metrics import overlap
from maldrop_cli.timing.cases import Setting, last_layer
from maldrop_cli.timing.clock import Clock

REPEATS = 3
AGREEMENT_EXAMPLES = 8
FIRST_NEURONS = 4


@dataclass(frozen=True)
class NaiveTiming:
    """``seconds``: for the scores of all D neurons, from ``neurons`` of them times D/neurons, three times over.
    ``agreement``: the share of its dropped neurons, in percent, that its fast form drops too."""

    seconds: Sequence[float]
    neurons: int
    agreement: float


def naive_timings(
    configs: Sequence[RunConfig], setting: Setting, budget: float, clock: Clock = time.perf_counter
) -> Mapping[str, NaiveTiming]:
    """By name, for every config whose selector has a naive form; ``budget``: seconds for each."""
    found = {}
    for config in configs:
        for name, (fast, score) in NAIVE.items():
            if fast != config.selector.value:
                continue
            layer = last_layer(config, setting)
            options = _options(config, layer)
            width = layer.hidden_ND.shape[1]

            def seconds(neurons: int, layer: LastLayer = layer, options: Options = options) -> float:
                part = layer._replace(
                    hidden_ND=layer.hidden_ND[:, :neurons], weight_CD=layer.weight_CD[:, :neurons].contiguous()
                )
                synchronize(setting.device)
                begin = clock()
                score(part, options)  # noqa: B023  # called before the next turn
                synchronize(setting.device)
                return clock() - begin

            neurons, spent = min(FIRST_NEURONS, width), seconds(min(FIRST_NEURONS, width))
            while neurons < width and 2 * REPEATS * spent < budget:
                neurons = min(2 * neurons, width)
                spent = seconds(neurons)
            samples = [seconds(neurons) * width / neurons for _ in range(REPEATS)]
            found[name] = NaiveTiming(samples, neurons, agreement(config, setting, name))
    return found


def agreement(config: RunConfig, setting: Setting, name: str) -> float:
    """The share of the neurons dropped by the naive form ``name``, in percent, that its fast form drops too: on eight
    examples and at most 512 neurons, in float64 on the CPU."""
    layer = last_layer(config, setting)
    assert layer.labels_N is not None
    bias_C = None if layer.bias_C is None else layer.bias_C.cpu().double()
    neurons = slice(0, 512)
    layer = LastLayer(
        layer.hidden_ND[:AGREEMENT_EXAMPLES, neurons].cpu().double(),
        layer.weight_CD[:, neurons].cpu().double(),
        bias_C,
        layer.labels_N[:AGREEMENT_EXAMPLES].cpu(),
    )
    fast, score = NAIVE[name]
    rho, options = min(config.rho, layer.hidden_ND.shape[1]), _options(config, layer)
    drops = [select(layer, rho, options) for select in (SELECTORS[fast], top_rho(score))]
    return 100 * overlap(*(~mask_of(layer.hidden_ND, drop) for drop in drops))


def _options(config: RunConfig, layer: LastLayer) -> Options:
    classes, width = layer.weight_CD.shape
    return Options(omega_value(config.omega, width, classes), config.granularity is Granularity.SAMPLE)


def fast_form(name: str) -> str:
    """The selector of which ``name`` is the naive form."""
    return NAIVE[name][0]
