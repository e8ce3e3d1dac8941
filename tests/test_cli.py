"""The command line end to end, on embedded data: tables, files, records, exit codes."""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Result, rows
from typer.main import get_command

from maldrop_cli.cli.app import COMMANDS, EXAMPLES, app
from maldrop_cli.record import Status
from maldrop_cli.render.progress import ProgressListener
from maldrop_cli.runs import runner
from maldrop_cli.runs.store import Store
from maldrop_cli.timing.clock import Samples
from maldrop_cli.train import Training

Run = Callable[..., Result]
QUICK = (*TINY, "--epochs", "2", "--lr", "0.02")

RUN_COLUMNS = [
    *("dataset", "model", "dropout", "selector", "schedule", "rho", "omega", "granularity", "seed", "epoch"),
    *("train_loss", "val_loss", "val_top1", "val_top5", "train_seconds", "status"),
]
ARM_COLUMNS = ["n_seeds", "val_top1_mean", "val_top1_ci95", "val_loss_mean", "train_seconds_mean", "time_vs_none"]
TIMING_COLUMNS = ["subject", "median_ms", "ratio_vs_none", "ratio_vs_none_lo", "ratio_vs_none_hi", "peak_mb"]


def test_train(maldrop: Run) -> None:
    result = maldrop("train", *QUICK, "--csv", "t.csv", "--json", "t.json")
    assert result.code == 0, result.err
    assert "maldrop rho=16: synthetic, cnn, 2 epochs" in result.out  # 6.25 % of 256
    assert len(result.err.splitlines()) == 2  # a plain line an epoch
    assert "left" in result.err
    table = rows("t.csv")
    assert set(RUN_COLUMNS) <= set(table[0])
    assert [row["epoch"] for row in table] == ["1", "2"]
    assert {row["status"] for row in table} == {"done"}
    assert (table[0]["rho"], table[0]["omega"], table[0]["granularity"]) == ("16", "paper", "batch")
    [record] = Store(Path("maldrop-runs")).scan()
    assert [float(row["val_loss"]) for row in table] == [row.val_loss for row in record.epochs]
    loaded = json.loads(Path("t.json").read_text())["rows"]
    assert [row["train_loss"] for row in loaded] == [row.train_loss for row in record.epochs]


def test_a_network_of_torchvision(maldrop: Run) -> None:
    subject = (
        "--dataset",
        "synthetic",
        "--shape",
        "3x32x32",
        "--classes",
        "3",
        "--images",
        "60",
        "--model",
        "resnet18",
    )
    result = maldrop("train", *subject, "--epochs", "1", "--csv", "t.csv")
    assert result.code == 0, result.err
    [row] = rows("t.csv")
    assert (row["model"], row["hidden_width"], row["rho"]) == ("resnet18", "512", "32")  # 6.25 % of 512
    result = maldrop("train", *subject, "--epochs", "1")
    assert "1 of 1 run already finished" in result.err
    result = maldrop("train", *subject, "--batch-size", "47")
    assert result.code == 2
    assert "48 training images in batches of 47 leave one over" in result.err
    assert "--batch-size 48" in result.err


def test_compare(maldrop: Run) -> None:
    result = maldrop("compare", *QUICK, "--csv", "c.csv", "--json", "c.json")
    assert result.code == 0, result.err
    assert "Against vanilla p=0.5, paired by seed, epoch 2" in result.out
    assert "\x1b" not in result.out + result.err
    table = rows("c.csv")
    assert [row["dropout"] for row in table] == ["none", "vanilla", "maldrop", "maldrop", "random"]
    assert [row["selector"] for row in table] == ["", "", "heuristic", "gradient", ""]
    assert set(ARM_COLUMNS) <= set(table[0])
    assert {row["n_seeds"] for row in table} == {"4"}
    assert table[0]["rho"] == ""
    assert table[2]["rho"] == "16"
    assert float(table[0]["time_vs_none"]) == 1.0
    assert json.loads(Path("c.json").read_text())["rows"][1]["verdict"] is None
    assert len(list(Store(Path("maldrop-runs")).scan())) == 20


