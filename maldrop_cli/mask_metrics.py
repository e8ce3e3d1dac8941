"""Measurements of a run's masks: how often each neuron passed, and by how much a mask increases the loss.

None changes the run: the probe draws from a random stream of its own, in evaluation mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.data.load import Split
from maldrop_cli.dropout import Composition, CountedDropout, Regulariser, TargetedDropout, worst_set
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.models import Classifier, Normalise

PROBE_IMAGES = 128
BINS = 10  # of pass rates from 0 to 1


@dataclass(frozen=True)
class Fidelity:
    """Means over the probe images, in nats: ``loss`` without dropping, and its increase by the mask of the run's own
    selector, by the set that ``joint`` finds, and at most by any set (the ceiling). ``overlap``: the share of the mask,
    in percent, that ``joint`` drops too."""

    loss: float
    mask: float
    joint: float
    ceiling: float
    overlap: float


def counted(regulariser: Regulariser) -> CountedDropout | None:
    """The part of a variant that counts what it drops."""
    parts = regulariser.members if isinstance(regulariser, Composition) else [regulariser]
    return next((part for part in parts if isinstance(part, CountedDropout)), None)


class DropCounter:
    """Follows, epoch by epoch, how often each neuron or weight is dropped."""

    def __init__(self, part: CountedDropout | None) -> None:
        self.part = part
        self.last: Tensor | None = None  # drops of the epoch before
        self.total = torch.zeros((), dtype=torch.int64)
        self.examples = 0

    def state(self) -> dict[str, Any]:
        """Between two epochs: what :meth:`restore` takes."""
        return {"last": self.last, "total": self.total, "examples": self.examples}

    def restore(self, state: dict[str, Any]) -> None:
        self.last, self.total, self.examples = state["last"], state["total"], state["examples"]

    def begin(self) -> None:
        """Before an epoch."""
        if self.part is not None:
            self.before = self.part.drops.cpu().clone(), int(self.part.examples)

    def end(self) -> float | None:
        """After an epoch: the turnover since the one before it."""
        if self.part is None:
            return None
        now = self.part.drops.cpu() - self.before[0]
        moved = None if self.last is None else turnover(self.last, now)
        self.last, self.total = now, self.total + now
        self.examples += int(self.part.examples) - self.before[1]
        return moved

    def pass_rates(self) -> dict[str, Any]:
        """Over all epochs so far; empty where nothing is counted."""
        return {} if self.part is None else pass_rates(self.total, self.examples)


def pass_rates(drops: Tensor, examples: int) -> dict[str, Any]:
    """Fields of RunRecord: how many neurons (or weights) passed never and always, and how many have a pass rate in each
    tenth from 0 to 1, the last one with its end. ``drops``: the number of examples that each was dropped for."""
    passes = examples - drops.flatten() if examples else torch.ones(drops.numel(), dtype=torch.int64)
    bins = (passes * BINS // max(examples, 1)).clamp(max=BINS - 1)  # whole numbers: a tenth is a tenth
    histogram = torch.bincount(bins, minlength=BINS)
    return {
        "never_passed": int((passes == 0).sum()),
        "always_passed": int((drops == 0).sum()),
        "pass_histogram": tuple(histogram.tolist()),
    }


def turnover(before: Tensor, now: Tensor) -> float | None:
    """How much of the dropping has moved to other neurons from one epoch to the next: 0, the same ones are dropped as
    often; 1, none of them. The total variation distance of the two distributions of drops; None where an epoch drops
    nothing."""
    if not before.any() or not now.any():
        return None
    shares = [drops.double() / drops.sum() for drops in (before, now)]
    return float((shares[0] - shares[1]).abs().sum() / 2)


def probe_images(train: Split) -> Split:
    """A few training images, evenly spaced: the data may lie in the order of their classes."""
    count = min(PROBE_IMAGES, len(train.labels))
    index = torch.linspace(0, len(train.labels) - 1, count).long().to(train.labels.device)
    return train[index]


@torch.no_grad()
def fidelity(model: Classifier, normalise: Normalise, probe: Split, rho: int, seed: int) -> Fidelity | None:
    """The loss increase without ``rho`` units, as the model's variant would choose them; None where it does not choose.

    ``seed``: of the selector ``random``.
    """
    part = counted(model.head.regulariser)
    if not isinstance(part, TargetedDropout) or rho == 0:
        return None
    model.eval()
    hidden_ND = model.backbone(normalise(probe.images))
    weight_CD, bias_C, labels_N = model.head.weight, model.head.bias, probe.labels
    generator = torch.Generator(hidden_ND.device).manual_seed(seed)
    keep_ND = part.mask(LastLayer(hidden_ND, weight_CD, bias_C, labels_N), rho, generator)
    gone = int((~keep_ND[0]).sum())  # a channel is several neurons
    granularity = "sample" if part.options.per_sample else "batch"
    worst = worst_set(hidden_ND, weight_CD, labels_N, gone, bias_C=bias_C, granularity=granularity)

    def loss(hidden_ND: Tensor) -> float:
        return float(F.cross_entropy(F.linear(hidden_ND, weight_CD, bias_C), labels_N))

    before = loss(hidden_ND)
    return Fidelity(
        before,
        loss(hidden_ND * keep_ND) - before,
        float(worst.loss_N.mean()) - before,
        float(worst.ceiling_N.mean()) - before,
        100 * overlap(~worst.keep_ND, ~keep_ND),
    )


def overlap(gone: Tensor, other_gone: Tensor) -> float:
    """The share of what is True in ``other_gone`` that is True in ``gone`` as well; 1 where nothing is."""
    return float((gone & other_gone).sum() / other_gone.sum()) if bool(other_gone.any()) else 1.0


def typical_rho(rhos: list[int]) -> int:
    """The mean of rho over the batches that drop anything, rounded half up; 0 if none does."""
    dropping = [rho for rho in rhos if rho > 0]
    return math.floor(sum(dropping) / len(dropping) + 0.5) if dropping else 0
