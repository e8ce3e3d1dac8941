"""The per-neuron forms that the paper calls too slow, timed on as many neurons as the budget allows."""

import time
from dataclasses import replace

import torch

from maldrop_cli.config import RunConfig
from maldrop_cli.dropout import SELECTORS, TargetedDropout
from maldrop_cli.dropout.naive import NAIVE
from maldrop_cli.dropout.scores import LastLayer, Options
from maldrop_cli.dropout.selectors import mask_of, top_rho
from maldrop_cli.machine import synchronize
from maldrop_cli.mask_metrics import overlap
from maldrop_cli.timing.cases import Setting, Timing, fresh_model, random_batch, random_layer
from maldrop_cli.timing.clock import Clock, Samples

REPEATS = 3
MIN_NEURONS = 4
AGREEMENT_EXAMPLES, AGREEMENT_NEURONS = 8, 512


def time_naive(
    name: str, config: RunConfig, setting: Setting, none: Samples, budget: float, clock: Clock = time.perf_counter
) -> Timing:
    """Time the naive form ``name`` of the config's selector: its step is a step of ``none``, without dropout, and the
    scores of all D neurons, which are those of ``neurons`` of them, times D/neurons. ``budget``: seconds."""
    layer, options = _layer(config, setting)
    width = layer.hidden_ND.shape[1]

    def seconds(neurons: int) -> float:
        part = _part(layer, neurons)
        synchronize(setting.device)
        begin = clock()
        NAIVE[name][1](part, options)
        synchronize(setting.device)
        return clock() - begin

    neurons = min(MIN_NEURONS, width)
    spent = seconds(neurons)
    while neurons < width and 2 * REPEATS * spent < budget:
        neurons = min(2 * neurons, width)
        spent = seconds(neurons)
    steps = [step + seconds(neurons) * width / neurons for step in none.seconds[:REPEATS]]
    return Timing(config, Samples(name, steps), neurons=neurons, agreement=_agreement(name, config, setting))


def _agreement(name: str, config: RunConfig, setting: Setting) -> float:
    """``agreement`` of a :class:`Timing`: on a few examples and neurons, in float64 on the CPU."""
    layer, options = _layer(config, replace(setting, device=torch.device("cpu")), torch.float64)
    assert layer.labels_N is not None
    few = slice(AGREEMENT_EXAMPLES)
    layer = _part(layer._replace(hidden_ND=layer.hidden_ND[few], labels_N=layer.labels_N[few]), AGREEMENT_NEURONS)
    fast, score = NAIVE[name]
    rho = min(config.rho, layer.hidden_ND.shape[1])
    drops = [select(layer, rho, options) for select in (SELECTORS[fast], top_rho(score))]
    return 100 * overlap(*(~mask_of(layer.hidden_ND, drop) for drop in drops))


def _layer(config: RunConfig, setting: Setting, dtype: torch.dtype = torch.float32) -> tuple[LastLayer, Options]:
    model, (_, labels_N) = fresh_model(config, setting).to(dtype), random_batch(config, setting)
    assert isinstance(model.head.regulariser, TargetedDropout)
    return random_layer(model, labels_N), model.head.regulariser.options


def _part(layer: LastLayer, neurons: int) -> LastLayer:
    """The first ``neurons``."""
    weight_CD = layer.weight_CD[:, :neurons].contiguous()
    return layer._replace(hidden_ND=layer.hidden_ND[:, :neurons], weight_CD=weight_CD)
