"""Where the time of a step goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch.nn.functional as F

from maldrop_cli import mask_metrics
from maldrop_cli.config import RunConfig
from maldrop_cli.dropout import TargetedDropout
from maldrop_cli.dropout.scores import SCORES, LastLayer
from maldrop_cli.dropout.selectors import scores_apart
from maldrop_cli.machine import synchronize
from maldrop_cli.models import make_optimizer
from maldrop_cli.timing.cases import Setting, fresh_model, name_of, random_images, random_labels
from maldrop_cli.timing.clock import WARM_UP, Clock

PHASES = ("forward", "score", "select", "mask", "backward", "optimizer")


def phases(
    configs: Sequence[RunConfig], setting: Setting, rounds: int, clock: Clock = time.perf_counter
) -> dict[str, dict[str, float]]:
    """By subject, the median seconds of each phase of a training step, the device synchronised in between.

    ``forward``: to the hidden layer. ``score``: the score alone, by a call of its own. ``select``: the selector less
    the score. ``mask``: the last layer and the loss less the selector. A selector that searches sets, or scores only
    the neurons that it decides about, is all ``select``.
    """
    found: dict[str, dict[str, list[float]]] = {}
    steppers = {name_of(config): _Stepper(config, setting, clock) for config in configs}
    for number in range(WARM_UP + rounds):
        for name, stepper in steppers.items():
            seconds = stepper.step()
            if number >= WARM_UP:
                for phase, value in seconds.items():
                    found.setdefault(name, {}).setdefault(phase, []).append(value)
    return {
        name: {phase: statistics.median(values) for phase, values in by_phase.items()}
        for name, by_phase in found.items()
    }


class _Stepper:
    def __init__(self, config: RunConfig, setting: Setting, clock: Clock) -> None:
        self.model = fresh_model(config, setting)
        self.optimizer = make_optimizer(self.model, config, setting.device)
        self.images, self.labels = random_images(config.batch_size, setting), random_labels(config.batch_size, setting)
        self.device, self.clock = setting.device, clock

    def _now(self) -> float:
        synchronize(self.device)
        return self.clock()

    def step(self) -> dict[str, float]:
        start = self._now()
        hidden = self.model.backbone(self.images)
        after_forward = self._now()
        head = self.model.head
        score, select = self._choosing(LastLayer(hidden.detach(), head.weight, head.bias, self.labels))
        before_head = self._now()
        loss = F.cross_entropy(head(hidden, self.labels), self.labels)
        after_head = self._now()
        self.optimizer.zero_grad()
        loss.backward()
        after_backward = self._now()
        self.optimizer.step()
        end = self._now()
        choosing = min(score + select, after_head - before_head)
        return {
            "forward": after_forward - start,
            "score": score,
            "select": select,
            "mask": after_head - before_head - choosing,
            "backward": after_backward - after_head,
            "optimizer": end - after_backward,
        }

    def _choosing(self, layer: LastLayer) -> tuple[float, float]:
        """(seconds to score, seconds of the selector beyond that)."""
        part = mask_metrics.counted(self.model.head.regulariser)
        if not isinstance(part, TargetedDropout):
            return 0.0, 0.0
        start = self._now()
        if scores_apart(part.selector, part.options):
            SCORES[part.selector](layer, part.options)
        scored = self._now()
        part.select(layer)
        return scored - start, max(self._now() - scored - (scored - start), 0.0)
