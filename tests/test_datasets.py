"""Data sets: embedded, made here, and the real ones where they lie."""

import hashlib
import pickle
import struct
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY, Mock, call

import numpy as np
import pytest
import torch
from PIL import Image
from test_tiny_imagenet import make_tiny_imagenet

from maldrop_cli.config import DataConfig
from maldrop_cli.data import dataset as base
from maldrop_cli.data import download, image_folders
from maldrop_cli.data.load import cached, describe, load
from maldrop_cli.names import Dataset, MaldropError, UsageError


def test_digits() -> None:
    data = load(DataConfig(dataset=Dataset.DIGITS))
    assert (data.train.images.shape, data.val.images.shape) == ((1437, 1, 32, 32), (360, 1, 32, 32))
    assert (data.train.images.dtype, data.train.labels.dtype) == (torch.uint8, torch.int64)
    assert len(data.classes) == 10
    for split in (data.train, data.val):  # stratified: every class about a tenth
        share = split.labels.bincount(minlength=10) / len(split.labels)
        assert (share - 0.1).abs().max() < 0.01
    blocks = data.train.images.unfold(2, 4, 4).unfold(3, 4, 4)  # every pixel enlarged to 4x4
    assert (blocks == blocks[..., :1, :1]).all()
    assert data.digest.startswith("187515572cc4eecb")


def test_synthetic_takes_any_shape_and_is_separable() -> None:
    config = DataConfig(dataset=Dataset.SYNTHETIC, shape=(2, 5, 7), classes=4, images=200)
    data = load(config)
    assert data.digest.startswith("e7bbe698fdb4d38a")
    assert data.shape == (2, 5, 7)
    assert len(data.train.labels) + len(data.val.labels) == 200
    means = torch.stack([data.train.images[data.train.labels == k].float().mean(0) for k in range(4)])
    nearest = torch.cdist(data.val.images.float().flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == data.val.labels).all()


def test_mean_and_std_are_those_of_the_training_pixels() -> None:
    data = load(DataConfig(dataset=Dataset.SYNTHETIC, shape=(3, 6, 6)))
    pixels = data.train.images.double() / 255
    torch.testing.assert_close(torch.tensor(data.mean).double(), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(data.std).double(), pixels.std((0, 2, 3), correction=0))


def test_a_constant_channel_has_no_spread_to_divide_by() -> None:
    zeros = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    assert base.moments(zeros) == ((0.0,), (1.0,))


