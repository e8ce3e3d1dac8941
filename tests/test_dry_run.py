"""`--dry-run`: charts, rows, and nothing trained."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Result, rows
from test_datasets import make_folder

from maldrop_cli.cli.run import estimate
from maldrop_cli.config import RunConfig
from maldrop_cli.data import download
from maldrop_cli.data import load as datasets
from maldrop_cli.dropout import SCHEDULES, Step
from maldrop_cli.models.variants import EpochRho, Head, rho_by_epoch
from maldrop_cli.names import Dropout, Schedule, Selector
from maldrop_cli.record import EpochRow, RunRecord
from maldrop_cli.render import dry_run
from maldrop_cli.render.dry_run import ASCII, BLOCKS, dry_rows, sweep_chart, train_chart
from maldrop_cli.render.tables import to_text

Run = Callable[..., Result]
BASE = RunConfig(epochs=4, horizon=4, rho=16)
HEAD = Head(32, 10)


def test_drawings() -> None:
    """Only nothing looks like nothing, and only everything like everything."""
    assert dry_run.spark([0, 1e-9, 0.5, 1 - 1e-9, 1], BLOCKS) == "·▁▄▇█"
    assert dry_run.spark([0, 1e-9, 0.1, 0.55, 1 - 1e-9, 1], ASCII) == ".0159#"
    for drawn, shares, bars in (
        (ASCII, (0, 0.01, 0.25, 0.26, 1), "....|#...|#...|##..|####"),
        (BLOCKS, (0, 0.01, 0.25, 0.4, 1), "····|▏···|█···|█▋··|████"),
    ):
        assert "|".join(dry_run.bar(share, 4, drawn) for share in shares) == bars


def test_characters_depend_on_what_stdout_can_show() -> None:
    encodings = ("utf-8", "ascii", "cp1252", "no-such-encoding", None)
    assert [dry_run.characters(encoding) for encoding in encodings] == [BLOCKS, *[ASCII] * 4]


def test_rho_by_epoch_is_what_the_engine_would_drop() -> None:
    for schedule in set(Schedule) - {Schedule.RANDOMIZED, Schedule.PERIODIC}:
        counts = [SCHEDULES[schedule.value](16, 256, Step(epoch, 0, horizon=4)) for epoch in range(4)]
        assert rho_by_epoch(replace(BASE, schedule=schedule), 256) == [EpochRho(each, each, each) for each in counts]
    assert rho_by_epoch(replace(BASE, schedule=Schedule.RANDOMIZED), 256) == [EpochRho(0, 256, 128)] * 4
    periodic = replace(BASE, schedule=Schedule.PERIODIC)
    assert rho_by_epoch(periodic, 256) == [EpochRho(0, 16, 3.2)] * 4
    assert rho_by_epoch(replace(periodic, period=1), 256) == [EpochRho(16, 16, 16)] * 4
    assert rho_by_epoch(replace(BASE, dropout=Dropout.VANILLA), 256) == []


TRAIN = """\
Dry run of maldrop linear rho=16 rho-end=8 horizon=3: digits, cnn, 4 epochs, SGD lr 0.005, momentum 0.9, \
batch 64, seed 0

  epoch    rho    % of neurons  of 32
-------  -----  --------------  ----------------------------------------
      1     16           50.00  ####################....................
      2     12           37.50  ###############.........................
   3..4      8           25.00  ##########..............................

N"""

SWEEP = """\
Dry run: T

dropout    schedule        omega      rho    rho, epoch 1    rho, epoch 4  rho by epoch
---------  --------------  -------  -----  --------------  --------------  ------------------------------------------
none
maldrop    forward         paper       16              32              32  ####
maldrop    reverse         paper       16               0               0  ....
maldrop    forward-smooth  paper        8               8              19  2345
maldrop    linear          paper       16              16               0  531.
maldrop    periodic        paper       16             3.2             3.2  16 in each 5th batch, else 0
maldrop    periodic        paper        0               0               0  ....
maldrop    randomized      paper       16              16              16  drawn for each batch, uniformly from 0..32

