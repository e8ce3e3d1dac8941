"""Image data sets as uint8 tensors in memory: one function and one registry line each."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.config import DataConfig, Dataset, MaldropError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[str, int, int], None]  # what, done, total
NETWORK_SECONDS = 8.0  # to wait for the first sign of life from a download server
LARGEST_DEFAULT_SIDE = 224  # imagefolder without --image-size


@dataclass(frozen=True)
class Split:
    """``images``: uint8 (N, C, H, W); ``labels``: int64 (N,)."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


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
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def digest(self) -> str:
        """SHA-256 over every pixel and label: the same images under another path are the same data."""
        digest = hashlib.sha256()
        for split in (self.train, self.val):
            for tensor in (split.images, split.labels):
                digest.update(str(tuple(tensor.shape)).encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> ImageData:
        return replace(self, train=self.train.to(device), val=self.val.to(device))


@dataclass(frozen=True)
class Source:
    """What a loader needs beside the config."""

    config: DataConfig
    data_dir: Path | None
    progress: Progress


@dataclass(frozen=True)
class Entry:
    """``describe`` gives ((C, H, W), number of classes) without loading the images; ``load`` loads them."""

    describe: Callable[[Source], tuple[tuple[int, int, int], int]]
    load: Callable[[Source], ImageData]


def _no_progress(what: str, done: int, total: int) -> None:
    pass


def load(config: DataConfig, data_dir: Path | None = None, progress: Progress = _no_progress) -> ImageData:
    """Load a data set; MaldropError, one line, when it is neither there nor to be had."""
    return REGISTRY[config.dataset].load(Source(config, data_dir, progress))


def describe(config: DataConfig, data_dir: Path | None = None) -> tuple[tuple[int, int, int], int]:
    """((C, H, W) as the model sees it, number of classes), cheaply. Raises as :func:`load`."""
    (channels, height, width), classes = REGISTRY[config.dataset].describe(Source(config, data_dir, _no_progress))
    if config.image_size:
        height = width = config.image_size
    return (channels, height, width), classes


def _finish(
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

    mean, std = _moments(train[0])
    return ImageData(
        name,
        Split(shaped(train[0]), train[1].long()),
        Split(shaped(val[0]), val[1].long()),
        tuple(classes),
        mean,
        std,
    )


def _moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, pixels scaled to 0..1, exact: from the counts of the 256 values."""
    value = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        count = torch.from_numpy(np.bincount(images[:, channel].numpy().ravel(), minlength=256).astype(np.float64))
        mean = float((count * value).sum() / count.sum())
        means.append(mean)
        std = float(((count * (value - mean) ** 2).sum() / count.sum()).sqrt())
        stds.append(std or 1.0)  # a constant channel: leave it at zero rather than divide by zero
    return tuple(means), tuple(stds)


# --- digits: scikit-learn's, embedded ------------------------------------------------------------------------------


def _load_digits(source: Source) -> ImageData:
    """1,797 8x8 digits, each pixel (0..16) enlarged to 4x4; a fixed stratified split, 1,437 to 360."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels: NDArray[Any] = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(pixels.repeat(4, axis=1).repeat(4, axis=2)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    train, val = (
        torch.from_numpy(part)
        for part in train_test_split(np.arange(len(labels)), test_size=0.2, stratify=bunch.target, random_state=0)
    )
    return _finish(
        "digits",
        (images[train], labels[train]),
        (images[val], labels[val]),
        [str(digit) for digit in range(10)],
        source.config.image_size,
    )


# --- synthetic -----------------------------------------------------------------------------------------------------


def _describe_synthetic(source: Source) -> tuple[tuple[int, int, int], int]:
    return source.config.shape, source.config.classes


def _load_synthetic(source: Source) -> ImageData:
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
    return _finish(
        "synthetic",
        (images[val:], labels[val:]),
        (images[:val], labels[:val]),
        [f"class {k}" for k in range(config.classes)],
        config.image_size,
    )


# --- mnist, fashion-mnist, cifar10: torchvision's readers, downloads and checksums -----------------------------------


def _load_torchvision(
    dataset: Dataset, class_name: str, url: str, where: str, pad: int
) -> Callable[[Source], ImageData]:
    def load(source: Source) -> ImageData:
        import torchvision.datasets

        reader = getattr(torchvision.datasets, class_name)
        root = source.data_dir or _cache_dir() / dataset.value
        parts = _read(reader, root) or _download(reader, root, url, f"{dataset}: {where.format(root=root)}")
        (train_pixels, train_labels, classes), (val_pixels, val_labels, _) = parts
        return _finish(
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
        raise MaldropError(f"the files of {reader.__name__} in {root} can't be read: {_line(error)}") from None
    except Exception as error:  # a damaged file can raise nearly anything
        raise MaldropError(f"the files of {reader.__name__} in {root} can't be read: {_line(error)}") from None
    return _part(train), _part(val)


def _part(split: Any) -> Part:
    pixels = torch.as_tensor(split.data)
    images = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return images, torch.as_tensor(split.targets), split.classes


def _download(reader: Any, root: Path, url: str, remedy: str) -> tuple[Part, Part]:
    help_line = f"{remedy}, or use --dataset digits, which needs no files"
    if not _reachable(url):
        raise MaldropError(f"no files in {root}, and {url} does not answer. For {help_line}")
    try:
        with _socket_timeout(NETWORK_SECONDS):
            reader(root, train=True, download=True)
    except Exception as error:
        raise MaldropError(f"downloading into {root} failed: {_line(error)}. For {help_line}") from None
    parts = _read(reader, root)
    if parts is None:
        raise MaldropError(f"the download left no files in {root}. For {help_line}")
    return parts


def _reachable(url: str) -> bool:
    """Whether the server says anything within ``NETWORK_SECONDS``; a thread, as a name look-up knows no time-out."""
    import urllib.error
    import urllib.request

    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(urllib.error.HTTPError):  # an error page is an answer
                urllib.request.urlopen(url, timeout=NETWORK_SECONDS).close()
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(NETWORK_SECONDS)
    return answered.is_set()


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _cache_dir() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("maldrop")


def _line(error: BaseException) -> str:
    """An exception as one line."""
    return " ".join(str(error).split()) or type(error).__name__


# --- imagefolder ---------------------------------------------------------------------------------------------------

IMAGE_SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])


