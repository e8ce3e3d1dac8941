"""Every kind of file that a command keeps, damaged in every way: one line, no wrong number, no other run lost."""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, rows, run_job
from test_cli import Run
from test_datasets import make_folder
from test_resume import measured

from maldrop_cli.__main__ import run
from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.data.load import load
from maldrop_cli.names import Dataset
from maldrop_cli.runs import checkpoint
from maldrop_cli.runs.runner import Runner, RunnerSpec
from maldrop_cli.runs.store import Store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes and modes of POSIX")


def loud(command: tuple[str, ...]) -> list[str]:
    """With warnings and progress."""
    return [word for word in command if word != "-q"]


SHORT = (*TINY, "--epochs", "2", "-q")
SWEEP = ("sweep", *SHORT, "--schedule", "forward", "--rho", "16,100")  # both drop everything: 100 has the run of 16
ON = ("train", *SHORT, "--seed", "7")  # its run is in mid-training
SYNTHETIC = DataConfig(dataset=Dataset.SYNTHETIC, shape=(1, 8, 8), classes=3, images=150)
UNDER_WAY = RunConfig(data=SYNTHETIC, epochs=2, horizon=2, rho=16, seed=7)


# --- damages ---------------------------------------------------------------------------------------------------------


def cut(tenth: int, content: bytes) -> bytes:
    return content[: len(content) * tenth // 10]


def flipped(tenth: int, content: bytes) -> bytes:
    at = len(content) * tenth // 10
    return content[:at] + bytes(byte ^ 1 for byte in content[at : at + 1]) + content[at + 1 :]


CONTENT: dict[str, Callable[[bytes], bytes]] = {
    **{f"{tenth} tenths": partial(cut, tenth) for tenth in range(1, 10)},
    **{f"a byte at {tenth} tenths": partial(flipped, tenth) for tenth in range(10)},
    "empty": lambda content: b"",
    "a list": lambda content: b"[1, 2]\n",
    "a number": lambda content: b"1\n",
    "wrong types": lambda content: b'{"schema": 1, "epoch": [], "config": 5, "checksum": {}}\n',
    "nested deep": lambda content: b"[" * 99_999 + b"\n",
    "nested deep objects": lambda content: b'{"a":' * 99_999 + b"\n",
    "long numbers": lambda content: b'{"schema": ' + b"1" * 9999 + b"}\n",
    "not text": lambda content: b"\xff\xfe\x00\n",
}


def a_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a folder": a_folder,
    "a pipe": a_pipe,
    "no permission": lambda path: path.chmod(0),
    "no permission for its folder": lambda path: path.parent.chmod(0),
}


@contextmanager
def as_a_user() -> Iterator[None]:
    """Root may read everything; without two of its capabilities, which this thread gets back, it may not."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, without = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    assert libc.capget(header, without) == 0
    without[0] = before[0] & ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with R: four runs, one of them a point with the run of another, and one in mid-training; and the tables
    of all, as an undamaged R gives them."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run([*SWEEP, "--out", "R", "--keep-weights", "--csv", "sweep.csv"]) == 0
        data, cpu = load(SYNTHETIC), torch.device("cpu")
        spec = RunnerSpec(SYNTHETIC, None, data.digest, "cpu", None, Path("R").resolve())
        stopped = run_job(Runner(spec, data, cpu), UNDER_WAY, stop=lambda: True).record
        assert len(stopped.epochs) == 1
        assert run(["report", "R", "--csv", "report.csv"]) == 0
        shutil.copytree("R", "finished")
        assert run([*ON, "--out", "finished", "--csv", "on.csv"]) == 0
    return folder


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy to be damaged, and one to read beside it."""
    shutil.copytree(whole / "R", tmp_path / "R")
    yield tmp_path / "R"
    for path in (tmp_path / "R", *(tmp_path / "R").iterdir()):
        path.chmod(0o755)


def victim(name: str) -> Path:
    """The file of that name in R that the commands of this module need."""
    records = {record.run_id if not record.trained_as else "point": record for record in Store(Path("R")).scan()}
    under_way = next(run_id for run_id, record in records.items() if not record.finished)
    point = records["point"]
    folder = {"point": point.config.run_id(point.data_digest), "sweep": point.run_id, "on": under_way}
    whose, _, file = name.partition("/")
    return Path("R") / (f".locks/{folder[whose]}.lock" if file == "lock" else f"{folder[whose]}/{file}")


