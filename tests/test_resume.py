"""A run that was stopped, and goes on, is the run that was not."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE, TINY, Result, matching_rho, rows, run_job, runner, train
from test_cli import QUICK, Run
from test_matrix import VARIANTS

from maldrop_cli.config import RunConfig
from maldrop_cli.data.load import ImageData
from maldrop_cli.names import Dropout, MaldropError, PassRate, Schedule, Selector, UsageError
from maldrop_cli.record import RunRecord, Status
from maldrop_cli.runs import checkpoint
from maldrop_cli.runs.checkpoint import Checkpoint
from maldrop_cli.runs.events import Event, Started, Trained, Warned
from maldrop_cli.runs.runner import CheckpointPolicy
from maldrop_cli.runs.store import Store
from maldrop_cli.train import Training, start_record, train_run

CPU = torch.device("cpu")


def numbers(record: RunRecord) -> list[dict[str, Any]]:
    """All but the times."""
    return [asdict(replace(row, train_seconds=0.0)) for row in record.epochs]


def halves(config: RunConfig, data: ImageData, device: torch.device, folder: Path) -> RunRecord:
    """The run, stopped after each epoch, and gone on from a file that another process could have written."""
    path = folder / "half.pt"
    state: dict[str, Any] | None = None
    while True:
        record = start_record(config, data, "digest", device)

        def write(training: Training, record: RunRecord = record) -> bool:
            there = Checkpoint(record.config, "digest", device.type, record.environment, training.state())
            checkpoint.write(path, there)
            return True

        record = train_run(record, data.to(device), device, state=state, after_epoch=write)
        if record.status is not Status.UNFINISHED:
            return record
        state = checkpoint.read(path).training
        torch.manual_seed(99)  # nothing is left of the streams


CONFIGS = [
    *VARIANTS,
    *(
        replace(BASE, dropout=dropout, rho=matching_rho(dropout), schedule=schedule, rho_end=2, rate=1.0)
        for schedule in Schedule
        for dropout in (Dropout.MALDROP, Dropout.RANDOM, Dropout.VANILLA_MALDROP)
        if schedule is not Schedule.STANDARD
    ),
    *(replace(BASE, pass_rate=pass_rate) for pass_rate in PassRate),
    replace(BASE, fidelity_every=2, epochs=3, momentum=0.0),
    replace(BASE, dropout=Dropout.VANILLA, model="mobilenet_v3_small", weight_decay=0.01, batch_size=20),
]


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda each: f"{each.dropout}-{each.selector}-{each.granularity}-{each.schedule}"
)
def test_going_on_equals_never_having_stopped(
    config: RunConfig, tiny: ImageData, tmp_path: Path, device: torch.device
) -> None:
    if config.model != BASE.model:
        tiny = replace(
            tiny,
            train=replace(tiny.train, images=tiny.train.images.repeat(1, 3, 4, 4)),
            val=replace(tiny.val, images=tiny.val.images.repeat(1, 3, 4, 4)),
            mean=tiny.mean * 3,
            std=tiny.std * 3,
        )
    config = replace(config, deterministic=True)
    whole = train(config, tiny, device)
    parts = halves(config, tiny, device, tmp_path)
    assert whole.status is parts.status is Status.DONE
    assert numbers(parts) == numbers(whole)
    assert (parts.never_passed, parts.always_passed) == (whole.never_passed, whole.always_passed)
    assert parts.pass_histogram == whole.pass_histogram


def test_a_checkpoint_left_out_would_be_noticed(tiny: ImageData, tmp_path: Path) -> None:
    """Each random stream and each count of a state is needed: without it, some run goes on differently."""
    spoiled = {
        "optimizer": BASE,
        "drop_counter": BASE,
        "global_rng": replace(BASE, dropout=Dropout.VANILLA),
        "noise": replace(BASE, dropout=Dropout.RANDOM),
        "order": BASE,
        "schedule_rng": replace(BASE, schedule=Schedule.RANDOMIZED),
    }
    for name, config in spoiled.items():
        states: list[dict[str, Any]] = []

        def stop(training: Training, states: list[dict[str, Any]] = states) -> bool:
            states.append(training.state())
            return True

        train_run(start_record(config, tiny, "", CPU), tiny, CPU, after_epoch=stop)
        fresh = Training(config, tiny, CPU).state()
        whole = train(config, tiny)
        record = start_record(config, tiny, "", CPU)
        other = train_run(record, tiny, CPU, state={**states[0], name: fresh[name]})
        assert (numbers(other), other.pass_histogram) != (numbers(whole), whole.pass_histogram), name


def test_a_longer_run_equals_one_that_was_meant_to_be_long(tiny: ImageData) -> None:
    short = replace(BASE, epochs=2, fidelity_every=4, schedule=Schedule.LINEAR, rho_end=8, horizon=5)
    training = Training(short, tiny, CPU)
    assert [training.epoch().probe_loss is None for _ in range(2)] == [True, False]  # the last epoch is looked at
    long = replace(short, epochs=5)
    record = train_run(start_record(long, tiny, "", CPU), tiny, CPU, state=training.state())
    assert numbers(record) == numbers(train(long, tiny))
    assert [row.probe_loss is None for row in record.epochs] == [True, True, True, False, False]


# --- the store, and runs in it ---------------------------------------------------------------------------------------


def stop_after(epochs: int) -> Any:
    left = iter(range(epochs))
    return lambda: next(left, None) is None


def started(events: list[Event]) -> list[int]:
    """The epochs from which runs were resumed."""
    return [event.epochs for event in events if isinstance(event, Started)]


def test_a_stopped_run_is_resumed_where_it_was(tiny: ImageData, tmp_path: Path) -> None:
    store, config = Store(tmp_path), replace(BASE, epochs=4)
    stopped = run_job(runner(tiny, tmp_path), config, stop=stop_after(1)).record
    assert (stopped.status, len(stopped.epochs)) == (Status.UNFINISHED, 2)
    assert store.load(stopped.run_id) == stopped
    assert store.checkpoint(stopped.run_id).exists()
    events: list[Event] = []
    end = run_job(runner(tiny, tmp_path), config, events.append)
    assert started(events) == [2]
    assert [event.row.epoch for event in events if isinstance(event, Trained)] == [3, 4]
    assert not end.reused
    assert numbers(end.record) == numbers(train(config, tiny))
    assert end.record.epochs[:2] == stopped.epochs
    assert store.load(end.record.run_id) == end.record
    assert not store.checkpoint(end.record.run_id).exists()


def test_checkpoints_come_every_so_many_epochs(tiny: ImageData, tmp_path: Path) -> None:
    config, there = replace(BASE, epochs=5), []
    path = Store(tmp_path).checkpoint(config.run_id("d"))

    def look(event: Event) -> None:  # before the checkpoint of its epoch
        if isinstance(event, Trained):
            there.append(checkpoint.read(path).epochs if path.exists() else 0)

    run_job(runner(tiny, tmp_path, checkpoints=CheckpointPolicy(2)), config, look)
    assert there == [0, 0, 2, 2, 4]


def test_a_run_that_raised_resumes_from_its_checkpoint(
    tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, real = replace(BASE, epochs=3), Training._train

    def explode(self: Training) -> tuple[float, list[int]]:
        if self.done == 2:
            raise IndexError("a bug")
        return real(self)

    monkeypatch.setattr(Training, "_train", explode)
    failed = run_job(runner(tiny, tmp_path, checkpoints=CheckpointPolicy(1)), config).record
    assert (failed.status, failed.reason, len(failed.epochs)) == (Status.FAILED, "IndexError: a bug", 2)
    monkeypatch.undo()
    events: list[Event] = []
    record = run_job(runner(tiny, tmp_path), config, events.append).record
    assert started(events) == [2]
    assert numbers(record) == numbers(train(config, tiny))


def test_an_error_of_the_listener_is_not_one_of_the_run(tiny: ImageData, tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Trained):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_job(runner(tiny, tmp_path), BASE, listen)
    assert [record.status for record in Store(tmp_path).scan()] == [Status.UNFINISHED]


def test_fresh_takes_no_checkpoint_but_its_own(tiny: ImageData, tmp_path: Path) -> None:
    config = replace(BASE, epochs=3)
    for fresh, attempt, expected in ((True, 0, 0), (True, 1, 1), (False, 0, 1), (True, 0, 0)):
        events: list[Event] = []
        run_job(runner(tiny, tmp_path, fresh=fresh), config, events.append, stop=lambda: True, attempt=attempt)
        assert started(events) == [expected]
        if expected:  # one epoch further by now
            Store(tmp_path).checkpoint(config.run_id("d")).unlink()
            run_job(runner(tiny, tmp_path, fresh=True), config, stop=lambda: True)


def test_times_of_a_run_that_moved_are_not_compared(tiny: ImageData, tmp_path: Path) -> None:
    run_job(runner(tiny, tmp_path, workers=2), BASE, stop=lambda: True)
    moved = run_job(runner(tiny, tmp_path), BASE).record
    stayed = run_job(runner(tiny, tmp_path), replace(BASE, seed=1)).record
    assert moved.environment["moved"]
    assert "moved" not in stayed.environment
    assert moved.machine != stayed.machine


def bit_flipped(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


DAMAGES: dict[str, Any] = {
    "truncated": lambda content: content[: len(content) // 2],
    "bit-flipped": bit_flipped,
    "empty": lambda content: b"",
    "foreign": lambda content: b"not a checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_said_and_the_run_starts_over(damage: str, tiny: ImageData, tmp_path: Path) -> None:
    run_job(runner(tiny, tmp_path), BASE, stop=lambda: True)
    path = Store(tmp_path).checkpoint(BASE.run_id("d"))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(MaldropError, match=r"half|is no checkpoint, or a damaged one") as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)
    events: list[Event] = []
    record = run_job(runner(tiny, tmp_path), BASE, events.append).record
    assert (record.status, started(events)) == (Status.DONE, [0])
    [warning] = [event.message for event in events if isinstance(event, Warned)]
    assert warning.endswith("the run starts over")


def test_a_checkpoint_of_another_version_is_said(
    tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(BASE, tiny, CPU)
    path = tmp_path / "old.pt"
    monkeypatch.setattr(checkpoint, "FORMAT", 0)
    checkpoint.write(path, Checkpoint(BASE, "d", "cpu", {}, training.state()))
    monkeypatch.undo()
    with pytest.raises(MaldropError, match=r"old.pt is foreign .*this version reads \(2, 1\)"):
        checkpoint.read(path)
    assert torch.load(path, weights_only=True)["data_digest"] == "d"  # torch reads it as well


@pytest.mark.parametrize("damage", ["truncated", "bit-flipped"])
def test_a_damaged_record_costs_that_run_alone(damage: str, maldrop: Run) -> None:
    maldrop("sweep", *QUICK, "--rho", "0,16", "-q", "--csv", "a.csv")
    results = sorted(Path("maldrop-runs").glob("*/result.json"))
    assert len(results) == 4
    content = results[0].read_bytes()
    if damage == "bit-flipped":  # a digit of a loss: still JSON, and no number out of range
        at = content.index(b'"val_loss": 0.') + len(b'"val_loss": 0.')
        content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        json.loads(content)
    else:
        content = content[: len(content) // 2]
    results[0].write_bytes(content)
    result = maldrop("sweep", *QUICK, "--rho", "0,16", "--csv", "b.csv")
    assert result.code == 0
    assert f"{results[0]} is left out, as it is damaged" in result.err
    assert "3 of 4 runs already finished" in result.err
    assert measured("a.csv") == measured("b.csv")


def measured(path: str) -> list[dict[str, str]]:
    """A CSV file without its times."""
    return [
        {
            name: value
            for name, value in row.items()
            if "seconds" not in name and name not in ("time_vs_none", "workers")
        }
        for row in rows(path)
    ]


# --- the command line ------------------------------------------------------------------------------------------------


def test_save_and_resume(maldrop: Run) -> None:
    def call(*arguments: object) -> Result:
        result = maldrop("train", *TINY, "-q", *arguments)
        assert result.code == 0, result.err
        return result

    for dropout in ("maldrop", "vanilla"):
        common = ("--dropout", dropout)
        call(*common, "--epochs", 4, "--out", "whole", "--csv", "whole.csv")
        call(*common, "--epochs", 2, "--out", "part", "--save", "half.pt")
        call(*common, "--epochs", 4, "--out", "rest", "--resume", "half.pt", "--save", "end.pt", "--csv", "rest.csv")
        assert measured("rest.csv") == measured("whole.csv")
        assert checkpoint.read(Path("end.pt")).epochs == 4
        assert checkpoint.read(Path("end.pt")).config.epochs == 4


def test_the_horizon_stays_that_of_the_checkpoint(maldrop: Run) -> None:
    linear = ("train", *TINY, "-q", "--schedule", "linear")
    maldrop(*linear, "--epochs", 2, "--save", "half.pt")
    result = maldrop(*linear, "--epochs", 3, "--resume", "half.pt", "--csv", "t.csv")
    assert result.code == 0, result.err
    assert [row["horizon"] for row in rows("t.csv")] == ["2", "2", "2"]
    result = maldrop(*linear, "--epochs", 3, "--horizon", 3, "--resume", "half.pt")
    assert (result.code, "horizon is 2 there and 3 here" in result.err) == (2, True)


@pytest.mark.parametrize(
    "settings",
    [
        ("--dropout", "random", "--seed", "3", "--rho", "20", "--momentum", "0.5"),
        ("--schedule", "linear", "--rho", "12.5%", "--rho-end", "50%", "--horizon", "7"),
        ("--dropout", "none", "--image-size", "12", "--batch-size", "30", "--deterministic"),
        ("--preset", "paper", "--selector", "gradient", "--granularity", "sample", "--train-images", "90"),
    ],
)
def test_a_checkpoint_knows_its_settings(settings: tuple[str, ...], maldrop: Run) -> None:
    train = ("train", *TINY, *settings, "-q")
    maldrop(*train, "--epochs", 3, "--horizon", 7, "--out", "whole", "--csv", "whole.csv")
    assert maldrop(*train, "--epochs", 2, "--horizon", 7, "--save", "half.pt").code == 0
    again = maldrop("train", "--resume", "half.pt", "--csv", "again.csv")  # of two epochs, as it was
    assert (again.code, len(rows("again.csv"))) == (0, 2), again.err
    assert "1 of 1 run already finished" in again.err
    longer = maldrop("train", "--resume", "half.pt", "--epochs", 3, "--out", "rest", "-q", "--csv", "rest.csv")
    assert longer.code == 0, longer.err
    assert measured("rest.csv") == measured("whole.csv")
    same = ("dropout", "rho", "seed", "lr", "momentum", "rho_end", "horizon", "image_size", "run_id", "train_images")
    assert [[row[key] for key in same] for row in rows("rest.csv")] == [
        [row[key] for key in same] for row in rows("whole.csv")
    ]
    assert maldrop("train", *settings, "--resume", "half.pt", "--dry-run").code == 0  # flags that say the same


def test_flags_beside_a_checkpoint_are_checked_against_it(maldrop: Run) -> None:
    maldrop("train", *TINY, "--epochs", 1, "--rho", "100", "-q", "--save", "one.pt")
    for flags, message in (
        (
            ("--dropout", "spatial-maldrop"),
            "dropout is maldrop there and spatial-maldrop here",
        ),  # not: rho is too large
        (("--rho", "50%"), "rho is 100 there and 128 here"),
        (("--preset", "paper"), "batch-size is 64 there and 128 here"),
        (("--dataset", "digits"), "dataset is synthetic there and digits here"),
    ):
        result = maldrop("train", "--resume", "one.pt", *flags)
        assert (result.code, result.err.count("\n"), result.out) == (2, 1, ""), result.err
        assert message in result.err


def test_saving_a_run_that_had_finished_trains_it_again_and_says_so(maldrop: Run) -> None:
    maldrop("train", *QUICK, "--csv", "a.csv")
    result = maldrop("train", *QUICK, "--save", "end.pt", "--csv", "b.csv")
    assert (result.code, result.err.count("\n")) == (0, 3)
    assert "trained again for --save" in result.err
    assert checkpoint.read(Path("end.pt")).epochs == 2
    assert measured("a.csv") == measured("b.csv")


def test_what_a_checkpoint_does_not_fit_is_one_line(maldrop: Run) -> None:
    assert maldrop("train", *QUICK, "-q", "--save", "half.pt").code == 0
    Path("file.pt").write_text("no")
    resume = ("train", *QUICK, "-q", "--resume", "half.pt")
    for arguments, code, message in (
        ((*resume, "--lr", 0.1), 2, "lr is 0.02 there and 0.1 here; --lr 0.02 goes on from it"),
        ((*resume, "--lr", 0.02000000001), 2, "lr is 0.02 there and 0.02000000001 here"),
        ((*resume, "--dropout", "vanilla"), 2, "dropout is maldrop there and vanilla here"),
        ((*resume, "--rho", 17), 2, "rho is 16 there and 17 here"),
        ((*resume, "--images", 160), 2, "images is 150 there and 160 here"),
        ((*resume, "--seed", 1), 2, "seed is 0 there and 1 here"),
        ((*resume, "--deterministic"), 2, "deterministic is false there and true here"),
        ((*resume, "--epochs", 1), 2, "has 2 epochs behind it, more than --epochs 1"),
        ((*resume[:-1], "file.pt"), 1, "file.pt is no checkpoint, or a damaged one"),
        ((*resume[:-1], "nowhere.pt"), 1, "the checkpoint nowhere.pt can't be read: No such file"),
        ((*resume[:-2], "--save", "nowhere/a.pt"), 1, "there is no folder"),
    ):
        result = maldrop(*arguments)
        assert (result.code, result.err.count("\n"), result.out) == (code, 1, ""), result.err
        assert message in result.err


def test_other_images_under_the_same_name_are_refused(tiny: ImageData) -> None:
    there = Checkpoint(BASE, "a" * 64, "cpu", {}, {"rows": []})
    checkpoint.check_data(there, "a" * 64, "cpu")
    with pytest.raises(UsageError, match="other data: the images of synthetic have the digest aaaaaaaa there"):
        checkpoint.check_data(there, "b" * 64, "cpu")
    with pytest.raises(UsageError, match="--device cpu goes on from it"):
        checkpoint.check_data(there, "a" * 64, "cuda")


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 16 KiB: records fit, and checkpoints do not."""
    resource = pytest.importorskip("resource", reason="a file-size limit is a POSIX thing")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_disk_too_full_for_checkpoints_is_one_line(maldrop: Run) -> None:
    assert maldrop("train", *QUICK, "-q").code == 0
    for command in (("sweep", *QUICK, "--rho", "0,16"), ("train", *QUICK, "--seed", "1", "--save", "end.pt")):
        result = maldrop(*command, "-q")
        assert (result.code, result.err.count("\n"), result.out) == (1, 1, ""), result.err
        assert "File too large" in result.err
    statuses = [record.status for record in Store(Path("maldrop-runs")).scan()]
    assert sorted(statuses) == [Status.DONE, Status.DONE, Status.UNFINISHED]  # the first, seed 1, the sweep's first
    assert not [path for path in Path().rglob("*") if "checkpoint" in path.name or "end.pt" in path.name]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who may not write everywhere")
def test_a_read_only_folder_is_one_line(maldrop: Run) -> None:
    maldrop("train", *QUICK, "-q")
    Path("maldrop-runs").chmod(0o555)
    result = maldrop("train", *QUICK, "-q", "--seed", "1")
    Path("maldrop-runs").chmod(0o755)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "the results folder maldrop-runs fails: Permission denied" in result.err


def test_the_selector_of_a_checkpoint_counts(tiny: ImageData) -> None:
    """A setting without effect on the run may differ: the selector of a run without dropout."""
    there = Checkpoint(replace(BASE, dropout=Dropout.NONE), "", "cpu", {}, {"rows": []})
    here = replace(BASE, dropout=Dropout.NONE, selector=Selector.SINGLE)
    checkpoint.check_settings(Path("x.pt"), there, here)
    with pytest.raises(UsageError, match="dropout is none there"):
        checkpoint.check_settings(Path("x.pt"), there, BASE)
