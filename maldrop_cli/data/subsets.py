"""Parts of the training images: fewer of them, and some to tune on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maldrop_cli.config import RunConfig
from maldrop_cli.data.dataset import Split
from maldrop_cli.names import UsageError


def training_parts(train: Split, config: RunConfig) -> tuple[Split, Split | None]:
    """(training images, tuning images or None), both with the classes in the proportions of ``train``.

    The tuning images are the same for all seeds; of the others, ``train_images`` are drawn from the seed. UsageError
    where a class would be left out.
    """
    labels, tune = train.labels.cpu(), None
    index = torch.arange(len(labels))
    if config.tune_split:
        tune, index = _stratified(index, labels, round(config.tune_split * len(labels)), 0, "tune_split")
    if config.train_images:
        index, _ = _stratified(index, labels, config.train_images, config.seed, "train_images")
    if len(index) == len(labels):
        return train, None
    return _part(train, index), None if tune is None else _part(train, tune)


def _stratified(index: Tensor, labels: Tensor, count: int, seed: int, setting: str) -> tuple[Tensor, Tensor]:
    """``count`` of the ``index``, and the rest, in their order."""
    from sklearn.model_selection import train_test_split

    present = labels[index].unique(return_counts=True)[1]
    if count == len(index) and setting == "train_images":
        return index, index[:0]
    if not len(present) <= count <= len(index) - len(present) or int(present.min()) < 2:
        least, most = len(present), len(index) if setting == "train_images" else len(index) - len(present)
        what = f"{count} of {len(index):,} training images"
        raise UsageError(setting, f"{what} is not from {least} to {most:,}, so that each class has one in every part")
    parts = train_test_split(index.numpy(), train_size=count, stratify=labels[index].numpy(), random_state=seed)
    chosen, rest = (torch.from_numpy(np.sort(part)) for part in parts)
    return chosen, rest


def _part(train: Split, index: Tensor) -> Split:
    index = index.to(train.labels.device)
    return Split(train.images[index], train.labels[index])
