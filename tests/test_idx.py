"""MNIST in the layouts that people have, and files that are not what their names say."""

import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result
from test_datasets import write_idx

from maldrop_cli.config import DataConfig
from maldrop_cli.data import dataset, download, idx
from maldrop_cli.data.dataset import Split
from maldrop_cli.data.load import cached, load
from maldrop_cli.names import Dataset, MaldropError

MNIST = DataConfig(dataset=Dataset.MNIST)
TRAIN = ("train", "--dataset", "mnist", "--data-dir", "data", "--epochs", "1", "--threads", "1")
RAW = "MNIST/raw"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "reachable", lambda url: False)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The four files, unpacked, where torchvision has them: 20 training and 10 test images."""
    write_idx(tmp_path / "data" / RAW)
    return tmp_path / "data" / RAW


def renamed(folder: Path, change: Callable[[str], str]) -> None:
    for path in folder.iterdir():
        path.rename(path.with_name(change(path.name)))


def packed(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def all_packed(folder: Path) -> None:
    for path in list(folder.iterdir()):
        packed(path)


def dotted(folder: Path) -> None:
    renamed(folder, lambda name: name.replace("-idx", ".idx"))


def dotted_and_packed(folder: Path) -> None:
    dotted(folder)
    all_packed(folder)


def as_on_kaggle(folder: Path) -> None:
    dotted(folder)
    (folder / "train-images-idx3-ubyte").mkdir()


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "as torchvision has it": lambda raw: None,
    "packed": all_packed,
    "partly packed": lambda raw: packed(raw / "train-images-idx3-ubyte"),
    "dots": dotted,
    "dots, packed": dotted_and_packed,
    "a .gz that a browser unpacked": lambda raw: renamed(raw, lambda name: f"{name}.gz"),
    "folders of the names of files": as_on_kaggle,
}


@pytest.mark.parametrize("place", [RAW, "MNIST", "raw", "."])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_are_taken_as_they_are(layout: str, place: str, raw: Path, tmp_path: Path) -> None:
    digest = load(MNIST, tmp_path / "data").digest
    LAYOUTS[layout](raw)
    before = sorted(path.name for path in raw.iterdir())
    shutil.copytree(raw, tmp_path / "there" / place)
    for root in {tmp_path / "there", tmp_path / "there" / place}:
        data = cached(MNIST, root)
        assert data
        assert (data.digest, data.classes[0]) == (digest, "0 - zero")
    assert sorted(path.name for path in (tmp_path / "there" / place).iterdir()) == before  # nothing is unpacked


def test_fashion_mnist_is_not_taken_for_mnist(raw: Path, tmp_path: Path) -> None:
    """The files of both have the same names."""
    fashion = raw.parent.rename(raw.parents[1] / "FashionMNIST")
    for root in (tmp_path / "data", fashion, fashion / "raw"):
        assert cached(DataConfig(dataset=Dataset.FASHION_MNIST), root)
        assert cached(MNIST, root) is None


ALL_BUT_ONE = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-labels-idx1-ubyte"
MISSING = {  # by what is left
    "train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte": "found, but no t10k-labels-idx1-ubyte",
    "t10k-images.idx3-ubyte.gz": f"found, but no {ALL_BUT_ONE}",
    "mnist.npz x.csv": "none of the four files there, but mnist.npz, x.csv",
    "": "no files there",
}


@pytest.mark.parametrize("left", MISSING)
def test_what_is_found_and_what_is_missing_is_said(left: str, tmp_path: Path, maldrop: Callable[..., Result]) -> None:
    (tmp_path / "data").mkdir()
    for name in left.split():
        (tmp_path / "data" / name).touch()
    result = maldrop(*TRAIN)
    message = MISSING[left]
    if message.startswith("found"):
        message = f"{', '.join(left.split())} {message}"
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert f": {message}, and the server does not answer; place the four IDX files" in result.err


def labels(values: bytes) -> bytes:
    return struct.pack(">II", 0x801, len(values)) + values


def images(count: int, height: int, width: int) -> bytes:
    return struct.pack(">IIII", 0x803, count, height, width) + bytes(count * height * width)


TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = idx.NAMES
NO_IMAGES = "is no IDX file of bytes in 3 dimensions: it begins with"
DAMAGE: dict[str, tuple[str, bytes, str]] = {
    "fewer labels": (TRAIN_LABELS, labels(bytes(15)), " has 15 labels"),
    "more labels": (TEST_LABELS, labels(bytes(11)), " has 11 labels"),
    "a label of 10": (TEST_LABELS, labels(bytes(range(1, 11))), " has a label 10: they go from 0 to 9"),
    "another size": (TEST_IMAGES, images(10, 32, 28), " has images of 32x28, not 28x28"),
    "no images": (TEST_IMAGES, images(0, 28, 28), " should hold 0x28x28 bytes, but holds 0"),
    "half a file": (TEST_IMAGES, images(10, 28, 28)[:1000], " should hold 10x28x28 bytes, but holds 984"),
    "half an archive": (TEST_LABELS, gzip.compress(labels(bytes(10)))[:15], " can't be read: Compressed file ended"),
    "images for labels": (TRAIN_LABELS, images(20, 28, 28), " is no IDX file of bytes in 1 dimension: it begins with"),
    "a web page": (TRAIN_IMAGES, b"<!DOCTYPE html>\n<html>", f" {NO_IMAGES} b'<!DOCTYPE html>"),
    "a pointer": (TRAIN_IMAGES, b"version https://git-lfs.github.com/spec/v1\n", f" {NO_IMAGES} b'version https://git"),
    "nothing": (TRAIN_IMAGES, b"", f" {NO_IMAGES} b''"),
    "half a header": (TRAIN_IMAGES, images(20, 28, 28)[:10], f" {NO_IMAGES} b'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_files_that_disagree_are_refused_by_name(name: str, raw: Path, maldrop: Callable[..., Result]) -> None:
    """150 labels for 200 images once trained in silence."""
    file, content, message = DAMAGE[name]
    (raw / file).write_bytes(content)
    result = maldrop(*TRAIN)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert f"{raw / file}{message}" in result.err


def test_labels_of_one_class_are_refused(raw: Path, maldrop: Callable[..., Result]) -> None:
    (raw / TRAIN_LABELS).write_bytes(labels(bytes([7] * 20)))
    result = maldrop(*TRAIN)
    assert result.err == "maldrop: mnist has training images of one class alone: to classify takes at least two\n"
    assert result.code == 1


def split(count: int, *labels: int, side: int = 4) -> Split:
    return Split(torch.zeros(count, 1, side, side, dtype=torch.uint8), torch.tensor(labels))


GOOD = split(3, 0, 1, 2)
WRONG: dict[str, tuple[Split, Split, str]] = {
    "counts": (split(3, 0, 1), GOOD, "has 3 training images and 2 labels of them"),
    "none": (GOOD, split(0), "has 0 validation images"),
    "shapes": (GOOD, split(3, 0, 1, 2, side=5), "has validation images of torch.uint8"),
    "types": (Split(GOOD.images.float(), GOOD.labels), GOOD, "has training images of torch.float32"),
    "a label beyond": (GOOD, split(2, 0, 3), "has validation labels from 0 to 3; they go from 0 to 2"),
    "a label below": (split(2, -1, 2), GOOD, "has training labels from -1 to 2"),
    "one class": (split(2, 1, 1), GOOD, "has training images of one class alone"),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_data_set_is_checked(name: str) -> None:
    train, val, message = WRONG[name]
    with pytest.raises(MaldropError, match=f"^mine {message}"):
        dataset.finish("mine", train, val, ["a", "b", "c"], None)
