"""What is timed: whole training steps, or the last layer alone. All cases get the same random batch and weights."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.config import Dropout, RunConfig
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.mask_metrics import Fidelity
from maldrop_cli.models import Classifier, Shape, build_model, make_optimizer
from maldrop_cli.timing.clock import Case, Samples


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


def training_steps(configs: Sequence[RunConfig], setting: Setting) -> list[Case]:
    """A case for each config."""
    return [Case(name_of(config), step_of(fresh_model(config, setting), config, setting)) for config in configs]


def step_of(model: Classifier, config: RunConfig, setting: Setting) -> Callable[[], None]:
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