def numbers(path: str | Path) -> dict[str, dict[str, str]]:
    return {row["run_id"]: row for row in rows(str(path))}


def check(maldrop: Run, whole: Path, spoilt: str, blocked: bool) -> None:
    """The commands, over R with that folder spoilt."""
    report = maldrop("report", "R", "--csv", "r.csv")
    assert report.code == 0, report.err
    reference, found = numbers(whole / "report.csv"), numbers("r.csv")
    assert {*reference} - {*found} <= {spoilt}
    for run_id, row in found.items():
        known = {name: value for name, value in row.items() if value != reference[run_id][name]}
        assert run_id == spoilt or not known
        assert row["status"] == "unfinished" or not known
        assert row["val_top1"] in ("", reference[run_id]["val_top1"]) or row["epoch"] != reference[run_id]["epoch"]
    lines = report.err.splitlines()
    assert all(line.startswith("maldrop: R/") and " is left out" in line for line in lines)
    assert len(lines) <= 2  # a result and the epochs beside it
    for command, csv in ((SWEEP, "sweep.csv"), (ON, "on.csv")):
        result = maldrop(*command, "--out", "R", "--csv", csv)
        assert result.code == 0 or (blocked and "is in the way of a run" in result.err), result.err
        assert "Traceback" not in result.err
        assert len(set(result.err.splitlines())) == len(result.err.splitlines())
        if result.code == 0:
            assert measured(csv) == measured(str(whole / csv))
    after = {record.run_id for record in Store(Path("R")).scan() if record.finished and not record.trained_as}
    assert {*reference} - after <= ({spoilt} if blocked else set())


RECORDS = [
    *("sweep/config.json", "sweep/result.json", "sweep/epochs.jsonl", "sweep/weights.pt", "sweep/lock"),
    *("on/config.json", "on/epochs.jsonl", "on/checkpoint.pt", "on/lock"),
    *("point/config.json", "point/result.json"),
]


@pytest.mark.parametrize("name", RECORDS)
def test_damaged_content(name: str, whole: Path, place: Path, maldrop: Run) -> None:
    path = victim(name)
    good = path.read_bytes()
    for damage in CONTENT.values():
        shutil.rmtree(place)
        shutil.copytree(whole / "R", place)
        if damage(good):
            path.write_bytes(damage(good))
        check(maldrop, whole, path.parent.name, blocked=False)


@pytest.mark.parametrize("damage", IN_THE_WAY)
@pytest.mark.parametrize("name", RECORDS)
def test_what_is_in_the_way_of_a_run_costs_that_run_alone(
    name: str, damage: str, whole: Path, place: Path, maldrop: Run
) -> None:
    if damage == "no permission for its folder" and name.endswith("lock"):
        pytest.skip("then no run can be locked")
    path = victim(name)
    spoilt = path.stem if name.endswith("lock") else path.parent.name
    IN_THE_WAY[damage](path)
    with as_a_user():
        check(maldrop, whole, spoilt, blocked=True)
        fresh = maldrop(*SWEEP, "--out", "R", "--fresh", "--csv", "fresh.csv")
    assert fresh.code == 0 or "is in the way of a run" in fresh.err
    assert path.exists() or damage.startswith("no permission")


@pytest.mark.parametrize("name", ["config.json", "result.json", "epochs.jsonl", "checkpoint.pt", "weights.pt"])
def test_the_file_of_another_run(name: str, whole: Path, place: Path, maldrop: Run) -> None:
    of_sweep, of_on = victim("sweep/result.json").parent, victim("on/epochs.jsonl").parent
    for source, target in ((of_sweep, of_on), (of_on, of_sweep)):
        shutil.rmtree(place)
        shutil.copytree(whole / "R", place)
        if (source / name).exists():
            shutil.copy(source / name, target / name)
            check(maldrop, whole, target.name, blocked=False)


def test_weights_of_another_run_are_not_measured(whole: Path, place: Path, maldrop: Run) -> None:
    measure = (*SWEEP, "--out", "R", "--robustness", "neurons=0.5", "--csv", "r.csv")
    weights = sorted(place.glob("*/weights.pt"))
    assert maldrop(*measure).code == 0
    good = measured("r.csv")
    shutil.rmtree(place)
    shutil.copytree(whole / "R", place)
    shutil.copy(weights[0], weights[1])
    weights[2].write_bytes(b"")
    result = maldrop(*loud(measure))
    assert result.code == 0, result.err
    assert "is that of another run: the run starts over" in result.err
    assert measured("r.csv") == good


