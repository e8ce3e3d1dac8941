"""Classifiers, a backbone from images to hidden_ND and the last affine layer with its dropout variant; what feeds
them, and what trains them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maldrop_cli.config import Model, RunConfig, UsageError
from maldrop_cli.dropout import DropoutLinear
from maldrop_cli.variants import Head, build_regulariser

if TYPE_CHECKING:
    from torchvision.models import VGG

Shape = tuple[int, int, int]  # (C, H, W)


class Classifier(nn.Module):
    """``forward(images, labels=None) -> logits``; the labels travel as an argument and nowhere else."""

    def __init__(self, backbone: nn.Module, head: DropoutLinear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(self.backbone(images), labels)
        return logits


class Normalise(nn.Module):
    """uint8 (N, C, H, W) to float: scaled to 0..1, less the mean, by the standard deviation of each channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean_C11, std_C11 = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 1 / (255 * std_C11))
        self.register_buffer("shift", -mean_C11 / std_C11)

    def forward(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images.float(), self.scale)


class PaperCNN(nn.Sequential):
    """Section 4.3 up to the dropout. ``depth`` is the second convolution's: the text says 1, but its 4,096 neurons on
    32x32 images need 4, the default."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 10, kernel_size=3, padding=1, stride=1),
            nn.ReLU(),
            nn.BatchNorm2d(10),
            nn.Conv2d(10, depth, kernel_size=3, padding=1, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )


VGG16_WIDTH = 4096


class VGG16Backbone(nn.Module):
    """torchvision's VGG16 up to its last Dropout and Linear. Grey images are shown to it in all three channels."""

    def __init__(self, vgg: VGG) -> None:
        super().__init__()
        self.features, self.avgpool, self.classifier = vgg.features, vgg.avgpool, vgg.classifier[:-2]

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        hidden: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return hidden


def hidden_width(model: Model, depth: int, shape: Shape) -> int:
    """D, the number of neurons before the last affine layer, of images of ``shape``.

    Raises UsageError where the model can't take such images.
    """
    channels, height, width = shape
    if model is Model.CNN:
        if height * width < 2:
            raise UsageError(
                "the CNN needs images of more than one pixel: its batch norm has no spread over a single one"
            )
        return depth * height * width
    if min(height, width) < 32:
        raise UsageError(f"vgg16 needs images of at least 32x32, not {height}x{width}; try --image-size 32")
    if channels not in (1, 3):
        raise UsageError(f"vgg16 takes images of 1 or 3 channels, not {channels}")
    return VGG16_WIDTH


def describe_head(config: RunConfig, shape: Shape, classes: int) -> Head:
    """The size of the last affine layer, without building the model. Raises as :func:`hidden_width`."""
    width = hidden_width(config.model, config.depth, shape)
    return Head(width, classes, config.depth if config.model is Model.CNN else None)


def build_model(config: RunConfig, shape: Shape, classes: int, generator: torch.Generator | None = None) -> Classifier:
    """A classifier with fresh weights from torch's global stream: the same draws for every dropout variant."""
    layer = describe_head(config, shape, classes)
    regulariser = build_regulariser(config, layer, generator)
    if config.model is Model.CNN:
        return Classifier(
            PaperCNN(shape[0], config.depth), DropoutLinear(layer.width, classes, regulariser=regulariser)
        )
    from torchvision.models import vgg16

    vgg = vgg16(weights=None, num_classes=classes)
    head = DropoutLinear(layer.width, classes, regulariser=regulariser)
    head.weight, head.bias = vgg.classifier[-1].weight, vgg.classifier[-1].bias  # as torchvision initialises them
    return Classifier(VGG16Backbone(vgg), head)


def make_optimizer(model: nn.Module, config: RunConfig, device: torch.device) -> torch.optim.Optimizer:
    """SGD, in its fused form where torch has one."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True if device.type in ("cpu", "cuda") else None,
    )
