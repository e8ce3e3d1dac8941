"""Image files to pixels, in parallel. Imports no torch, so that worker processes start quickly."""

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maldrop_cli.names import MaldropError, one_line

FILES_PER_PROCESS = 2000  # threads decode fewer before a process has started
CHUNK_FILES, CHUNK_BYTES = 128, 2**22  # limits of a task: files, bytes of pixels
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # of Pillow; it would run Ghostscript for PostScript
MAX_PIXELS = 2**27  # of a picture: above the largest cameras, and 400 MB in memory
Note = tuple[str, str, str]  # the kind of a warning of Pillow, the file, the warning
_thread = threading.local()  # .path: the file that it decodes, .notes: its list of notes


def decode_all(
    paths: Sequence[str],
    side: int,
    tick: Callable[[int], None] = lambda done: None,
    warn: Callable[[str], None] = lambda message: None,
) -> NDArray[np.uint8]:
    """(N, 3, side, side): every file as RGB, scaled to a square. ``tick`` gets the number of files done so far,
    ``warn`` a line for each kind of warning that Pillow has.

    Raises MaldropError for the first file that is no image, and names it.
    """
    with warnings.catch_warnings():
        _note_warnings()
        pixels, notes = _decode_in_pool(paths, side, tick)
    of_kind: dict[str, dict[str, str]] = {}
    for kind, path, text in notes:
        of_kind.setdefault(kind, {}).setdefault(path, text)
    for texts in of_kind.values():
        path, text = next(iter(texts.items()))
        warn(f"{path}: Pillow warns: {text}" + (f" (the first of {len(texts):,} images)" if len(texts) > 1 else ""))
    return pixels


def _note_warnings() -> None:
    """From now on, and in all of this process, warnings in a thread that decodes become notes."""
    show = warnings.showwarning

    def note(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if hasattr(_thread, "notes"):
            _thread.notes.append((category.__name__, _thread.path, " ".join(str(message).split())))
        else:
            show(message, category, *place, **more)

    for category in (UserWarning, RuntimeWarning):  # palettes and damaged metadata; large pictures
        warnings.simplefilter("always", category)
    warnings.showwarning = note


def _decode_in_pool(
    paths: Sequence[str], side: int, tick: Callable[[int], None]
) -> tuple[NDArray[np.uint8], list[Note]]:
    """Many files are decoded in processes: with small images Python is busier than the decoder, and threads wait for
    each other."""
    if len(paths) >= 2 * FILES_PER_PROCESS:
        from joblib import cpu_count
        from joblib.externals.loky import ProcessPoolExecutor  # runs neither a copy of this process nor its script

        try:
            workers = min(cpu_count(), len(paths) // FILES_PER_PROCESS)
            with ProcessPoolExecutor(workers, initializer=_note_warnings) as pool:
                return _decode(pool, paths, side, tick)
        except (OSError, BrokenExecutor):
            pass  # no process could be started, or one was killed: threads are slower, but always work
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _decode(pool, paths, side, tick)


def _decode(
    pool: Executor, paths: Sequence[str], side: int, tick: Callable[[int], None]
) -> tuple[NDArray[np.uint8], list[Note]]:
    notes: list[Note] = []
    pixels = np.empty((len(paths), 3, side, side), np.uint8)
    step = max(1, min(CHUNK_FILES, CHUNK_BYTES // (3 * side * side)))
    chunks = [paths[start : start + step] for start in range(0, len(paths), step)]
    done = 0
    parts = pool.map(partial(_decode_chunk, side=side), chunks)  # after an error, `map` cancels the tasks left
    for part, noted in parts:
        pixels[done : done + len(part)] = part
        notes += noted
        done += len(part)
        tick(done)
    return pixels, notes


def _decode_chunk(paths: Sequence[str], side: int) -> tuple[NDArray[np.uint8], list[Note]]:
    _thread.notes = []
    return decode_files(paths, side), _thread.notes


def decode_files(paths: Sequence[str], side: int) -> NDArray[np.uint8]:
    """(N, 3, side, side), one file after the other. Raises as :func:`decode_all`."""
    pixels = np.empty((len(paths), 3, side, side), np.uint8)
    for index, path in enumerate(paths):
        _thread.path = path
        try:
            with open_image(path) as image:
                rgb = to_rgb(image)
                if rgb.size != (side, side):
                    rgb = rgb.resize((side, side), Image.Resampling.BILINEAR)
                pixels[index] = np.asarray(rgb).transpose(2, 0, 1)
        except Exception as error:  # a damaged image can raise nearly anything
            raise unreadable(path, error) from None
    return pixels


def open_image(path: str) -> Image.Image:
    """The picture, not yet decoded; an exception of nearly any kind where it is none of FORMATS, or too large."""
    image = Image.open(path, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, and {MAX_PIXELS:,} are the most; scale it down"
        )
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in 8 bit. Of deeper pixels the high byte is taken: what Pillow does with colours, but not with grey.

    ValueError for grey values of no known range, floats and integers with a sign or of 32 bit, and for those with white
    as 0.
    """
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    tiff, bits = getattr(image, "tag_v2", None), 0
    if tiff is None:
        bits = 16 * (image.mode.startswith("I;16") or image.format in ("PNG", "PPM"))
    elif image.mode.startswith("I;16") and tiff[262] == 1:  # black is 0
        [bits] = tiff[258]
    if not bits:
        raise ValueError(f"its grey values (mode {image.mode}) are not unsigned 8 to 16 bit, black as 0; save it so")
    return Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8)).convert("RGB")


def unreadable(path: str, error: Exception) -> MaldropError:
    return MaldropError(f"{path} is no readable image: {one_line(error)}")
