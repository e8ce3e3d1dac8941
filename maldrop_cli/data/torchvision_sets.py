"""mnist, fashion-mnist, cifar10: torchvision's readers, downloads and checksums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maldrop_cli.config import Dataset, MaldropError
from maldrop_cli.data import network
from maldrop_cli.data.dataset import ImageData, NotCachedError, Source, cache_dir, finish, one_line


def torchvision_loader(
    dataset: Dataset, class_name: str, url: str, where: str, pad: int
) -> Callable[[Source], ImageData]:
    def load(source: Source) -> ImageData:
        import torchvision.datasets

        reader = getattr(torchvision.datasets, class_name)
        root = source.data_dir or cache_dir() / dataset.value
        parts = _read(reader, root)
        if parts is None:
            if source.cached:
                raise NotCachedError(f"no files in {root}")
            parts = _download(reader, root, url, f"{dataset}: {where.format(root=root)}")
        (train_pixels, train_labels, classes), (val_pixels, val_labels, _) = parts
        return finish(
            dataset.value,
            (train_pixels, train_labels),
            (val_pixels, val_labels),
            classes,
            source.config.image_size,
            pad=pad,
        )

    return load


Part = tuple[Tensor, Tensor, Sequence[str]]


def _read(reader: Any, root: Path) -> tuple[Part, Part] | None:
    """Both splits if the files are there; MaldropError if they are there and can't be read."""
    try:
        train, val = reader(root, train=True), reader(root, train=False)
    except RuntimeError as error:
        if "not found" in str(error).lower():
            return None
        raise MaldropError(f"the files of {reader.__name__} in {root} can't be read: {one_line(error)}") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise MaldropError(f"the files of {reader.__name__} in {root} can't be read: {one_line(error)}") from None
    return _part(train), _part(val)


def _part(split: Any) -> Part:
    pixels = torch.as_tensor(split.data)
    images = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return images, torch.as_tensor(split.targets), split.classes


def _download(reader: Any, root: Path, url: str, remedy: str) -> tuple[Part, Part]:
    help_line = f"{remedy}, or use --dataset digits, which needs no files"
    if not network.reachable(url):
        raise MaldropError(f"no files in {root}, and {url} does not answer. For {help_line}")
    try:
        with network.socket_timeout(network.NETWORK_SECONDS):
            reader(root, train=True, download=True)
    except Exception as error:
        raise MaldropError(f"downloading into {root} failed: {one_line(error)}. For {help_line}") from None
    parts = _read(reader, root)
    if parts is None:
        raise MaldropError(f"the download left no files in {root}. For {help_line}")
    return parts
