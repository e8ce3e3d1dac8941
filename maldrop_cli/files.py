"""Files that appear in one piece: written beside their place, and renamed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` at the end of the ``with``.

    A reader sees the old file or the new one, never half of one; of two writers the last one wins. OSError when the
    disk does not play along: then, or when the ``with`` raises, the old file stays and nothing else is left. A process
    that is killed leaves ``.NAME-*`` behind.
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
