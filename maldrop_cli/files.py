"""Files: their names as a shell reads them, checked before any work; written in one piece, read up to a limit."""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from maldrop_cli.names import MaldropError, UsageError

STDOUT = Path("-")  # where an option takes it for a file
_MAY_BE_ONE = ({"save", "resume"}, {"save_config", "config"})  # written after it was read


def expand(path: Path, name: str) -> Path:
    """``path`` with ``~`` and environment variables replaced; ``name``: of its flag, for the message.

    MaldropError for a user or a variable that is not there, and for a path that no system can follow: a loop of links.
    """
    text = os.path.expandvars(path)
    try:
        expanded = Path(text).expanduser()
        expanded.stat()
    except RuntimeError:
        raise MaldropError(
            f"{name}: {path} begins with a home folder that is not known; write the whole path"
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        if unset := re.search(r"\$\{?([A-Za-z_]\w*)", text):
            raise MaldropError(f"{name}: {path} names the variable {unset[1]}, which is not set") from None
    except PermissionError:
        pass  # who opens it says what was not allowed
    except (OSError, ValueError) as error:
        raise MaldropError(f"{name}: {path} can't be followed: {getattr(error, 'strerror', None) or error}") from None
    return expanded


def check_apart(options: Mapping[str, object]) -> None:
    """UsageError where two options are paths of one file, so that one would overwrite what the other wrote."""
    flags: dict[Path, str] = {}
    for name, path in options.items():
        if not isinstance(path, Path) or (path.exists() and not path.is_file()):  # a terminal takes both
            continue
        other = flags.setdefault(path.resolve(), name)
        if other != name and {other, name} not in _MAY_BE_ONE:
            flag = other.replace("_", "-")
            raise UsageError(name, f"{path} is the file of --{flag} as well, and one would overwrite the other")


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` at the end of the ``with``; of a link, the place of what it leads to.

    A reader sees the old file or the new one, never half of one; of two writers the last one wins. OSError when the
    disk fails: then, or when the ``with`` raises, the old file stays and nothing else is left. A process that is killed
    leaves ``.NAME-*`` behind. A device or a pipe stays what it is, and is written to as it goes; so is what this
    process writes to anyway, as ``/dev/stdout``, and a file in a folder that takes no other.
    """
    stream = _stream(path)
    if stream or (path.exists() and not (path.is_file() and os.access(path.resolve().parent, os.W_OK))):
        with open(os.dup(stream) if stream else path, "wb") as file:  # noqa: PTH123  (a descriptor is no Path)
            yield file
        return
    path = path.resolve()
    beside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("xb") as file:
            if path.exists():
                beside.chmod(path.stat().st_mode & 0o777 | 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash can leave a renamed file of zeros
        beside.replace(path)  # not every system renames an open file
    finally:
        beside.unlink(missing_ok=True)


def _stream(path: Path) -> int | None:
    """The number of stdout or stderr where ``path`` leads there."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        with suppress(OSError):
            if os.path.samestat(path.stat(), os.fstat(number)):
                stream.flush()
                return number
    return None


def check_writable(path: Path) -> None:
    """MaldropError where a file can't be put."""
    if not path.resolve().parent.is_dir():
        raise MaldropError(f"can't write {path}: there is no folder {path.resolve().parent}")
    if path.is_dir():
        raise MaldropError(f"can't write {path}: it is a folder")
    place = path if path.exists() else path.resolve().parent
    if not os.access(place, os.W_OK):
        raise MaldropError(f"can't write {path}: {place} is read-only for you")


def write_output(path: Path, content: bytes) -> None:
    """Write a table or a picture, to stdout where ``path`` is STDOUT; MaldropError where the disk fails."""
    if path == STDOUT:
        if sys.stdout is not None:  # as it is where a shell closed it
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
        return
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise MaldropError(f"can't write {path}: {error.strerror or error}; the runs themselves are kept") from None


def read_up_to(limit: int, path: Path) -> bytes:
    """The content of a file. ValueError where it is longer than ``limit`` bytes, or has no end, as /dev/zero has none;
    OSError where it can't be read."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is longer than {limit:,} bytes")
    return content
