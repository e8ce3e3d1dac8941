"""What a subject's masks do, beside what they cost: no speed without its price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from maldrop_cli import mask_metrics
from maldrop_cli.config import Dropout, RunConfig
from maldrop_cli.data.load import ImageData, Split
from maldrop_cli.models import describe_head
from maldrop_cli.models.variants import build_regulariser
from maldrop_cli.timing.cases import name_of
from maldrop_cli.train import Training


def harm(
    configs: Sequence[RunConfig], data: ImageData, device: torch.device, images: int
) -> Mapping[str, mask_metrics.Fidelity]:
    """By name, for every variant that chooses neurons: on a network trained without dropout for one epoch of at most
    ``images`` images."""
    order = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))[: max(images, 1)]
    part = replace(data, train=Split(data.train.images[order], data.train.labels[order])).to(device)
    training = Training(replace(configs[0], dropout=Dropout.NONE, epochs=1), part, device)
    training.epoch()
    probe = mask_metrics.probe_images(data.train).to(device)
    found = {}
    for config in configs:
        size = describe_head(config, data.shape, len(data.classes))
        training.model.head.regulariser = build_regulariser(config, size, None).to(device)
        fidelity = mask_metrics.fidelity(training.model, training.normalise, probe, config.rho, seed=0)
        if fidelity is not None:
            found[name_of(config)] = fidelity
    return found
