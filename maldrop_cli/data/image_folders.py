"""imagefolder: a folder a class."""

from __future__ import annotations

import os
from pathlib import Path

from maldrop_cli.config import MaldropError, UsageError
from maldrop_cli.data.dataset import ImageData, Shape, Source, one_line
from maldrop_cli.data.image_cache import load_images
from maldrop_cli.data.listing import Files, Listing, image_files

MAX_DEFAULT_SIDE = 224  # without --image-size


def load_imagefolder(source: Source) -> ImageData:
    """``train/CLASS/*`` and ``test/CLASS/*`` (or ``val/``), RGB, scaled to a square; the default side is the shorter
    side of the first image, at most 224."""
    listing = _list(source)
    return load_images("imagefolder", listing, _side(source, listing.train.images[0].path), source)


def describe_imagefolder(source: Source) -> tuple[Shape, int]:
    train, _ = _split_folders(source)
    classes = _folder_names(train)
    first = next((file for name in classes for file in image_files(train / name, deep=True)), None)
    if first is None:
        raise MaldropError(_no_images(train))
    side = _side(source, first.path)
    return (3, side, side), len(classes)


def _list(source: Source) -> Listing:
    """All files, classes and images in the order of their names."""
    train, val = _split_folders(source)
    classes = _folder_names(train)
    splits = []
    for folder in (train, val):
        strange = sorted(set(_folder_names(folder)) - set(classes))
        if strange:
            raise MaldropError(f"{folder / strange[0]} is a class that {train} does not have")
        files = Files([], [])
        for label, name in enumerate(classes):
            if folder is train or (folder / name).is_dir():
                files.add(list(image_files(folder / name, deep=True)), label)
        if not files.images:
            raise MaldropError(_no_images(folder))
        splits.append(files)
    empty = set(range(len(classes))) - set(splits[0].labels)
    if empty:
        raise MaldropError(f"no images in {train / classes[min(empty)]}: each class needs some for training")
    return Listing(train.parent, tuple(classes), splits[0], splits[1])


def _split_folders(source: Source) -> tuple[Path, Path]:
    """The folders of the training and of the validation images."""
    root = source.data_dir
    if root is None:
        raise UsageError("", "--dataset imagefolder needs --data-dir: a folder with train/ and test/ or val/ in it")
    val = next((root / name for name in ("test", "val") if (root / name).is_dir()), root / "test")
    for folder in (root / "train", val):
        if not folder.is_dir():
            raise MaldropError(f"{folder} is no folder; imagefolder wants train/CLASS/IMAGE and test/ (or val/) alike")
    return root / "train", val


def _folder_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _no_images(folder: Path) -> str:
    return f"no images in {folder}: imagefolder wants {folder}/CLASS/IMAGE"


def _side(source: Source, first: str) -> int:
    """The side of the square that every image is scaled to."""
    if source.config.image_size:
        return source.config.image_size
    from PIL import Image

    try:
        with Image.open(first) as image:
            return min(*image.size, MAX_DEFAULT_SIDE)
    except Exception as error:  # a damaged image can raise nearly anything
        raise MaldropError(f"{first} is no readable image: {one_line(error)}") from None
