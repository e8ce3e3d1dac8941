"""A Figure as a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from maldrop_cli.config import MaldropError
from maldrop_cli.plots.style import styled

# No dates and no versions: the same runs give the same bytes.
METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def render(figure: Figure, suffix: str) -> bytes:
    """The figure as PNG, SVG or PDF, by one of the suffixes of METADATA."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=suffix.removeprefix("."), metadata=METADATA[suffix])
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write it, in the form that the suffix says; MaldropError where the file can't be written."""
    content = render(figure, path.suffix.lower())
    try:
        path.write_bytes(content)
    except OSError as error:
        raise MaldropError(f"can't write {path}: {error.strerror or error}; the runs themselves are kept") from None
