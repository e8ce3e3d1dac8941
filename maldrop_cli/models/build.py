"""From settings to a classifier, and what can be said of it beforehand."""

from __future__ import annotations

import torch

from maldrop_cli.config import CNN, RunConfig, UsageError
from maldrop_cli.data.dataset import Shape
from maldrop_cli.dropout import DropoutLinear
from maldrop_cli.models import torchvision as torchvision_models
from maldrop_cli.models.classifier import Classifier, head_of
from maldrop_cli.models.paper_cnn import PaperCNN
from maldrop_cli.models.variants import Head, build_regulariser


def hidden_width(model: str, depth: int, shape: Shape) -> int:
    """D, the number of neurons before the last affine layer, of images of ``shape``.

    Raises UsageError for an unknown model, one that doesn't end in a Linear, or one that can't take such images.
    """
    if model != CNN:
        return torchvision_models.width(model, shape)
    height, width = shape[1:]
    if height * width < 2:
        raise UsageError(
            "", "the CNN needs images of more than one pixel: its batch norm has no spread over a single one"
        )
    return depth * height * width


def describe_head(config: RunConfig, shape: Shape, classes: int) -> Head:
    """The size of the last affine layer, without building the model. Raises as :func:`hidden_width`."""
    width = hidden_width(config.model, config.depth, shape)
    return Head(width, classes, config.depth if config.model == CNN else None)


def build_model(config: RunConfig, shape: Shape, classes: int, generator: torch.Generator | None = None) -> Classifier:
    """A classifier with fresh weights from torch's global stream: the same draws for every dropout variant."""
    size = describe_head(config, shape, classes)
    regulariser = build_regulariser(config, size, generator)
    if config.model == CNN:
        backbone = PaperCNN(shape[0], config.depth)  # first: another order of draws would be other runs
        return Classifier(backbone, DropoutLinear(size.width, classes, regulariser=regulariser))
    network = torchvision_models.build(config.model, shape, classes)
    cut_network, linear = torchvision_models.backbone(network)
    return Classifier(cut_network, head_of(linear, regulariser))


def check_batches(config: RunConfig, shape: Shape, examples: int) -> None:
    """UsageError where batches of ``examples`` training images leave a single one that batch norm can't train on."""
    size = config.batch_size
    if config.model == CNN or (examples % size or min(size, examples)) != 1:
        return
    if torchvision_models.trains_on_one(config.model, shape):
        return
    height, width = shape[1:]
    left = "" if size == 1 else f" {examples:,} training images in batches of {size} leave one over, and"
    better = next((other for other in range(size + 1, examples + 1) if examples % other != 1), None)
    remedy = f"--batch-size {better}" if better else "more images"
    raise UsageError(
        "batch_size",
        f"{left} {config.model} can't train on a single image of {height}x{width}: its batch norm needs "
        f"more than one value a channel; try {remedy}",
    )


def lacks_deterministic_gradient(model: str) -> bool:
    """Whether torch has no deterministic gradient of ``model`` on CUDA: its adaptive pooling to more than one cell."""
    return model != CNN and torchvision_models.pools_to_several_cells(model)
