"""Torchvision's classifiers: their names, and the images they take. Loading torchvision takes two seconds: only where
one is used. What a network does to shapes is found on the meta device, where tensors have shapes and no numbers."""

from __future__ import annotations

import functools
import textwrap
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from maldrop_cli.config import CNN, UsageError, nearest
from maldrop_cli.data.dataset import Shape, one_line
from maldrop_cli.models.strip_head import find_end, strip_head

SIDES = (32, 64, 96, 128, 224, 299)  # of images, to suggest; most of the networks were made for 224


class ThreeChannels(nn.Module):
    """Shows grey images in all three channels."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


@functools.cache
def names() -> list[str]:
    """Every classifier of the installed torchvision."""
    from torchvision import models

    return list(models.list_models(module=models))


def build(name: str, shape: Shape, classes: int) -> tuple[nn.Sequential, nn.Linear]:
    """(backbone from images of one channel or three to hidden_ND, the last Linear), with torchvision's fresh weights.

    Raises UsageError for an unknown name and for a network that doesn't end in a Linear; AssertionError or ValueError
    for an image size that no such network can have.
    """
    if name not in names():
        near = nearest(name, [CNN, *names()])
        raise UsageError(
            "model", f"no model is called {name!r}{near} (cnn, or any classifier of torchvision that ends in a Linear)"
        )
    from torchvision.models import get_model

    _, height, width = shape
    settings: dict[str, Any] = {}
    if name.startswith("vit_"):
        settings = {"image_size": height}
    elif name.startswith("maxvit_"):
        settings = {"input_size": (height, width)}
    elif name in ("googlenet", "inception_v3"):  # one output only, and no warning that the default may change
        settings = {"aux_logits": False, "init_weights": True}
    network = get_model(name, weights=None, num_classes=classes, **settings)
    try:
        end, linear = find_end(network)
    except ValueError as error:
        raise UsageError("model", f"{name} will not do: {error}") from None
    return nn.Sequential(ThreeChannels(), strip_head(network, end)), linear


@functools.lru_cache(maxsize=32)
def blank(name: str, height: int = 224, width: int = 224) -> tuple[nn.Sequential, nn.Linear]:
    """As :func:`build`, for images of this size, but on the meta device. Draws nothing from torch's global stream.

    Parameters lose their memory as each is registered, before it is filled. Building all under
    ``torch.device("meta")`` would not do: some networks compute their layout with tensors. Callers set the mode.
    """

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    with register_module_parameter_registration_hook(without_memory), torch.random.fork_rng(devices=[]):
        backbone, linear = build(name, (3, height, width), 10)
    return backbone.to("meta"), linear


@functools.cache
def width(name: str, shape: Shape) -> int:
    """D, the neurons before the last Linear; UsageError where the network can't take images of ``shape``."""
    channels, height, width = shape
    _, linear = blank(name)
    if channels not in (1, 3):
        raise UsageError("", f"{name} takes images of 1 or 3 channels, not {channels}")
    if error := size_error(name, height, width):
        error = textwrap.shorten(error, 120, placeholder=" ...")
        side = next((side for side in SIDES if not size_error(name, side, side)), None)
        remedy = f"; try --image-size {side}" if side else ""
        raise UsageError("", f"{name} cannot take images of {height}x{width} ({error}){remedy}")
    return linear.in_features


@functools.cache
def size_error(name: str, height: int, width: int, *, single: bool = False) -> str:
    """What the network says of images of this size, in evaluation; empty where it takes them.

    ``single``: of a training batch of one image. Batch norm fails where its maps have shrunk to one cell.
    """
    try:
        backbone, _ = blank(name, height, width)
        with torch.no_grad():
            backbone.train(single)(torch.empty(1 if single else 2, 3, height, width, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        return one_line(error)
    return ""


def lacks_deterministic_gradient(model: str) -> bool:
    """Whether torch has no deterministic gradient of ``model`` on CUDA: that of adaptive average pooling to more than
    one cell. To one cell, it is a mean."""
    pooling = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
    return model != CNN and any(
        isinstance(module, pooling) and module.output_size not in (1, (1,), (1, 1), (1, 1, 1))
        for module in blank(model)[0].modules()
    )
