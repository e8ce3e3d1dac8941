"""Tiny ImageNet: the official layout, whole or in part, and its download."""

import hashlib
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maldrop_cli.config import DataConfig
from maldrop_cli.data import download, image_folders
from maldrop_cli.data.load import cached, describe, load
from maldrop_cli.names import Dataset, MaldropError

TINY_IMAGENET = DataConfig(dataset=Dataset.TINY_IMAGENET)


def make_tiny_imagenet(root: Path) -> Path:
    """A miniature in the official layout: of each of three classes three training images, the first one grey, and two
    validation images, the classes in turn."""
    rng = np.random.default_rng(0)
    folder = root / "tiny-imagenet-200"

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)

    for wnid in ("n01", "n02", "n03"):
        for number in range(3):
            write(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG")
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("not read")
    lines = [f"val_{number}.JPEG\tn0{number % 3 + 1}\t0\t0\t63\t63\n" for number in range(6)]
    for line in lines:
        write(folder / "val" / "images" / line.partition("\t")[0])
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("n03\nn02\nn01\n")
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tfire salamander\nn99\tanother\n")
    Image.new("L", (64, 64), 77).save(folder / "train" / "n01" / "images" / "n01_0.JPEG")
    return folder


@pytest.mark.parametrize("inside", [False, True])
def test_the_official_layout(inside: bool, tmp_path: Path) -> None:
    folder = make_tiny_imagenet(tmp_path)
    data = load(TINY_IMAGENET, folder if inside else tmp_path)
    assert data.name == "tiny-imagenet"
    assert data.shape == (3, 64, 64)
    assert data.classes == ("goldfish, Carassius auratus", "fire salamander", "n03")  # by id, words where there are any
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.val.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (data.train.images[0] == 77).all()  # grey: three equal channels
    with Image.open(folder / "val" / "images" / "val_4.JPEG") as image:
        assert torch.equal(data.val.images[4], torch.from_numpy(np.array(image)).permute(2, 0, 1))


def test_a_part_of_the_data_set(tmp_path: Path) -> None:
    """Classes without a train folder, and folders that wnids.txt does not list, are left out, with a warning; so are
    validation images of other classes."""
    folder = make_tiny_imagenet(tmp_path)
    (folder / "wnids.txt").write_text("n01\nn77\nn02\n", encoding="utf-8-sig")  # not n03
    warnings: list[str] = []
    data = load(TINY_IMAGENET, tmp_path, warn=warnings.append)
    assert data.classes == ("goldfish, Carassius auratus", "fire salamander")
    assert describe(TINY_IMAGENET, tmp_path) == ((3, 64, 64), 2)
    assert data.val.labels.tolist() == [0, 1, 0, 1]
    assert ["n77" in warnings[0], "n03" in warnings[1]] == [True, True]
    assert "2 classes, 6 images in train, 4 in val; files skipped: 2 (2 of classes left out)" in warnings[2]
    assert len(warnings) == 3
    (folder / "words.txt").unlink()
    assert load(TINY_IMAGENET, tmp_path).classes == ("n01", "n02")


def annotations(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "val" / "val_annotations.txt").write_text(text)


def replace_by_zeros(path: Path) -> None:
    """A terabyte of them, which take no place."""
    with path.open("wb") as file:
        file.truncate(2**40)


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    (r"wnids.txt can't be read", lambda folder: (folder / "wnids.txt").unlink()),
    (r"wnids.txt is empty", lambda folder: (folder / "wnids.txt").write_text("\n")),
    (r"wnids.txt can't be read", lambda folder: (folder / "wnids.txt").write_bytes(b"\xff\xfe")),
    (r"wnids.txt can't be read: it is longer than", lambda folder: replace_by_zeros(folder / "wnids.txt")),
    (
        r"annotations.txt can't be read: it is longer",
        lambda folder: replace_by_zeros(folder / "val/val_annotations.txt"),
    ),
    (r"train is no folder", lambda folder: (folder / "train").rename(folder / "elsewhere")),
    (r"no folder of any class", lambda folder: (folder / "wnids.txt").write_text("n55\n")),
    (r"n02.images: each class needs some", lambda folder: shutil.rmtree(folder / "train" / "n02" / "images")),
    (r"val_annotations.txt can't be read", lambda folder: (folder / "val" / "val_annotations.txt").unlink()),
    (r"line 1 is no file name", annotations("val_0.JPEG n01")),
    (r"line 2 .*second time", annotations("a\tn01\na\tn02\n")),
    (r"names no image of the 3", annotations("val_0.JPEG\tn9\n")),
    (r"val_3.JPEG is missing", lambda folder: (folder / "val" / "images" / "val_3.JPEG").unlink()),
    (r"val_0.JPEG is missing", lambda folder: (folder / "val" / "images").rename(folder / "val" / "pictures")),
    (r"val_3.JPEG is no readable", lambda folder: (folder / "val" / "images" / "val_3.JPEG").write_bytes(b"\xff\xd8")),
]


