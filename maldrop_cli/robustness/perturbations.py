"""Perturbations of images, and of the hidden layer before the last: pure functions of a batch and a severity.

Severity 0 changes nothing. Randomness comes from a generator on the CPU, drawn in the same way for every severity and
device, so that all arms see the same: with a larger severity, more of the same is hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from maldrop_cli.dropout import keep_mask
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.names import Perturbation


@dataclass(frozen=True)
class Kind:
    """``apply(images, severity, generator)``: from uint8 (N, C, H, W) to the same. Where ``hidden``, from what enters
    the last layer, a LastLayer with the weights as evaluation mode uses them, to hidden_ND."""

    apply: Callable[..., Tensor]
    hidden: bool = False


def half_up(value: float) -> int:
    """Rounded to a whole number."""
    return math.floor(value + 0.5)


def occlude(images: Tensor, severity: float, generator: Generator) -> Tensor:
    """A black rectangle at a random place in each image; its sides are the share ``severity`` of the image's."""
    place_N2 = torch.rand(len(images), 2, generator=generator)
    return _occluded(images, severity, place_N2)


def occlude_centre(images: Tensor, severity: float, generator: Generator) -> Tensor:
    """As :func:`occlude`, in the middle."""
    return _occluded(images, severity, torch.full((len(images), 2), 0.5))


def _occluded(images: Tensor, severity: float, place_N2: Tensor) -> Tensor:
    """``place_N2``: of the rectangle's corner, from 0 to 1, among all the places where it lies within the image."""
    hidden = None
    for dimension, size in enumerate(images.shape[-2:]):
        side = half_up(severity * size)
        start_N1 = (place_N2[:, dimension : dimension + 1] * (size - side + 1)).floor().clamp(max=size - side)
        at = torch.arange(size)
        inside = (at >= start_N1) & (at < start_N1 + side)
        inside = inside.unsqueeze(2 - dimension)  # rows as (N, H, 1), columns as (N, 1, W)
        hidden = inside if hidden is None else hidden & inside
    assert hidden is not None
    return images.masked_fill(hidden.unsqueeze(1).to(images.device), 0)


def noise(images: Tensor, severity: float, generator: Generator) -> Tensor:
    """Gaussian noise with the standard deviation ``severity``, as a share of the range from black to white."""
    drawn = torch.randn(images.shape, generator=generator).to(images.device)
    return (images.float() + 255 * severity * drawn).round().clamp(0, 255).byte()


def blur(images: Tensor, severity: float, generator: Generator) -> Tensor:
    """A Gaussian blur with the standard deviation ``severity``, as a share of the image's shorter side."""
    deviation = severity * min(images.shape[-2:])
    if deviation == 0:
        return images
    from torchvision.transforms.v2.functional import gaussian_blur

    reach = max(1, min(math.ceil(3 * deviation), min(images.shape[-2:]) - 1))
    blurred: Tensor = gaussian_blur(images, [2 * reach + 1] * 2, [deviation] * 2)
    return blurred


def neurons(layer: LastLayer, severity: float, generator: Generator) -> Tensor:
    """Without the share ``severity`` of the neurons, rounded half up, drawn for each image."""
    hidden_ND = layer.hidden_ND
    gone = half_up(severity * hidden_ND.shape[1])
    order_ND = torch.rand(hidden_ND.shape, generator=generator).to(hidden_ND.device)
    return hidden_ND.scatter(1, order_ND.topk(gone, dim=1, sorted=False).indices, 0.0)


def worst_neurons(layer: LastLayer, severity: float, generator: Generator) -> Tensor:
    """Without the ``severity`` neurons of each image that help its true label most, to first order (``gradient``)."""
    return _without_worst(layer, int(severity), "gradient")


def worst_neurons_joint(layer: LastLayer, severity: float, generator: Generator) -> Tensor:
    """As :func:`worst_neurons`, the jointly worst set of each image (``joint``)."""
    return _without_worst(layer, int(severity), "joint")


def _without_worst(layer: LastLayer, rho: int, selector: str) -> Tensor:
    hidden_ND, weight_CD, bias_C, labels_N = layer
    return hidden_ND * keep_mask(hidden_ND, weight_CD, labels_N, rho, bias_C=bias_C, selector=selector)


PERTURBATIONS: dict[Perturbation, Kind] = {
    Perturbation.OCCLUDE: Kind(occlude),
    Perturbation.OCCLUDE_CENTRE: Kind(occlude_centre),
    Perturbation.NOISE: Kind(noise),
    Perturbation.BLUR: Kind(blur),
    Perturbation.NEURONS: Kind(neurons, hidden=True),
    Perturbation.WORST_NEURONS: Kind(worst_neurons, hidden=True),
    Perturbation.WORST_NEURONS_JOINT: Kind(worst_neurons_joint, hidden=True),
}
