"""Tables: golden text, stable columns, honest notes."""

import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import TINY, Result
from rich.console import Console

from maldrop_cli import __version__
from maldrop_cli.analysis.arms import group, marked_epochs, time_ratio
from maldrop_cli.analysis.compare import Comparison, compare_arms, of_dropout
from maldrop_cli.config import RunConfig
from maldrop_cli.mask_metrics import Fidelity
from maldrop_cli.names import VGG16, Dropout, Granularity, MaldropError, Schedule, Selector
from maldrop_cli.record import EpochRow, RunRecord, Status
from maldrop_cli.render import runs as of_runs
from maldrop_cli.render.arms import arm_rows, arm_table, mask_tables, sweep_table, verdict_table
from maldrop_cli.render.progress import ProgressListener
from maldrop_cli.render.runs import epoch_rows, machine_line, report_table, run_rows, train_table
from maldrop_cli.render.tables import Column, Table, duration, number, plus_minus, show, to_text, write_csv, write_json
from maldrop_cli.render.timings import phase_table, scale_rows, scale_table, tables, timing_rows
from maldrop_cli.runs.events import Ended, Job, Progressed, Started, Trained, Waiting
from maldrop_cli.timing.cases import Setting, Timing
from maldrop_cli.timing.clock import Samples
from maldrop_cli.timing.scaling import ScalePoint, exponents

TOP1 = {"none": (80.0, 81.0, 82.0), "vanilla": (80.0, 80.5, 81.0), "maldrop": (85.0, 85.5, 86.5)}
SECONDS = {"none": 1.0, "vanilla": 1.5, "maldrop": 1.1}
DROPPED = {"none": 0.0, "vanilla": 50.0, "maldrop": 6.25}
ENVIRONMENT = {"device": "cpu", "device_name": "cpu", "threads": 2, "torch": "2.99"}


def record(dropout: str, seed: int, **changes: Any) -> RunRecord:
    """Two epochs; the first is ten points below the last."""
    config = RunConfig(dropout=Dropout(dropout), seed=seed, epochs=2)
    rows = tuple(
        EpochRow(
            epoch=epoch, train_loss=1.0 / epoch, val_loss=0.5 / epoch, val_top5=99.0,
            val_top1=TOP1[dropout][seed] - 10 * (2 - epoch), train_seconds=SECONDS[dropout],
            rho_mean=256.0 if dropout == "maldrop" else None, drop_rate=DROPPED[dropout],
        )
        for epoch in (1, 2)
    )  # fmt: skip
    run = RunRecord(run_id=f"{dropout}{seed}", config=config, environment=ENVIRONMENT, hidden_width=4096, epochs=rows)
    return replace(run, **{"status": Status.DONE} | changes)


RECORDS = [record(dropout, seed) for seed in range(3) for dropout in TOP1]
JOB, JOB_ROWS = Job(0, RECORDS[0].config), RECORDS[0].epochs


def compared(records: Sequence[RunRecord], baseline: Dropout | None = Dropout.VANILLA) -> Comparison:
    return compare_arms(group(records), of_dropout(baseline) if baseline else None, 0.5)


COMPARISON = compared(RECORDS)

ARMS = """\
**T**

| dropout | top-1 %, epoch 1 | top-1 %, epoch 2 | train loss | val loss | train s | time × none | dropped % | seeds |
|:-|-:|-:|-:|-:|-:|-:|-:|-:|
| none | 71.00 ±2.48 | 81.00 ±2.48 | 0.5000 | 0.2500 | 2.0 | 1.00 | 0.00 | 3 |
| vanilla p=0.5 | 70.50 ±1.24 | 80.50 ±1.24 | 0.5000 | 0.2500 | 3.0 | 1.50 | 50.00 | 3 |
| maldrop rho=256 | 75.67 ±1.90 | 85.67 ±1.90 | 0.5000 | 0.2500 | 2.2 | 1.10 | 6.25 | 3 |

- N"""

