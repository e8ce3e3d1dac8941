"""Folders of image files as people have them: deep pixels, folders that are no class, links, odd files."""

import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
import torch
from conftest import Result
from numpy.typing import NDArray
from PIL import Image
from test_tiny_imagenet import make_tiny_imagenet

from maldrop_cli.config import DataConfig
from maldrop_cli.data import decoding
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


# --- kinds and sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA", "ICO"])
@pytest.mark.parametrize("place", ["train/cat/0.png", "val/dog/3.png"])
def test_what_is_none_of_the_kinds_that_are_read_is_not_opened(
    kind: str, place: str, root: Path, maldrop: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PostScript file under the name of a PNG would start Ghostscript."""
    Image.new("RGB", (8, 8)).save(root / place, format=kind)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **named: pytest.fail("Ghostscript"))
    result = maldrop(*TRAIN)
    assert (result.code, result.out) == (1, "")
    assert f"{root / place} is no readable image: cannot identify image file" in result.err.splitlines()[-1]


@pytest.mark.parametrize("place", ["train/cat/0.png", "val/dog/3.png"])
def test_a_picture_of_too_many_pixels_is_refused_by_name(
    place: str, root: Path, maldrop: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 64)
    assert maldrop(*TRAIN).code == 0
    Image.new("L", (13, 5)).save(root / place)
    result = maldrop(*TRAIN)
    assert (result.code, result.out) == (1, "")
    message = f"{root / place} is no readable image: it has 13 x 5 pixels, and 64 are the most; scale it down"
    assert message in result.err.splitlines()[-1]


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


# --- folders that are no class, files that are no image, links -------------------------------------------------------


def copies(root: Path, place: str, name: str = "{}.png") -> None:
    """Images of cats, four of them, in a folder below ``root``."""
    (root / place).mkdir(parents=True, exist_ok=True)
    for number in range(4):
        shutil.copy(root / "train" / "cat" / f"{number}.png", root / place / name.format(number))


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "checkpoints as a class": (lambda root: copies(root, "train/.ipynb_checkpoints"), "4 hidden or of the system"),
    "checkpoints in a class": (lambda root: copies(root, "val/dog/.ipynb_checkpoints"), "4 hidden or of the system"),
    "deeper": (lambda root: copies(root, "train/cat/more/.git/objects"), "4 hidden or of the system"),
    "resource forks": (lambda root: (root / "train" / "cat" / "._0.png").write_bytes(b"\0\5\x16\7"), "1 hidden or of"),
    "of a zip": (lambda root: copies(root, "train/__MACOSX/cat"), "4 hidden or of the system"),
    "of a disk": (lambda root: copies(root, "val/@eaDir"), "4 hidden or of the system"),
    "other suffixes": (lambda root: copies(root, "train/cat", "{}.HEIC"), "4 .heic"),
    "beside the classes": (lambda root: copies(root, "train"), "4 in no class folder"),
    "a link back": (
        lambda root: (root / "train" / "dog" / "up").symlink_to(".."),
        "1 behind links to folders read anyway",
    ),
    "a link to itself": (
        lambda root: (root / "val" / "dog" / "me").symlink_to("."),
        "1 behind links to folders read anyway",
    ),
    "a loop of links": (lambda root: (root / "val" / "dog" / "loop").symlink_to("loop"), "1 without a suffix"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_image_of_a_class_is_skipped_and_counted(
    name: str, root: Path, maldrop: Callable[..., Result]
) -> None:
    before = load(FOLDER, root).digest
    act, reason = ODD[name]
    act(root)
    assert load(FOLDER, root).digest == before
    result = maldrop(*TRAIN)
    found = f"maldrop: {root}: 2 classes, 16 images in train, 8 in val; files skipped: {reason.partition(' ')[0]} ("
    assert result.told[0].startswith(found + reason)
    assert (result.code, len(result.told)) == (0, 1)


def test_what_was_found_is_said_at_every_start(root: Path, maldrop: Callable[..., Result]) -> None:
    for _ in range(2):
        assert f"{root}: 2 classes, 16 images in train, 8 in val\n" in maldrop(*TRAIN).err
    assert maldrop(*TRAIN, "--fresh", "-q").err == ""


@pytest.mark.parametrize("hidden", ["a folder of that name", "the data themselves"])
def test_a_hidden_folder_that_a_user_names_is_read(hidden: str, root: Path) -> None:
    before = load(FOLDER, root).digest
    if hidden == "the data themselves":
        assert load(FOLDER, root.rename(root.parent / ".data")).digest == before
    else:  # as a cache of downloads has it: a visible link to what is hidden
        (root / "train" / "cat").rename(root.parent / ".cat")
        (root / "train" / "cat").symlink_to(root.parent / ".cat")
        assert load(FOLDER, root).digest == before


@pytest.mark.parametrize("layout", ["a folder", "folders in a folder", "twice", "in a ring"])
def test_links_to_folders_are_followed(layout: str, root: Path) -> None:
    before = load(FOLDER, root).digest
    away = root.parent / "away"
    for path in sorted((root / "train" / "dog").iterdir())[4:]:
        (away / path.name[0]).mkdir(parents=True, exist_ok=True)
        path.rename(away / path.name[0] / path.name)
    dog = root / "train" / "dog"
    warnings: list[str] = []
    if layout == "a folder":
        for number in "4567":
            (dog / number).symlink_to(away / number)
    else:
        (dog / "x").symlink_to(away)
    if layout == "twice":
        (dog / "y").symlink_to(away)
        (dog / "z").symlink_to(away / "5")
    if layout == "in a ring":
        (away / "6" / "ring").symlink_to(away)
    data = load(FOLDER, root, warn=warnings.append)
    assert data.digest == before
    assert len(warnings) == (layout in ("twice", "in a ring"))


# --- one class -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [TRAIN, (*TRAIN, "--dry-run"), ("compare", *TRAIN[1:], "--seeds", "2")])
def test_one_class_is_refused(command: tuple[str, ...], root: Path, maldrop: Callable[..., Result]) -> None:
    """Any network would be right at once, with a loss of 0."""
    for split in ("train", "val"):
        (root / split / "dog").rename(root / split / ".dog")
    result = maldrop(*command)
    assert (result.code, result.out) == (1, "")
    assert result.err == f"maldrop: {root}/train has one class, cat: to classify takes at least two\n"


def test_one_class_of_tiny_imagenet_is_refused(tmp_path: Path, maldrop: Callable[..., Result]) -> None:
    (make_tiny_imagenet(tmp_path) / "wnids.txt").write_text("n02\n")
    result = maldrop("train", "--dataset", "tiny-imagenet", "--data-dir", ".")
    assert result.code == 1
    assert "train has one class, n02: to classify takes at least two" in result.err


# --- what Pillow warns of, and what it leaves as it is ---------------------------------------------------------------


def make_palettes(root: Path) -> list[Path]:
    """Turn the first two cats into palettes with transparent colours; same pixels."""
    paths = [root / "train" / "cat" / f"{number}.png" for number in range(2)]
    for path in paths:
        with Image.open(path) as image:
            image.convert("P").save(path, transparency=bytes(range(256)))
    return paths


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_a_warning_of_pillow_is_one_line_that_names_the_file(
    pool: str, root: Path, maldrop: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(FOLDER, root).digest
    first, _ = make_palettes(root)
    if pool == "processes":
        monkeypatch.setattr(decoding, "FILES_PER_PROCESS", 12)
    result, again = maldrop(*TRAIN), maldrop(*TRAIN)
    assert result.told[0].startswith(f"maldrop: {first}: Pillow warns: Palette images with Transparency")
    assert result.told[0].endswith("(the first of 2 images)")
    assert (result.code, len(result.told), again.err.count("Pillow")) == (0, 1, 0)
    assert load(FOLDER, root).digest == before


def test_large_pictures_are_one_line(
    root: Path, maldrop: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 63)
    first, second = maldrop(*TRAIN), maldrop(*TRAIN, "--fresh")
    assert first.told[0].startswith(
        f"maldrop: {root}/train/cat/0.png: Pillow warns: Image size (64 pixels) exceeds limit"
    )
    assert first.told[0].endswith("(the first of 24 images)")
    assert (first.code, len(first.told), second.told) == (0, 1, [])  # the picture that is measured first as well
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31)
    (root / "train" / "cat" / "0.png").touch()
    refused = maldrop(*TRAIN, "-q", "--fresh")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "train/cat/0.png is no readable image: Image size (64 pixels) exceeds limit" in refused.err


def test_warnings_of_others_are_left_alone(root: Path, recwarn: pytest.WarningsRecorder) -> None:
    def other(what: str, done: int, total: int) -> None:
        if total:
            warnings.warn("mine", UserWarning, stacklevel=1)

    make_palettes(root)
    lines: list[str] = []
    filters, show = list(warnings.filters), warnings.showwarning
    load(FOLDER, root, other, lines.append)
    assert {str(warning.message) for warning in recwarn} == {"mine"}
    assert (list(warnings.filters), warnings.showwarning) == (filters, show)
    assert len(lines) == 1


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPEG", ".pnm"])
def test_other_suffixes_of_the_same_formats_are_taken(suffix: str, root: Path) -> None:
    before = load(FOLDER, root).digest
    for path in root.rglob("*.png"):  # Pillow goes by the content
        path.rename(path.with_suffix(suffix))
    assert load(FOLDER, root).digest == before


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_orientation_is_that_of_torchvision(suffix: str, root: Path) -> None:
    """What a camera notes of it is not looked at in a JPEG or a PNG; Pillow turns a TIFF by itself."""
    from torchvision.datasets.folder import pil_loader

    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show it
    plain, noted = (root / "train" / "cat" / f"{name}{suffix}" for name in ("8", "9"))
    with Image.open(root / "train" / "cat" / "0.png") as image:
        image.save(plain)
        image.save(noted, exif=exif)
    images = load(FOLDER, root).train.images
    assert torch.equal(images[9], torch.from_numpy(np.array(pil_loader(noted))).permute(2, 0, 1))
    assert torch.equal(images[8], images[9]) is (suffix != ".tif")
