"""Data sets that need no files: scikit-learn's digits, and synthetic images of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from maldrop_cli.data.dataset import ImageData, Shape, Source, finish

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load_digits(source: Source) -> ImageData:
    """1,797 8x8 digits, each pixel (0..16) enlarged to 4x4; a fixed stratified split, 1,437 to 360."""
    import sklearn.datasets
    from sklearn.model_selection import train_test_split

    bunch = sklearn.datasets.load_digits()
    pixels: NDArray[Any] = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(pixels.repeat(4, axis=1).repeat(4, axis=2)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    train, val = (
        torch.from_numpy(part)
        for part in train_test_split(np.arange(len(labels)), test_size=0.2, stratify=bunch.target, random_state=0)
    )
    return finish(
        "digits",
        (images[train], labels[train]),
        (images[val], labels[val]),
        [str(digit) for digit in range(10)],
        source.config.image_size,
    )


def describe_synthetic(source: Source) -> tuple[Shape, int]:
    return source.config.shape, source.config.classes


def load_synthetic(source: Source) -> ImageData:
    """A random grey-level prototype for each class, plus noise: separable, any shape; a fifth is for validation."""
    config = source.config
    rng = np.random.default_rng(0)
    prototypes = rng.integers(64, 192, size=(config.classes, *config.shape))
    labels = torch.arange(config.images) % config.classes
    images = torch.from_numpy(
        (prototypes[labels.numpy()] + rng.normal(0, 48, size=(config.images, *config.shape)))
        .clip(0, 255)
        .astype(np.uint8)
    )
    val = max(config.images // 5, 1)
    return finish(
        "synthetic",
        (images[val:], labels[val:]),
        (images[:val], labels[:val]),
        [f"class {k}" for k in range(config.classes)],
        config.image_size,
    )
