"""Image files to pixels, in parallel. Imports no torch, so that worker processes start quickly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from maldrop_cli.config import MaldropError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILES_PER_PROCESS = 2000  # fewer are decoded before a worker has started
CHUNK_FILES, CHUNK_BYTES = 128, 2**22  # a worker's task: at most so many files, about so many bytes of pixels


def decode_all(paths: Sequence[str], side: int, tick: Callable[[int], None] = lambda done: None) -> NDArray[np.uint8]:
    """(N, 3, side, side): every file as RGB, scaled to a square. ``tick`` gets the number of files done so far.

    Raises MaldropError, which names the file, for the first that is no image. Small images keep Python busier than the
    decoder, so that threads wait for each other: many files are shared out among processes.
    """
    if len(paths) >= 2 * FILES_PER_PROCESS:
        try:
            with _processes(len(paths) // FILES_PER_PROCESS) as pool:
                return _decode(pool, paths, side, tick)
        except (OSError, BrokenExecutor):
            pass  # a system that lets us start none, or that killed one: threads are slower, and always there
    with _threads() as pool:
        return _decode(pool, paths, side, tick)


def _decode(pool: Executor, paths: Sequence[str], side: int, tick: Callable[[int], None]) -> NDArray[np.uint8]:
    pixels = np.empty((len(paths), 3, side, side), np.uint8)
    step = max(1, min(CHUNK_FILES, CHUNK_BYTES // (3 * side * side)))
    done = 0
    for part in pool.map(partial(decode_files, side=side), [paths[k : k + step] for k in range(0, len(paths), step)]):
        pixels[done : done + len(part)] = part
        done += len(part)
        tick(done)
    return pixels


def decode_files(paths: Sequence[str], side: int) -> NDArray[np.uint8]:
    """(N, 3, side, side). Raises as :func:`decode_all`."""
    pixels = np.empty((len(paths), 3, side, side), np.uint8)
    for index, path in enumerate(paths):
        pixels[index] = decode_file(path, side).transpose(2, 0, 1)
    return pixels


def decode_file(path: str, side: int) -> NDArray[np.uint8]:
    """(side, side, 3); a truncated or foreign file is a MaldropError that names it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            colour = image.convert("RGB")
            if colour.size != (side, side):
                colour = colour.resize((side, side), Image.Resampling.BILINEAR)
            return np.asarray(colour)
    except Exception as error:  # a damaged image can raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MaldropError(f"{path} is no readable image: {reason}") from None


@contextmanager
def _threads() -> Iterator[Executor]:
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:  # after a damaged image, don't decode the rest
        pool.shutdown(cancel_futures=True)


@contextmanager
def _processes(most: int) -> Iterator[Executor]:
    """One a core, at ``most`` so many; loky's, as they run neither a copy of this process nor the user's script."""
    from joblib import cpu_count
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.backend import get_context

    pool = ProcessPoolExecutor(min(cpu_count(), most), context=get_context("loky"))
    try:
        yield pool
    finally:  # waits for the tasks under way; `map` has cancelled the others, on which loky's kill_workers would hang
        pool.shutdown()