@pytest.mark.parametrize(("message", "damage"), DAMAGE, ids=[message for message, _ in DAMAGE])
def test_damage_is_one_line_that_names_the_file(message: str, damage: Callable[[Path], object], tmp_path: Path) -> None:
    folder = make_tiny_imagenet(tmp_path)
    damage(folder)
    with pytest.raises(MaldropError, match=message) as caught:
        load(TINY_IMAGENET, tmp_path)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


# --- the download ----------------------------------------------------------------------------------------------------


class Served:
    """A zip of a miniature on a local server that counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        make_tiny_imagenet(folder / "origin")
        self.archive = folder / "tiny-imagenet-200.zip"
        shutil.make_archive(str(self.archive.with_suffix("")), "zip", folder / "origin")
        self.requests = 0
        served = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                served.requests += 1
                with suppress(OSError):  # who asks for a sign of life only does not read on
                    super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_port}/tiny-imagenet-200.zip"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    served = Served(tmp_path / "server")
    monkeypatch.setattr(image_folders, "TINY_URL", served.url)
    monkeypatch.setattr(image_folders, "TINY_MD5", hashlib.md5(served.archive.read_bytes()).hexdigest())
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.server.shutdown()
    thread.join()
    served.server.server_close()


def test_the_download(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALDROP_CACHE", str(tmp_path))
    data_dir = tmp_path / "tiny-imagenet"  # where the download goes without --data-dir
    assert describe(TINY_IMAGENET) == ((3, 64, 64), 200)  # of what would be downloaded; nothing is
    assert cached(TINY_IMAGENET) is None
    assert served.requests == 0
    data = load(TINY_IMAGENET)
    requests = served.requests
    assert requests > 0
    assert data.digest == load(TINY_IMAGENET, tmp_path / "server" / "origin").digest
    assert sorted(path.name for path in data_dir.iterdir()) == ["tiny-imagenet-200", "tiny-imagenet-200.zip"]
    assert load(TINY_IMAGENET, data_dir).digest == data.digest
    assert served.requests == requests


def test_an_archive_put_there_by_hand_needs_no_network(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "reachable", lambda url: False)
    data_dir = served.archive.parent
    assert cached(TINY_IMAGENET, data_dir) is None  # and nothing is unpacked
    assert not (data_dir / "tiny-imagenet-200").exists()

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(TINY_IMAGENET, data_dir, interrupt)
    assert {path.name for path in data_dir.iterdir()} == {"origin", served.archive.name}  # nothing half-unpacked
    assert load(TINY_IMAGENET, data_dir).shape == (3, 64, 64)


def test_another_process_may_be_faster(served: Served, tmp_path: Path) -> None:
    def unpacks_as_well(what: str, done: int, total: int) -> None:
        if what.startswith("unpacking"):
            make_tiny_imagenet(tmp_path / "data")

    assert len(load(TINY_IMAGENET, tmp_path / "data", unpacks_as_well).train.labels) == 9
    assert not list((tmp_path / "data").glob(".*"))


def test_a_damaged_archive_is_one_line(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(served.archive.read_bytes())
    content[2000:6000] = bytes(4000)
    served.archive.write_bytes(content)
    data_dir = tmp_path / "data"
    with pytest.raises(MaldropError, match=r"fetched from .*corrupted.*--dataset digits"):
        load(TINY_IMAGENET, data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(download, "reachable", lambda url: False)
        with pytest.raises(MaldropError, match=r"zip is damaged .* does not answer"):
            load(TINY_IMAGENET, data_dir)
    monkeypatch.setattr(image_folders, "TINY_MD5", hashlib.md5(content).hexdigest())  # damaged after it was checked
    with pytest.raises(MaldropError, match=r"fetched from .*(CRC|magic|header)") as caught:
        load(TINY_IMAGENET, data_dir)
    assert "\n" not in str(caught.value)
    assert [path.name for path in data_dir.iterdir()] == ["tiny-imagenet-200.zip"]


# --- the real thing --------------------------------------------------------------------------------------------------


def test_twenty_real_classes(real_tiny_imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALDROP_CACHE", str(tmp_path / "cache"))
    data = load(TINY_IMAGENET, real_tiny_imagenet)
    for split, count in ((data.train, 500), (data.val, 50)):
        assert split.images.shape == (20 * count, 3, 64, 64)
        assert split.labels.bincount().tolist() == [count] * 20
    crayfish = "spiny lobster, langouste, rock lobster, crawfish, crayfish, sea crawfish"
    assert data.classes[:2] == ("trilobite", crayfish)
