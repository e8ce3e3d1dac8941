"""Whether a file can be put somewhere: found out before any work."""

from __future__ import annotations

from pathlib import Path

from maldrop_cli.config import MaldropError


def check_writable(path: Path) -> None:
    """MaldropError where a file can't be put."""
    if not path.resolve().parent.is_dir():
        raise MaldropError(f"can't write {path}: there is no folder {path.resolve().parent}")
    if path.is_dir():
        raise MaldropError(f"can't write {path}: it is a folder")
