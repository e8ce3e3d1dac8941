"""Records on disk: whole or not at all, and readable whatever happened."""

import json
import os
from dataclasses import replace
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


RECORD = RunRecord(run_id="abc", config=RunConfig(), data_digest="d", environment={"device": "cpu"}, hidden_width=4096)
DONE = replace(RECORD, epochs=(row(1), row(2)), status=Status.DONE)


def test_json_round_trip() -> None:
    assert from_json(json.loads(json.dumps(to_json(DONE)))) == DONE


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    store.prepare()
    store.start(RECORD)
    assert store.load("abc") == RECORD
    store.append("abc", row(1))
    assert store.load("abc") == replace(RECORD, epochs=(row(1),))
    store.append("abc", row(2))
    store.finish(DONE)
    assert store.load("abc") == DONE
    assert list(store.scan()) == [DONE]
    assert store.load("nothing") is None
    assert {path.name for path in (store.root / "abc").iterdir()} == {"config.json", "epochs.jsonl", "result.json"}


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.start(RECORD)
    store.append("abc", row(1))
    with (tmp_path / "abc" / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 2, "train_')
    assert store.load("abc") == replace(RECORD, epochs=(row(1),))


DAMAGES = [b"", b"{", b"[]", b"null", b'{"run_id": 1}', b"\xff\xfe\x00", b"[" * 9999, b'{"a":' * 9999, b"1" * 9999]


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_result_is_said_and_counts_as_unfinished(damage: bytes, tmp_path: Path) -> None:
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    store.start(RECORD)
    store.append("abc", row(1))
    (tmp_path / "abc" / "result.json").write_bytes(damage)
    assert store.load("abc") == replace(RECORD, epochs=(row(1),), reason=DAMAGED)
    assert len(warnings) == 1
    assert "result.json is left out" in warnings[0]
    assert "\n" not in warnings[0]
    (tmp_path / "abc" / "config.json").write_bytes(damage)
    assert store.load("abc") is None


def test_starting_over_keeps_the_old_result_until_there_is_a_new_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.start(RECORD)
    store.append("abc", row(1))
    store.finish(DONE)
    store.start(RECORD)
    store.append("abc", replace(row(1), val_top1=1.0))
    assert store.load("abc") == DONE
    store.finish(replace(DONE, epochs=(row(1),)))
    assert store.load("abc") == replace(DONE, epochs=(row(1),))


@pytest.mark.parametrize(
    ("field", "value"),
    [("val_top1", "abc"), ("epoch", None), ("train_loss", []), ("train_seconds", {}), ("val_top1", 1e999)],
)
def test_a_value_of_the_wrong_type_is_damage(field: str, value: object, tmp_path: Path) -> None:
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    store.start(RECORD)
    store.finish(DONE)
    path = tmp_path / "abc" / "result.json"
    content = json.loads(path.read_text())
    content["epochs"][0][field] = value
    path.write_text(json.dumps(content))
    assert store.load("abc") == replace(RECORD, reason=DAMAGED)
    assert len(warnings) == 1


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
@pytest.mark.parametrize("name", ["result.json", "config.json", "epochs.jsonl"])
def test_a_record_without_end_is_damage(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a pipe that nobody writes to, and a file of gigabytes."""
    monkeypatch.setattr("maldrop_cli.runs.store.RECORD_BYTES", 1000)
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    path = tmp_path / "abc" / name
    for make in (lambda: path.symlink_to("/dev/zero"), lambda: os.mkfifo(path), lambda: path.write_bytes(b"x" * 1001)):
        store.start(RECORD)
        path.unlink(missing_ok=True)
        make()
        found = store.load("abc")
        assert (found is None) is (name == "config.json")
        path.unlink()
    assert len(warnings) == (0 if name == "epochs.jsonl" else 3)


def test_another_schema_is_left_out_and_said(tmp_path: Path) -> None:
    warnings: list[str] = []
    store = Store(tmp_path, warnings.append)
    store.start(RECORD)
    path = tmp_path / "abc" / "config.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    assert store.load("abc") is None
    assert "its schema is 99" in warnings[0]


def test_a_point_with_the_run_of_another_is_a_record_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    point = RunConfig(rho=10, schedule=Schedule.FORWARD)
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
    assert store.load("abc") == DONE
    assert not list((tmp_path / "abc").glob(".*"))


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
