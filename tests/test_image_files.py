"""Folders of image files as people have them: deep pixels, folders that are no class, links, odd files."""

import struct
from collections.abc import Callable
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
from conftest import Result
from numpy.typing import NDArray
from PIL import Image

from maldrop_cli.config import DataConfig
from maldrop_cli.data.load import load
from maldrop_cli.names import Dataset

FOLDER = DataConfig(dataset=Dataset.IMAGEFOLDER)
TRAIN = ("train", "--dataset", "imagefolder", "--data-dir", "data", "--epochs", "1", "--threads", "1", "--rho", "2")


@pytest.fixture(autouse=True)
def cache_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALDROP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """24 grey images of 8x8, dark cats and bright dogs: 16 to train on, 8 to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, low in (("cat", 0), ("dog", 128)):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(low, low + 128, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.png")
    return tmp_path / "data"


# --- deep pixels -----------------------------------------------------------------------------------------------------


def tiff(deep: NDArray[np.uint16], bits: int = 16, white_is_zero: bool = False, kind: int = 1) -> bytes:
    """A grey 8x8 TIFF. ``kind``: 1 unsigned, 2 signed, 3 float."""
    data = (deep.astype("<u2") if bits == 16 else deep.astype("<u4")).tobytes()
    if bits == 12:
        pairs = zip(deep.ravel()[::2] >> 4, deep.ravel()[1::2] >> 4, strict=True)
        data = b"".join((int(one) << 12 | int(other)).to_bytes(3, "big") for one, other in pairs)
    tags = [(256, 8), (257, 8), (258, bits), (259, 1), (262, int(not white_is_zero)), (273, 8), (277, 1), (278, 8)]
    tags += [(279, len(data)), (339, kind)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def png(deep: NDArray[np.uint16], colour_type: int, channels: int) -> bytes:
    """An 8x8 PNG of 16 bit; Pillow writes grey ones alone."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc32(kind + content))

    lines = b"".join(b"\0" + row.repeat(channels).astype(">u2").tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compress(lines)) + chunk(b"IEND", b"")


def pgm(deep: NDArray[np.uint16], most: int) -> bytes:
    return b"P5 8 8 %d\n" % most + (deep >> (16 - most.bit_length())).astype(">u2").tobytes()


DEEP: dict[str, Callable[[NDArray[np.uint16]], bytes]] = {
    "grey.png": lambda deep: png(deep, 0, 1),
    "alpha.png": lambda deep: png(deep, 4, 2),
    "colour.png": lambda deep: png(deep, 2, 3),
    "16.pgm": lambda deep: pgm(deep, 65535),
    "12.pgm": lambda deep: pgm(deep, 4095),
    "16.tif": tiff,
    "12.tif": lambda deep: tiff(deep, 12),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_images_are_those_of_8_bit(name: str, root: Path) -> None:
    """A scanner's 16 bit: once clipped to white nearly everywhere."""
    shallow = load(FOLDER, root)
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            deep = np.asarray(image) * np.uint16(256) + np.uint16(200)  # a low byte that rounding would see
        path.unlink()
        path.with_suffix(Path(name).suffix).write_bytes(DEEP[name](deep))
    assert load(FOLDER, root).digest == shallow.digest


UNKNOWN: dict[str, Callable[[NDArray[np.uint16]], bytes]] = {
    "float": lambda deep: tiff(deep, 32, kind=3),
    "32 bit": lambda deep: tiff(deep, 32),
    "signed": lambda deep: tiff(deep, kind=2),
    "white is 0": lambda deep: tiff(deep, white_is_zero=True),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_deep_images_without_a_known_range_are_refused(kind: str, root: Path, maldrop: Callable[..., Result]) -> None:
    (root / "val" / "dog" / "4.tif").write_bytes(UNKNOWN[kind](np.arange(64, dtype=np.uint16).reshape(8, 8)))
    result = maldrop(*TRAIN)
    assert (result.code, result.out) == (1, "")
    last = result.err.splitlines()[-1]
    assert "val/dog/4.tif is no readable image: its grey values" in last
