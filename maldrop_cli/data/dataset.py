"""What a data set is: uint8 tensors with names, and what its loader gets and returns."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from platformdirs import user_cache_path
from torch import Tensor

from maldrop_cli.config import DataConfig
from maldrop_cli.files import expand
from maldrop_cli.names import MaldropError

Progress = Callable[[str, int, int], None]  # what, done, total
Warn = Callable[[str], None]
Shape = tuple[int, int, int]  # (C, H, W)


@dataclass(frozen=True)
class Split:
    """``images``: uint8 (N, C, H, W); ``labels``: int64 (N,)."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Split:
        return Split(self.images.to(device), self.labels.to(device))

    def __getitem__(self, index: slice | Tensor) -> Split:
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class ImageData:
    """A data set in memory. ``mean`` and ``std`` are per channel, of the unpadded training pixels scaled to 0..1."""

    name: str
    train: Split
    val: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> Shape:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every pixel and label: the same images under another path are the same data."""
        digest = hashlib.sha256()
        for tensor in (self.train.images, self.train.labels, self.val.images, self.val.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> ImageData:
        return replace(self, train=self.train.to(device), val=self.val.to(device))


@dataclass(frozen=True)
class Source:
    """What a loader gets. ``cached``: raise NotCachedError rather than download or decode."""

    config: DataConfig
    data_dir: Path | None
    progress: Progress = lambda what, done, total: None
    warn: Warn = lambda message: None
    cached: bool = False

    @property
    def root(self) -> Path:
        """The folder of the files: ``data_dir``, absolute, so that the cache knows it by any path; or in the cache."""
        return self.data_dir.resolve() if self.data_dir else cache_dir() / self.config.dataset.value


class NotCachedError(MaldropError):
    """The images are not yet ``lack``: here, unpacked or decoded."""

    def __init__(self, message: str, lack: str = "here") -> None:
        super().__init__(message)
        self.lack = lack


@dataclass(frozen=True)
class Entry:
    """``describe`` gives ((C, H, W), number of classes) without loading the images; ``load`` loads them."""

    describe: Callable[[Source], tuple[Shape, int]]
    load: Callable[[Source], ImageData]


def finish(name: str, train: Split, val: Split, classes: Sequence[str], size: int | None, pad: int = 0) -> ImageData:
    """Measure mean and std, pad with zeros by ``pad`` on every side, then resize to ``size`` unless that is None.

    MaldropError where images, labels and classes do not belong together.
    """
    check(name, train, val, len(classes))

    def shaped(split: Split) -> Split:
        images = F.pad(split.images, (pad, pad, pad, pad)) if pad else split.images
        if size is not None and images.shape[-2:] != (size, size):
            scale = partial(F.interpolate, size=(size, size), mode="bilinear", antialias=True)
            images = torch.cat([scale(chunk.float()).round().byte() for chunk in images.split(256)])
        return Split(images.contiguous(), split.labels.long())

    return ImageData(name, shaped(train), shaped(val), tuple(classes), *moments(train.images))


def check(name: str, train: Split, val: Split, classes: int) -> None:
    """MaldropError, one line, where counts, shapes or labels are wrong; or where the training images are of one class,
    so that any network would be right at once."""
    for part, split in (("training", train), ("validation", val)):
        images, labels = split.images, split.labels
        if len(images) != len(labels) or not len(images):
            raise MaldropError(f"{name} has {len(images):,} {part} images and {len(labels):,} labels of them")
        if images.shape[1:] != train.images.shape[1:] or images.dtype != torch.uint8:
            raise MaldropError(f"{name} has {part} images of {images.dtype}, {tuple(images.shape)}, unlike the others")
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            found = f"{labels.min()} to {labels.max()}"
            raise MaldropError(f"{name} has {part} labels from {found}; they go from 0 to {classes - 1}")
    if train.labels.min() == train.labels.max():
        raise MaldropError(f"{name} has training images of one class alone: to classify takes at least two")


def moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, pixels scaled to 0..1, exact: from the counts of the 256 values."""
    value = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        count = torch.stack([chunk.flatten().bincount(minlength=256) for chunk in channel.split(4096)]).sum(0).double()
        means.append(float((count * value).sum() / count.sum()))
        std = float(((count * (value - means[-1]) ** 2).sum() / count.sum()).sqrt())
        stds.append(std or 1.0)  # a constant channel: leave it at zero rather than divide by zero
    return tuple(means), tuple(stds)


def cache_dir() -> Path:
    """Where downloads and decoded images go: the folder that MALDROP_CACHE names, else the user's cache. MaldropError
    where neither can be told."""
    if named := os.environ.get("MALDROP_CACHE"):
        return expand(Path(named), "MALDROP_CACHE")
    try:
        return user_cache_path("maldrop").expanduser()
    except RuntimeError:  # neither HOME nor an entry in passwd, as in many containers
        raise MaldropError(
            "there is no home folder for downloads and decoded images; set the variable MALDROP_CACHE to a folder"
        ) from None
