"""A classifier: a backbone from images to hidden_ND and the last affine layer with its dropout variant; what feeds it,
and what trains it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maldrop_cli.config import RunConfig
from maldrop_cli.dropout import DropoutLinear, Regulariser


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


def head_of(linear: nn.Linear, regulariser: Regulariser) -> DropoutLinear:
    """``linear`` behind ``regulariser``: the very parameters, their device, dtype and mode, and no random draws."""
    with torch.device("meta"):
        head = DropoutLinear(linear.in_features, linear.out_features, linear.bias is not None, regulariser=regulariser)
    head.weight, head.bias = linear.weight, linear.bias
    regulariser.to(linear.weight.device)
    return head.train(linear.training)


def make_optimizer(model: nn.Module, config: RunConfig, device: torch.device) -> torch.optim.Optimizer:
    """SGD, in its fused form where torch has one."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True if device.type in ("cpu", "cuda") else None,
    )
