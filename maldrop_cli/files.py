"""Files: written in one piece, and places for them checked before any work."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from maldrop_cli.names import MaldropError


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` at the end of the ``with``.

    A reader sees the old file or the new one, never half of one; of two writers the last one wins. OSError when the
    disk fails: then, or when the ``with`` raises, the old file stays and nothing else is left. A process that is killed
    leaves ``.NAME-*`` behind.
    """
    beside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash can leave a renamed file of zeros
        beside.replace(path)  # not every system renames an open file
    finally:
        beside.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """MaldropError where a file can't be put."""
    if not path.resolve().parent.is_dir():
        raise MaldropError(f"can't write {path}: there is no folder {path.resolve().parent}")
    if path.is_dir():
        raise MaldropError(f"can't write {path}: it is a folder")


def write_output(path: Path, content: bytes) -> None:
    """Write a table or a picture; MaldropError where the disk fails."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise MaldropError(f"can't write {path}: {error.strerror or error}; the runs themselves are kept") from None
