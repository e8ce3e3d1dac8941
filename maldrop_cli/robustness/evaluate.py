"""Accuracy under perturbations."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from maldrop_cli.data.load import Split
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.models import Classifier, Normalise
from maldrop_cli.names import Perturbation
from maldrop_cli.robustness.perturbations import PERTURBATIONS
from maldrop_cli.robustness.plan import RobustnessPlan, key
from maldrop_cli.train import best_hits


@torch.no_grad()
def top1_under(
    model: Classifier, normalise: Normalise, split: Split, batch_size: int, plan: RobustnessPlan, seed: int
) -> dict[str, float]:
    """Top-1 in percent for each of ``plan.keys``, on the images of ``split``, with test scaling.

    ``seed``: of places, noise and neurons, which are the same for every severity of a perturbation. With a severity of
    0 it is the top-1 of :func:`maldrop_cli.train.evaluate`, bit for bit, if ``batch_size`` is the same.
    """
    model.eval()
    hits = dict.fromkeys(plan.keys, 0)
    generators = {name: generator_of(name, seed) for name, _ in plan.severities}
    states = {name: generator.get_state() for name, generator in generators.items()}
    for images, labels_N in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        hidden_ND: Tensor | None = None
        after: dict[Perturbation, Tensor] = {}
        for name, severity in plan.severities:
            kind, generator = PERTURBATIONS[name], generators[name]
            generator.set_state(states[name])
            if kind.hidden:
                hidden_ND = model.backbone(normalise(images)) if hidden_ND is None else hidden_ND
                perturbed_ND = kind.apply(_last_layer(model, hidden_ND, labels_N), severity, generator)
            else:
                perturbed_ND = model.backbone(normalise(kind.apply(images, severity, generator)))
            hits[key(name, severity)] += int(best_hits(model.head(perturbed_ND), labels_N)[:, 0].sum())
            after[name] = generator.get_state()
        states |= after
    return {name: 100 * count / len(split.labels) for name, count in hits.items()}


def _last_layer(model: Classifier, hidden_ND: Tensor, labels_N: Tensor) -> LastLayer:
    """The last layer as it is used in evaluation mode: with the pass rates in its weight."""
    head = model.head
    hidden_ND, weight_CD = head.regulariser(LastLayer(hidden_ND, head.weight, head.bias, labels_N))
    return LastLayer(hidden_ND, weight_CD, head.bias, labels_N)


def generator_of(name: Perturbation, seed: int) -> torch.Generator:
    """Of the places, the noise and the neurons of a perturbation, for the runs of a seed."""
    digest = hashlib.sha256(f"{seed}/robustness/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