rho, epoch N: its mean in it. rho by epoch, a character an epoch: . none, 0 to 9 tenths, # all of the 32 neurons.
forward-smooth: rate 0.5; linear: rho-end 0, horizon 4; periodic: period 5.
N
2 of 2 annealed points drop everything (1) or nothing (1) in most epochs: equations (1) and (2) saturate. \
From about rho + i = 10 on, i the epoch from 0, forward drops all there is and reverse nothing. \
Try --schedule forward-smooth or reverse-smooth."""


def test_the_chart_of_a_run_is_golden() -> None:
    config = replace(BASE, schedule=Schedule.LINEAR, rho_end=8, horizon=3)
    assert to_text([train_chart(config, HEAD, ["N"], ASCII)], "plain") == TRAIN


def test_the_charts_of_a_sweep_are_golden() -> None:
    points = [
        replace(BASE, dropout=Dropout.NONE),
        *(replace(BASE, schedule=schedule) for schedule in (Schedule.FORWARD, Schedule.REVERSE)),
        replace(BASE, schedule=Schedule.FORWARD_SMOOTH, rho=8),
        replace(BASE, schedule=Schedule.LINEAR),
        *(replace(BASE, schedule=Schedule.PERIODIC, rho=rho) for rho in (16, 0)),
        replace(BASE, schedule=Schedule.RANDOMIZED),
    ]
    table = sweep_chart(points, lambda config: HEAD, "T", ["N"], ASCII)
    assert [line.rstrip() for line in to_text([table], "plain").splitlines()] == SWEEP.splitlines()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dropout": Dropout.VANILLA}, "vanilla has no rho"),
        ({"schedule": Schedule.RANDOMIZED}, "drawn for each batch, uniformly from 0..32"),
        ({"schedule": Schedule.PERIODIC, "period": 2}, "16 in each 2nd batch, else 0; the chart shows its mean"),
        ({"schedule": Schedule.PERIODIC, "period": 12}, "each 12th batch"),
    ],
)
def test_what_a_chart_cannot_draw_is_said(change: dict[str, object], words: str) -> None:
    table = train_chart(replace(BASE, **change), HEAD, drawn=ASCII)  # type: ignore[arg-type]
    assert words in table.notes[0]
    assert table.columns[0].cells == ["1..4"]


def test_many_epochs_are_thinned_out_from_the_first_to_the_last() -> None:
    point = replace(BASE, schedule=Schedule.LINEAR, rho=32, epochs=500, horizon=500)
    table = sweep_chart([point], lambda config: HEAD, "T", drawn=ASCII)
    chart = table.columns[-1].cells[0]
    assert (len(chart), chart[0], chart[-1]) == (40, "#", ".")
    assert "40 of 500 epochs, evenly spread" in table.notes[0]


def test_rows_have_every_epoch_of_every_point() -> None:
    points = [replace(BASE, dropout=Dropout.NONE), replace(BASE, schedule=Schedule.LINEAR)]
    table = dry_rows(points, lambda config: HEAD, {"n_seeds": 2})
    assert [row["epoch"] for row in table] == [1, 2, 3, 4] * 2
    assert [row["rho_mean"] for row in table] == [None] * 4 + [16, 11, 5, 0]
    assert {(row["n_seeds"], row["hidden_width"]) for row in table} == {(2, 32)}
    assert (table[-1]["rho_end"], table[-1]["horizon"], table[-1]["rate"]) == (0, 4, None)


def test_the_size_of_the_plan() -> None:
    assert dry_run.plan_line(1, 1, 1, 0, "o") == "Nothing was trained. 1 run."
    assert dry_run.plan_line(3, 2, 6, 4, "o", "about 1:30 of training left") == (
        "Nothing was trained. 3 points with 2 seeds each: 6 runs, 4 already finished in o; about 1:30 of training left."
    )
    assert dry_run.plan_line(3, 2, 4, 0, "o") == (
        "Nothing was trained. 3 points with 2 seeds each: 4 runs, as 2 runs would be the same as another."
    )


def test_train_dry_run(maldrop: Run) -> None:
    command = ("train", *TINY, *["--epochs", "3", "--schedule", "linear", "--rho", "50%", "--rho-end", "64"])
    result = maldrop(*command, "--dry-run", "--csv", "d.csv", "--json", "d.json")
    assert (result.code, result.err) == (0, "")
    assert "Dry run of maldrop linear rho=128 rho-end=64: synthetic, cnn, 3 epochs" in result.out
    measured = r"Nothing was trained\. 1 run; about \S+ s of training left, going by the first batches of an epoch"
    assert re.search(measured, result.out)
    assert [row["rho_mean"] for row in rows("d.csv")] == ["128", "96", "64"]
    assert {path.name for path in Path().iterdir()} == {"d.csv", "d.json"}

    maldrop(*command, "--csv", "t.csv")
    trained, planned = rows("t.csv"), rows("d.csv")
    assert [float(row["rho_mean"]) for row in trained] == [float(row["rho_mean"]) for row in planned]
    same = ("dropout", "schedule", "rho", "seed", "epoch", "rho_end", "horizon", "hidden_width")
    assert [[row[key] for key in same] for row in trained] == [[row[key] for key in same] for row in planned]
    assert "1 run, 1 already finished in maldrop-runs." in maldrop(*command, "--dry-run").out
    assert "already finished" not in maldrop(*command, "--dry-run", "--fresh").out
    assert "already finished" not in maldrop(*command, "--dry-run", "--horizon", "2").out


def test_sweep_dry_run(maldrop: Run) -> None:
    command = ("sweep", *TINY, "--epochs", "2", "--schedule", "forward,forward-smooth", "--rho", "0..256/3")
    result = maldrop(*command, "--seeds", "2", "--dry-run", "--csv", "d.csv")
    assert (result.code, result.err) == (0, "")
    assert "8 points with 2 seeds each: 12 runs, as 4 runs would be the same as another; about " in result.out
    assert "Try --schedule forward-smooth" in result.out
    assert {path.name for path in Path().iterdir()} == {"d.csv"}
    table = rows("d.csv")
    assert [(row["dropout"], row["schedule"], row["rho"], row["epoch"]) for row in table[::2]] == [
        *((reference, "", "", "1") for reference in ("none", "vanilla")),
        *(("maldrop", schedule, rho, "1") for schedule in ("forward", "forward-smooth") for rho in ("0", "128", "256")),
    ]
    rhos = [row["rho_mean"] for row in table if row["schedule"] == "forward-smooth"]
    assert rhos == ["0", "0", "128", "159", "256", "256"]
    maldrop(*command, "-q")
    again = maldrop(*command, "--seeds", "2", "--dry-run").out
    assert "12 runs, as 4 runs would be the same as another, 6 already finished in maldrop-runs;" in again


@pytest.mark.parametrize(
    ("flags", "horizon"),
    [
        ("--epochs 3", "3"),
        ("--epochs 3 --horizon 5", "5"),
        ("--preset paper", "10"),
        ("--preset paper --epochs 4", "4"),
    ],
)
def test_the_horizon_is_the_epochs_unless_given(flags: str, horizon: str, maldrop: Run) -> None:
    command = ("sweep", *TINY, "--schedule", "linear", "--rho", "256", "--dry-run", "--csv", "d.csv")
    maldrop(*command, *flags.split())
    assert rows("d.csv")[-1]["horizon"] == horizon


@pytest.mark.parametrize(("encoding", "expected"), [("utf-8", "▁▁▂▃"), ("ascii", "0123"), ("cp1252", "0123")])
def test_terminals_without_block_characters(encoding: str, expected: str, tmp_path: Path) -> None:
    flags = "--rho 8.33% --schedule forward-smooth --epochs 4 --rate 0.6 --dry-run"
    command = [sys.executable, "-m", "maldrop_cli", "sweep", *TINY, *flags.split()]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, check=True)
    assert expected in done.stdout.decode(encoding)
    assert "?" not in done.stdout.decode(encoding)


def test_a_dry_run_downloads_no_images(maldrop: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MALDROP_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(datasets, "load", lambda *args: pytest.fail("loaded"))
    monkeypatch.setattr(download, "reachable", lambda url: pytest.fail("asked a server"))
    result = maldrop("train", "--dataset", "cifar10", "--dry-run")
    assert result.code == 0
    assert "1 run; how long they take can't be told before the images of cifar10 are here." in result.out


def test_a_dry_run_says_that_images_lie_there_but_are_not_decoded(maldrop: Run, tmp_path: Path) -> None:
    make_folder(tmp_path / "images")
    command = ("--dataset", "imagefolder", "--data-dir", "images", "--image-size", "8", "--epochs", "1")
    told = "how long they take can't be told before the images of imagefolder are decoded, which the first run does."
    for name in ("train", "sweep", "compare"):
        result = maldrop(name, *command, "--dry-run")
        assert (result.code, result.err) == (0, "")
        assert told in result.out
    maldrop("train", *command)
    assert "of training left" in maldrop("train", *command, "--seed", "1", "--dry-run").out


def test_a_dry_run_says_that_an_archive_is_not_unpacked(maldrop: Run, tmp_path: Path) -> None:
    for name, archive in (("cifar10", "cifar-10-python.tar.gz"), ("tiny-imagenet", "tiny-imagenet-200.zip")):
        (tmp_path / archive).write_bytes(b"")
        result = maldrop("train", "--dataset", name, "--data-dir", tmp_path, "--dry-run")
        assert f"before the images of {name} are unpacked, which the first run does." in result.out, result.err


def test_compare_dry_run(maldrop: Run) -> None:
    command = (
        "compare",
        *TINY,
        "--epochs",
        "2",
        "--seeds",
        "2",
        "--arm",
        "mine: maldrop rho=40",
        "--dropout",
        "none,maldrop",
    )
    result = maldrop(*command, "--dry-run", "--csv", "d.csv")
    assert (result.code, result.err) == (0, "")
    assert "Dry run: synthetic, cnn, 2 epochs" in result.out
    assert re.search(r"3 points with 2 seeds each: 6 runs; about \S+ s of training left, going by", result.out)
    assert [(row["dropout"], row["rho"], row["epoch"]) for row in rows("d.csv")] == [
        (dropout, rho, epoch) for dropout, rho in (("none", ""), ("maldrop", "16"), ("maldrop", "40")) for epoch in "12"
    ]
    assert {path.name for path in Path().iterdir()} == {"d.csv"}
    maldrop(*command, "-q")
    assert "6 runs, 6 already finished in maldrop-runs." in maldrop(*command, "--dry-run").out
    assert maldrop(*command, "--dry-run", "--plot", "p.svg").code == 2
    assert maldrop(*command, "--dry-run", "--device", "cuda:99").code == 2


def test_the_time_left_is_by_stored_epochs_or_by_a_measurement() -> None:
    def stored(seconds: float, **settings: Any) -> RunRecord:
        measured: Any = dict.fromkeys(("train_loss", "val_loss", "val_top1", "val_top5", "rho_mean", "drop_rate"), 0.0)
        epochs = [EpochRow(epoch=1, train_seconds=each, **measured) for each in (seconds, 9 * seconds)]
        return RunRecord(run_id="", config=replace(BASE, **settings), epochs=tuple(epochs))

    left = [BASE, replace(BASE, rho=7, lr=0.5), replace(BASE, selector=Selector.SINGLE)]  # of four epochs each
    asked: list[RunConfig] = []

    def measure(config: RunConfig) -> float:
        asked.append(config)
        return 10.0

    told = estimate(left, [stored(1.0)], measure)  # five seconds an epoch, and ten
    assert told == "about 1:20 of training left, going by the first batches of an epoch, trained to see"
    assert asked == [left[2]]
    known = [stored(1.0), stored(2.0, selector=Selector.SINGLE)]
    assert estimate(left, known, measure, workers=2) == "about 40.0 s of training left, going by epochs stored"
    assert len(asked) == 1
    assert "before the images of digits are here" in estimate(left, [], lambda config: None)
