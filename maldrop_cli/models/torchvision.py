"""Torchvision's classifiers: their names, and what they take. Loading torchvision costs two seconds: only where used.

What a network does to shapes is found on the meta device, where tensors have shapes and no numbers.
"""

from __future__ import annotations

import functools
import textwrap
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from maldrop_cli.config import CNN, UsageError, nearest
from maldrop_cli.data.dataset import Shape
from maldrop_cli.models.strip_head import CutNetwork, cut

SIDES = (32, 64, 96, 128, 224, 299)  # of images, to suggest; 224 is what most of the networks were made for
USUAL: Shape = (3, 224, 224)


class ThreeChannels(nn.Module):
    """Shows grey images in all three channels."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


@functools.cache
def names() -> list[str]:
    """Every classifier of the installed torchvision."""
    from torchvision import models

    return list(models.list_models(module=models))


def build(name: str, shape: Shape, classes: int) -> nn.Module:
    """Torchvision's network with fresh weights, as torchvision itself would build and draw it.

    Raises UsageError for an unknown name; AssertionError or ValueError for a side that no such network can have.
    """
    if name not in names():
        near = nearest(name, [CNN, *names()])
        raise UsageError(
            "model", f"no model is called {name!r}{near} (cnn, or any classifier of torchvision that ends in a Linear)"
        )
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None, num_classes=classes, **_further(name, shape))
    return network


def _further(name: str, shape: Shape) -> dict[str, Any]:
    _, height, width = shape
    if name.startswith("vit_"):
        return {"image_size": height}
    if name.startswith("maxvit_"):
        return {"input_size": (height, width)}
    if name in ("googlenet", "inception_v3"):  # one output only, and no warning that the default may change
        return {"aux_logits": False, "init_weights": True}
    return {}


def backbone(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """The network up to its last Linear and the Dropout before it, for images of one channel or three; the Linear."""
    cut_network, linear = cut(network)
    return nn.Sequential(ThreeChannels(), cut_network), linear


@functools.lru_cache(maxsize=32)
def blank(name: str, shape: Shape = USUAL, classes: int = 10) -> tuple[CutNetwork, nn.Linear]:
    """``name`` without numbers, on the meta device, cut: (images to hidden_ND, the last Linear). Callers set its mode.

    Parameters lose their memory as each is registered, before it is filled. Building all under
    ``torch.device("meta")`` would not do: some networks compute their layout with tensors. Draws nothing from torch's
    global stream. Raises what :func:`build` raises, and UsageError for a network that doesn't end in a Linear.
    """

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    handle = register_module_parameter_registration_hook(without_memory)
    try:
        with torch.random.fork_rng(devices=[]):
            network = build(name, shape, classes).to("meta")
    finally:
        handle.remove()
    try:
        return cut(network)
    except ValueError as error:
        raise UsageError("model", f"{name} will not do: {error}") from None


@functools.cache
def width(name: str, shape: Shape) -> int:
    """D, the neurons before the last Linear; UsageError where the network can't take images of ``shape``."""
    channels, height, across = shape
    _, linear = blank(name)
    if channels not in (1, 3):
        raise UsageError("", f"{name} takes images of 1 or 3 channels, not {channels}")
    reason = _misfit(name, height, across)
    if reason:
        reason = textwrap.shorten(reason, 120, placeholder=" ...")
        side = next((side for side in SIDES if not _misfit(name, side, side)), None)
        remedy = f"; try --image-size {side}" if side else ""
        raise UsageError("", f"{name} cannot take images of {height}x{across} ({reason}){remedy}")
    return linear.in_features


def _misfit(name: str, height: int, across: int) -> str:
    """What the network says of images of this size; empty where it takes them."""
    try:
        network, _ = blank(name, (3, height, across))
        with torch.no_grad():
            network.eval()(torch.empty(2, 3, height, across, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


@functools.cache
def trains_on_one(name: str, shape: Shape) -> bool:
    """Whether a training batch may be a single image: batch norm fails where its maps have shrunk to one cell."""
    _, height, across = shape
    network, _ = blank(name, (3, height, across))
    try:
        with torch.no_grad():
            network.train()(torch.empty(1, 3, height, across, device="meta"))
    except ValueError:
        return False
    return True


def pools_to_several_cells(name: str) -> bool:
    """Whether the network has an adaptive average pooling to more than one cell; to one, it is a mean."""
    kinds = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
    return any(
        isinstance(module, kinds) and module.output_size not in (1, (1,), (1, 1), (1, 1, 1))
        for module in blank(name)[0].modules()
    )
