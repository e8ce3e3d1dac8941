"""Image data sets as uint8 tensors: one loader and one registry line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from maldrop_cli.config import DataConfig, Dataset
from maldrop_cli.data.builtin import describe_synthetic, load_digits, load_synthetic
from maldrop_cli.data.dataset import Entry, ImageData, NotCachedError, Progress, Shape, Source, Split, Warn
from maldrop_cli.data.image_folders import describe_imagefolder, load_imagefolder
from maldrop_cli.data.tiny_imagenet import describe_tiny_imagenet, load_tiny_imagenet
from maldrop_cli.data.torchvision_sets import torchvision_loader

__all__ = ["REGISTRY", "ImageData", "Split", "cached", "describe", "load"]


def _no_progress(what: str, done: int, total: int) -> None:
    pass


def _no_warning(message: str) -> None:
    pass


def load(
    config: DataConfig,
    data_dir: Path | None = None,
    progress: Progress = _no_progress,
    warn: Warn = _no_warning,
) -> ImageData:
    """Load a data set; MaldropError, one line, when it is neither there nor to be had. ``warn`` gets one line when
    something is amiss that does not matter to the images: a cache that can't be written, say."""
    return REGISTRY[config.dataset].load(_source(config, data_dir, progress, warn))


def cached(config: DataConfig, data_dir: Path | None = None) -> ImageData | None:
    """A data set that can be loaded at once; None where it would have to be downloaded or decoded. Raises as
    :func:`load`."""
    source = _source(config, data_dir, _no_progress, _no_warning)
    try:
        return REGISTRY[config.dataset].load(replace(source, cached=True))
    except NotCachedError:
        return None


def describe(config: DataConfig, data_dir: Path | None = None) -> tuple[Shape, int]:
    """((C, H, W) as the model sees it, number of classes), cheaply. Raises as :func:`load`."""
    source = _source(config, data_dir, _no_progress, _no_warning)
    (channels, height, width), classes = REGISTRY[config.dataset].describe(source)
    if config.image_size:
        height = width = config.image_size
    return (channels, height, width), classes


def _source(config: DataConfig, data_dir: Path | None, progress: Progress, warn: Warn) -> Source:
    """The same files by another path, a relative one say, are the same files to the cache."""
    return Source(config, None if data_dir is None else data_dir.resolve(), progress, warn)


def _fixed(channels: int) -> Callable[[Source], tuple[Shape, int]]:
    return lambda source: ((channels, 32, 32), 10)


_IDX = "place the four IDX files (train-images-idx3-ubyte ... t10k-labels-idx1-ubyte) in {root}/"
REGISTRY: dict[Dataset, Entry] = {
    Dataset.DIGITS: Entry(_fixed(1), load_digits),
    Dataset.SYNTHETIC: Entry(describe_synthetic, load_synthetic),
    Dataset.MNIST: Entry(
        _fixed(1),
        torchvision_loader(
            Dataset.MNIST,
            "MNIST",
            "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
            _IDX + "MNIST/raw",
            pad=2,
        ),
    ),
    Dataset.FASHION_MNIST: Entry(
        _fixed(1),
        torchvision_loader(
            Dataset.FASHION_MNIST,
            "FashionMNIST",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
            _IDX + "FashionMNIST/raw",
            pad=2,
        ),
    ),
    Dataset.CIFAR10: Entry(
        _fixed(3),
        torchvision_loader(
            Dataset.CIFAR10,
            "CIFAR10",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "unpack cifar-10-python.tar.gz into {root}, so that {root}/cifar-10-batches-py is there",
            pad=0,
        ),
    ),
    Dataset.TINY_IMAGENET: Entry(describe_tiny_imagenet, load_tiny_imagenet),
    Dataset.IMAGEFOLDER: Entry(describe_imagefolder, load_imagefolder),
}
