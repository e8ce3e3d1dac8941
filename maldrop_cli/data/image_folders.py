"""Data sets of image files: imagefolder, a folder for each class, and tiny-imagenet.

tiny-imagenet is the official archive of Stanford's course CS231n, or any part of it: ``tiny-imagenet-200/`` holds
``wnids.txt`` (a class a line), ``words.txt`` (names of classes), ``train/WNID/images/*.JPEG``, ``val/images/*.JPEG``,
and ``val/val_annotations.txt`` (a line an image: file, tab, class).
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from maldrop_cli.data.dataset import ImageData, Shape, Source, Warn
from maldrop_cli.data.decoding import unreadable
from maldrop_cli.data.download import fetch_archive
from maldrop_cli.data.image_cache import File, Listing, load_images
from maldrop_cli.files import read_up_to
from maldrop_cli.names import MaldropError, UsageError, one_line

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_DEFAULT_SIDE = 224  # of imagefolder without --image-size
FOLDER_LAYOUT = "imagefolder wants train/CLASS/IMAGE and test/ (or val/) alike"

TINY_FOLDER, TINY_SIDE = "tiny-imagenet-200", 64
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"  # the server offers no https for it
INDEX_BYTES = 2**26  # of a file that lists images or classes, at most
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TINY_LAYOUT = f"the layout is that of {TINY_FOLDER}.zip (a copy with val/CLASS/ folders: --dataset imagefolder)"


def load_imagefolder(source: Source) -> ImageData:
    """``train/CLASS/*`` and ``test/CLASS/*`` (or ``val/``), RGB, scaled to a square. Classes and images are in the
    order of their names."""
    (_, side, _), _ = describe_imagefolder(source)
    train, val, classes = _class_folders(source)
    train_files = _training_files([train / name for name in classes])
    val_files = _labelled([val / name for name in classes])
    if not val_files:
        raise MaldropError(f"no images in {val}; {FOLDER_LAYOUT}")
    return load_images(Listing(source.root, tuple(classes), train_files, val_files), side, source)


def describe_imagefolder(source: Source) -> tuple[Shape, int]:
    """Looks at the folders and the first image alone: the default side is its shorter side, at most 224."""
    train, _, classes = _class_folders(source)
    first, _ = _training_files([train / classes[0]])[0]
    side = source.config.image_size
    if side is None:
        try:
            with Image.open(first) as image:
                side = min(*image.size, MAX_DEFAULT_SIDE)
        except Exception as error:  # a damaged image can raise nearly anything
            raise unreadable(first, error) from None
    return (3, side, side), len(classes)


def _class_folders(source: Source) -> tuple[Path, Path, list[str]]:
    """The folders of the training and of the validation images, and the names of the classes, a folder in each."""
    if source.data_dir is None:
        raise UsageError("", "--dataset imagefolder needs --data-dir: a folder with train/ and test/ or val/ in it")
    train, test, val = (source.root / name for name in ("train", "test", "val"))
    val = val if val.is_dir() and not test.is_dir() else test
    classes = _subfolders(train, FOLDER_LAYOUT)
    if strange := set(_subfolders(val, FOLDER_LAYOUT)) - set(classes):
        raise MaldropError(f"{val / min(strange)} is a class that {train} does not have")
    if not classes:
        raise MaldropError(f"no images in {train}; {FOLDER_LAYOUT}")
    return train, val, classes


def load_tiny_imagenet(source: Source) -> ImageData:
    """RGB, 64x64 unless --image-size says otherwise; classes in the order of their WordNet ids.

    A part of the data set is read as well. The classes are those of ``wnids.txt`` that have a folder in ``train``;
    folders and validation images of other classes are left out.
    """
    root = _find(source) or fetch_archive(source, TINY_URL, TINY_MD5, TINY_FOLDER)
    wnids = _wnids(root, source.warn)
    train = _training_files([root / "train" / wnid / "images" for wnid in wnids])
    val = _validation_files(root, wnids)
    lines = _lines(root / "words.txt") if (root / "words.txt").exists() else []
    words = {wnid: name.strip() for wnid, _, name in (line.partition("\t") for line in lines)}
    listing = Listing(root, tuple(words.get(wnid) or wnid for wnid in wnids), train, val)
    return load_images(listing, source.config.image_size or TINY_SIDE, source)


def describe_tiny_imagenet(source: Source) -> tuple[Shape, int]:
    root = _find(source)  # if there is none, what would be downloaded has 200 classes
    return (3, TINY_SIDE, TINY_SIDE), len(_wnids(root, source.warn)) if root else 200


def _find(source: Source) -> Path | None:
    """The folder of the official layout: ``--data-dir`` itself, or in it; None if it is neither."""
    root = source.root
    if (root / TINY_FOLDER).is_dir():
        return root / TINY_FOLDER
    marked = (root / "wnids.txt").exists() or (root / "val" / "val_annotations.txt").exists()
    return root if root.is_dir() and (marked or root.name == TINY_FOLDER) else None


def _wnids(root: Path, warn: Warn) -> list[str]:
    """The WordNet ids that ``wnids.txt`` lists and ``train`` has a folder of, in order."""
    listed, present = set(_lines(root / "wnids.txt")), set(_subfolders(root / "train", TINY_LAYOUT))
    if not listed & present:
        raise MaldropError(f"{root / 'train'} has no folder of any class in {root / 'wnids.txt'}")
    for names, reason in ((listed, "listed in wnids.txt but without"), (present, "not listed in wnids.txt but with")):
        if left_out := names - (listed & present):
            warn(f"{root}: classes {reason} a folder in train/ are left out: {len(left_out)}, {min(left_out)} for one")
    return sorted(listed & present)


def _validation_files(root: Path, wnids: Sequence[str]) -> list[File]:
    """Those of the classes ``wnids``, by name. A line of annotations holds a file name, an id and, unused, a box."""
    annotations, folder = root / "val" / "val_annotations.txt", root / "val" / "images"
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    wnid_of: dict[str, str] = {}
    for number, line in enumerate(_lines(annotations), 1):
        name, *fields = line.split("\t")
        if not fields or not fields[0] or name in wnid_of:
            reason = "names an image for the second time" if name in wnid_of else "is no file name, tab and class"
            raise MaldropError(f"{annotations}: line {number} {reason}: {line[:80]!r}")
        wnid_of[name] = fields[0]
    files = [(str(folder / name), label_of[wnid]) for name, wnid in sorted(wnid_of.items()) if wnid in label_of]
    if missing := {path for path, _ in files}.difference(image_files(folder)):
        raise MaldropError(f"{min(missing)} is missing, and {annotations} names it")
    if not files:
        raise MaldropError(f"{annotations} names no image of the {len(wnids)} classes in {root / 'train'}")
    return files


def _lines(path: Path) -> list[str]:
    """The lines that are not empty. MaldropError if the file is missing, damaged or empty."""
    try:
        text = read_up_to(INDEX_BYTES, path).decode("utf-8-sig")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise MaldropError(f"{path} can't be read: {reason}; {TINY_LAYOUT}") from None
    if not lines:
        raise MaldropError(f"{path} is empty")
    return lines


def _subfolders(folder: Path, layout: str) -> list[str]:
    """Their names in order. MaldropError if ``folder`` is none."""
    if not folder.is_dir():
        raise MaldropError(f"{folder} is no folder; {layout}")
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _training_files(folders: Sequence[Path]) -> list[File]:
    """The images of every class, a folder each. MaldropError if one has none."""
    files = _labelled(folders)
    if empty := set(range(len(folders))) - {label for _, label in files}:
        raise MaldropError(f"no images in {folders[min(empty)]}: each class needs some for training")
    return files


def _labelled(folders: Sequence[Path]) -> list[File]:
    return [(path, label) for label, folder in enumerate(folders) for path in image_files(folder)]


def image_files(folder: str | Path) -> Iterator[str]:
    """The images in and below ``folder``, if it exists, in the order of their names."""
    if not Path(folder).is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from image_files(entry.path)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.is_dir():
            yield entry.path
