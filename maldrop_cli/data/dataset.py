"""What a data set is: uint8 tensors with names, and what its loader gets and gives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.config import DataConfig, MaldropError

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

    def first(self, examples: int) -> Split:
        """At most so many."""
        return Split(self.images[:examples], self.labels[:examples])


@dataclass(frozen=True)
class ImageData:
    """A data set in memory. ``mean`` and ``std`` are per channel, of the unpadded training pixels scaled to 0..1."""

    name: str
    train: Split
    val: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _digest: str | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def shape(self) -> Shape:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def digest(self) -> str:
        """SHA-256 over every pixel and label: the same images under another path are the same data."""
        if self._digest is not None:
            return self._digest
        digest = hashlib.sha256()
        for split in (self.train, self.val):
            for tensor in (split.images, split.labels):
                digest.update(str(tuple(tensor.shape)).encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def with_digest(self, digest: str | None) -> ImageData:
        """The same data, whose digest is known. ``dataclasses.replace`` forgets it, as other images have another."""
        known = replace(self)
        object.__setattr__(known, "_digest", digest)  # frozen for everyone else
        return known

    def to(self, device: torch.device) -> ImageData:
        moved = replace(self, train=self.train.to(device), val=self.val.to(device))
        return moved.with_digest(self._digest)


@dataclass(frozen=True)
class Source:
    """What a loader needs beside the config. ``cached``: rather than downloading or decoding, raise NotCachedError."""

    config: DataConfig
    data_dir: Path | None
    progress: Progress
    warn: Warn
    cached: bool = False


class NotCachedError(MaldropError):
    """The images are not here, or not decoded yet."""


@dataclass(frozen=True)
class Entry:
    """``describe`` gives ((C, H, W), number of classes) without loading the images; ``load`` loads them."""

    describe: Callable[[Source], tuple[Shape, int]]
    load: Callable[[Source], ImageData]


def finish(
    name: str,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    classes: Sequence[str],
    size: int | None,
    pad: int = 0,
) -> ImageData:
    """Measure mean and std, pad with zeros by ``pad`` on every side, then resize to ``size`` unless that is None."""

    def shaped(images: Tensor) -> Tensor:
        images = F.pad(images, (pad, pad, pad, pad)) if pad else images
        if size is None or images.shape[-2:] == (size, size):
            return images.contiguous()
        chunks = [
            F.interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True).round().byte()
            for chunk in images.split(256)
        ]
        return torch.cat(chunks)

    mean, std = moments(train[0])
    return ImageData(
        name,
        Split(shaped(train[0]), train[1].long()),
        Split(shaped(val[0]), val[1].long()),
        tuple(classes),
        mean,
        std,
    )


def moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, pixels scaled to 0..1, exact: from the counts of the 256 values."""
    value = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        chunks = images[:, channel].split(4096)
        count = sum(
            (chunk.flatten().bincount(minlength=256) for chunk in chunks), start=torch.zeros(256, dtype=torch.int64)
        ).double()
        mean = float((count * value).sum() / count.sum())
        means.append(mean)
        std = float(((count * (value - mean) ** 2).sum() / count.sum()).sqrt())
        stds.append(std or 1.0)  # a constant channel: leave it at zero rather than divide by zero
    return tuple(means), tuple(stds)


def cache_dir() -> Path:
    """Where downloads and decoded images go: the folder that MALDROP_CACHE names, else the user's cache."""
    from platformdirs import user_cache_path

    named = os.environ.get("MALDROP_CACHE")
    return Path(named) if named else user_cache_path("maldrop")


def one_line(error: BaseException) -> str:
    """An exception as one line."""
    return " ".join(str(error).split()) or type(error).__name__
