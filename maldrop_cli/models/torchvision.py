"""Torchvision's classifiers: their names, and the images they take. Loading torchvision takes two seconds: only where
one is used. What a network does to shapes is found on the meta device, where tensors have shapes and no numbers."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from maldrop_cli.data.dataset import Shape
from maldrop_cli.models.strip_head import find_end, strip_head
from maldrop_cli.names import CNN, UsageError, nearest, one_line

SIDES = (32, 64, 96, 128, 224, 299)  # of images, to suggest; most of the networks were made for 224


class ThreeChannels(nn.Module):
    """Shows grey images in all three channels."""

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def build_torchvision(name: str, shape: Shape, classes: int) -> tuple[nn.Sequential, nn.Linear]:
    """(backbone from images of one channel or three to hidden_ND, the last Linear), with torchvision's fresh weights.

    Raises UsageError for an unknown name and for a network that doesn't end in a Linear; AssertionError or ValueError
    for an image size that no such network can have.
    """
    from torchvision import models

    names = models.list_models(module=models)  # the classifiers alone
    if name not in names:
        near, known = nearest(name, [CNN, *names]), "cnn, or any classifier of torchvision that ends in a Linear"
        raise UsageError("model", f"no model is called {name!r}{near} ({known})")
    _, height, width = shape
    settings: dict[str, Any] = {}
    if name.startswith("vit_"):
        settings = {"image_size": height}
    elif name.startswith("maxvit_"):
        settings = {"input_size": (height, width)}
    elif name in ("googlenet", "inception_v3"):  # one output only, and no warning that the default may change
        settings = {"aux_logits": False, "init_weights": True}
    network = models.get_model(name, weights=None, num_classes=classes, **settings)
    try:
        end, linear = find_end(network)
    except ValueError as error:
        raise UsageError("model", f"{name} will not do: {error}") from None
    return nn.Sequential(ThreeChannels(), strip_head(network, end)), linear


@functools.lru_cache(maxsize=32)
def blank(name: str, height: int = 224, width: int = 224) -> tuple[nn.Sequential, nn.Linear]:
    """As :func:`build_torchvision`, on the meta device; draws nothing from torch's global stream. Callers set the mode.

    Each parameter loses its memory as it is registered, before it is filled. To build all under
    ``torch.device("meta")`` would not do: some networks compute their layout with tensors.
    """

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    with register_module_parameter_registration_hook(without_memory), torch.random.fork_rng(devices=[]):
        backbone, linear = build_torchvision(name, (3, height, width), 10)
    return backbone.to("meta"), linear


@functools.cache
def size_error(name: str, height: int, width: int, *, single: bool = False) -> str:
    """Why the network can't take images of this size, in its own words; empty where it can. ``single``: why it can't
    train on one such image, as batch norm fails where its maps have shrunk to one cell."""
    try:
        backbone, _ = blank(name, height, width)
        with torch.no_grad():
            backbone.train(single)(torch.empty(1 if single else 2, 3, height, width, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        return one_line(error)
    return ""


def lacks_deterministic_gradient(model: str) -> bool:
    """Whether torch has no deterministic gradient of ``model`` on CUDA: that of adaptive average pooling to more than
    one cell; to one, it is a mean."""
    modules = [] if model == CNN else blank(model)[0].modules()
    return any(isinstance(each, nn.AdaptiveAvgPool2d) and each.output_size not in (1, (1, 1)) for each in modules)