def test_a_point_of_a_grid_is_the_run_of_the_number_typed(maldrop: Run) -> None:
    few = (*TINY, "--epochs", "1", "--dropout", "vanilla")
    swept = maldrop("sweep", *few, "--p", "0.1..0.5:0.1", "--seeds", "1", "-q", "--csv", "s.csv")
    assert "0.30000000000000004" not in swept.out
    assert [row["p"] for row in rows("s.csv")] == ["", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert "1 of 1 run already finished" in maldrop("train", *few, "--p", "0.3").err
    assert maldrop("report", "maldrop-runs", "--by", "p", "--baseline", "p=0.3").code == 0
    assert "lr 0.0012345678," in maldrop("train", *few, "--lr", "0.0012345678").out


def test_compare_reuses_finished_runs_and_says_so(maldrop: Run) -> None:
    command = ("compare", *QUICK, "--seeds", "2", "--dropout", "none,vanilla")
    first = maldrop(*command)
    again = maldrop(*command)
    assert again.out == first.out
    assert again.err.count("\n") == 1
    assert "4 of 4 runs already finished" in again.err
    more = maldrop(*command, "--seeds", "3")
    assert "4 of 6 runs already finished" in more.err
    fresh = maldrop(*command, "--fresh")
    assert "already finished" not in fresh.err
    assert "too few seeds" in fresh.out


def test_arms_do_not_depend_on_each_other(maldrop: Run) -> None:
    """A run alone gives the numbers that it gives among others: pairing across commands."""
    maldrop("compare", *QUICK, "--seeds", "2", "--csv", "c.csv")
    maldrop("train", *QUICK, "--seed", "1", "--dropout", "maldrop", "--out", "other", "--csv", "t.csv")
    [alone] = Store(Path("other")).scan()
    among = Store(Path("maldrop-runs")).load(alone.run_id)
    assert among is not None
    assert [row.val_loss for row in among.epochs] == [row.val_loss for row in alone.epochs]


def test_sweep(maldrop: Run) -> None:
    result = maldrop("sweep", *QUICK, "--schedule", "forward", "--rho", "0..256", "--csv", "s.csv")
    assert result.code == 0, result.err
    table = rows("s.csv")
    assert [row["dropout"] for row in table] == ["none", "vanilla", *["maldrop"] * 9]
    assert [row["rho"] for row in table[2:]] == [str(32 * k) for k in range(9)]
    assert "best" in result.out
    assert "worst" in result.out
    assert "8 of 9 annealed points drop everything (8) or nothing (0)" in result.out
    command = " ".join(("sweep", *QUICK, "--schedule", "forward-smooth", "--rho", "0..256", "--csv", "s.csv"))
    assert "Try --schedule forward-smooth or reverse-smooth." in result.out
    again = maldrop(*command.split())
    assert again.code == 0, again.err
    assert "saturate" not in again.out
    assert [row["rho"] for row in rows("s.csv")[2:]] == [row["rho"] for row in table[2:]]


def test_sweep_over_several_axes(maldrop: Run) -> None:
    result = maldrop(
        "sweep", *QUICK, "--epochs", "1", "--rho", "5,10%", "--omega", "paper,0.5", "--dropout", "maldrop,random",
        "--schedule", "standard,periodic", "--seeds", "2", "--csv", "s.csv", "-q",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.err == ""
    table = rows("s.csv")
    assert len(table) == 2 + 8 + 4  # references, maldrop, random (which knows no omega)
    assert {row["n_seeds"] for row in table} == {"2"}
    assert {row["rho"] for row in table} == {"", "5", "26"}


def test_sweep_over_data_models_selectors_and_rates(maldrop: Run) -> None:
    grid = (
        *TINY, "--dataset", "synthetic,digits", "--lr", "0.01,0.02", "--selector", "heuristic,gradient",
        "--p", "0.3,0.5", "--epochs", "1", "--dropout", "vanilla,maldrop",
    )  # fmt: skip
    planned = maldrop("sweep", *grid, "--dry-run")
    assert "20 runs;" in planned.out, planned.out  # 2 data sets x 2 rates x (none, 2 of vanilla, 2 of maldrop)
    assert "a grid over data, models or learning rates" in planned.out
    result = maldrop("sweep", *grid, "-q", "--csv", "s.csv")
    assert result.code == 0, result.err
    table = rows("s.csv")
    assert len(table) == 20
    assert {(row["dataset"], row["lr"], row["selector"], row["p"]) for row in table if row["dropout"] == "maldrop"} == {
        (dataset, lr, selector, "")
        for dataset in ("synthetic", "digits")
        for lr in ("0.01", "0.02")
        for selector in ("heuristic", "gradient")
    }
    assert {row["rho"] for row in table if row["dataset"] == "digits" and row["dropout"] == "maldrop"} == {"256"}
    assert {row["rho"] for row in table if row["dataset"] == "synthetic" and row["dropout"] == "maldrop"} == {"16"}
    assert "20 runs, 20 already finished" in maldrop("sweep", *grid, "--dry-run").out
    left = maldrop("sweep", *grid, "--dry-run", "--epochs", "3").out
    assert "of training left" in left  # as long as the stored epochs took


def test_a_sweep_trains_points_with_the_same_rhos_once(maldrop: Run) -> None:
    command = ("sweep", *QUICK, "--schedule", "forward,standard", "--rho", "20,100,256", "--csv", "s.csv")
    result = maldrop(*command)
    assert result.code == 0, result.err
    table = rows("s.csv")
    assert [(row["schedule"], row["rho"], row["trained_as"]) for row in table[2:]] == [
        ("forward", "20", ""),
        ("forward", "100", "maldrop forward rho=20"),
        ("forward", "256", "maldrop forward rho=20"),
        ("standard", "20", ""),
        ("standard", "100", ""),
        ("standard", "256", "maldrop forward rho=20"),
    ]
    assert table[2]["val_loss_mean"] == table[3]["val_loss_mean"] == table[7]["val_loss_mean"]
    assert "the runs of maldrop forward rho=20" in result.out
    stored = list(Store(Path("maldrop-runs")).scan())
    assert [bool(record.trained_as) for record in stored].count(False) == 5
    assert len(stored) == 8
    report = maldrop("report", "maldrop-runs", "--where", "rho=256", "--by", "schedule", "--csv", "r.csv")
    assert [(row["schedule"], row["trained_as"]) for row in rows("r.csv")] == [
        ("standard", "maldrop forward rho=20"),
        ("forward", "maldrop forward rho=20"),
    ], report.err
    maldrop("train", *QUICK, "--rho", "256", "--csv", "t.csv")  # trained by itself, it comes out the same
    assert float(rows("t.csv")[-1]["val_loss"]) == float(table[7]["val_loss_mean"])


def test_timeit(maldrop: Run) -> None:
    result = maldrop(
        "timeit", *TINY, "--rounds", "11", "--batch-size", "4", "--naive", "--csv", "t.csv", "--json", "t.json"
    )
    assert result.code == 0, result.err
    assert "The paper's table (section 5.1.1) is of its CNN on MNIST" in result.out
    table = rows("t.csv")
    names = ["none", "vanilla", "heuristic", "heuristic-loop", "single", "single-naive", "random"]
    assert [row["subject"] for row in table] == names
    assert set(TIMING_COLUMNS) <= set(table[0])
    assert float(table[0]["ratio_vs_none"]) == 1.0
    for row in table:
        assert float(row["median_ms"]) > 0
        literal = row["subject"].endswith(("-loop", "-naive"))  # timed three times
        assert (row["peak_mb"] == "") is (row["ratio_vs_none_lo"] == "") is literal
        if not literal:
            assert float(row["ratio_vs_none_lo"]) <= float(row["ratio_vs_none"]) <= float(row["ratio_vs_none_hi"])
    assert "No 95 % interval of heuristic-loop, single-naive: fewer than 11 samples make fewer than six" in result.out
    assert {row["status"] for row in table} == {"done"}
    assert [row["mask_agreement"] for row in table if row["mask_agreement"]] == ["100.0", "100.0"]


def test_timeit_phases_layer_and_scale(maldrop: Run) -> None:
    quick = ("timeit", *TINY, "--rounds", "2", "--batch-size", "4", "-q")
    result = maldrop(*quick, "--phases", "--json", "t.json")
    assert "Phases of a step, medians" in result.out
    assert "loss increase" in result.out
    table = json.loads(Path("t.json").read_text())["rows"]
    assert [len(row["samples_ms"]) for row in table] == [2] * len(table)
    assert [row["fidelity"] is not None for row in table] == [False, False, True, True, True]
    result = maldrop(*quick, "--layer", "--no-harm", "--csv", "l.csv")
    assert "The last layer: synthetic shapes" in result.out
    assert {(row["what"], row["fidelity"]) for row in rows("l.csv")} == {("layer", "")}
    result = maldrop(
        "timeit", *TINY, "--scale", "batch", "--selector", "heuristic", "--budget", "0.2", "-q", "--csv", "s.csv"
    )
    assert "to the power" in result.out
    assert [row["value"] for row in rows("s.csv")] == ["32", "64", "128", "256", "512"]


@pytest.mark.parametrize("scale", [(), ("--scale", "batch")])
def test_below_six_blocks_timeit_shows_no_interval_and_says_why(scale: tuple[str, ...], maldrop: Run) -> None:
    few = ("--budget", "1e-9") if scale else ("--rounds", "2", "--no-harm")
    result = maldrop("timeit", *TINY, *scale, *few, "--dropout", "none", "--selector", "heuristic", "--csv", "t.csv",
                     "--plot", "p.svg", "-q")  # fmt: skip
    assert result.code == 0, result.err
    assert re.search("No 95 % interval of .*: fewer than 11 samples make fewer than six blocks", result.out)
    assert " [" not in result.out.replace(" [95 %]", "")
    low = "median_ms_lo" if scale else "ratio_vs_none_lo"
    assert {row[low] for row in rows("t.csv")} == {""}
    assert "no bar: too few samples" in Path("p.svg").read_text()


INTERRUPTED = "maldrop: interrupted; what was sampled by then is shown, and written, marked as interrupted\n"
STAGES = [
    ("timings.peak_mib", "an interval"),
    ("timings.time_naive", "an interval"),
    ("timings.with_fidelity", "an interval"),
    ("cases.phases", "an interval"),
    ("clock.timeit.timeit", "no interval"),
]


@pytest.mark.parametrize(("stage", "interval"), STAGES)
def test_ctrl_c_in_timeit_keeps_what_was_sampled(
    stage: str, interval: str, maldrop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = itertools.count(1)

    def interrupt(*arguments: Any, **how: Any) -> float:
        if "clock" in stage and next(count) <= 30:  # rounds are under way
            return 0.02
        raise KeyboardInterrupt

    monkeypatch.setattr(f"maldrop_cli.timing.{stage}", interrupt)
    files = ("--csv", "t.csv", "--json", "t.json", "--plot", "p.svg", "-q")
    result = maldrop("timeit", *TINY, "--rounds", "11", "--naive", "--phases", "--batch-size", "4", *files)
    assert result.code == 130
    assert result.err.endswith(INTERRUPTED)  # below a line of torch's profiler
    assert "Interrupted: this is what was sampled by then" in result.out
    assert "--budget was spent" not in result.out
    assert [(row["subject"], row["status"]) for row in rows("t.csv")][:3] == [
        (name, "interrupted") for name in ("none", "vanilla", "heuristic")
    ]
    assert (rows("t.csv")[1]["ratio_vs_none_lo"] != "") == (interval == "an interval")
    assert all(row["samples_ms"] for row in json.loads(Path("t.json").read_text())["rows"])
    assert "Interrupted" in Path("p.svg").read_text()


def test_ctrl_c_in_timeit_along_an_axis(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count(1)

    def interrupt(self: object, what: str, done: int, total: int) -> None:
        if next(count) == 13:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressListener, "preparing", interrupt)
    result = maldrop("timeit", *TINY, "--scale", "batch", "--selector", "heuristic,gradient", "--csv", "s.csv")
    assert (result.code, result.err) == (130, INTERRUPTED)
    assert "Interrupted: this is what was sampled by then" in result.out
    assert [(row["subject"], row["value"], row["status"]) for row in rows("s.csv")] == [
        ("heuristic", value, "interrupted") for value in ("32", "64", "128", "256", "512")
    ]


def test_ctrl_c_before_the_first_round_claims_nothing(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **how: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("maldrop_cli.timing.clock.timeit.timeit", interrupt)
    command = ("timeit", *TINY, "--rounds", "2", "--csv", "t.csv")
    result = maldrop(*command)
    again = shlex.join(["maldrop", *command])
    assert (result.code, result.out) == (130, "")
    assert result.err == f"maldrop: interrupted; there was nothing to keep yet; once more with: {again}\n"
    assert not Path("t.csv").exists()


WARNINGS: list[tuple[str, dict[str, Any]]] = [
    ("--budget was spent before every ratio was within ±3 %: that of", {"vanilla": [0.01, 0.011] * 9}),
    ("Unstable: the interquartile range of none", {"none": [0.01, 0.02] * 9}),
    ("Drifting: the last third of the samples of none", {"none": [0.01] * 8 + [0.012] * 8}),
    ("A sample lasts 1e-12 s", {"none": [1e-12] * 9}),
]


@pytest.mark.parametrize(("line", "change"), WARNINGS, ids=lambda value: value[:8] if isinstance(value, str) else "")
def test_timeit_warns(line: str, change: dict[str, Any], maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warnings(**seconds: list[float]) -> list[str]:
        measured = [Samples(name, seconds.get(name, [0.01] * 18)) for name in ("none", "vanilla")]
        monkeypatch.setattr("maldrop_cli.timing.timings.measure", lambda *rest, into, **how: into.extend(measured))
        out = maldrop("timeit", *TINY, "--batch-size", "4", "--no-harm", "--dropout", "none", "-q").out
        return [line for line in out.splitlines() if re.match("--budget|Unstable|Drifting|A sample|Other", line)]

    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    assert not warnings()
    assert any(found.startswith(line) for found in warnings(**change))


def test_timeit_says_that_other_work_ran(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1.7, 0.1, 0.1))
    result = maldrop("timeit", *TINY, "--rounds", "2", "--no-harm", "--dropout", "none", "-q")
    assert "Other work ran on this machine before the timing began (load 1.7)." in result.out
    result = maldrop("timeit", *TINY, "--budget", "0.1", "--selector", "heuristic", "--scale", "batch", "-q")
    assert "(load 1.7)" in result.out


def test_timeit_tells_what_passed_on_the_device(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = [
        Samples("none", [0.01, 0.02], device_ms=[9.0, 19.0]),
        Samples("vanilla", [0.02, 0.04], device_ms=[18.0, 38.0]),
    ]
    monkeypatch.setattr("maldrop_cli.timing.timings.measure", lambda *rest, into, **how: into.extend(measured))
    quick = ("timeit", *TINY, "--no-harm", "--dropout", "none", "-q", "--csv", "t.csv", "--json", "t.json")
    assert "device ms" in maldrop(*quick).out
    assert [row["device_ms"] for row in rows("t.csv")] == ["14.0", "28.0"]
    assert [row["device_samples_ms"] for row in json.loads(Path("t.json").read_text())["rows"]] == [[9, 19], [18, 38]]


def test_timeit_counts_what_each_subject_drops(maldrop: Run) -> None:
    result = maldrop("timeit", *TINY, "--rounds", "2", "--batch-size", "4", "-q", "--no-harm", "--csv", "t.csv",
                     "--dropout", "none,maldrop,spatial-maldrop,maldropconnect", "--selector", "heuristic")  # fmt: skip
    assert result.code == 0, result.err
    assert {row["subject"]: row["rho"] for row in rows("t.csv")} == {
        "none": "", "vanilla": "", "heuristic": "16", "spatial-maldrop": "1", "maldropconnect": "48",
    }  # fmt: skip
    assert (
        maldrop("timeit", *TINY, "--rounds", "2", "-q", "--no-harm", "--dropout", "maldropconnect", "--rho", "300").code
        == 0
    )


def test_annealing_that_saturates_is_said_by_train_and_compare(maldrop: Run) -> None:
    for command in (("train",), ("compare", "--seeds", "1")):
        result = maldrop(*command, *QUICK, "--schedule", "forward", "--rho", "100", "-q")
        assert "annealed points drop everything (" in result.out
        assert "--schedule forward-smooth" in result.out


def test_timeit_without_files_leaves_the_loss_increase_out(maldrop: Run) -> None:
    Path("empty").mkdir()
    Path("file").write_text("")
    result = maldrop("timeit", "--dataset", "mnist", "--data-dir", "file", "--rounds", "2", "--batch-size", "2",
                     "--dropout", "none", "--csv", "t.csv")  # fmt: skip
    assert result.code == 0
    assert "no loss increase beside the times" in result.err
    assert [row["raised_mask"] for row in rows("t.csv")] == ["", ""]


def test_report(maldrop: Run) -> None:
    maldrop("compare", *QUICK, "--seeds", "1", "--out", "a")
    maldrop("train", *QUICK, "--seed", "7", "--out", "b")
    result = maldrop("report", "a", "b", "--csv", "r.csv")
    assert result.code == 0, result.err
    assert "6 stored runs" in result.out
    assert len(rows("r.csv")) == 6
    assert set(RUN_COLUMNS) <= set(rows("r.csv")[0])
    maldrop("report", "a", "b", "--long", "--csv", "r.csv")
    assert len(rows("r.csv")) == 12
    only = maldrop("report", "a", "b", "--dropout", "maldrop", "--csv", "r.csv", "--format", "markdown")
    assert "3 stored runs" in only.out
    assert {row["dropout"] for row in rows("r.csv")} == {"maldrop"}


def test_markdown(maldrop: Run) -> None:
    result = maldrop("compare", *QUICK, "--seeds", "1", "--format", "markdown", "-q")
    assert "| dropout" in result.out
    assert result.err == ""


def test_moving_the_data_or_the_runs_keeps_the_results(maldrop: Run) -> None:
    maldrop("train", *QUICK, "--out", "a")
    Path("a").rename("b")
    assert "1 of 1 run already finished in b" in maldrop("train", *QUICK, "--out", "b").err


def test_without_vanilla_the_first_arm_is_the_baseline(maldrop: Run) -> None:
    result = maldrop("compare", *QUICK, "--dropout", "none,maldrop", "--seeds", "1")
    assert "Against none, paired by seed" in result.out


def test_fresh_runs_that_are_stopped_leave_the_old_ones(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    maldrop("train", *QUICK)

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_train", stop)
    result = maldrop("train", *QUICK, "--fresh")
    assert result.code == 130
    assert "1 of 1 run already finished" in maldrop("train", *QUICK).err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_knows_no_greek_gets_its_table(encoding: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maldrop_cli", "compare", *QUICK, "--seeds", "1", "-q"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"Against vanilla" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="POSIX shells")
@pytest.mark.parametrize("end", [">&-", "| head -1"])
def test_nobody_listens(end: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m maldrop_cli train {' '.join(QUICK)} -q {end}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("end", ["2>/dev/full", "2>&-", "<&- 2>&-", "2> >(head -c 1 >/dev/null)"])
def test_progress_and_errors_that_can_not_be_written_are_dropped(end: str, tmp_path: Path) -> None:
    """Results are not; and no file of results gets the number of a stream that the shell closed."""

    def bash(arguments: str) -> subprocess.CompletedProcess[str]:
        command = f"{sys.executable} -m maldrop_cli train {arguments} {end}"
        return subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)

    done = bash(f"{' '.join(QUICK)} --csv t.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("maldrop rho=16: synthetic")
    assert [row["status"] for row in rows(str(tmp_path / "t.csv"))] == ["done", "done"]
    wrong = bash("--lr fast")
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", "")


def test_the_preset(maldrop: Run) -> None:
    result = maldrop("train", *TINY, "--preset", "paper", "--epochs", "1", "--momentum", "0.5")
    assert "1 epoch, SGD lr 0.01, momentum 0.5, batch 128" in result.out


def test_python_dash_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maldrop_cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("maldrop 0.")


def test_without_arguments_help_is_shown(maldrop: Run) -> None:
    result = maldrop()
    assert result.code == 0
    for command in ("train", "compare", "sweep", "timeit", "report"):
        assert command in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_leaves_out_what_is_rarely_needed_and_ends_with_two_examples(command: str, maldrop: Run) -> None:
    usual, everything = maldrop(command, "--help").out, maldrop(command, "--help-all").out
    rare = {"report": ()}.get(command, ("--joint-starts", "--score-memory"))
    for flag in rare:
        assert (flag in usual, flag in everything) == (False, True)
    assert "─ Rarely needed ─" not in usual
    assert "--help-all" in usual
    assert usual.count(f"maldrop {command} ") == 3  # its usage, and the examples
    flags = {name for parameter in get_command(app).commands[command].params for name in parameter.opts}  # type: ignore[attr-defined]
    for line in EXAMPLES[command]:
        name, *words = shlex.split(line)
        assert name == command
        assert {word for word in words if word.startswith("--")} <= flags
        assert maldrop(*shlex.split(line), "--help").code == 0


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("maldrop tr", {"train"}),
        ("maldrop train --dropout mal", {"maldrop", "maldropconnect", "maldrop+vanilla"}),
        ("maldrop compare --selector joint,gr", {"joint,gradient", "joint,greedy"}),
        ("maldrop sweep --dataset fa", {"fashion-mnist"}),
        ("maldrop report runs --dropout spatial-", {"spatial-maldrop"}),
        ("maldrop timeit --sc", {"--scale"}),
    ],
)
def test_a_shell_completes_names(line: str, found: set[str], tmp_path: Path) -> None:
    words = {"_MALDROP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = subprocess.run([sys.executable, "-m", "maldrop_cli"], capture_output=True, text=True, env=os.environ | words)
    assert set(done.stdout.split()) == found, done.stderr


@pytest.mark.parametrize(
    ("flags", "seeds", "line"),
    [
        (
            ("train", "--seeds", "3"),
            ["3"],
            "--seeds 3 is the one seed 3 here; `maldrop compare --seeds 3` takes a count",
        ),
        (("train", "--seeds", "5..5"), ["5"], "--seeds 5..5 is the one seed 5 here"),
        (("compare", "--seed", "3"), ["3"], "--seed 3 is the one seed 3; --seeds 3 would be three, 0 to 2"),
        (("sweep", "--seed", "0"), ["0"], "--seed 0 is the one seed 0"),
        (("sweep", "--seeds", "2"), ["0", "1"], ""),
        (("train", "--seed", "2"), ["2"], ""),
    ],
)
def test_either_flag_for_seeds_is_understood(flags: tuple[str, ...], seeds: list[str], line: str, maldrop: Run) -> None:
    result = maldrop(*flags, *TINY, "--epochs", "1", "--dropout", "maldrop")
    assert result.code == 0, result.err
    assert (line in result.err) if line else (" is the one seed " not in result.err)
    maldrop("report", "maldrop-runs", "--dropout", "maldrop", "--csv", "r.csv")
    assert [row["seed"] for row in rows("r.csv")] == seeds
    assert maldrop(*flags, *TINY, "--epochs", "1", "--dropout", "maldrop", "-q").err == ""


USAGE = [
    (
        ("train", "--seeds", "1,2"),
        "--seeds: train trains one run, and 1,2 names 2 seeds; `maldrop compare --seeds 1,2`",
    ),
    (("train", "--seeds", "x"), "--seeds: 'x' stops making sense at character 1"),
    (("train", "--seeds", "1", "--seed", "1"), "leave one of the two out"),
    (("compare", "--seeds", "1", "--seed", "1"), "leave one of the two out"),
    (("sweep", "--seed", "-1"), "--seed: -1 is not a whole number from 0"),
    (("train", "--dropout", "maldorp"), "did you mean 'maldrop'?"),
    (("train", "--selector", "heuristics"), "did you mean 'heuristic'?"),
    (("train", "--schedule", "forwards"), "did you mean 'forward'?"),
    (("train", "--dataset", "mnits"), "did you mean 'mnist'?"),
    (("train", "--model", "resnet19"), "did you mean 'resnet18'?"),
    (("train", "--model", "ccn"), "did you mean 'cnn'?"),
    (("train", "--model", "nonsense"), "any classifier of torchvision"),
    (("train", "--model", "squeezenet1_1"), "looked for a last nn.Linear"),
    (("timeit", "--model", "resnet18", "--batch-size", "1"), "--batch-size 2"),
    (("train", "--granularity", "row"), "one of: batch, sample"),
    (("compare", "--dropout", "none,vanila"), "did you mean 'vanilla'?"),
    (
        ("compare", "--baseline", "none", "--dropout", "vanilla,maldrop"),
        "none is not among the arms: vanilla p=0.5, maldrop",
    ),
    (("compare", "--margin", "nan"), "--margin"),
    (("compare", "--seeds", "none"), "--seeds"),
    (("comapre",), "Did you mean 'compare'?"),
    (("train", *TINY, "--rho", "257"), "0 to 256"),
    (("train", *TINY, "--rho", "-1"), "0 to 256"),
    (("train", *TINY, "--rho", "1,2"), "takes one"),
    (("sweep", *TINY, "--rho", "0..4o96"), "at character 5, 'o'"),
    (("sweep", *TINY, "--rho", "0...4096"), "--rho: '0...4096' stops making sense at character 4, '.'"),
    (("sweep", *TINY, "--p", "0...5"), "--p: '0...5' stops making sense at character 4, '.'"),
    (("train", *TINY, "--rho", "0.5"), "--rho: in '0.5', at character 2, '.': 0.5 is not a whole number"),
    (("train", *TINY, "--rho-end", "0.5"), "--rho-end: in '0.5', at character 2, '.'"),
    (("sweep", *TINY, "--train-images", "50,70.5"), "--train-images: in '50,70.5', at character 6, '.': 70.5 is"),
    (("compare", *TINY, "--arm", "maldrop rho=2.5"), "--rho: in '2.5', at character 2, '.'"),
    (("compare", "--seeds", "2.5"), "--seeds: in '2.5', at character 2, '.'"),
    (("train", "--epochs", "0"), "--epochs: 0 is not a whole number from 1"),
    (("train", "--batch-size", "99999999999999999999"), "--batch-size"),
    (("train", "--threads", "1000000000000"), "--threads"),
    (("train", *TINY, "--shape", "1x1x1"), "more than one pixel"),
    (("train", "--lr", "fast"), "--lr"),
    (("train", "--rate", "0"), "--rate: 0.0 is not a finite number above 0"),
    (("sweep", "--rate", "inf"), "--rate"),
    (("compare", "--rate", "quick"), "--rate"),
    (("train", *TINY, "--rho-end", "257"), "--rho-end: 257 is not within the layer's width, 0 to 256"),
    (("sweep", *TINY, "--rho-end", "101%"), "--rho-end: 101% is not within"),
    (("compare", *TINY, "--rho-end", "-1"), "--rho-end"),
    (("sweep", "--rho-end", "1,2"), "--rho-end: '1,2' names 2 values, and this takes one"),
    (("train", "--horizon", "0"), "--horizon: 0 is not a whole number from 1"),
    (("train", "--horizon", "1.5"), "--horizon"),
    (("train", *TINY, "--dry-run", "--device", "cuda:99"), "there are: auto, cpu"),
    (("sweep", *TINY, "--dry-run", "--selector", "exhaustive"), "joint looks for the worst set without trying all"),
    (("train", *TINY, "--selector", "exhaustive"), "joint looks for the worst set without trying all"),
    (("timeit", *TINY, "--selector", "exhaustive"), "takes at most 100,000"),
    (("train", "--lr", "nan"), "--lr"),
    (("train", "--omega", "big"), "--omega"),
    (("train", "--shape", "8x8"), "3x32x32"),
    (("train", *TINY, "--device", "cuda:99"), "there are: auto, cpu"),
    (("train", *TINY, "--model", "vgg16"), "--image-size 32"),
    (("train", *TINY, "--model", "alexnet"), "--image-size 64"),
    (("train", *TINY, "--model", "vit_b_16", "--image-size", "40"), "patch size"),
    (("train", "--dataset", "imagefolder"), "--data-dir"),
    (("train", "--nonsense"), "--nonsense"),
    (("train", "--format", "html"), "--format"),
    (("timeit", "--rounds", "1"), "--rounds"),
    (("timeit", "--precision", "0"), "--precision"),
    (("timeit", "--budget", "nan"), "--budget"),
    (("timeit", "--amp", "fp8"), "--amp"),
    (("timeit", "--scale", "witdh"), "did you mean 'width'?"),
    (("timeit", "--layer", "--phases"), "--phases"),
    (("train", "--fidelity", "every=0"), "every=5"),
    (("train", "--pass-rate", "epochs"), "did you mean 'epoch'?"),
    (("train", "--joint-starts", "-1"), "--joint-starts"),
    (("train", "--score-memory", "0"), "--score-memory"),
    (("train", "--dropout", "dropconnect", "--granularity", "sample"), "drops weights"),
    (("compare", "--dropout", "none,maldropconnect", "--granularity", "sample"), "drops weights"),
    (("train", "--dropout", "spatial-maldrop", "--selector", "joint"), "no score to sum over a channel"),
    (("train", *TINY, "--dropout", "spatial-maldrop", "--rho", "5"), "the layer's 4 channels"),
    (("train", *TINY, "--dropout", "maldropconnect", "--rho", "769"), "the layer's 768 weights"),
    (("train", "--dropout", "spatial", "--model", "resnet18"), "--model cnn has them"),
    (("report",), "DIR"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), USAGE, ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else ""
)
def test_a_wrong_flag_is_one_line_and_exit_2(arguments: tuple[str, ...], message: str, maldrop: Run) -> None:
    result = maldrop(*arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.startswith("maldrop: ")
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert not Path("maldrop-runs").exists()


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("--fidelity", "every={}", "is too large; 2,147,483,647 is the most"),
        ("--robustness", "occlude=0.5 every={}", "is too large; 2,147,483,647 is the most"),
        ("--shape", "1x{}x8", "is too large; 2,147,483,647 is the most"),
        ("--rho", "0..{}", "is too large; 2,147,483,647 is the most"),
        ("--epochs", "{}", "'--epochs'"),
    ],
)
def test_a_number_of_5000_digits_is_one_line(flag: str, text: str, message: str, maldrop: Run) -> None:
    """More than `int` takes of a text."""
    result = maldrop("train", *TINY, flag, text.format("1" * 5000))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith("maldrop: ")
    assert flag in result.err
    assert message in result.err


def test_the_largest_count_is_taken_and_one_more_is_not(maldrop: Run) -> None:
    few = ("train", *TINY, "--epochs", "1", "-q", "--fidelity")
    assert maldrop(*few, f"every={2**31 - 1}").code == 0
    assert f"{2**31} is too large" in maldrop(*few, f"every={2**31}").err
    assert "has a side below 1" in maldrop(*few, "off", "--shape", f"{'0' * 5000}x8x8").err
    assert maldrop("timeit", *TINY, "--rounds", "2", "--budget", "1e308", "--dropout", "none", "-q").code == 0


def test_failures_outside_are_one_line_and_exit_1(maldrop: Run) -> None:
    Path("file").write_text("")
    Path("empty").mkdir()
    for arguments, message in (
        (("train", *QUICK, "--out", "file/runs"), "the results folder file/runs fails"),
        (("train", *QUICK, "--csv", "nowhere/t.csv"), "there is no folder"),
        (("train", *QUICK, "--csv", "empty"), "it is a folder"),
        (("train", "--dataset", "imagefolder", "--data-dir", "empty"), "train is no folder"),
        (("report", "nowhere"), "is no folder of runs"),
        (("report", "empty"), "no runs in empty"),
    ):
        result = maldrop(*arguments)
        assert result.code == 1, arguments
        assert message in result.err
        assert result.err.startswith("maldrop: ")
        assert result.err.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_loses_no_run(maldrop: Run) -> None:
    result = maldrop("train", *QUICK, "--csv", "/dev/full", "-q")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "No space left on device; the runs themselves are kept" in result.err
    assert "top-1 %" in result.out
    assert "already finished" in maldrop("train", *QUICK).err


@pytest.mark.skipif(os.name == "nt", reason="a file-size limit is a POSIX thing")
def test_a_disk_that_fills_up_in_mid_run_is_one_line_and_keeps_what_finished(tmp_path: Path) -> None:
    maldrop = f"{sys.executable} -m maldrop_cli train {' '.join(QUICK)} -q"
    limited = f"{maldrop} && ulimit -f 4 && trap '' XFSZ && {maldrop} --seed 1 --epochs 40"
    done = subprocess.run(["bash", "-c", limited], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    records = {record.config.seed: record.status for record in Store(tmp_path / "maldrop-runs").scan()}
    assert records == {0: Status.DONE, 1: Status.UNFINISHED}


def test_a_diverged_run_is_shown_recorded_and_exit_1(maldrop: Run) -> None:
    result = maldrop("compare", *QUICK, "--seeds", "1", "--dropout", "none,maldrop", "--lr", "2e9", "--csv", "c.csv")
    assert result.code == 1
    assert "0 of 1" in result.out
    assert result.err.splitlines()[-1].startswith("maldrop: 2 of 2 runs did not finish: none, seed 0: diverged (the ")
    assert [row["n_failed"] for row in rows("c.csv")] == ["1", "1"]


def test_one_failed_run_does_not_take_the_others_along(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = runner.train_run  # type: ignore[attr-defined]

    def fail_once(record, *args, **kwargs):  # type: ignore[no-untyped-def]
        if record.config.seed == 1:
            raise RuntimeError("CUDA out of memory")
        return real(record, *args, **kwargs)

    monkeypatch.setattr(runner, "train_run", fail_once)
    result = maldrop("compare", *QUICK, "--dropout", "none,vanilla", "--seeds", "3", "--csv", "c.csv")
    assert result.code == 1
    assert "none, seed 1: failed (RuntimeError: CUDA out of memory)" in result.err
    assert [(row["n_seeds"], row["n_failed"]) for row in rows("c.csv")] == [("2", "1"), ("2", "1")]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_is_130_and_keeps_what_finished(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maldrop_cli", "sweep", *TINY, "--epochs", "3", "--rho", "0..256/200"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(tmp_path.glob("maldrop-runs/*/result.json"))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("maldrop: interrupted; finished runs are kept")
    records = list(Store(tmp_path / "maldrop-runs").scan())
    assert sum(record.status is Status.DONE for record in records) >= 3


def test_memory_that_runs_out_is_one_line(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from maldrop_cli.data import load as datasets

    def refuse(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(datasets, "load", refuse)
    result = maldrop("train", *QUICK)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "out of memory" in result.err


def test_the_real_mnist(maldrop: Run, real_data: Path) -> None:
    """Its shapes are timed; `test_datasets.py` reads it. An epoch of it takes longer than a test may."""
    mnist = ("--dataset", "mnist", "--data-dir", real_data / "mnist")
    result = maldrop("timeit", *mnist, "--rounds", "2", "--dropout", "none", "--no-harm")
    assert result.code == 0, result.err
    assert "mnist shapes" in result.out