VERDICTS = """\
Against vanilla p=0.5, paired by seed, epoch 2

dropout            top-1 difference, points    p (Holm)  verdict           more seeds
---------------  --------------------------  ----------  --------------  ------------
none                            +0.50 ±1.24       0.225  ? inconclusive             6
maldrop rho=256                 +5.17 ±0.72       0.002  + better                   –

±: 95 % t-interval of the difference, not corrected.
better, worse: Holm-corrected p below 0.05; equivalent: within ±0.5 points (two one-sided t-tests).
more seeds: about how many would decide, should mean and spread stay as they are."""


def lines(text: str) -> list[str]:
    """Without trailing blanks and with runs of dashes and blanks shortened: what a table says, not how wide it is."""
    return [re.sub(r"([-: ])\1+", r"\1", line.strip()) for line in text.splitlines()]


def plain(*several: Table) -> str:
    return to_text(several, "plain")


def test_arms_and_verdicts_are_golden() -> None:
    assert lines(to_text([arm_table(COMPARISON, "T", ["N"])], "markdown")) == lines(ARMS)
    assert lines(plain(verdict_table(COMPARISON))) == lines(VERDICTS)


def test_arm_rows_hold_full_precision() -> None:
    rows = {row["dropout"]: row for row in arm_rows(COMPARISON)}
    exact = {"val_top1_mean": 257 / 3, "diff_top1_mean": 31 / 6, "time_vs_none": 1.1, "rho": 256}
    exact["val_top1_ci95"] = 4.302652729749464 * math.sqrt(7 / 36)  # Student's t of two degrees of freedom
    assert {field: rows["maldrop"][field] for field in exact} == pytest.approx(exact, rel=1e-13)
    assert (rows["maldrop"]["verdict"], rows["none"]["n_seeds"]) == ("better", 3)
    assert rows["vanilla"]["rho"] is rows["vanilla"]["diff_top1_mean"] is rows["vanilla"]["diff_top1_ci95"] is None


def test_a_run_that_failed_is_counted_and_left_out_of_the_means() -> None:
    broken = record("maldrop", 1, status=Status.FAILED, reason="RuntimeError: no memory")
    comparison = compared([run for run in RECORDS if run.run_id != "maldrop1"] + [broken])
    [row] = [row for row in arm_rows(comparison) if row["dropout"] == "maldrop"]
    assert (row["n_seeds"], row["n_failed"], row["val_top1_mean"]) == (2, 1, 85.75)
    assert row["verdict"] == "too few seeds"
    assert "2 of 3" in plain(arm_table(comparison, "T"))
    assert report_table([broken], long=False).notes == ["maldrop rho=256, seed 1: failed (RuntimeError: no memory)"]


def test_only_common_seeds_are_paired() -> None:
    comparison = compared([run for run in RECORDS if run.run_id not in ("none0", "vanilla2")])
    tested = dict(zip([arm.config.dropout for arm in comparison.arms], comparison.differences["val_top1"], strict=True))
    assert (none := tested[Dropout.NONE])
    assert (none.interval.n, none.interval.mean) == (1, 0.5)


def test_time_ratio_takes_medians_and_common_seeds_of_the_same_machine() -> None:
    run = record("maldrop", 0)
    run = replace(run, epochs=(*run.epochs, *run.epochs, replace(run.epochs[0], train_seconds=1e6)))
    elsewhere = record("maldrop", 1, environment=ENVIRONMENT | {"threads": 1})
    fast = [record("none", seed) for seed in (0, 1)]
    [arm], [other], [reference] = group([run, elsewhere]), group([elsewhere]), group(fast)
    assert time_ratio(arm, reference) == pytest.approx(1.1)
    assert math.isnan(time_ratio(other, reference))
    assert math.isnan(time_ratio(arm, None))
    assert [row["threads"] for row in arm_rows(compared([*fast, run, elsewhere], Dropout.NONE))] == [2, "mixed"]


def test_marked_epochs() -> None:
    assert [marked_epochs(n) for n in (1, 2, 3, 10)] == [[1], [1, 2], [1, 2, 3], [1, 5, 10]]


