"""Records on disk: whole or not at all, and readable whatever happened."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from maldrop_cli.config import RunConfig
from maldrop_cli.machine import environment
from maldrop_cli.names import MaldropError, Schedule
from maldrop_cli.record import EpochRow, RunRecord, Status, from_json, to_json
from maldrop_cli.runs.store import DAMAGED, Store


def row(epoch: int) -> EpochRow:
    return EpochRow(
        epoch=epoch,
        train_loss=0.5,
        val_loss=None,
        val_top1=90.0,
        val_top5=99.5,
        train_seconds=0.1,
        rho_mean=3.5,
        drop_rate=6.0,
    )


CONFIG = RunConfig(epochs=2)
ID = CONFIG.run_id("d")
RECORD = RunRecord(run_id=ID, config=CONFIG, data_digest="d", environment={"device": "cpu"}, hidden_width=4096)
DONE = replace(RECORD, epochs=(row(1), row(2)), status=Status.DONE)


def test_json_round_trip() -> None:
    assert from_json(json.loads(json.dumps(to_json(DONE)))) == DONE


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    store.prepare()
    store.start(RECORD)
    assert store.load(ID) == RECORD
    store.append(ID, row(1))
    assert store.load(ID) == replace(RECORD, epochs=(row(1),))
    store.append(ID, row(2))
    store.finish(DONE)
    assert store.load(ID) == DONE
    assert list(store.scan()) == [DONE]
    assert store.load("nothing") is None
    assert {path.name for path in (store.root / ID).iterdir()} == {"config.json", "epochs.jsonl", "result.json"}


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.start(RECORD)
    store.append(ID, row(1))
    with (tmp_path / ID / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 2, "train_')
    assert store.load(ID) == replace(RECORD, epochs=(row(1),))


def test_an_epoch_line_that_was_changed_ends_them(tmp_path: Path) -> None:
    """A digit, a line of another run, one that is missing or there twice; a whole file of earlier versions is taken."""
    other = replace(RECORD, config=replace(CONFIG, seed=1), run_id=replace(CONFIG, seed=1).run_id("d"))
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    for record in (RECORD, other):
        store.start(record, [row(1), row(2)])
    path = tmp_path / ID / "epochs.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    foreign = (tmp_path / other.run_id / "epochs.jsonl").read_bytes().splitlines(keepends=True)[1]
    old = b"".join(json.dumps(asdict(row(epoch))).encode() + b"\n" for epoch in (1, 2))
    for lines, kept in (
        (first + second.replace(b"90.0", b"91.0"), 1),
        (first + second.replace(b'"checksum"', b'"checksun"'), 1),
        (first + old.splitlines(keepends=True)[1], 1),
        (first + foreign, 1),
        (first + first, 1),
        (second, 0),
        (first + b"\n" + second, 1),
        (old, 2),
        (old.splitlines(keepends=True)[1], 0),
    ):
        path.write_bytes(lines)
        assert store.load(ID) == replace(RECORD, epochs=(row(1), row(2))[:kept])
        if kept < 2:
            assert f"{path} is left out from epoch {kept + 1} on" in warnings.pop()
        assert not warnings


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_record_without_a_checksum_is_trained_again(name: str, tmp_path: Path) -> None:
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    store.start(RECORD)
    if name == "result.json":
        store.finish(DONE)
    path = tmp_path / ID / name
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps(content))
    found = store.load(ID)
    assert found is None or not found.finished
    assert [("maldrop 0.1; its command trains it again" in line) for line in warnings] == [True]


def test_the_probe_follows_no_link(tmp_path: Path) -> None:
    for name in (f".probe-{os.getpid()}", ".probe"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    before = set(tmp_path.iterdir())
    Store(tmp_path).prepare()
    assert set(tmp_path.iterdir()) == before


DAMAGES = [b"", b"{", b"[]", b"null", b'{"run_id": 1}', b"\xff\xfe\x00", b"[" * 9999, b'{"a":' * 9999, b"1" * 9999]


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_result_is_said_and_counts_as_unfinished(damage: bytes, tmp_path: Path) -> None:
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    store.start(RECORD)
    store.append(ID, row(1))
    (tmp_path / ID / "result.json").write_bytes(damage)
    assert store.load(ID) == replace(RECORD, epochs=(row(1),), reason=DAMAGED)
    assert len(warnings) == 1
    assert "result.json is left out" in warnings[0]
    assert "\n" not in warnings[0]
    (tmp_path / ID / "config.json").write_bytes(damage)
    assert store.load(ID) is None


def test_starting_over_keeps_the_old_result_until_there_is_a_new_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.start(RECORD)
    store.append(ID, row(1))
    store.finish(DONE)
    store.start(RECORD)
    store.append(ID, replace(row(1), val_top1=1.0))
    assert store.load(ID) == DONE
    store.finish(replace(DONE, hidden_width=1))
    assert store.load(ID) == replace(DONE, hidden_width=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("val_top1", "abc"), ("epoch", None), ("train_loss", []), ("train_seconds", {}), ("val_top1", 1e999)],
)
def test_a_value_of_the_wrong_type_is_damage(field: str, value: object, tmp_path: Path) -> None:
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    store.start(RECORD)
    store.finish(DONE)
    path = tmp_path / ID / "result.json"
    content = json.loads(path.read_text())
    content["epochs"][0][field] = value
    path.write_text(json.dumps(content))
    assert store.load(ID) == replace(RECORD, reason=DAMAGED)
    assert len(warnings) == 1


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
@pytest.mark.parametrize("name", ["result.json", "config.json", "epochs.jsonl"])
def test_a_record_without_end_is_damage(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a pipe that nobody writes to, and a file of gigabytes."""
    monkeypatch.setattr("maldrop_cli.runs.store.RECORD_BYTES", 2000)
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    path = tmp_path / ID / name
    for make in (lambda: path.symlink_to("/dev/zero"), lambda: os.mkfifo(path), lambda: path.write_bytes(b"x" * 2001)):
        store.start(RECORD)
        path.unlink(missing_ok=True)
        make()
        found = store.load(ID)
        assert (found is None) is (name == "config.json")
        path.unlink()
    assert len(warnings) == 3


