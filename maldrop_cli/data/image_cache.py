"""Decoded images in the user's cache: decoded and hashed once, mapped into memory ever after.

One file for each data set, folder and image size: a plain ``.npy`` of uint8 (N, 3, side, side), training images
first, and behind it an index, a block of ``INDEX_BYTES``. It is written beside its place and renamed, so that a reader
sees all of it or nothing, and of two writers the last one wins. Its key covers every file's path, size and time of
change: when one differs, the images are decoded anew and take the same place. Nothing is ever written to the folder of
the images.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy

from maldrop_cli.data.dataset import ImageData, NotCachedError, Source, Split, cache_dir, finish, one_line
from maldrop_cli.data.decoding import decode_all
from maldrop_cli.data.listing import Files, Listing
from maldrop_cli.files import atomic_write

FORMAT = 1  # raise it whenever the same files would give another cache
INDEX_BYTES = 4096
ABANDONED_SECONDS = 24 * 3600.0  # the age at which a half-written file has no writer any more


def load_images(name: str, listing: Listing, side: int, source: Source) -> ImageData:
    """The images of ``listing``, RGB, scaled to a square; from the cache if they are there, else into it.

    NotCachedError where they are not there and may not be decoded now; MaldropError for a file that is no image. A
    cache that is damaged or can't be written costs a warning, no more.
    """
    place = cache_dir() / "images" / f"{_hash(name, str(listing.root), str(side))[:16]}.npy"
    key = _key(listing, side)
    stored = _read(place, key, name, listing, side, source)
    if stored is not None:
        return stored
    if source.cached:
        raise NotCachedError(f"the images of {listing.root} are not decoded yet")
    total = len(listing.train.images) + len(listing.val.images)
    pixels = torch.from_numpy(
        decode_all(
            [file.path for file in (*listing.train.images, *listing.val.images)],
            side,
            lambda done: source.progress("decoding images", done, total),
        )
    )
    train, val = _splits(pixels, listing)
    data = finish(name, (train.images, train.labels), (val.images, val.labels), listing.classes, None)
    data = data.with_digest(data.digest())
    try:
        _write(place, key, pixels.numpy(), data)
    except OSError as error:
        source.warn(
            f"the decoded images can't be kept in {place.parent} ({error.strerror or one_line(error)}), so the next "
            "start decodes them again; the variable MALDROP_CACHE names another folder"
        )
        return data
    return _read(place, key, name, listing, side, source) or data  # mapped: the memory of the others is free again


def _key(listing: Listing, side: int) -> str:
    """What the decoded images depend on: the files, the size, the decoder and the format."""
    import PIL

    parts = [str(FORMAT), PIL.__version__, str(side)]
    for files in (listing.train, listing.val):
        for (path, size, mtime_ns), label in zip(files.images, files.labels, strict=True):
            parts.append(f"{path}\0{size}\0{mtime_ns}\0{label}")
    return _hash(*parts)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def _splits(pixels: torch.Tensor, listing: Listing) -> tuple[Split, Split]:
    def split(images: torch.Tensor, files: Files) -> Split:
        return Split(images, torch.tensor(files.labels))

    border = len(listing.train.images)
    return split(pixels[:border], listing.train), split(pixels[border:], listing.val)


def _read(place: Path, key: str, name: str, listing: Listing, side: int, source: Source) -> ImageData | None:
    """The cached images, mapped; None when there are none for this key, and after a warning when they are damaged."""
    try:
        index = _read_index(place)
        if index["key"] != key:
            return None
        # Copy on write: torch warns about arrays that it may not write to, and no write reaches the file.
        mapped = np.load(place, mmap_mode="c")
        images = len(listing.train.images) + len(listing.val.images)
        if mapped.dtype != np.uint8 or mapped.shape != (images, 3, side, side):
            raise ValueError("its header is wrong")
        if place.stat().st_size != mapped.offset + mapped.nbytes + INDEX_BYTES:
            raise ValueError("its size is wrong")
        if zlib.crc32(mapped.data) != index["crc32"]:  # 4 GB a second
            raise ValueError("its checksum is wrong")
        train, val = _splits(torch.from_numpy(mapped), listing)
        mean, std, digest = tuple(index["mean"]), tuple(index["std"]), index["digest"]
        return ImageData(name, train, val, listing.classes, mean, std).with_digest(digest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        source.warn(f"{place} is damaged ({one_line(error)}): the images are decoded again")
        return None


def _read_index(place: Path) -> dict[str, Any]:
    """The last block of the file: a checksum of the rest of it, and JSON. ValueError if it is damaged."""
    with place.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - INDEX_BYTES, 0))
        checksum, _, text = file.read().partition(b" ")
    if checksum.decode("ascii", "replace") != hashlib.sha256(text).hexdigest():
        raise ValueError("its index is wrong or missing")
    index: dict[str, Any] = json.loads(text)
    return index


def _write(place: Path, key: str, pixels: np.ndarray[Any, np.dtype[np.uint8]], data: ImageData) -> None:
    """Put the images into ``place``, in one piece. OSError when the disk does not play along; then nothing is left
    behind."""
    index = {
        "key": key,
        "digest": data.digest(),
        "mean": data.mean,
        "std": data.std,
        "crc32": zlib.crc32(pixels.data),
    }
    text = json.dumps(index).ljust(INDEX_BYTES - 65).encode()
    place.parent.mkdir(parents=True, exist_ok=True)
    for half_written in place.parent.glob(f".{place.name}-*"):
        with suppress(OSError):
            if time.time() - half_written.stat().st_mtime > ABANDONED_SECONDS:
                half_written.unlink()
    with atomic_write(place) as file:
        npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(pixels))
        file.write(pixels.data)
        file.write(hashlib.sha256(text).hexdigest().encode() + b" " + text)
