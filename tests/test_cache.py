"""Decoded images: kept once, used while nothing changed, never trusted when damaged, never in the way."""

import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Result
from PIL import Image
from test_datasets import make_folder
from test_tiny_imagenet import make_tiny_imagenet

from maldrop_cli.config import DataConfig
from maldrop_cli.data import decoding
from maldrop_cli.data.image_cache import INDEX_BYTES
from maldrop_cli.data.load import ImageData, Split, load
from maldrop_cli.names import Dataset

FOLDER = DataConfig(dataset=Dataset.IMAGEFOLDER)


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a fresh cache of each test keeps decoded images."""
    monkeypatch.setenv("MALDROP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_folder(tmp_path / "data")
    return tmp_path / "data"


class Loading:
    """One load: the data, how many images it decoded, what it warned of."""

    def __init__(self, root: Path, config: DataConfig = FOLDER) -> None:
        steps: list[tuple[str, int, int]] = []
        self.warnings: list[str] = []
        self.data = load(config, root, lambda *step: steps.append(step), self.warnings.append)
        assert steps.pop(0)[2] == 0  # the line that says what was found
        assert {what for what, _, _ in steps} <= {"decoding images"}
        self.decoded = steps[-1][1] if steps else 0


def same(left: ImageData, right: ImageData) -> bool:
    """Equal in everything, recomputed digests of the pixels and labels included."""
    one, other = ((data.name, data.classes, data.mean, data.std, replace(data).digest) for data in (left, right))
    return one == other


def files(root: Path) -> list[str]:
    return [str(path) for path in sorted(root.rglob("*.png"))]


@pytest.mark.parametrize("dataset", [Dataset.IMAGEFOLDER, Dataset.TINY_IMAGENET])
def test_a_second_start_decodes_nothing(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (make_folder if dataset is Dataset.IMAGEFOLDER else make_tiny_imagenet)(tmp_path / "set")
    config = DataConfig(dataset=dataset)

    def state() -> set[tuple[Path, int, int]]:
        return {(path, path.stat().st_size, path.stat().st_mtime_ns) for path in (tmp_path / "set").rglob("*")}

    before = state()
    first, second = (Loading(tmp_path / "set", config) for _ in range(2))
    assert (first.decoded, second.decoded) == (12 if dataset is Dataset.IMAGEFOLDER else 15, 0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MALDROP_CACHE", str(tmp_path / "file"))
    uncached = Loading(tmp_path / "set", config)
    for loading in (first, second, uncached):
        assert same(loading.data, uncached.data)
        assert loading.data.digest == replace(loading.data).digest  # what is stored is what would be computed
    [warning] = uncached.warnings
    assert re.fullmatch(".*can't be kept.*MALDROP_CACHE.*", warning)
    assert state() == before  # nothing is written to the folder of the images


def test_a_known_digest_belongs_to_its_images_only(root: Path) -> None:
    data = Loading(root).data
    other = replace(data, train=Split(data.train.images + 1, data.train.labels))
    assert other.digest != data.digest
    assert data.to(torch.device("cpu")).digest == data.digest


def test_mapped_images_can_be_written_to_without_harm(root: Path) -> None:
    Loading(root)
    data = Loading(root).data
    digest = data.digest
    data.train.images.zero_()
    again = Loading(root)
    assert (again.decoded, again.warnings, again.data.digest) == (0, [], digest)
    assert again.data.train.images.any()


def test_any_path_to_the_same_folder_will_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Loading(root)
    monkeypatch.chdir(root)
    (root.parent / "link").symlink_to(root)
    for path in (Path(), Path("../data"), Path("train/.."), root.parent / "link"):
        assert Loading(path).decoded == 0


def _swap(train: Path) -> None:
    for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
        (train / old).rename(train / new)


EDITS: dict[str, Callable[[Path], object]] = {
    "touch": lambda root: os.utime(root / "val" / "cat" / "0.png", ns=(0, 0)),
    "change": lambda root: Image.new("RGB", (12, 10)).save(root / "val" / "cat" / "0.png"),
    "remove": lambda root: (root / "train" / "dog" / "3.png").unlink(),
    "add": lambda root: Image.new("RGB", (12, 10)).save(root / "train" / "dog" / "9.png"),
    "swap": lambda root: _swap(root / "train"),  # the same files in other classes
}


@pytest.mark.parametrize("edit", EDITS)
def test_any_change_is_seen(edit: str, root: Path, images: Path) -> None:
    before = Loading(root).data.digest
    EDITS[edit](root)
    after = Loading(root)
    assert after.decoded == len(after.data.train.labels) + len(after.data.val.labels)
    assert after.warnings == []  # nothing is wrong
    assert (after.data.digest == before) is (edit == "touch")  # the digest is of the content
    assert Loading(root).decoded == 0
    assert len(list(images.iterdir())) == 1  # in the place of the old one


def test_each_size_and_each_folder_has_a_place_of_its_own(root: Path) -> None:
    small = replace(FOLDER, image_size=5)
    assert [Loading(root, config).decoded for config in (FOLDER, small, FOLDER, small)] == [12, 12, 0, 0]
    before = Loading(root).data.digest
    moved = Loading(root.rename(root.parent / "moved"))
    assert moved.decoded == 12
    assert moved.data.digest == before


def _flip(content: bytes, place: int) -> bytes:
    at = place % len(content)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda content: content[: len(content) // 2],
    "all but a byte": lambda content: content[:-1],
    "empty": lambda content: b"",
    "a byte more": lambda content: content[:-INDEX_BYTES] + b"\0" + content[-INDEX_BYTES:],
    "zeros": lambda content: content[:300] + bytes(len(content) - 300 - INDEX_BYTES) + content[-INDEX_BYTES:],
    "no header that numpy can read": lambda content: content.replace(b"'shape'", b"'shape\""),
    "another type": lambda content: content.replace(b"|u1", b"|i1"),
    **{f"a bit at {place}": partial(_flip, place=place) for place in (0, 20, 1000, -4000, -4096)},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_not_used(damage: str, root: Path, images: Path) -> None:
    good = Loading(root).data
    [place] = images.iterdir()
    content = place.read_bytes()
    place.unlink()  # or else `good`, which is mapped to this file, would be damaged too
    place.write_bytes(DAMAGE[damage](content))
    loading = Loading(root)
    assert loading.decoded == 12
    [warning] = loading.warnings
    assert re.fullmatch(f"{re.escape(str(place))} is damaged or not yours .*", warning)
    assert same(loading.data, good)
    again = Loading(root)
    assert (again.decoded, again.warnings) == (0, [])  # it was written anew


@pytest.mark.parametrize("honest", [False, True], ids=["the old digest", "the digest of the new pixels"])
def test_other_pixels_are_never_taken_for_those_that_were_decoded(honest: bool, root: Path, images: Path) -> None:
    digest = Loading(root).data.digest
    [place] = images.iterdir()
    content = place.read_bytes()
    pixels = np.load(place)
    body, index = content[: -INDEX_BYTES - pixels.nbytes], json.loads(content[65 - INDEX_BYTES :])
    pixels ^= 1
    place.unlink()
    if honest:
        split = Loading(root).data  # decoded anew
        place.unlink()
        new = torch.from_numpy(pixels)
        border = len(split.train.labels)
        train, val = Split(new[:border], split.train.labels), Split(new[border:], split.val.labels)
        index["digest"] = replace(split, train=train, val=val).digest
    text = json.dumps(index).ljust(INDEX_BYTES - 65).encode()
    place.write_bytes(body + pixels.tobytes() + hashlib.sha256(text).hexdigest().encode() + b" " + text)
    loading = Loading(root)
    assert same(loading.data, replace(loading.data))
    assert loading.data.digest == replace(loading.data).digest
    assert (loading.data.digest == digest) is not honest
    assert (loading.decoded, len(loading.warnings)) == ((0, 0) if honest else (12, 1))


@pytest.mark.skipif(os.name == "nt", reason="owners and modes of POSIX")
@pytest.mark.parametrize("mode", [0o664, 0o646, None], ids=["its group", "everyone", "its owner"])
def test_a_cache_that_others_may_write_to_is_not_used(mode: int | None, root: Path, images: Path) -> None:
    good = Loading(root).data
    [place] = images.iterdir()
    if mode is not None:
        place.chmod(mode)
    elif os.geteuid() == 0:
        os.chown(place, 12345, -1)
    else:
        pytest.skip("only root can give a file away")
    loading = Loading(root)
    assert loading.decoded == 12
    [warning] = loading.warnings
    assert "another user owns it, or may write to it" in warning
    assert same(loading.data, good)
    assert (Loading(root).decoded, Loading(root).warnings) == (0, [])


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_a_lax_umask_does_not_spoil_the_cache(root: Path) -> None:
    before = os.umask(0)
    try:
        Loading(root)
    finally:
        os.umask(before)
    assert Loading(root).decoded == 0


def test_a_full_disk_costs_a_warning(root: Path, images: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # no file may grow beyond 2,000 bytes
    try:
        loading = Loading(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [("can't be kept" in warning) for warning in loading.warnings] == [True]
    assert list(images.iterdir()) == []  # nothing half-written
    assert same(loading.data, Loading(root).data)


def test_what_a_killed_process_left_is_swept_away(root: Path, images: Path) -> None:
    Loading(root)
    [place] = images.iterdir()
    old, young = (images / f".{place.name}-{name}" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    EDITS["touch"](root)
    Loading(root)
    assert set(images.iterdir()) == {place, young}  # the young one may be another process at work


def _load_digest(root: Path) -> str:
    return load(FOLDER, root).digest


def test_several_processes_at_once(root: Path, images: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        digests = pool.map(_load_digest, [root] * 6, chunksize=1)
    assert set(digests) == {Loading(root).data.digest}
    assert Loading(root).decoded == 0
    assert len(list(images.iterdir())) == 1


def test_many_files_are_decoded_by_processes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(root)
    by_threads = decoding.decode_all(paths, 6)
    assert np.array_equal(by_threads, decoding.decode_files(paths, 6))
    monkeypatch.setattr(decoding, "FILES_PER_PROCESS", 4)
    monkeypatch.setattr(decoding, "CHUNK_FILES", 5)
    monkeypatch.setattr(decoding, "ThreadPoolExecutor", lambda workers: pytest.fail("threads"))
    ticks: list[int] = []
    assert np.array_equal(by_threads, decoding.decode_all(paths, 6, ticks.append))
    assert ticks == [5, 10, 12]


@pytest.mark.parametrize("per_process", [4, 10_000])
def test_a_damaged_image_stops_processes_and_threads(per_process: int, root: Path) -> None:
    """The rest of the files is not waited for; in a process of its own, as a pool that hangs would hang the tests."""
    paths = files(root)
    Path(paths[0]).write_bytes(b"no image")
    script = f"""
