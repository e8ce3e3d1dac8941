"""Data sets of image files: imagefolder, a folder for each class, and tiny-imagenet.

tiny-imagenet is the official archive of Stanford's course CS231n, or any part of it: ``tiny-imagenet-200/`` holds
``wnids.txt`` (a class a line), ``words.txt`` (names of classes), ``train/WNID/images/*.JPEG``, ``val/images/*.JPEG``,
and ``val/val_annotations.txt`` (a line an image: file, tab, class).
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from maldrop_cli.data.dataset import ImageData, Shape, Source, Warn
from maldrop_cli.data.decoding import open_image, unreadable
from maldrop_cli.data.download import fetch_archive
from maldrop_cli.data.image_cache import File, Listing, load_images
from maldrop_cli.files import read_up_to
from maldrop_cli.names import MaldropError, UsageError, one_line

IMAGE_SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
# Of macOS, Windows, Synology and Linux, in lower case; a dot in front is the sign of all others.
SYSTEM_NAMES = {"__macosx", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini", "@eadir",
                "#recycle", "lost+found"}  # fmt: skip
HIDDEN, ELSEWHERE, TWICE = "hidden or of the system", "in no class folder", "behind links to folders read anyway"
Skipped = Counter[str]  # files that are not read, by reason
MAX_DEFAULT_SIDE = 224  # of imagefolder without --image-size
FOLDER_LAYOUT = "imagefolder wants train/CLASS/IMAGE and test/ (or val/) alike"

TINY_FOLDER, TINY_SIDE = "tiny-imagenet-200", 64
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"  # the server offers no https for it
INDEX_BYTES = 2**26  # of a file that lists images or classes, at most
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TINY_LAYOUT = f"the layout is that of {TINY_FOLDER}.zip (a copy with val/CLASS/ folders: --dataset imagefolder)"


def load_imagefolder(source: Source) -> ImageData:
    """``train/CLASS/*`` and ``test/CLASS/*`` (or ``val/``), RGB, scaled to a square. Classes and images are in the
    order of their names. As with torchvision, a JPEG is not turned upright, whatever its EXIF data say."""
    (_, side, _), _ = describe_imagefolder(source)
    skipped = Skipped()
    train, val, classes = _class_folders(source, skipped)
    train_files = _training_files([train / name for name in classes], skipped)
    val_files = _labelled([val / name for name in classes], skipped)
    if not val_files:
        raise MaldropError(f"no images in {val}; {FOLDER_LAYOUT}")
    return _load(Listing(source.root, tuple(classes), train_files, val_files), side, source, skipped)


def _load(listing: Listing, side: int, source: Source, skipped: Skipped) -> ImageData:
    """Say what was found, in one line, a warning if files were skipped; then load it."""
    val = Path(listing.val[0][0]).relative_to(listing.root).parts[0]  # of imagefolder test or val
    counts = f"{len(listing.train):,} images in train, {len(listing.val):,} in {val}"
    found = f"{listing.root}: {len(listing.classes)} classes, {counts}"
    if skipped := +skipped:  # without zeros
        reasons = [f"{count:,} {reason}" for reason, count in skipped.most_common(6)]
        more = ["others"] if len(skipped) > 6 else []
        source.warn(f"{found}; files skipped: {skipped.total():,} ({', '.join(reasons + more)})")
    else:
        source.progress(found, 0, 0)
    return load_images(listing, side, source)


def describe_imagefolder(source: Source) -> tuple[Shape, int]:
    """Looks at the folders and the first image alone: the default side is its shorter side, at most 224."""
    train, _, classes = _class_folders(source, Skipped())
    first, _ = _training_files([train / classes[0]], Skipped())[0]
    side = source.config.image_size
    if side is None:
        try:
            with warnings.catch_warnings(action="ignore"), open_image(first) as image:  # decoding warns
                side = min(*image.size, MAX_DEFAULT_SIDE)
        except Exception as error:  # a damaged image can raise nearly anything
            raise unreadable(first, error) from None
    return (3, side, side), len(classes)


def _class_folders(source: Source, skipped: Skipped) -> tuple[Path, Path, list[str]]:
    """The folders of the training and of the validation images, and the names of the classes, a folder in each."""
    if source.data_dir is None:
        raise UsageError("", "--dataset imagefolder needs --data-dir: a folder with train/ and test/ or val/ in it")
    train, test, val = (source.root / name for name in ("train", "test", "val"))
    val = val if val.is_dir() and not test.is_dir() else test
    classes = _subfolders(train, FOLDER_LAYOUT, skipped)
    if strange := set(_subfolders(val, FOLDER_LAYOUT, skipped)) - set(classes):
        raise MaldropError(f"{val / min(strange)} is a class that {train} does not have")
    if not classes:
        raise MaldropError(f"no images in {train}; {FOLDER_LAYOUT}")
    _check_classes(classes, train)
    return train, val, classes


def _check_classes(names: Sequence[str], train: Path) -> None:
    """MaldropError where there is nothing to tell apart: any network would be right at once."""
    if len(names) == 1:
        raise MaldropError(f"{train} has one class, {names[0]}: to classify takes at least two")


def load_tiny_imagenet(source: Source) -> ImageData:
    """RGB, 64x64 unless --image-size says otherwise; classes in the order of their WordNet ids.

    A part of the data set is read as well. The classes are those of ``wnids.txt`` that have a folder in ``train``;
    folders and validation images of other classes are left out.
    """
    root = _find(source) or fetch_archive(source, TINY_URL, TINY_MD5, TINY_FOLDER)
    skipped = Skipped()
    wnids = _wnids(root, source.warn, skipped)
    train = _training_files([root / "train" / wnid / "images" for wnid in wnids], skipped)
    val = _validation_files(root, wnids, skipped)
    lines = _lines(root / "words.txt") if (root / "words.txt").exists() else []
    words = {wnid: name.strip() for wnid, _, name in (line.partition("\t") for line in lines)}
    listing = Listing(root, tuple(words.get(wnid) or wnid for wnid in wnids), train, val)
    return _load(listing, source.config.image_size or TINY_SIDE, source, skipped)


def describe_tiny_imagenet(source: Source) -> tuple[Shape, int]:
    root = _find(source)  # if there is none, what would be downloaded has 200 classes
    return (3, TINY_SIDE, TINY_SIDE), len(_wnids(root, source.warn, Skipped())) if root else 200


def _find(source: Source) -> Path | None:
    """The folder of the official layout: ``--data-dir`` itself, or in it; None if it is neither."""
    root = source.root
    if (root / TINY_FOLDER).is_dir():
        return root / TINY_FOLDER
    marked = (root / "wnids.txt").exists() or (root / "val" / "val_annotations.txt").exists()
    return root if root.is_dir() and (marked or root.name == TINY_FOLDER) else None


def _wnids(root: Path, warn: Warn, skipped: Skipped) -> list[str]:
    """The WordNet ids that ``wnids.txt`` lists and ``train`` has a folder of, in order."""
    listed, present = set(_lines(root / "wnids.txt")), set(_subfolders(root / "train", TINY_LAYOUT, skipped))
    if not listed & present:
        raise MaldropError(f"{root / 'train'} has no folder of any class in {root / 'wnids.txt'}")
    for names, reason in ((listed, "listed in wnids.txt but without"), (present, "not listed in wnids.txt but with")):
        if left_out := names - (listed & present):
            warn(f"{root}: classes {reason} a folder in train/ are left out: {len(left_out)}, {min(left_out)} for one")
    _check_classes([*listed & present], root / "train")
    return sorted(listed & present)


def _validation_files(root: Path, wnids: Sequence[str], skipped: Skipped) -> list[File]:
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
    found = list(image_files(folder, skipped))
    skipped["not in val_annotations.txt"] += sum(
        path.removeprefix(f"{folder}{os.sep}") not in wnid_of for path in found
    )
    skipped["of classes left out"] += len(wnid_of) - len(files)
    if missing := {path for path, _ in files}.difference(found):
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


def _subfolders(folder: Path, layout: str, skipped: Skipped) -> list[str]:
    """Their names in order. MaldropError if ``folder`` is none."""
    if not folder.is_dir():
        raise MaldropError(f"{folder} is no folder; {layout}")
    entries = [entry for entry in folder.iterdir() if not _hidden(entry.name, entry, skipped)]
    names = sorted(entry.name for entry in entries if entry.is_dir())
    skipped[ELSEWHERE] += len(entries) - len(names)
    return names


def _training_files(folders: Sequence[Path], skipped: Skipped) -> list[File]:
    """The images of every class, a folder each. MaldropError if one has none."""
    files = _labelled(folders, skipped)
    if empty := set(range(len(folders))) - {label for _, label in files}:
        raise MaldropError(f"no images in {folders[min(empty)]}: each class needs some for training")
    return files


def _labelled(folders: Sequence[Path], skipped: Skipped) -> list[File]:
    return [(path, label) for label, folder in enumerate(folders) for path in image_files(folder, skipped)]


def image_files(folder: str | Path, skipped: Skipped | None = None) -> Iterator[str]:
    """The images in and below ``folder``, if it exists, in the order of their names.

    Links are followed, except into a folder that is read anyway, or that holds ``folder`` itself.
    """
    skipped = Skipped() if skipped is None else skipped
    top = os.path.realpath(folder)
    seen = {top}

    def below(folder: str, real: str) -> Iterator[str]:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if _hidden(entry.name, entry, skipped):
                continue
            linked = entry.is_symlink() and os.path.isdir(entry)  # noqa: PTH112  (a Path is slow)
            if linked or entry.is_dir(follow_symlinks=False):
                target = os.path.realpath(entry) if linked else str(Path(real, entry.name))
                around = Path(target).is_relative_to(top) or Path(top).is_relative_to(target)
                if target in seen or (linked and around):
                    skipped[TWICE] += 1
                else:
                    seen.add(target)
                    yield from below(entry.path, target)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                yield entry.path
            else:
                skipped[Path(entry).suffix.lower() or "without a suffix"] += 1

    if Path(folder).is_dir():
        yield from below(str(folder), top)


def _hidden(name: str, path: os.PathLike[str], skipped: Skipped) -> bool:
    """Whether it is a file or a folder that no user sees; the files in it are counted."""
    if not name.startswith(".") and name.lower() not in SYSTEM_NAMES:
        return False
    skipped[HIDDEN] += sum(len(files) for _, _, files in os.walk(path)) if Path(path).is_dir() else 1
    return True