def test_settings_off_their_defaults_are_in_the_name() -> None:
    cases: dict[str, dict[str, Any]] = {
        "maldrop rho=256": {},
        "maldrop rho=256 omega=classes": {"omega": "classes"},
        "maldrop rho=256 sample": {"granularity": Granularity.SAMPLE},
        "maldrop periodic period=2 rho=256": {"schedule": Schedule.PERIODIC, "period": 2},
        "maldrop forward-smooth rate=0.25 rho=256": {"schedule": Schedule.FORWARD_SMOOTH, "rate": 0.25},
        "maldrop linear rho=256 rho-end=9": {"schedule": Schedule.LINEAR, "rho_end": 9},
        "maldrop linear rho=256 rho-end=0 horizon=10": {"schedule": Schedule.LINEAR, "epochs": 3},
        "maldrop rho=256 single": {"selector": Selector.SINGLE, "omega": 0.5},
        "random rho=256": {"dropout": Dropout.RANDOM, "omega": 0.5},
    }
    assert [of_runs.name(RunConfig(**settings)) for settings in cases.values()] == list(cases)


@pytest.mark.parametrize(
    ("schedule", "change"),
    [
        *(("periodic", {field: value}) for field, value in {"period": 2, "depth": 1, "omega": 0.5, "lr": 1.0}.items()),
        *(("reverse-smooth", {"rate": 2.0}), ("linear", {"rho_end": 1}), ("linear", {"horizon": 1})),
        *(("standard", {field: value}) for field, value in {"deterministic": True, "weight_decay": 0.1}.items()),
    ],
)
def test_rows_tell_all_settings_apart(schedule: str, change: dict[str, Any]) -> None:
    config = RunConfig(schedule=Schedule(schedule))
    one, other = run_rows([RunRecord(run_id="x", config=each) for each in (config, replace(config, **change))])
    assert {field for field in one if one[field] != other[field]} == set(change)


def test_the_settings_of_schedules_are_said_where_they_matter() -> None:
    assert of_runs.schedule_settings([RunConfig(schedule=schedule) for schedule in Schedule]) == [
        "periodic: period 5; forward-smooth: rate 0.5; reverse-smooth: rate 0.5; linear: rho-end 0, horizon 10."
    ]
    assert of_runs.schedule_settings([RunConfig(), RunConfig(dropout=Dropout.NONE, schedule=Schedule.LINEAR)]) == []


def test_machines_that_differ_are_said() -> None:
    def line(**environment: object) -> str:
        return machine_line([record("none", 0, environment=ENVIRONMENT | environment)])

    assert line() == "Trained on cpu, 2 CPU threads, torch 2.99."
    assert line(device_name="GPU", cpu="X", threads=1) == "Trained on GPU, 1 CPU thread, torch 2.99."
    assert line(cpu="X") == "Trained on X, 2 CPU threads, torch 2.99."
    assert "different machines" in machine_line([RECORDS[0], record("none", 0, environment={"device_name": "GPU"})])


def test_the_train_table() -> None:
    table = train_table(record("maldrop", 0))
    assert table.title == "maldrop rho=256: digits, cnn, 2 epochs, SGD lr 0.005, momentum 0.9, batch 64, seed 0"
    assert table.rows()[0] == ["1", "1.0000", "0.5000", "75.00", "99.00", "256", "6.25", "1.10"]
    diverged = train_table(record("maldrop", 0, status=Status.DIVERGED, reason="not finite"))
    assert diverged.notes[0] == "Diverged: not finite"
    probed = replace(RECORDS[0].epochs[0], raised_mask=0.25, raised_joint=0.5, raised_ceiling=-0.0001)
    table = train_table(record("none", 0, epochs=(probed, RECORDS[0].epochs[1])))
    assert [row[8:] for row in table.rows()] == [["+0.250", "+0.500", "+0.000", "50.0"], ["–"] * 4]


