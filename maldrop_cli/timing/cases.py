"""What is timed: whole training steps, or the last layer alone, all on one random batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maldrop_cli.config import Dropout, RunConfig
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.models import Classifier, Shape, build_model, describe_head, make_optimizer
from maldrop_cli.timing.clock import Subject


@dataclass(frozen=True)
class Setting:
    """Where and how steps are done. ``layer``: the last layer alone, forward and backward, without an optimiser."""

    shape: Shape
    classes: int
    device: torch.device
    layer: bool = False
    bf16: bool = False
    compiled: bool = False


def name_of(config: RunConfig) -> str:
    """``maldrop`` goes by the name of its selector."""
    return str(config.selector if config.dropout is Dropout.MALDROP else config.dropout)


def subjects(configs: Sequence[RunConfig], setting: Setting) -> list[Subject]:
    """One for each config, on the same batch and with the same weights."""
    return [Subject(name_of(config), step_of(fresh_model(config, setting), config, setting)) for config in configs]


def step_of(model: Classifier, config: RunConfig, setting: Setting) -> Callable[[], None]:
    """A training step of ``model`` on a random batch, always the same."""
    labels = random_labels(config.batch_size, setting)
    forward: Callable[[Tensor, Tensor], Tensor] = model
    inputs, optimizer = random_images(config.batch_size, setting), None
    if setting.layer:
        forward, inputs = model.head, random_hidden(config, setting).requires_grad_()
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


def random_images(examples: int, setting: Setting) -> Tensor:
    """(N, C, H, W), normally distributed."""
    return torch.randn((examples, *setting.shape), generator=torch.Generator().manual_seed(0)).to(setting.device)


def random_labels(examples: int, setting: Setting) -> Tensor:
    """labels_N."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, setting.classes, (examples,), generator=generator).to(setting.device)


def random_hidden(config: RunConfig, setting: Setting) -> Tensor:
    """hidden_ND, normally distributed and after a ReLU, as the layer before the last usually is."""
    width = describe_head(config, setting.shape, setting.classes).width
    generator = torch.Generator().manual_seed(0)
    return torch.randn((config.batch_size, width), generator=generator).relu().to(setting.device)


def last_layer(config: RunConfig, setting: Setting) -> LastLayer:
    """What the selectors see: a random batch, and the fresh weights of the model's head."""
    head: nn.Linear = fresh_model(replace(config, dropout=Dropout.NONE), setting).head
    bias = None if head.bias is None else head.bias.detach()
    labels = random_labels(config.batch_size, setting)
    return LastLayer(random_hidden(config, setting), head.weight.detach(), bias, labels)
