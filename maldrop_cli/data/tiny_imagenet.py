"""tiny-imagenet: the official archive of Stanford's course CS231n, or any part of it, in the official layout.

``tiny-imagenet-200/`` holds ``wnids.txt`` (a class a line), ``words.txt`` (names of classes),
``train/WNID/images/*.JPEG``, ``val/images/*.JPEG`` and ``val/val_annotations.txt`` (a line an image: file, tab, class).
"""

from __future__ import annotations

from pathlib import Path

from maldrop_cli.config import MaldropError
from maldrop_cli.data.archive import fetch
from maldrop_cli.data.dataset import ImageData, NotCachedError, Shape, Source, cache_dir, one_line
from maldrop_cli.data.image_cache import load_images
from maldrop_cli.data.listing import Files, ImageFile, Listing, image_files

FOLDER = "tiny-imagenet-200"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"  # the server offers no https for it
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
SIDE = 64


def load_tiny_imagenet(source: Source) -> ImageData:
    """RGB, 64x64 unless --image-size says otherwise; classes in the order of their WordNet ids.

    A part of the data set is read as well. The classes are those of ``wnids.txt`` that have a folder in ``train``;
    folders and validation images of other classes are left out.
    """
    root = _find(source) or _download(source)
    return load_images("tiny-imagenet", _list(root, source), source.config.image_size or SIDE, source)


def describe_tiny_imagenet(source: Source) -> tuple[Shape, int]:
    root = _find(source)  # if there is none, what would be downloaded has 200 classes
    return (3, SIDE, SIDE), len(_classes(root)) if root else 200


def _find(source: Source) -> Path | None:
    """The folder of the official layout: ``--data-dir`` itself, or in it; None if it is neither."""
    root = source.data_dir or cache_dir() / "tiny-imagenet"
    if (root / FOLDER).is_dir():
        return root / FOLDER
    looks_like_it = root.name == FOLDER or (root / "wnids.txt").exists() or (root / "val/val_annotations.txt").exists()
    return root if root.is_dir() and looks_like_it else None


def _download(source: Source) -> Path:
    root = source.data_dir or cache_dir() / "tiny-imagenet"
    if source.cached:
        raise NotCachedError(f"no files in {root}")
    fetch(URL, MD5, root, FOLDER, "tiny-imagenet", source.progress)
    return root / FOLDER


def _list(root: Path, source: Source) -> Listing:
    wnids = _classes(root)
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train, val = Files([], []), Files([], [])
    for wnid, label in label_of.items():
        folder = root / "train" / wnid / "images"
        images = list(image_files(folder)) if folder.is_dir() else []
        if not images:
            raise MaldropError(f"no images in {folder}: each class needs some for training")
        train.add(images, label)
    annotations, folder = root / "val" / "val_annotations.txt", root / "val" / "images"
    present = _validation_images(folder)
    for name, wnid in sorted(_annotations(annotations).items()):
        if wnid in label_of:
            if name not in present:
                raise MaldropError(f"{folder / name} is missing, and {annotations} names it")
            val.add([present[name]], label_of[wnid])
    if not val.images:
        raise MaldropError(f"{annotations} names no image of the {len(wnids)} classes in {root / 'train'}")
    for amiss, names in (
        ("listed in wnids.txt but without a folder in train/", _listed(root) - set(wnids)),
        ("with a folder in train/ but not listed in wnids.txt", _folders(root) - set(wnids)),
    ):
        if names:
            source.warn(f"{root}: classes {amiss} are left out: {len(names)}, {min(names)} for one")
    words = _words(root / "words.txt")
    return Listing(root, tuple(words.get(wnid, wnid) for wnid in wnids), train, val)


def _classes(root: Path) -> list[str]:
    """The WordNet ids that ``wnids.txt`` lists and ``train`` has a folder of, in order."""
    wnids = sorted(_listed(root) & _folders(root))
    if not wnids:
        raise MaldropError(f"{root / 'train'} has no folder of any class in {root / 'wnids.txt'}")
    return wnids


def _listed(root: Path) -> set[str]:
    return set(_lines(root / "wnids.txt"))


def _folders(root: Path) -> set[str]:
    if not (root / "train").is_dir():
        raise MaldropError(f"{root / 'train'} is no folder; the layout is {FOLDER}/train/WNID/images/*.JPEG")
    return {entry.name for entry in (root / "train").iterdir() if entry.is_dir()}


def _validation_images(folder: Path) -> dict[str, ImageFile]:
    if not folder.is_dir():
        raise MaldropError(f"{folder} is no folder; validation images lie in {FOLDER}/val/images/*.JPEG")
    return {Path(file.path).name: file for file in image_files(folder)}


def _annotations(path: Path) -> dict[str, str]:
    """Validation image to WordNet id; each line holds a file name, an id and, unused here, a bounding box."""
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        name, *fields = line.split("\t")
        if not fields or not fields[0] or name in found:
            reason = "names an image for the second time" if name in found else "is no file name, tab and class"
            raise MaldropError(f"{path}: line {number} {reason}: {line[:80]!r}")
        found[name] = fields[0]
    return found


def _words(path: Path) -> dict[str, str]:
    """WordNet id to words; empty without the file, as only names are lost."""
    pairs = (line.partition("\t") for line in (_lines(path) if path.exists() else ()))
    return {wnid: words.strip() for wnid, _, words in pairs if words.strip()}


def _lines(path: Path) -> list[str]:
    """The lines that are not empty. MaldropError if the file is missing, damaged or empty."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise MaldropError(
            f"{path} can't be read: {getattr(error, 'strerror', None) or one_line(error)}; "
            f"the layout is that of {FOLDER}.zip (a copy with val/CLASS/ folders: --dataset imagefolder)"
        ) from None
    if not lines:
        raise MaldropError(f"{path} is empty")
    return lines