def test_another_schema_is_left_out_and_said(tmp_path: Path) -> None:
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    store.start(RECORD)
    path = tmp_path / ID / "config.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    assert store.load(ID) is None
    assert "its schema is 99" in warnings[0]


def test_a_point_with_the_run_of_another_is_a_record_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    point = replace(CONFIG, rho=10, schedule=Schedule.FORWARD)
    alias = replace(DONE, config=point, trained_as=DONE.config)
    store.write_alias(alias)
    store.write_alias(replace(alias, hidden_width=1))
    assert list(store.scan()) == [replace(alias, hidden_width=1)]
    (tmp_path / alias.config.run_id("d") / "result.json").write_text("{")
    assert list(store.scan()) == [replace(alias, hidden_width=1)]  # it is there twice
    trained = replace(DONE, config=point, run_id=point.run_id("d"))
    store.start(trained)
    store.finish(trained)
    store.write_alias(alias)
    assert list(store.scan()) == [trained]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.start(RECORD)
    store.finish(DONE)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MaldropError, match=r"No space left on device; --out DIR") as caught:
        store.finish(replace(DONE, reason="new"))
    assert "\n" not in str(caught.value)
    assert store.load(ID) == DONE
    assert not list((tmp_path / ID).glob(".*"))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MaldropError, match=r"the results folder .*file/runs fails"):
        Store(tmp_path / "file" / "runs").prepare()


def test_other_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").write_text("")
    assert list(Store(tmp_path).scan()) == []


def test_the_environment_names_machine_and_versions() -> None:
    where = environment(torch.device("cpu"), workers=3)
    assert where["torch"][0].isdigit()
    assert (where["threads"], where["workers"]) == (torch.get_num_threads(), 3)
    assert (where["device"], where["device_name"]) == ("cpu", "cpu")
    assert where["cpu"]


def test_only_done_and_diverged_runs_are_final() -> None:
    final = [status for status in Status if replace(RECORD, status=status).finished]
    assert final == [Status.DONE, Status.DIVERGED]
