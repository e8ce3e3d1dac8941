"""What is timed: whole training steps, their phases, the last layer alone; all on the same random batch and weights."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.config import RunConfig
from maldrop_cli.data.dataset import Shape
from maldrop_cli.dropout import TargetedDropout
from maldrop_cli.dropout.scores import SCORES, LastLayer
from maldrop_cli.dropout.selectors import scores_apart
from maldrop_cli.machine import synchronize
from maldrop_cli.mask_metrics import Fidelity, counted
from maldrop_cli.models import Classifier, build_model, make_optimizer
from maldrop_cli.names import Dropout
from maldrop_cli.timing.clock import MIN_WARM_UP, Clock, Samples, Step

PHASES = ("forward", "score", "select", "mask", "backward", "optimizer")


@dataclass(frozen=True)
class Setting:
    """Where and how steps are done. ``layer``: the last layer alone, forward and backward, without an optimiser."""

    shape: Shape
    classes: int
    device: torch.device
    layer: bool = False
    bf16: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Timing:
    """All that is known of a case. ``fidelity``: what its masks do to a trained network; None where it has no such
    masks. Of a per-neuron form, ``config`` is that of the fast form, ``neurons``, how many were timed, and
    ``agreement``, the share of the neurons that it drops, in percent, that the fast form drops too."""

    config: RunConfig
    samples: Samples
    peak_mib: float = math.nan
    fidelity: Fidelity | None = None
    neurons: int | None = None
    agreement: float | None = None


def name_of(config: RunConfig) -> str:
    """The dropout variant; ``maldrop`` goes by the name of its selector."""
    return str(config.selector if config.dropout is Dropout.MALDROP else config.dropout)


def training_steps(configs: Sequence[RunConfig], setting: Setting) -> dict[str, Step]:
    """A case for each config."""
    return {name_of(config): step_of(fresh_model(config, setting), config, setting) for config in configs}


def step_of(model: Classifier, config: RunConfig, setting: Setting) -> Step:
    """A training step of ``model`` on the random batch."""
    inputs, labels = random_batch(config, setting)
    forward: Callable[[Tensor, Tensor], Tensor] = model
    optimizer = None
    if setting.layer:
        forward, inputs = model.head, random_layer(model, labels).hidden_ND.requires_grad_()
    else:
        optimizer = make_optimizer(model, config, setting.device)
    if setting.compiled:
        forward = torch.compile(forward)
    autocast: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if setting.bf16:
        autocast = torch.autocast(setting.device.type, torch.bfloat16)

    def step() -> None:
        with autocast:
            loss = F.cross_entropy(forward(inputs, labels), labels)
        model.zero_grad()
        inputs.grad = None
        loss.backward()
        if optimizer is not None:
            optimizer.step()

    return step


def phases(
    configs: Sequence[RunConfig], setting: Setting, rounds: int, clock: Clock = time.perf_counter
) -> dict[str, Mapping[str, float]]:
    """By case, the median seconds of each phase of a training step. The device is synchronised after each phase.

    ``forward``: to the hidden layer. ``score``: the score alone, by a call of its own. ``select``: the selector less
    the score. ``mask``: the last layer and the loss less the selector. A selector that searches sets, or scores only
    the neurons that it decides about, is all ``select``.
    """
    steps = {name_of(config): _step_in_phases(config, setting, clock) for config in configs}
    measured = [{name: step() for name, step in steps.items()} for _ in range(MIN_WARM_UP + rounds)][MIN_WARM_UP:]
    return {name: {phase: median(each[name][phase] for each in measured) for phase in PHASES} for name in steps}


def _step_in_phases(config: RunConfig, setting: Setting, clock: Clock) -> Callable[[], dict[str, float]]:
    """A training step that returns the seconds of each phase."""
    model = fresh_model(config, setting)
    optimizer = make_optimizer(model, config, setting.device)
    images, labels_N = random_batch(config, setting)
    part = counted(model.head.regulariser)
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


def fresh_model(config: RunConfig, setting: Setting) -> Classifier:
    """In training mode, with the same weights for every variant."""
    torch.manual_seed(0)
    noise = torch.Generator(setting.device).manual_seed(0)
    return build_model(config, setting.shape, setting.classes, noise).to(setting.device).train()


def random_batch(config: RunConfig, setting: Setting) -> tuple[Tensor, Tensor]:
    """(images (N, C, H, W), normally distributed, labels_N)."""
    images = torch.randn((config.batch_size, *setting.shape), generator=torch.Generator().manual_seed(0))
    labels_N = torch.randint(0, setting.classes, images.shape[:1], generator=torch.Generator().manual_seed(0))
    return images.to(setting.device), labels_N.to(setting.device)


def random_layer(model: Classifier, labels_N: Tensor) -> LastLayer:
    """The model's head with a random input: hidden_ND, normally distributed, after a ReLU."""
    weight_CD, bias_C = model.head.weight.detach(), model.head.bias
    hidden_ND = torch.randn((len(labels_N), weight_CD.shape[1]), generator=torch.Generator().manual_seed(0)).relu()
    return LastLayer(hidden_ND.to(weight_CD), weight_CD, None if bias_C is None else bias_C.detach(), labels_N)
