"""Classifiers: a backbone from images to hidden_ND, and a head, the last affine layer behind a dropout variant.

From settings to a classifier and its optimiser, and what can be known of it beforehand.
"""

import copy
import textwrap
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maldrop_cli.config import RunConfig
from maldrop_cli.data.dataset import Shape
from maldrop_cli.dropout import DropoutLinear, Regulariser
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.models.strip_head import Backbone
from maldrop_cli.models.torchvision import SIDES, blank, build_torchvision, size_error
from maldrop_cli.models.variants import Head, build_regulariser
from maldrop_cli.names import CNN, UsageError


class PaperCNN(nn.Sequential):
    """The network of section 4.3 up to the dropout. ``depth``: channels of the second convolution. The text says 1, but
    its 4,096 neurons on 32x32 images need 4, the default."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 10, kernel_size=3, padding=1, stride=1),
            nn.ReLU(),
            nn.BatchNorm2d(10),
            nn.Conv2d(10, depth, kernel_size=3, padding=1, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )


class Classifier(nn.Module):
    """``forward(images, labels=None, ...) -> logits_NC``; all but the labels are the backbone's. The labels are stored
    nowhere; without them those of :func:`maldrop_cli.labels` count."""

    def __init__(self, backbone: nn.Module, head: DropoutLinear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Any = None, labels: Tensor | None = None, *others: Any, **named: Any) -> Tensor:
        """``images`` may be left out where the backbone takes all its arguments by name."""
        inputs = others if images is None else (images, *others)
        logits_NC: Tensor = self.head(self.backbone(*inputs, **named), labels)
        return logits_NC

    def detach(self) -> nn.Module:
        """A plain network, a copy, with the logits that this classifier has in evaluation mode: the weight of its last
        Linear is multiplied by the pass rates. After :func:`attach` it is the user's own network, with the state-dict
        keys that it had; a Dropout that fed the Linear is left out. The classifier stays as it is."""
        head, regulariser = self.head, copy.deepcopy(self.head.regulariser).eval()
        linear = nn.Linear(head.in_features, head.out_features, head.bias is not None, device="meta")
        with torch.no_grad():
            _, weight_CD = regulariser(LastLayer(head.weight[:0], head.weight, head.bias, None))
        for name, value in (("weight", weight_CD), ("bias", head.bias)):
            if value is not None:
                needs_gradient = getattr(head, name).requires_grad
                setattr(linear, name, nn.Parameter(value.detach().clone(), needs_gradient))
        backbone = copy.deepcopy(self.backbone)
        if not isinstance(backbone, Backbone):
            return nn.Sequential(backbone, linear)
        backbone.network.set_submodule(backbone.end[0], linear.train(head.training))
        return backbone.network

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """The state dict of the network before :func:`attach`, or of :meth:`detach`, will do as well."""
        inner, backbone = f"{prefix}backbone.network.", self.backbone
        linear = f"{prefix}{backbone.end[0]}." if isinstance(backbone, Backbone) else ""
        if linear and f"{linear}weight" in state_dict and not any(key.startswith(inner) for key in state_dict):
            for key in [key for key in state_dict if key.startswith(prefix)]:
                of_linear = key.startswith(linear)
                new = f"{prefix}head.{key.removeprefix(linear)}" if of_linear else f"{inner}{key.removeprefix(prefix)}"
                state_dict[new] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *others)


class Normalise(nn.Module):
    """uint8 (N, C, H, W) to float: (pixel / 255 - mean) / std, with the mean and std of each channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean_C11, std_C11 = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 1 / (255 * std_C11))
        self.register_buffer("shift", -mean_C11 / std_C11)

    def forward(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images.float(), self.scale)


def build_model(config: RunConfig, shape: Shape, classes: int, generator: torch.Generator | None = None) -> Classifier:
    """A classifier with fresh weights from torch's global stream, the same for every dropout variant; ``generator`` as
    in :func:`build_regulariser`. Raises as :func:`describe_head`."""
    head = describe_head(config, shape, classes)
    if config.model != CNN:
        backbone, linear = build_torchvision(config.model, shape, classes)
    else:  # weights are drawn from the first layer to the last
        backbone, linear = PaperCNN(shape[0], config.depth), nn.Linear(head.width, classes)
    return Classifier(backbone, to_dropout_linear(linear, build_regulariser(config, head, generator)))


def to_dropout_linear(linear: nn.Linear, regulariser: Regulariser) -> DropoutLinear:
    """``linear`` behind ``regulariser``: with its own parameters, device, dtype and mode. Draws no random numbers."""
    with torch.device("meta"):
        head = DropoutLinear(linear.in_features, linear.out_features, linear.bias is not None, regulariser=regulariser)
    head.weight, head.bias = linear.weight, linear.bias
    regulariser.to(linear.weight.device)
    return head.train(linear.training)


def describe_head(config: RunConfig, shape: Shape, classes: int) -> Head:
    """The size of the last affine layer, without building the model. UsageError: the model is unknown, doesn't end in a
    Linear, or can't take images of ``shape``."""
    model, (channels, height, width) = config.model, shape
    if model == CNN:
        if height * width < 2:
            raise UsageError("", "the CNN needs images of more than one pixel: batch norm has no variance over one")
        return Head(config.depth * height * width, classes, config.depth)
    _, linear = blank(model)
    if channels not in (1, 3):
        raise UsageError("", f"{model} takes images of 1 or 3 channels, not {channels}")
    if error := size_error(model, height, width):
        error = textwrap.shorten(error, 120, placeholder=" ...")
        side = next((side for side in SIDES if not size_error(model, side, side)), None)
        remedy = f"; try --image-size {side}" if side else ""
        raise UsageError("", f"{model} cannot take images of {height}x{width} ({error}){remedy}")
    return Head(linear.in_features, classes)


def check_batches(config: RunConfig, shape: Shape, examples: int) -> None:
    """UsageError where batches of ``examples`` training images leave a single one that batch norm can't train on."""
    model, size, (_, height, width) = config.model, config.batch_size, shape
    leaves_one = size == 1 or examples % size == 1
    if model == CNN or not leaves_one or not size_error(model, height, width, single=True):
        return
    why = "" if size == 1 else f"{examples:,} training images in batches of {size} leave one over, and "
    better = next((other for other in range(size + 1, examples + 1) if examples % other != 1), None)
    remedy = f"--batch-size {better}" if better else "more images"
    reason = "its batch norm needs more than one value a channel"
    problem = f"{why}{model} can't train on a single image of {height}x{width}: {reason}"
    raise UsageError("batch_size", f"{problem}; try {remedy}")


def make_optimizer(model: nn.Module, config: RunConfig, device: torch.device) -> torch.optim.Optimizer:
    """SGD, in its fused form where torch has one."""
    fused = True if device.type in ("cpu", "cuda") else None
    return torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
    )
