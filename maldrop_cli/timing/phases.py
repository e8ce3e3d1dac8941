"""Where the time of a step goes."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch.nn.functional as F

from maldrop_cli import mask_metrics
from maldrop_cli.config import RunConfig
from maldrop_cli.dropout import TargetedDropout
from maldrop_cli.dropout.scores import SCORES, LastLayer
from maldrop_cli.dropout.selectors import scores_apart
from maldrop_cli.machine import synchronize
from maldrop_cli.models import make_optimizer
from maldrop_cli.timing.cases import Setting, fresh_model, name_of, random_batch
from maldrop_cli.timing.clock import MIN_WARM_UP, Clock

PHASES = ("forward", "score", "select", "mask", "backward", "optimizer")


def phases(
    configs: Sequence[RunConfig], setting: Setting, rounds: int, clock: Clock = time.perf_counter
) -> dict[str, Mapping[str, float]]:
    """By case, the median seconds of each phase of a training step. The device is synchronised after each phase.

    ``forward``: to the hidden layer. ``score``: the score alone, by a call of its own. ``select``: the selector less
    the score. ``mask``: the last layer and the loss less the selector. A selector that searches sets, or scores only
    the neurons that it decides about, is all ``select``.
    """
    steps = [_step_in_phases(config, setting, clock) for config in configs]
    measured = [[step() for step in steps] for _ in range(MIN_WARM_UP + rounds)][MIN_WARM_UP:]
    return {
        name_of(config): {phase: median(step[phase] for step in own) for phase in PHASES}
        for config, own in zip(configs, zip(*measured, strict=True), strict=True)
    }


def _step_in_phases(config: RunConfig, setting: Setting, clock: Clock) -> Callable[[], dict[str, float]]:
    """A training step that returns the seconds of each phase."""
    model = fresh_model(config, setting)
    optimizer = make_optimizer(model, config, setting.device)
    images, labels_N = random_batch(config, setting)
    part = mask_metrics.counted(model.head.regulariser)
    last = 0.0

    def lap() -> float:
        """Seconds since the last call."""
        nonlocal last
        synchronize(setting.device)
        before, last = last, clock()
        return last - before

    def step() -> dict[str, float]:
        lap()
        hidden_ND = model.backbone(images)
        seconds = dict.fromkeys(PHASES, 0.0) | {"forward": lap()}
        if isinstance(part, TargetedDropout):
            layer = LastLayer(hidden_ND.detach(), model.head.weight, model.head.bias, labels_N)
            if scores_apart(part.selector, part.options):
                SCORES[part.selector](layer, part.options)
            seconds["score"] = lap()
            part.select(layer)
            seconds["select"] = max(lap() - seconds["score"], 0.0)
        loss = F.cross_entropy(model.head(hidden_ND, labels_N), labels_N)
        seconds["mask"] = max(lap() - seconds["score"] - seconds["select"], 0.0)
        optimizer.zero_grad()
        loss.backward()
        seconds["backward"] = lap()
        optimizer.step()
        return seconds | {"optimizer": lap()}

    return step
