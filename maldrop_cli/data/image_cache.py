"""Decoded images in the user's cache: decoded once, mapped into memory ever after.

One file for each data set, folder and image size: a plain ``.npy`` of uint8 (N, 3, side, side), training images
first, and behind it an index, a block of ``INDEX_BYTES``. Its key covers every file's path, size and time of change:
when one differs, the images are decoded again into the same place. What the pixels are is not taken from the index:
the digest, the mean and the deviation are worked out from them at each load.
"""

import errno
import hashlib
import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from maldrop_cli.data.dataset import ImageData, NotCachedError, Source, Split, cache_dir, finish
from maldrop_cli.data.decoding import decode_all, unreadable
from maldrop_cli.files import atomic_write
from maldrop_cli.names import one_line

FORMAT = 2  # raise it whenever the same files would give another cache
INDEX_BYTES = 4096
ABANDONED_SECONDS = 24 * 3600.0  # the age at which a half-written file has no writer any more
File = tuple[str, int]  # path, label


@dataclass(frozen=True)
class Listing:
    """A data set as files, not yet read. ``root``: the folder that holds them, absolute."""

    root: Path
    classes: tuple[str, ...]
    train: list[File]
    val: list[File]

    def splits(self, pixels: NDArray[np.uint8]) -> tuple[Split, Split]:
        """``pixels`` (N, 3, side, side), training images first, with their labels."""
        labels, border = torch.tensor([label for _, label in self.train + self.val]), len(self.train)
        both = Split(torch.from_numpy(pixels), labels)
        return both[:border], both[border:]


def load_images(listing: Listing, side: int, source: Source) -> ImageData:
    """The images of ``listing``, RGB, scaled to a square; from the cache if they are there, else into it.

    NotCachedError where they are not there and may not be decoded now; MaldropError for a file that is no image. A
    cache that is damaged or can't be written costs a warning, no more.
    """
    name = source.config.dataset.value
    place = cache_dir() / "images" / f"{_hash(name, str(listing.root), str(side))[:16]}.npy"
    key, paths = _key(listing, side), [path for path, _ in listing.train + listing.val]
    if stored := _read(place, key, listing, side, source):
        return stored
    if source.cached:
        raise NotCachedError(f"the images of {listing.root} are not decoded yet", "decoded")
    pixels = decode_all(paths, side, lambda done: source.progress("decoding images", done, len(paths)), source.warn)
    data = finish(name, *listing.splits(pixels), listing.classes, None)
    try:
        _write(place, key, pixels, data)
    except OSError as error:
        source.warn(
            f"the decoded images can't be kept in {place.parent} ({error.strerror or one_line(error)}), so the next "
            "start decodes them again; the variable MALDROP_CACHE names another folder"
        )
        return data
    return _read(place, key, listing, side, source) or data  # mapped: the memory of the others is free again


def _key(listing: Listing, side: int) -> str:
    """What the decoded images depend on: the files, the size, the decoder and the format."""
    parts = [str(FORMAT), PIL.__version__, str(side)]
    for path, label in listing.train + listing.val:
        try:
            facts = os.stat(path)  # noqa: PTH116  (a hundred thousand Paths cost a second)
        except OSError as error:  # a link that leads nowhere, say
            raise unreadable(path, error) from None
        parts.append(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0{label}")
    return _hash(*parts)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def _read(place: Path, key: str, listing: Listing, side: int, source: Source) -> ImageData | None:
    """The cached images, mapped; None when there are none for this key, and after a warning when they are damaged."""
    try:
        _check_file(place)
        with place.open("rb") as file:
            _check_owner(os.fstat(file.fileno()))
            file.seek(max(file.seek(0, os.SEEK_END) - INDEX_BYTES, 0))
            checksum, _, text = file.read(INDEX_BYTES).partition(b" ")
        if checksum != hashlib.sha256(text).hexdigest().encode():
            raise ValueError("its index is wrong or missing")
        index = json.loads(text)
        if index["key"] != key:
            return None
        # Copy on write: torch warns about arrays that it may not write to, and no write reaches the file.
        pixels = np.load(place, mmap_mode="c")
        expected = np.uint8, (len(listing.train + listing.val), 3, side, side), place.stat().st_size - INDEX_BYTES
        if (pixels.dtype, pixels.shape, pixels.offset + pixels.nbytes) != expected:
            raise ValueError("its header or its size is wrong")
        data = finish(source.config.dataset.value, *listing.splits(pixels), listing.classes, None)
        if data.digest != index["digest"]:
            raise ValueError("its checksum is wrong")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # numpy raises nearly anything for a damaged header
        source.warn(f"{place} is damaged or not yours ({one_line(error)}): the images are decoded again")
        return None
    return data


def _check_file(place: Path) -> None:
    """OSError for a folder or a pipe, which may never end."""
    if place.exists() and not place.is_file():
        raise FileExistsError(errno.EEXIST, "it is no file")


def _check_owner(facts: os.stat_result) -> None:
    """ValueError for a file that another user may have written; root may write all files anyway."""
    if os.name != "nt" and (facts.st_uid not in (os.geteuid(), 0) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise ValueError("another user owns it, or may write to it")


def _write(place: Path, key: str, pixels: NDArray[np.uint8], data: ImageData) -> None:
    """Put the images into ``place``, in one piece. OSError when the disk fails; then nothing is left behind."""
    text = json.dumps({"key": key, "digest": data.digest}).ljust(INDEX_BYTES - 65).encode()
    _check_file(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    for half_written in place.parent.glob(f".{place.name}-*"):
        with suppress(OSError):
            if time.time() - half_written.stat().st_mtime > ABANDONED_SECONDS:
                half_written.unlink()
    with atomic_write(place) as file:
        Path(file.name).chmod(0o644)  # whatever the umask
        np.save(file, pixels)
        file.write(hashlib.sha256(text).hexdigest().encode() + b" " + text)