def test_run_rows() -> None:
    short, long = run_rows(RECORDS[:2]), epoch_rows(RECORDS[:2])
    assert [[row["epoch"] for row in rows] for rows in (short, long)] == [[2, 2], [1, 2, 1, 2]]
    assert list(short[0]) == list(long[0])
    first = ["digits", "cnn", "none", "0.005", "0", "1/2", "1.0000", "0.5000", "70.00", "1.00", "done", "none0"]
    assert report_table(RECORDS, long=True).rows()[0] == first
    empty = RunRecord(run_id="x", config=RunConfig())
    assert [row["status"] for row in epoch_rows([empty])] == ["unfinished"]
    assert report_table([empty], long=True).rows()[0][5:] == ["0/10", "–", "–", "–", "–", "unfinished", "x"]


def annealed(schedule: Schedule, rho: int, rates: list[float], top1: float = 50.0) -> RunRecord:
    rows = tuple(
        replace(JOB_ROWS[0], epoch=epoch, drop_rate=rate, val_top1=top1) for epoch, rate in enumerate(rates, 1)
    )
    return record("maldrop", 0, config=RunConfig(schedule=schedule, rho=rho, epochs=len(rates)), epochs=rows)


def test_the_sweep_marks_best_and_worst_and_counts_saturated_points() -> None:
    runs = [
        annealed(Schedule.FORWARD, 0, [50.0, 73.0, 88.0], 80.0),
        annealed(Schedule.FORWARD, 256, [100.0, 100.0, 100.0], 10.0),
        annealed(Schedule.REVERSE, 256, [0.0, 0.0, 0.0], 70.0),
        annealed(Schedule.REVERSE, 9, [1.0, 0.0, 0.0], 70.0),
        annealed(Schedule.STANDARD, 4096, [100.0, 100.0, 100.0], 20.0),
    ]
    table = sweep_table(compared(runs, None), "T")
    assert list(table.columns[-1].cells) == ["+ best", "- worst", "", "", ""]
    assert table.marked == {0: "green", 1: "red"}
    [note] = table.notes
    assert note.startswith("3 of 4 annealed points drop everything (1) or nothing (2) in most epochs")
    assert "equations (1) and (2) saturate" in note
    assert note.endswith("Try --schedule forward-smooth or reverse-smooth.")
    half = [annealed(Schedule.FORWARD, 1, [100.0, 50.0]), annealed(Schedule.REVERSE, 1, [1.0, 0.0])]
    assert sweep_table(compared([*half, runs[0], runs[4]], None), "T").notes == []


def test_the_table_of_masks() -> None:
    row = replace(JOB_ROWS[1], turnover=0.25, probe_loss=0.5, raised_mask=0.25, raised_joint=0.5, raised_ceiling=1.0)
    counting = record("maldrop", 0, epochs=(JOB_ROWS[0], row), never_passed=3, always_passed=1)
    [table] = mask_tables(group([RECORDS[0], counting]))
    cells = ["maldrop rho=256", "3.0", "1.0", "25.0", "0.5000", "+0.250", "+0.500", "+1.000", "50.0"]
    assert table.rows() == [cells]
    assert mask_tables(group(RECORDS)) == []


TABLE = Table(
    "Title", [Column("name", ["a", "b"], left=True), Column("value", ["1", "-2.50"])], ["A note."], {0: "green"}
)


def test_plain_and_markdown_are_golden() -> None:
    assert to_text([TABLE], "plain") == (
        "Title\n\nname      value\n------  -------\na             1\nb         -2.50\n\nA note."
    )
    assert to_text([TABLE], "markdown") == (
        "**Title**\n\n| name   |   value |\n|:-------|--------:|\n"
        "| a      |       1 |\n| b      |   -2.50 |\n\n- A note."
    )
    assert "name" in plain(Table("T", [Column("name", [])]))