def _image_files(source: Source) -> tuple[list[str], list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Class names, and (file, label) of the training and the validation images, in the order of their names."""
    root = source.data_dir
    if root is None:
        raise UsageError("--dataset imagefolder needs --data-dir: a folder with train/ and test/ or val/ in it")
    folders = [
        root / "train",
        next((root / name for name in ("test", "val") if (root / name).is_dir()), root / "test"),
    ]
    for folder in folders:
        if not folder.is_dir():
            raise MaldropError(f"{folder} is no folder; imagefolder wants train/CLASS/IMAGE and test/ (or val/) alike")
    classes = sorted(entry.name for entry in folders[0].iterdir() if entry.is_dir())
    splits: list[list[tuple[Path, int]]] = []
    for folder in folders:
        strange = sorted({entry.name for entry in folder.iterdir() if entry.is_dir()} - set(classes))
        if strange:
            raise MaldropError(f"{folder / strange[0]} is a class that {folders[0]} does not have")
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()
        ]
        if not files:
            raise MaldropError(f"no images in {folder}: imagefolder wants {folder}/CLASS/IMAGE")
        empty = set(range(len(classes))) - {label for _, label in files}
        if empty and folder is folders[0]:
            raise MaldropError(f"no images in {folder / classes[min(empty)]}: each class needs some for training")
        splits.append(files)
    return classes, splits[0], splits[1]


def _folder_size(source: Source, first: Path) -> int:
    """The side of the square that every image is scaled to."""
    if source.config.image_size:
        return source.config.image_size
    from PIL import Image

    try:
        with Image.open(first) as image:
            return min(*image.size, LARGEST_DEFAULT_SIDE)
    except Exception as error:  # a damaged image can raise nearly anything
        raise MaldropError(f"{first} is no readable image: {_line(error)}") from None


def _describe_imagefolder(source: Source) -> tuple[tuple[int, int, int], int]:
    classes, train, _ = _image_files(source)
    side = _folder_size(source, train[0][0])
    return (3, side, side), len(classes)


def _load_imagefolder(source: Source) -> ImageData:
    """``train/CLASS/*`` and ``test/CLASS/*`` (or ``val/``), RGB, scaled to a square; the default side is the shorter
    side of the first image, at most 224."""
    classes, train, val = _image_files(source)
    side = _folder_size(source, train[0][0])
    total, done = len(train) + len(val), 0
    splits = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for files in (train, val):
            images = torch.empty((len(files), 3, side, side), dtype=torch.uint8)
            for index, pixels in enumerate(pool.map(lambda file: _decode(file[0], side), files)):
                images[index] = torch.from_numpy(pixels).permute(2, 0, 1)
                done += 1
                if done % 100 == 0 or done == total:
                    source.progress("decoding images", done, total)
            splits.append((images, torch.tensor([label for _, label in files])))
    finally:  # after a damaged image, don't decode the rest
        pool.shutdown(cancel_futures=True)
    return _finish("imagefolder", splits[0], splits[1], classes, None)


def _decode(path: Path, side: int) -> NDArray[np.uint8]:
    """(H, W, 3); a truncated or foreign file is a MaldropError that names it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            colour = image.convert("RGB")
            if colour.size != (side, side):
                colour = colour.resize((side, side), Image.Resampling.BILINEAR)
            return np.array(colour)  # a copy: torch wants to be able to write
    except Exception as error:  # a damaged image can raise nearly anything
        raise MaldropError(f"{path} is no readable image: {_line(error)}") from None


def _fixed(channels: int) -> Callable[[Source], tuple[tuple[int, int, int], int]]:
    return lambda source: ((channels, 32, 32), 10)


_IDX = "place the four IDX files (train-images-idx3-ubyte ... t10k-labels-idx1-ubyte) in {root}/"
REGISTRY: dict[Dataset, Entry] = {
    Dataset.DIGITS: Entry(_fixed(1), _load_digits),
    Dataset.SYNTHETIC: Entry(_describe_synthetic, _load_synthetic),
    Dataset.MNIST: Entry(
        _fixed(1),
        _load_torchvision(
            Dataset.MNIST,
            "MNIST",
            "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
            _IDX + "MNIST/raw",
            pad=2,
        ),
    ),
    Dataset.FASHION_MNIST: Entry(
        _fixed(1),
        _load_torchvision(
            Dataset.FASHION_MNIST,
            "FashionMNIST",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
            _IDX + "FashionMNIST/raw",
            pad=2,
        ),
    ),
    Dataset.CIFAR10: Entry(
        _fixed(3),
        _load_torchvision(
            Dataset.CIFAR10,
            "CIFAR10",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "unpack cifar-10-python.tar.gz into {root}, so that {root}/cifar-10-batches-py is there",
            pad=0,
        ),
    ),
    Dataset.IMAGEFOLDER: Entry(_describe_imagefolder, _load_imagefolder),
}