import threading
from maldrop_cli.data import decoding
decoding.FILES_PER_PROCESS, decoding.CHUNK_FILES = {per_process}, 1
try:
    decoding.decode_all({paths} * 1000, 6, lambda done: print("decoded", done))
finally:
    print("threads:", threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert f"MaldropError: {paths[0]} is no readable image" in done.stderr.splitlines()[-1]
    assert done.stdout == "threads: 1\n"


@pytest.mark.parametrize("error", [PermissionError("no semaphores here"), BrokenExecutor("one was killed")])
def test_threads_do_where_processes_do_not(error: Exception, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(decoding, "FILES_PER_PROCESS", 4)
    monkeypatch.setattr("joblib.externals.loky.ProcessPoolExecutor", refuse)
    paths = files(root)
    assert np.array_equal(decoding.decode_all(paths, 6), decoding.decode_files(paths, 6))


def test_workers_start_without_torch() -> None:
    code = "import sys, maldrop_cli.data.decoding; assert not {'torch', 'joblib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_line_decodes_once_or_shows_a_warning(
    tmp_path: Path, maldrop: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_imagenet(tmp_path / "data")
    command = ("train", "--dataset", "tiny-imagenet", "--data-dir", "data", "--image-size", "8", "--epochs", "1")
    first, second = maldrop(*command), maldrop(*command)
    assert "decoding images: 15 done" in first.err
    assert "decoding" not in second.err
    assert "1 of 1 run already finished" in second.err
    Path("file").touch()
    monkeypatch.setenv("MALDROP_CACHE", "file")
    result = maldrop(*command, "--fresh")
    assert (first.code, second.code, result.code, len(result.told)) == (0, 0, 0, 1)
    assert result.told[0].startswith("maldrop: the decoded images can't be kept in file/images (")