def shown(table: Table, form: str = "rich", **how: Any) -> str:
    file = io.StringIO()
    show([table], form, Console(file=file, **how))
    return file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_auto_is_rich_on_a_terminal_and_plain_elsewhere(terminal: bool) -> None:
    text = shown(TABLE, "auto", force_terminal=terminal, width=60)
    assert ["┃" in text, "\x1b[" in text, "A note." in text] == [terminal, terminal, True]


HIDDEN = {"top1_occlude_0.5": 60.25, "top1_neurons_0.9": 33.125}
LONG = "an arm with quite a long name of many words"


def hidden(run: RunRecord) -> RunRecord:
    return replace(run, epochs=tuple(replace(row, measured=HIDDEN) for row in run.epochs))


def wide_tables() -> dict[str, Table]:
    """One of each kind, the widest that there are."""
    measured = [hidden(run) for run in RECORDS]
    arms = [replace(arm, label=label) for arm, label in zip(group(measured), ("", "short", LONG), strict=True)]
    several = compare_arms(arms, of_dropout(Dropout.VANILLA), 0.5, metrics=["val_top1", *HIDDEN, "val_loss"])
    probed = replace(JOB_ROWS[1], turnover=0.25, probe_loss=0.5, raised_mask=0.25, raised_joint=0.5, raised_ceiling=1.0)
    masks = record("maldrop", 0, epochs=(JOB_ROWS[0], probed), never_passed=3, always_passed=1)
    return {
        "arms": arm_table(several, "T", ["N"]),
        "verdicts": verdict_table(several),
        "sweep": sweep_table(compared(measured, None), "T"),
        "masks": mask_tables(group([masks]))[0],
        "train": train_table(hidden(masks)),
        "report": report_table([*measured, annealed(Schedule.FORWARD_SMOOTH, 4096, [1.0])], long=True),
        "timings": timing_tables(TIMINGS)[0],
        "paper": timing_tables(TIMINGS, naive=True)[1],
    }


@pytest.mark.parametrize("name", ["arms", "verdicts", "sweep", "masks", "train", "report", "timings", "paper"])
@pytest.mark.parametrize("width", [70, 80, 100])
def test_a_narrow_terminal_leaves_columns_out_and_says_which(name: str, width: int) -> None:
    table = wide_tables()[name]
    text = shown(table, width=width)
    assert max(map(len, text.splitlines())) <= width
    body, _, said = " ".join(text.split()).partition("Left out, for")
    said = said.partition("columns: ")[2].partition(". --format")[0]
    missing = [each for each in table.columns if re.search(rf"(^|; ){re.escape(each.heading)}($|;| \(all)", said)]
    assert bool(missing) is bool(said)
    for column in set(map(id, table.columns)) - set(map(id, missing)):
        [each] = [each for each in table.columns if id(each) == column]
        for cell in [each.heading, *each.cells] if each.left else each.cells:
            words = cell.split() if each.left else [" ".join(cell.split())]
            assert all(word in body for word in words), cell
    head = text[: text.index("─" * 10)].splitlines() if "┃" not in text else []
    assert len(head) <= 2 + (len(table.title) > 40) * 2 + 1  # the title above them


