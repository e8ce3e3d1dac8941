"""What the tests share."""

import os

os.environ["OMP_NUM_THREADS"] = (
    "1"  # before torch is imported: threads that wait for each other are slow on tiny tensors
)

import csv
import signal
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from maldrop_cli.__main__ import run
from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.data.load import ImageData, load
from maldrop_cli.names import Dataset, Dropout
from maldrop_cli.record import RunRecord
from maldrop_cli.runs.events import Ended, Event, Job, Stop
from maldrop_cli.runs.runner import Runner, RunnerSpec
from maldrop_cli.train import start_record, train_run

# A shell lets what it starts in the background ignore Ctrl-C, and maldrop heeds that; the tests are about Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline, as the machine may be busy; always the same examples, so that a failure in CI is a failure here.
settings.register_profile("maldrop", deadline=None, derandomize=True)
settings.load_profile("maldrop")

DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every kind of device that is present."""
    return torch.device(request.param)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own, for their subprocesses as well: nobody's real cache is read or written."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALDROP_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny() -> ImageData:
    """150 synthetic images, 1x8x8, three classes; D is 256 before the CNN's last layer."""
    return load(DataConfig(dataset=Dataset.SYNTHETIC, shape=(1, 8, 8), classes=3, images=150))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data: MALDROP_TEST_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("MALDROP_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there, and MALDROP_TEST_DATA names no other folder")
    return folder


BASE = RunConfig(  # a run on `tiny`
    data=DataConfig(dataset=Dataset.SYNTHETIC, shape=(1, 8, 8), classes=3, images=150),
    epochs=2,
    batch_size=17,  # 120 images: the last batch has one
    rho=16,
)


def matching_rho(dropout: Dropout) -> int:
    """A few of what the variant drops: there are only four channels."""
    return 1 if dropout is Dropout.SPATIAL_MALDROP else 16


def train(config: RunConfig, data: ImageData, device: torch.device | str = "cpu") -> RunRecord:
    device = torch.device(device)
    return train_run(start_record(config, data, "digest", device), data.to(device), device)


def runner(data: ImageData, out: Path, **spec: Any) -> Runner:
    """For runs of ``data``, stored in ``out``."""
    return Runner(RunnerSpec(BASE.data, None, "d", "cpu", None, out, **spec), data, torch.device("cpu"))


def run_job(
    runner: Runner,
    config: RunConfig,
    tell: Callable[[Event], object] = lambda event: None,
    stop: Stop = lambda: False,
    **job: Any,
) -> Ended:
    """A job, which waits for other processes unless told otherwise."""
    return runner.train(Job(0, config, **{"wait": True, **job}), lambda event: (tell(event), None)[1], stop)


@pytest.fixture(scope="session")
def real_tiny_imagenet(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 real classes of Tiny ImageNet, unpacked: the folder that holds tiny-imagenet-200/."""
    archive = real_data / "tiny-imagenet-20.tar.xz"
    if not archive.exists():
        pytest.skip(f"no real data: {archive} is not there")
    folder = tmp_path_factory.mktemp("tiny-imagenet-20")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def told(self) -> list[str]:
        """Warnings and errors, without progress."""
        return [line for line in self.err.splitlines() if line.startswith("maldrop: ")]


@pytest.fixture
def maldrop(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


TINY = ("--dataset", "synthetic", "--shape", "1x8x8", "--classes", "3", "--images", "150")


def rows(path: str) -> list[dict[str, str]]:
    """What `--csv` wrote."""
    with Path(path).open() as file:
        return list(csv.DictReader(file))