@pytest.mark.parametrize("name", ["notes", ".nfs0001", "file.txt", "0123456789abcdef"])
def test_what_is_no_run_is_passed_over(name: str, whole: Path, place: Path, maldrop: Run) -> None:
    if name == "file.txt":
        (place / name).write_text("x")
    else:
        (place / name / "more").mkdir(parents=True)
    run_folder = victim("sweep/result.json").parent
    for inside in (".nfs0001", ".x"):
        (run_folder / inside).mkdir()
    result = maldrop("report", "R", "--csv", "r.csv")
    assert (result.code, result.err) == (0, "")
    assert rows("r.csv") == rows(str(whole / "report.csv"))
    result = maldrop(*SWEEP, "--out", "R", "--fresh", "--csv", "r.csv")
    assert (result.code, result.err) == (0, "")
    assert measured("r.csv") == measured(str(whole / "sweep.csv"))
    assert (run_folder / ".nfs0001").is_dir()


# --- checkpoints whose checksum holds ---------------------------------------------------------------------------------


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda training: training.pop(name)


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    **{f"no {name}": without(name) for name in ("rows", "model", "optimizer", "drop_counter", "global_rng", "noise")},
    "no order": without("order"),
    "rows of words": lambda training: training.update(rows=["x"]),
    "rows that are none": lambda training: training.update(rows=5),
    "no rows at all": lambda training: training.update(rows=[]),
    "rows out of turn": lambda training: training["rows"][0].update(epoch=2),
    "too many rows": lambda training: training.update(rows=[{**training["rows"][0], "epoch": n} for n in range(1, 9)]),
    "an endless number": lambda training: training["rows"][0].update(val_top1=float("inf")),
    "weights of another shape": lambda training: training.update(model={"x": torch.zeros(3)}),
    "a random state of words": lambda training: training.update(schedule_rng="x"),
}
OF_THE_REST: dict[str, dict[str, Any]] = {
    "a digest that is none": {"data_digest": 5},
    "a device that is none": {"device": []},
    "an environment that is none": {"environment": []},
    "an environment of lists": {"environment": {"torch": [1]}},
    "workers of words": {"environment": {"workers": "two"}},
    "training that is none": {"training": []},
}


@pytest.mark.parametrize("forgery", [*FORGED, *OF_THE_REST])
def test_a_forged_checkpoint_is_one_line(forgery: str, whole: Path, place: Path, maldrop: Run) -> None:
    """In the folder of its run, the run starts over; given by hand, nothing is trained."""
    path = victim("on/checkpoint.pt")
    good = checkpoint.read(path)
    if forgery in FORGED:
        FORGED[forgery](good.training)
    checkpoint.write(path, replace(good, **OF_THE_REST.get(forgery, {})))
    shutil.copy(path, "forged.pt")
    result = maldrop(*loud(ON), "--out", "R", "--csv", "on.csv")
    [said] = [line for line in result.err.splitlines() if line.startswith("maldrop: ")]
    assert (result.code, "the run starts over" in said) == (0, True), result.err
    assert measured("on.csv") == measured(str(whole / "on.csv"))
    result = maldrop(*ON, "--out", "other", "--resume", "forged.pt")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("maldrop: the checkpoint ")
    assert result.err.count("\n") == 1
    assert not list(Store(Path("other")).scan()) if Path("other").exists() else True


# --- decoded images ---------------------------------------------------------------------------------------------------

OF_IMAGES = ("train", "--dataset", "imagefolder", "--data-dir", "data", "--epochs", "1", "--rho", "2", "-q")


@pytest.mark.parametrize("damage", [*CONTENT, *IN_THE_WAY])
def test_damaged_images(damage: str, maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(Path("data"))
    monkeypatch.setenv("MALDROP_CACHE", "cache")
    assert maldrop(*OF_IMAGES, "--csv", "a.csv").code == 0
    [path] = Path("cache/images").iterdir()
    if damage in CONTENT:
        path.write_bytes(CONTENT[damage](path.read_bytes()))
    else:
        IN_THE_WAY[damage](path)
    with as_a_user():
        result = maldrop(*OF_IMAGES, "--fresh", "--csv", "b.csv")
    path.parent.chmod(0o755)
    assert result.code == 0, result.err
    assert all(line.startswith("maldrop: ") for line in result.err.splitlines())
    assert measured("a.csv") == measured("b.csv")