def test_a_wide_terminal_leaves_nothing_out() -> None:
    text = shown(arm_table(COMPARISON, "T"), width=200)
    assert "┃" in text
    assert "Left out" not in text
    # too narrow for the longest words: cropped cells would be wrong ones
    assert shown(arm_table(COMPARISON, "T"), width=15) == plain(arm_table(COMPARISON, "T")) + "\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("compare", *TINY, "--epochs", "1", "--seeds", "3"), "Left out, for 80 columns: "),
        (("sweep", *TINY, "--epochs", "1", "--rho", "0,16", "--robustness", "occlude=0.5"), "+ best"),
        (("timeit", *TINY, "--rounds", "2"), "Left out, for 80 columns: "),
    ],
    ids=lambda value: value[0],
)
def test_every_command_fits_a_terminal_of_80_columns(
    command: tuple[str, ...], said: str, maldrop: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = maldrop(*command, "-q", "--format", "rich")
    assert said in result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_files_round_trip_and_have_no_nan(tmp_path: Path) -> None:
    rows = [
        {"name": "a,b", "value": 1 / 3, "none": None, "nan": math.nan},
        {"name": "c", "value": 2.0, "none": 5, "nan": 1.0},
    ]
    write_csv(rows, tmp_path / "t.csv")
    write_json(rows, tmp_path / "t.json", "sweep", [{"seed": 3, "nan": math.nan}])
    assert pd.read_csv(tmp_path / "t.csv")["value"].tolist() == [1 / 3, 2.0]
    assert (tmp_path / "t.csv").read_text().splitlines()[2] == "c,2.0,5,1.0"
    assert json.loads((tmp_path / "t.json").read_text()) == {
        "version": __version__,
        "schema": 1,
        "command": "sweep",
        "rows": [rows[0] | {"nan": None}, rows[1]],
        "by_seed": [{"seed": 3, "nan": None}],
    }
    with pytest.raises(MaldropError, match="can't write"):
        write_csv(rows, tmp_path / "no" / "t.csv")


def test_numbers() -> None:
    assert number(None, 2) == number(math.nan, 2) == "–"
    assert number(1.005, 1, sign=True) == "+1.0"
    assert [number(-0.001, 2), number(-0.001, 2, sign=True), number(-0.006, 2)] == ["0.00", "+0.00", "-0.01"]
    assert plus_minus(1.0, math.nan, 2) == "1.00"
    durations = {1.25: "1.2 s", 59.94: "59.9 s", 60: "1:00", 185: "3:05", 7800: "2:10:00"}
    assert [duration(seconds) for seconds in durations] == list(durations.values())


TIMINGS = [
    Timing(RunConfig(dropout=Dropout.NONE), Samples("none", [0.010, 0.010, 0.012] * 4), 1.5),
    Timing(RunConfig(dropout=Dropout.VANILLA), Samples("vanilla", [0.020, 0.020, 0.024] * 4), 2.0),
    Timing(RunConfig(), Samples("heuristic", [0.011, 0.011, 0.0132] * 4), 1.5, Fidelity(0.1, 0.25, 0.5, 1.0, 75.0)),
    Timing(RunConfig(), Samples("heuristic-loop", [1.0, 1.0, 1.2]), neurons=64, agreement=100.0),
]
SETTING = Setting((1, 32, 32), 10, torch.device("cpu"), layer=True, bf16=True)


def timing_tables(timings: Sequence[Timing], setting: Setting = SETTING, **how: Any) -> list[Table]:
    config = replace(timings[0].config, **how.pop("config", {}))
    return tables(timing_rows(timings, setting, ENVIRONMENT), config, setting, ENVIRONMENT, **{"naive": False} | how)


def test_timing_rows() -> None:
    rows = timing_rows(TIMINGS, SETTING, ENVIRONMENT)
    assert [row["subject"] for row in rows] == ["none", "vanilla", "heuristic", "heuristic-loop"]
    assert [rows[0]["median_ms"], rows[2]["ratio_vs_none"], rows[3]["ratio_vs_vanilla"]] == pytest.approx([10, 1.1, 50])
    masks = ("raised_mask", "fidelity", "mask_of_joint", "mask_agreement", "neurons_timed", "rho", "granularity")
    assert [[row[name] for name in masks] for row in rows] == [
        [None] * 7,
        [None] * 7,
        [0.25, 50.0, 75.0, None, None, 256, "batch"],
        [None, None, None, 100.0, 64, 256, "batch"],
    ]
    assert [rows[0][name] for name in ("what", "amp", "compiled", "torch")] == ["layer", "bf16", False, "2.99"]


def test_timings() -> None:
    [table] = timing_tables(TIMINGS, notes=["N"])
    assert table.title == "The last layer: digits shapes (1x32x32), cnn, batch 64, rho 256, granularity batch"
    headings = ["loss increase", "increase in % of worst set", "overlap with worst set %", "overlap with fast form %"]
    assert [column.heading for column in table.columns][-4:] == headings
    assert [row[3:] for row in table.rows()] == [
        ["1", "0.500 [0.500, 0.500]", "1.5", "–", "–", "–", "–"],
        ["2.000 [2.000, 2.000]", "1", "2.0", "–", "–", "–", "–"],
        ["1.100 [1.100, 1.100]", "0.550 [0.550, 0.550]", "1.5", "+0.250", "50.0", "75.0", "–"],
        ["100.0", "50.0", "–", "–", "–", "–", "100.0"],
    ]
    assert table.notes[0].startswith("12 interleaved samples on ")
    assert table.notes[1].startswith("Loss increase: by the mask")
    assert table.notes[2].endswith("Neurons timed: heuristic-loop 64.")
    assert table.notes[3].startswith("No 95 % interval of heuristic-loop: fewer than 11 samples")
    assert table.notes[4:] == ["N"]
    [table] = timing_tables(TIMINGS[:2], replace(SETTING, layer=False))
    assert table.title.startswith("A training step: digits")
    assert (len(table.columns), len(table.notes)) == (6, 1)


def test_the_devices_own_clock_has_a_column_where_it_was_read() -> None:
    on_device = replace(TIMINGS[2], samples=Samples("heuristic", [0.01] * 3, device_ms=[9.0, 8.0, 7.0]))
    [table] = timing_tables([*TIMINGS[:2], on_device])
    assert [each.cells for each in table.columns if each.heading == "device ms"] == [["–", "–", "8.00"]]
    assert any("between two events on the device" in note for note in table.notes)


def test_phase_table() -> None:
    table = phase_table({"none": {"forward": 0.001, "score": 0.0}, "random": {"forward": 0.002, "score": 0.0005}})
    assert [column.heading for column in table.columns] == ["subject", "forward ms", "score ms", "sum ms"]
    assert table.rows() == [["none", "1.00", "0.00", "1.00"], ["random", "2.00", "0.50", "2.50"]]


def test_scale_table() -> None:
    points = [ScalePoint("single", 10, 0.001, 0.0009, 0.002, 0.75), ScalePoint("single", 100, 0.01)]
    rows = scale_rows(points, exponents(points), "classes", {"width": 8}, ENVIRONMENT)
    assert rows[0]["exponent"] == pytest.approx(1)
    assert (rows[1]["width"], rows[1]["device"]) == (8, "cpu")
    table = scale_table(rows, "width 8")
    assert table.title == "Scoring, selecting and masking, without the last layer, along classes: width 8"
    assert table.rows() == [["single", "10", "1.000 [0.900, 2.000]", "0.750"], ["single", "100", "10.0", "–"]]
    assert table.notes[0] == "single: time grows as classes to the power 1.00 (least squares)."
    assert table.notes[2].startswith("No 95 % interval of single: fewer than 11 samples")


def test_the_papers_table_beside_ours_of_the_same_shapes() -> None:
    """Batch 64: 938 steps an epoch, 9,380 in ten; a median step of 10 ms is 93.8 s."""
    _, table = timing_tables(TIMINGS, naive=True)
    assert table.title.startswith("Ten epochs")
    assert table.rows() == [
        ["no dropout: none", "77", "94", "1.00", "1.00"],
        ["vanilla dropout: vanilla", "79", "188", "1.03", "2.00"],
        ["MalDrop, vectorised: heuristic", "184", "103", "2.39", "1.10"],
        ["MalDrop, per neuron (the paper's estimate): heuristic-loop", "28,125", "9,380", "365.26", "100.00"],
    ]
    for shape, other in (((3, 32, 32), {}), ((1, 32, 32), {"depth": 1}), ((1, 32, 32), {"model": VGG16})):
        [table] = timing_tables(TIMINGS, replace(SETTING, shape=shape), config=other, naive=True)
        assert "section 5.1.1" in table.notes[-1]


def listening(terminal: bool = False, **how: Any) -> tuple[ProgressListener, io.StringIO]:
    file = io.StringIO()
    return ProgressListener(Console(file=file, width=200, force_terminal=terminal), **how), file


def test_plain_progress_is_a_line_an_epoch_with_the_time_left() -> None:
    now = iter([0.0, 0.0, 10.0, 20.0])
    progress, file = listening(clock=lambda: next(now))
    with progress:
        progress.begin(6)
        progress.tell(Started(JOB, 0))
        progress.tell(Trained(JOB, JOB_ROWS[0]))
        progress.tell(Ended(Job(1, replace(JOB.config, epochs=3)), RECORDS[0], True))  # a reused run
        progress.tell(Trained(JOB, JOB_ROWS[1]))
    assert progress.reused == 1
    first, second = file.getvalue().splitlines()
    assert first.startswith("none, seed 0, epoch 1: train loss 1.0000")
    assert first.endswith("1/6 epochs, about 50.0 s left")
    assert second.endswith("5/6 epochs, about 10.0 s left")
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_says_nothing(terminal: bool) -> None:
    progress, file = listening(terminal, quiet=True)
    with progress:
        progress.preparing("decoding images", 5, 5)
        progress.begin(1)
        progress.tell(Trained(JOB, JOB_ROWS[0]))
        progress.warn("careful")
    assert file.getvalue() == ""


def test_a_terminal_gets_a_live_bar() -> None:
    progress, file = listening(terminal=True)
    with progress:
        progress.preparing("decoding images", 1, 2)
        progress.preparing("decoding images", 2, 2)
        progress.begin(2)
        progress.tell(Started(JOB, 1))
        progress.tell(Trained(JOB, JOB_ROWS[1]))
    assert progress.resumed == {0}
    assert "none, seed 0, epoch 2: top-1 80.00 %" in file.getvalue()
    assert "2.0/2 epochs" in file.getvalue()
    assert "train loss" not in file.getvalue()


def test_batches_give_the_time_left_within_the_first_epoch() -> None:
    """Two seconds for the first tenth, to warm up, then a tenth of an epoch a second: 18 tenths are left after two."""
    now = iter([0.0, 0.0, 2.0, 3.0, 12.0, 20.0])
    progress, file = listening(terminal=True, clock=lambda: next(now))
    with progress:
        progress.begin(2)
        progress.tell(Started(JOB, 0))
        for share in (0.1, 0.2):
            progress.tell(Progressed(JOB, share))
        progress.bar.refresh()
        assert "0.2/2 epochs" in file.getvalue()
        assert "0:00:18 left" in file.getvalue()
        progress.tell(Trained(JOB, JOB_ROWS[0]))
        progress.bar.refresh()
    assert "1.0/2 epochs" in file.getvalue()
    assert "0:00:11 left" in file.getvalue()  # ten seconds for nine tenths


def test_a_run_that_another_process_trains_is_followed() -> None:
    """It had 5 of 10 epochs when we began to wait; then it takes two seconds for each."""
    now = iter([0.0, 1.0, 3.0])
    progress, file = listening(terminal=True, clock=lambda: next(now))
    job = Job(0, replace(JOB.config, epochs=10), wait=True)
    with progress:
        progress.begin(10)
        progress.tell(Waiting(job))
        progress.tell(Progressed(job, 5))
        progress.tell(Progressed(job, 6))
        progress.bar.refresh()
        assert "none, seed 0, epoch 7" in file.getvalue()
        assert "0:00:08 left" in file.getvalue()
        progress.tell(Ended(job, RECORDS[0], True))
        progress.bar.refresh()
    assert "10.0/10 epochs" in file.getvalue()


def test_off_a_terminal_batches_say_nothing() -> None:
    progress, file = listening()
    with progress:
        progress.begin(2)
        progress.tell(Started(JOB, 0))
        progress.tell(Progressed(JOB, 0.5))
        progress.tell(Progressed(JOB, 0.75))
        progress.tell(Trained(JOB, JOB_ROWS[0]))
    assert len(file.getvalue().splitlines()) == 1