@pytest.mark.parametrize("name", Dataset)
def test_describe_agrees_with_the_loaded_data(name: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in (Dataset.MNIST, Dataset.FASHION_MNIST):
        write_idx(tmp_path / ("MNIST" if name is Dataset.MNIST else "FashionMNIST") / "raw")
    elif name is Dataset.CIFAR10:
        write_cifar(tmp_path / "cifar-10-batches-py", monkeypatch)
    elif name is Dataset.TINY_IMAGENET:
        make_tiny_imagenet(tmp_path)
    elif name is Dataset.IMAGEFOLDER:
        make_folder(tmp_path)
    for config in (DataConfig(dataset=name), DataConfig(dataset=name, image_size=20)):
        data = load(config, tmp_path)
        assert (data.shape, len(data.classes)) == describe(config, tmp_path)
        assert data.shape[1:] == (20, 20) or config.image_size is None


def test_cifar10_planes_become_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar(folder, monkeypatch)
    data = load(DataConfig(dataset=Dataset.CIFAR10), tmp_path)
    assert data.classes[:2] == ("airplane", "automobile")
    assert data.val.labels.tolist() == list(range(10))
    assert (data.train.images.float().mean((0, 2, 3)) == torch.tensor([10.0, 20.0, 30.0])).all()
    assert load(DataConfig(dataset=Dataset.CIFAR10), folder).digest == data.digest  # the folder itself will do
    (folder / "test_batch").write_bytes(b"damaged")
    with pytest.raises(MaldropError, match="no files there, or damaged ones, and the server does not answer"):
        load(DataConfig(dataset=Dataset.CIFAR10), tmp_path)


def test_cifar10_is_unpacked_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py", monkeypatch)
    digest = load(DataConfig(dataset=Dataset.CIFAR10), tmp_path).digest
    (tmp_path / "there").mkdir()
    archive = tmp_path / "there" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr("torchvision.datasets.CIFAR10.tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert load(DataConfig(dataset=Dataset.CIFAR10), archive.parent).digest == digest


def write_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny CIFAR-10 in its own layout, red 10, green 20, blue 30, with checksums to match; and no network."""
    from torchvision.datasets import CIFAR10

    def write(name: str, content: object) -> tuple[str, str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return name, hashlib.md5((folder / name).read_bytes()).hexdigest()

    folder.mkdir(parents=True)
    pixels = np.repeat(np.array([10, 20, 30], dtype=np.uint8), 1024)[None].repeat(10, 0)
    batch = {"data": pixels, "labels": list(range(10))}
    monkeypatch.setattr(CIFAR10, "train_list", [write("data_batch_1", batch)])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch)])
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    name, md5 = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    monkeypatch.setattr(download, "reachable", lambda url: False)


def write_idx(folder: Path) -> None:
    """A tiny MNIST in its own layout: every image is bright, so that padding shows."""
    folder.mkdir(parents=True)
    for name, count in (("train", 20), ("t10k", 10)):
        pixels, labels = bytes([200]) * count * 784, bytes(index % 10 for index in range(count))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + pixels)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)


def test_mnist_is_padded_with_zeros_to_32(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    data = load(DataConfig(dataset=Dataset.MNIST), tmp_path)
    assert data.train.images.shape == (20, 1, 32, 32)
    assert (data.val.images[:, :, 2:30, 2:30] == 200).all()
    assert data.val.images.sum() == 10 * 784 * 200
    assert data.mean == pytest.approx((200 / 255,))  # of the unpadded pixels
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(MaldropError, match=r"train-images-idx3-ubyte should hold 20x28x28 bytes") as caught:
        load(DataConfig(dataset=Dataset.MNIST), tmp_path)
    assert "\n" not in str(caught.value)


HINTS = {
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-python.tar.gz",
    "tiny-imagenet": "put tiny-imagenet-200.zip into",
}


@pytest.mark.parametrize(("name", "hint"), HINTS.items())
def test_without_a_network_the_error_says_which_file_goes_where(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(dataset=Dataset(name))
    monkeypatch.setattr(urllib.request, "urlopen", Mock(side_effect=urllib.error.URLError("no network")))
    with pytest.raises(MaldropError) as caught:
        load(config, tmp_path)
    for part in (hint, str(tmp_path), "--dataset digits"):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir()) or "mnist" in name
    monkeypatch.setattr(download, "reachable", lambda url: pytest.fail("asked a server"))
    assert cached(config, tmp_path) is None


def test_a_network_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*args: object, **kwargs: object) -> None:
        over.wait(30)
        raise urllib.error.URLError("at last")

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    monkeypatch.setattr(download, "NETWORK_SECONDS", 0.2)
    begin = time.monotonic()
    with pytest.raises(MaldropError, match="does not answer"):
        load(DataConfig(dataset=Dataset.MNIST), tmp_path)
    over.set()
    assert time.monotonic() - begin < 10


def make_folder(root: Path, val: str = "val") -> None:
    """Images of 12x10: four of cats and four of dogs to train on, two of each to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), (val, 2)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")


@pytest.mark.parametrize("val", ["val", "test"])
def test_imagefolder(val: str, tmp_path: Path) -> None:
    make_folder(tmp_path, val)
    (tmp_path / "train" / "dog" / "1x").mkdir()  # images below count, in the order of all names
    (tmp_path / "train" / "dog" / "3.png").rename(tmp_path / "train" / "dog" / "1x" / "9.png")
    (tmp_path / "train" / "dog" / "zebra.txt").touch()
    config = DataConfig(dataset=Dataset.IMAGEFOLDER)
    seen: list[tuple[str, int, int]] = []
    assert cached(config, tmp_path) is None  # before they are decoded
    data = load(config, tmp_path, lambda *step: seen.append(step))
    ready = cached(config, tmp_path)
    assert ready
    assert ready.digest == data.digest
    assert (data.classes, data.shape) == (("cat", "dog"), (3, 10, 10))  # the shorter side of the first image
    assert data.val.labels.tolist() == [0, 0, 1, 1]
    assert seen[-1][1:] == (12, 12)
    for index, name in ((5, "dog/1.png"), (6, "dog/1x/9.png"), (7, "dog/2.png")):
        with Image.open(tmp_path / "train" / name) as image:
            pixels = torch.from_numpy(np.array(image.resize((10, 10), Image.Resampling.BILINEAR))).permute(2, 0, 1)
        assert torch.equal(data.train.images[index], pixels)


def test_imagefolder_errors_name_the_place(tmp_path: Path) -> None:
    config = DataConfig(dataset=Dataset.IMAGEFOLDER)

    def fails(message: str, *acts: Callable[..., object]) -> None:
        for act in acts:
            with pytest.raises(MaldropError, match=message):
                act(config, tmp_path)

    with pytest.raises(UsageError, match="needs --data-dir"):
        load(config)
    fails("train is no folder", load, describe)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    fails(r"no images in .*train;", load, describe)
    (tmp_path / "val").rmdir()
    make_folder(tmp_path)
    broken = tmp_path / "val" / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (tmp_path / "train" / "ant").mkdir()  # would be a third class that no digest knows of
    fails(r"no images in .*ant", load, describe)
    (tmp_path / "train" / "ant").rmdir()
    fails(r"cat/1.png is no readable image", load)
    (tmp_path / "val" / "cat" / "0.png").unlink()
    (tmp_path / "val" / "cat" / "0.png").symlink_to("nowhere")
    fails(r"cat/0.png is no readable image: .*No such file", load)
    (tmp_path / "val" / "bird").mkdir()
    fails("bird is a class that", load, describe)


def test_imagefolder_is_described_by_its_first_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every start: to list sixty thousand images would take half a second."""
    make_folder(tmp_path)
    listed = Mock(side_effect=image_folders.image_files)
    monkeypatch.setattr(image_folders, "image_files", listed)
    assert describe(DataConfig(dataset=Dataset.IMAGEFOLDER), tmp_path) == ((3, 10, 10), 2)
    assert listed.call_args_list == [call(tmp_path / "train" / "cat", ANY)]


def test_the_real_mnist(real_data: Path) -> None:
    data = load(DataConfig(dataset=Dataset.MNIST), real_data / "mnist")
    assert (data.train.images.shape, data.val.images.shape) == ((60_000, 1, 32, 32), (10_000, 1, 32, 32))
    assert (data.mean[0], data.std[0]) == pytest.approx((0.1307, 0.3081), abs=5e-5)
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
