"""Image data sets as uint8 tensors: one loader and one registry line each."""

from pathlib import Path

import numpy as np
import torch

from maldrop_cli.config import DataConfig
from maldrop_cli.data import download, idx, image_folders
from maldrop_cli.data.dataset import Entry, ImageData, NotCachedError, Progress, Shape, Source, Split, Warn, finish
from maldrop_cli.names import Dataset

__all__ = ["REGISTRY", "ImageData", "Split", "cached", "describe", "load"]


def load(
    config: DataConfig,
    data_dir: Path | None = None,
    progress: Progress = lambda what, done, total: None,
    warn: Warn = lambda message: None,
) -> ImageData:
    """Load a data set. MaldropError, one line, if its files are damaged, or missing and can't be downloaded.

    ``warn`` gets one line for trouble that leaves the images as they are: a cache that can't be written, say.
    """
    return REGISTRY[config.dataset].load(Source(config, data_dir, progress, warn))


def cached(config: DataConfig, data_dir: Path | None = None) -> ImageData | None:
    """A data set that can be loaded at once; None where it would have to be downloaded or decoded. Raises as
    :func:`load`."""
    try:
        return REGISTRY[config.dataset].load(Source(config, data_dir, cached=True))
    except NotCachedError:
        return None


def lacking(config: DataConfig, data_dir: Path | None = None) -> str:
    """Why it is not :func:`cached`: its images are not yet ``here``, ``unpacked`` or ``decoded``; else empty."""
    try:
        REGISTRY[config.dataset].load(Source(config, data_dir, cached=True))
    except NotCachedError as error:
        return error.lack
    return ""


def describe(config: DataConfig, data_dir: Path | None = None) -> tuple[Shape, int]:
    """((C, H, W) as the model sees it, number of classes), cheaply. Raises as :func:`load`."""
    (channels, height, width), classes = REGISTRY[config.dataset].describe(Source(config, data_dir))
    if config.image_size:
        height = width = config.image_size
    return (channels, height, width), classes


def load_digits(source: Source) -> ImageData:
    """1,797 8x8 digits, each pixel (0..16) enlarged to 4x4; a fixed stratified split, 1,437 to 360."""
    import sklearn.datasets
    from sklearn.model_selection import train_test_split

    bunch = sklearn.datasets.load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    both = Split(torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(bunch.target))
    indices = train_test_split(np.arange(len(pixels)), test_size=0.2, stratify=bunch.target, random_state=0)
    train, val = (both[torch.from_numpy(part)] for part in indices)
    return finish("digits", train, val, [str(digit) for digit in range(10)], source.config.image_size)


def load_synthetic(source: Source) -> ImageData:
    """A random grey-level prototype for each class, plus noise: separable, any shape; a fifth is for validation."""
    config = source.config
    rng = np.random.default_rng(0)
    prototypes = rng.integers(64, 192, size=(config.classes, *config.shape))
    labels = torch.arange(config.images) % config.classes
    noise = rng.normal(0, 48, size=(config.images, *config.shape))
    pixels = (prototypes[labels.numpy()] + noise).clip(0, 255).astype(np.uint8)
    both, border = Split(torch.from_numpy(pixels), labels), max(config.images // 5, 1)
    classes = [f"class {k}" for k in range(config.classes)]
    return finish("synthetic", both[border:], both[:border], classes, config.image_size)


def torchvision_entry(class_name: str, channels: int, layout: str, pad: int = 0) -> Entry:
    """A data set of ten classes, 32x32 with ``pad``, by torchvision's reader, downloads and checksums. ``layout``:
    which files go where in ``{root}``. Grey ones are IDX files, which need not lie where torchvision has them."""

    def load(source: Source) -> ImageData:
        import torchvision.datasets

        reader, root = getattr(torchvision.datasets, class_name), source.root
        name, size = source.config.dataset.value, source.config.image_size
        files = idx.find(root, class_name) if channels == 1 else {}
        if len(files) == len(idx.NAMES):
            return finish(name, *idx.read(files), reader.classes, size, pad)
        if root.name == getattr(reader, "base_folder", None):  # the folder of the files themselves
            root = root.parent
        url = getattr(reader, "url", None) or reader.mirrors[0]
        with download.fetching(source, url, layout.format(root=root)):
            try:
                parts = [reader(root, train=train) for train in (True, False)]
            except RuntimeError as error:
                if "not found" not in str(error).lower():
                    raise
                packed = channels != 1 and (root / reader.filename).exists()  # then no server is asked
                if source.cached:
                    raise NotCachedError(f"no files in {root}", "unpacked" if packed else "here") from None
                if not packed and not download.reachable(url):
                    there = idx.what_is_there(root, files) if channels == 1 else "no files there, or damaged ones"
                    raise ConnectionError(f"{there}, and the server does not answer") from None
                parts = [reader(root, train=train, download=True) for train in (True, False)]
        splits = []
        for part in parts:  # (N, H, W) or (N, H, W, C)
            pixels = torch.as_tensor(part.data)
            images = pixels.view(*pixels.shape[:3], channels).permute(0, 3, 1, 2)
            splits.append(Split(images, torch.as_tensor(part.targets)))
        train, val = splits
        return finish(name, train, val, parts[0].classes, size, pad)

    return Entry(lambda source: ((channels, 32, 32), 10), load)


IDX = "place the four IDX files (train-images-idx3-ubyte ... t10k-labels-idx1-ubyte) in {root}"
CIFAR = "unpack cifar-10-python.tar.gz into {root}, so that {root}/cifar-10-batches-py is there"
REGISTRY: dict[Dataset, Entry] = {
    Dataset.DIGITS: Entry(lambda source: ((1, 32, 32), 10), load_digits),
    Dataset.SYNTHETIC: Entry(lambda source: (source.config.shape, source.config.classes), load_synthetic),
    Dataset.MNIST: torchvision_entry("MNIST", 1, IDX + "/MNIST/raw", pad=2),
    Dataset.FASHION_MNIST: torchvision_entry("FashionMNIST", 1, IDX + "/FashionMNIST/raw", pad=2),
    Dataset.CIFAR10: torchvision_entry("CIFAR10", 3, CIFAR),
    Dataset.TINY_IMAGENET: Entry(image_folders.describe_tiny_imagenet, image_folders.load_tiny_imagenet),
    Dataset.IMAGEFOLDER: Entry(image_folders.describe_imagefolder, image_folders.load_imagefolder),
}
