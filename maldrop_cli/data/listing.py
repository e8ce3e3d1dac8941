"""Which image files there are, with the size and time by which a changed one is known."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from maldrop_cli.config import MaldropError
from maldrop_cli.data.dataset import one_line

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class ImageFile(NamedTuple):
    path: str  # a string: a hundred thousand Paths cost a second
    size: int  # bytes
    mtime_ns: int


@dataclass(frozen=True)
class Files:
    """The images of a split and their labels, one each."""

    images: list[ImageFile]
    labels: list[int]

    def add(self, images: list[ImageFile], label: int) -> None:
        self.images.extend(images)
        self.labels.extend([label] * len(images))


@dataclass(frozen=True)
class Listing:
    """A data set as files, not yet read. ``root``: the folder that holds them, absolute."""

    root: Path
    classes: tuple[str, ...]
    train: Files
    val: Files


def image_files(folder: str | Path, *, deep: bool = False) -> Iterator[ImageFile]:
    """The images in ``folder``, and ``deep`` below it, in the order of their names; one stat a file.

    Raises MaldropError for a file that can't be looked at, such as a link that leads nowhere.
    """
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            if deep:
                yield from image_files(entry.path, deep=True)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.is_dir():
            try:
                stat = entry.stat()
            except OSError as error:
                raise MaldropError(f"{entry.path} is no readable image: {one_line(error)}") from None
            yield ImageFile(entry.path, stat.st_size, stat.st_mtime_ns)
