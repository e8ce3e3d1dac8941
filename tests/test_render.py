"""Tables: golden text, stable columns, honest notes."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from maldrop_cli.analysis.arms import group, marked_epochs, time_ratio
from maldrop_cli.analysis.compare import compare_arms, of_dropout
from maldrop_cli.config import RunConfig
from maldrop_cli.mask_metrics import Fidelity
from maldrop_cli.names import VGG16, Dropout, Granularity, MaldropError, Schedule, Selector
from maldrop_cli.record import EpochRow, RunRecord, Status
from maldrop_cli.render.arms import arm_rows, arm_table, sweep_table, verdict_table
from maldrop_cli.render.progress import ProgressListener
from maldrop_cli.render.runs import (
    FURTHER,
    epoch_rows,
    report_table,
    run_rows,
    schedule_settings,
    setting_cells,
    train_table,
)
from maldrop_cli.render.tables import Column, Table, duration, number, plus_minus, show, to_text, write_csv, write_json
from maldrop_cli.render.timings import phase_table, scale_rows, scale_table, tables, timing_rows
from maldrop_cli.runs.events import Ended, Job, Started, Trained
from maldrop_cli.timing.cases import Setting, Timing
from maldrop_cli.timing.clock import Samples
from maldrop_cli.timing.scaling import ScalePoint, exponents

TOP1 = {"none": (80.0, 81.0, 82.0), "vanilla": (80.0, 80.5, 81.0), "maldrop": (85.0, 85.5, 86.5)}
SECONDS = {"none": 1.0, "vanilla": 1.5, "maldrop": 1.1}
ENVIRONMENT = {"device": "cpu", "device_name": "cpu", "threads": 2, "torch": "2.99"}


def record(dropout: str, seed: int, **changes: object) -> RunRecord:
    """Two epochs; the first is ten points below the last."""
    config = RunConfig(dropout=Dropout(dropout), seed=seed, epochs=2)
    rows = tuple(
        EpochRow(
            epoch=epoch,
            train_loss=1.0 / epoch,
            val_loss=0.5 / epoch,
            val_top1=TOP1[dropout][seed] - 10 * (2 - epoch),
            val_top5=99.0,
            train_seconds=SECONDS[dropout],
            rho_mean=256.0 if dropout == "maldrop" else None,
            drop_rate={"none": 0.0, "vanilla": 50.0, "maldrop": 6.25}[dropout],
        )
        for epoch in (1, 2)
    )
    run = RunRecord(
        run_id=f"{dropout}{seed}",
        config=config,
        environment=ENVIRONMENT,
        hidden_width=4096,
        epochs=rows,
        status=Status.DONE,
    )
    return replace(run, **changes)  # type: ignore[arg-type]


RECORDS = [record(dropout, seed) for seed in range(3) for dropout in TOP1]
COMPARISON = compare_arms(group(RECORDS), of_dropout(Dropout.VANILLA), 0.5)

ARMS = """\
**T**

| dropout | top-1 % @1 | top-1 % @2 | train loss | val loss | train s | × none | dropped % | seeds |
|:-|-:|-:|-:|-:|-:|-:|-:|-:|
| none | 71.00 ±2.48 | 81.00 ±2.48 | 0.5000 | 0.2500 | 2.0 | 1.00 | 0.00 | 3 |
| vanilla p=0.5 | 70.50 ±1.24 | 80.50 ±1.24 | 0.5000 | 0.2500 | 3.0 | 1.50 | 50.00 | 3 |
| maldrop rho=256 | 75.67 ±1.90 | 85.67 ±1.90 | 0.5000 | 0.2500 | 2.2 | 1.10 | 6.25 | 3 |

- N"""

VERDICTS = """\
Against vanilla p=0.5, paired by seed, epoch 2

dropout            Δ top-1, points (95 %, uncorrected)    p (Holm)  verdict
---------------  -------------------------------------  ----------  --------------------------------------------
none                                       +0.50 ±1.24       0.225  inconclusive; about 6 more seeds would decide
maldrop rho=256                            +5.17 ±0.72       0.002  better

better, worse: Holm-corrected p below 0.05; equivalent: within ±0.5 points (two one-sided t-tests)."""


def lines(text: str) -> list[str]:
    """Without trailing blanks and with runs of dashes and blanks shortened: what a table says, not how wide it is."""
    import re

    return [re.sub(r"([-: ])\1+", r"\1", line.strip()) for line in text.splitlines()]


def test_the_arm_table() -> None:
    text = to_text([arm_table(COMPARISON, "T", ["N"])], "markdown")
    assert lines(text) == lines(ARMS)


def test_the_verdict_table() -> None:
    assert lines(to_text([verdict_table(COMPARISON)], "plain")) == lines(VERDICTS)


def test_arm_rows_hold_full_precision() -> None:
    rows = {row["dropout"]: row for row in arm_rows(COMPARISON)}
    assert rows["maldrop"]["val_top1_mean"] == pytest.approx(257 / 3, rel=1e-15)
    assert rows["maldrop"]["diff_top1_mean"] == pytest.approx(31 / 6)
    assert rows["maldrop"]["verdict"] == "better"
    assert rows["maldrop"]["time_vs_none"] == pytest.approx(1.1)
    assert rows["maldrop"]["rho"] == 256
    assert rows["vanilla"]["rho"] is None
    assert rows["vanilla"]["diff_top1_mean"] is None
    assert rows["none"]["n_seeds"] == 3


def test_a_run_that_failed_is_counted_and_left_out_of_the_means() -> None:
    broken = record("maldrop", 1, status=Status.FAILED, reason="RuntimeError: no memory")
    comparison = compare_arms(
        group([run for run in RECORDS if run.run_id != "maldrop1"] + [broken]), of_dropout(Dropout.VANILLA), 0.5
    )
    [row] = [row for row in arm_rows(comparison) if row["dropout"] == "maldrop"]
    assert (row["n_seeds"], row["n_failed"], row["val_top1_mean"]) == (2, 1, 85.75)
    assert row["verdict"] == "too few seeds"
    text = to_text([arm_table(comparison, "T"), report_table([broken], long=False)], "plain")
    assert "2 of 3" in text
    assert "maldrop rho=256, seed 1: failed (RuntimeError: no memory)" in text


def test_only_common_seeds_are_paired() -> None:
    fewer = [run for run in RECORDS if run.run_id not in ("none0", "vanilla2")]
    comparison = compare_arms(group(fewer), of_dropout(Dropout.VANILLA), 0.5)
    difference = comparison.differences[[arm.config.dropout for arm in comparison.arms].index(Dropout.NONE)]
    assert difference is not None
    assert (difference.interval.n, difference.interval.mean) == (1, 0.5)


def test_time_ratio_takes_medians_and_common_seeds() -> None:
    slow = record("maldrop", 0)
    slow = replace(slow, epochs=(*slow.epochs, *slow.epochs, replace(slow.epochs[0], train_seconds=1e6)))
    [arm], [reference] = group([slow]), group([record("none", seed) for seed in (0, 1)])
    assert time_ratio(arm, reference) == pytest.approx(1.1)
    assert math.isnan(time_ratio(arm, None))


def test_arms_of_different_data_are_not_mixed() -> None:
    assert len(group([record("none", 0, data_digest="one"), record("none", 1, data_digest="other")])) == 2


def test_marked_epochs() -> None:
    assert [marked_epochs(n) for n in (1, 2, 3, 10)] == [[1], [1, 2], [1, 2, 3], [1, 5, 10]]


def test_times_of_different_machines_are_not_compared() -> None:
    fast = [record("none", seed) for seed in (0, 1)]
    slow = [record("maldrop", 0), record("maldrop", 1, environment=ENVIRONMENT | {"threads": 1})]
    [arm], [reference] = group(slow), group(fast)
    assert time_ratio(arm, reference) == pytest.approx(1.1)  # of seed 0 alone
    [arm] = group(slow[1:])
    assert math.isnan(time_ratio(arm, reference))
    rows = arm_rows(compare_arms(group([*fast, *slow]), of_dropout(Dropout.NONE), 0.5))
    assert [row["threads"] for row in rows] == [2, "mixed"]


def test_settings_off_their_defaults_are_in_the_name() -> None:
    from maldrop_cli.render.runs import name

    base = RunConfig()
    for changes, expected in (
        ({}, "maldrop rho=256"),
        ({"omega": "classes"}, "maldrop rho=256 omega=classes"),
        ({"granularity": Granularity.SAMPLE}, "maldrop rho=256 sample"),
        ({"schedule": Schedule.PERIODIC, "period": 2}, "maldrop periodic period=2 rho=256"),
        ({"schedule": Schedule.FORWARD_SMOOTH, "rate": 0.25}, "maldrop forward-smooth rate=0.25 rho=256"),
        ({"schedule": Schedule.LINEAR, "rho_end": 9}, "maldrop linear rho=256 rho-end=9"),
        ({"schedule": Schedule.LINEAR, "epochs": 3}, "maldrop linear rho=256 rho-end=0 horizon=10"),
        ({"selector": Selector.SINGLE, "omega": 0.5}, "maldrop rho=256 single"),
        ({"dropout": Dropout.RANDOM, "omega": 0.5}, "random rho=256"),
    ):
        assert name(replace(base, **changes)) == expected


def test_rows_tell_all_settings_apart() -> None:
    base = RunConfig(schedule=Schedule.PERIODIC)
    for changes in ({"period": 2}, {"depth": 1}, {"omega": 0.5}, {"deterministic": True}, {"weight_decay": 0.1}):
        other = replace(base, **changes)
        one, two = (run_rows([RunRecord(run_id="x", config=config)])[0] for config in (base, other))
        assert one != two, changes
    for schedule, change in (("reverse-smooth", {"rate": 2.0}), ("linear", {"rho_end": 1}), ("linear", {"horizon": 1})):
        other = replace(base, schedule=Schedule(schedule))
        one, two = (setting_cells(config, FURTHER) for config in (other, replace(other, **change)))
        assert one != two, change


def test_the_settings_of_schedules_are_said_where_they_matter() -> None:
    configs = [RunConfig(schedule=schedule) for schedule in Schedule]
    assert schedule_settings(configs) == [
        "periodic: period 5; forward-smooth: rate 0.5; reverse-smooth: rate 0.5; linear: rho-end 0, horizon 10."
    ]
    assert schedule_settings([RunConfig(), RunConfig(dropout=Dropout.NONE, schedule=Schedule.LINEAR)]) == []


def test_machines_that_differ_are_said() -> None:
    mixed = [RECORDS[0], replace(RECORDS[1], environment=ENVIRONMENT | {"device_name": "GPU"})]
    from maldrop_cli.render.runs import machine_line

    assert "different machines" in machine_line(mixed)
    assert machine_line(RECORDS) == "Trained on cpu, 2 CPU threads, torch 2.99."
    gpu = [replace(run, environment=ENVIRONMENT | {"device_name": "GPU", "cpu": "X", "threads": 1}) for run in RECORDS]
    assert machine_line(gpu) == "Trained on GPU, 1 CPU thread, torch 2.99."
    cpu = [replace(run, environment=ENVIRONMENT | {"cpu": "X"}) for run in RECORDS]
    assert machine_line(cpu) == "Trained on X, 2 CPU threads, torch 2.99."


def test_the_train_table() -> None:
    text = to_text([train_table(record("maldrop", 0))], "plain")
    assert "maldrop rho=256: digits, cnn, 2 epochs, SGD lr 0.005, momentum 0.9, batch 64, seed 0" in text
    assert lines(text)[4].split() == ["1", "1.0000", "0.5000", "75.00", "99.00", "256", "6.25", "1.10"]
    diverged = record("maldrop", 0, status=Status.DIVERGED, reason="not finite")
    assert "Diverged: not finite" in to_text([train_table(diverged)], "plain")


def test_run_rows() -> None:
    short, long = run_rows(RECORDS[:2]), epoch_rows(RECORDS[:2])
    assert [row["epoch"] for row in short] == [2, 2]
    assert [row["epoch"] for row in long] == [1, 2, 1, 2]
    assert list(short[0]) == list(long[0])
    empty = RunRecord(run_id="x", config=RunConfig())
    assert [row["status"] for row in epoch_rows([empty])] == ["unfinished"]
    assert "unfinished" in to_text([report_table([empty], long=True)], "plain")


def annealed(schedule: Schedule, rho: int, rates: list[float], top1: float = 50.0) -> RunRecord:
    rows = tuple(
        replace(RECORDS[0].epochs[0], epoch=epoch, drop_rate=rate, val_top1=top1) for epoch, rate in enumerate(rates, 1)
    )
    config = RunConfig(schedule=schedule, rho=rho, epochs=len(rates))
    return RunRecord(run_id=str(rho), config=config, epochs=rows, status=Status.DONE, environment=ENVIRONMENT)


def test_the_sweep_marks_best_and_worst_and_counts_saturated_points() -> None:
    runs = [
        annealed(Schedule.FORWARD, 0, [50.0, 73.0, 88.0], 80.0),
        annealed(Schedule.FORWARD, 256, [100.0, 100.0, 100.0], 10.0),
        annealed(Schedule.REVERSE, 256, [0.0, 0.0, 0.0], 70.0),
        annealed(Schedule.REVERSE, 9, [1.0, 0.0, 0.0], 70.0),
        annealed(Schedule.STANDARD, 4096, [100.0, 100.0, 100.0], 20.0),
    ]
    table = sweep_table(compare_arms(group(runs), None, 0.5), "T")
    assert list(table.columns[-1].cells) == ["best", "worst", "", "", ""]
    assert table.marked == {0: "green", 1: "red"}
    [note] = table.notes
    assert note.startswith("3 of 4 annealed points drop everything (1) or nothing (2) in most epochs")
    assert "equations (1) and (2) saturate" in note
    assert note.endswith("Try --schedule forward-smooth or reverse-smooth.")


def test_no_saturation_no_note() -> None:
    runs = [annealed(Schedule.FORWARD, 0, [50.0, 73.0, 88.0]), annealed(Schedule.STANDARD, 0, [0.0] * 3)]
    assert sweep_table(compare_arms(group(runs), None, 0.5), "T").notes == []


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


def test_auto_is_rich_on_a_terminal_and_plain_elsewhere() -> None:
    for terminal, rich in ((True, True), (False, False)):
        file = io.StringIO()
        show([TABLE], "auto", Console(file=file, force_terminal=terminal, width=60))
        assert ("┃" in file.getvalue()) is rich
        assert ("\x1b[" in file.getvalue()) is rich
        assert "A note." in file.getvalue()


def test_a_narrow_terminal_breaks_between_words_alone() -> None:
    file = io.StringIO()
    show([arm_table(COMPARISON, "T")], "rich", Console(file=file, width=80))
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "┃" not in text
    for word in ("dropout", "maldrop", "rho=256", "dropped", "seeds", "85.67", "±1.90", "0.5000"):
        assert word in text


def test_a_terminal_too_narrow_for_any_table_gets_plain_text() -> None:
    file = io.StringIO()
    show([arm_table(COMPARISON, "T")], "rich", Console(file=file, width=30))
    assert file.getvalue() == to_text([arm_table(COMPARISON, "T")], "plain") + "\n"


def test_an_empty_table_is_shown() -> None:
    assert "name" in to_text([Table("T", [Column("name", [])])], "plain")


def test_files_round_trip_and_have_no_nan(tmp_path: Path) -> None:
    rows = [
        {"name": "a,b", "value": 1 / 3, "none": None, "nan": math.nan},
        {"name": "c", "value": 2.0, "none": 5, "nan": 1.0},
    ]
    csv, json_path = tmp_path / "t.csv", tmp_path / "t.json"
    write_csv(rows, csv)
    write_json(rows, json_path)
    frame = pd.read_csv(csv)
    assert frame["value"].tolist() == [1 / 3, 2.0]
    assert csv.read_text().splitlines()[2] == "c,2.0,5,1.0"
    assert json.loads(json_path.read_text()) == [rows[0] | {"nan": None}, rows[1]]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MaldropError, match="can't write"):
        write_csv([{"a": 1}], tmp_path / "no" / "t.csv")


def test_numbers() -> None:
    assert number(None, 2) == number(math.nan, 2) == "–"
    assert number(1.005, 1, sign=True) == "+1.0"
    assert [number(-0.001, 2), number(-0.001, 2, sign=True), number(-0.006, 2)] == ["0.00", "+0.00", "-0.01"]
    assert plus_minus(1.0, math.nan, 2) == "1.00"
    assert [duration(seconds) for seconds in (1.25, 59.94, 60, 185, 7800)] == [
        "1.2 s",
        "59.9 s",
        "1:00",
        "3:05",
        "2:10:00",
    ]


TIMINGS = [
    Timing(RunConfig(dropout=Dropout.NONE), Samples("none", [0.010, 0.010, 0.012]), 1.5),
    Timing(RunConfig(dropout=Dropout.VANILLA), Samples("vanilla", [0.020, 0.020, 0.024]), 2.0),
    Timing(RunConfig(), Samples("heuristic", [0.011, 0.011, 0.0132]), 1.5, Fidelity(0.1, 0.25, 0.5, 1.0, 75.0)),
    Timing(RunConfig(), Samples("heuristic-loop", [1.0, 1.0, 1.2]), neurons=64, agreement=100.0),
]
SETTING = Setting((1, 32, 32), 10, torch.device("cpu"), layer=True, bf16=True)


def timing_tables(timings: Sequence[Timing], setting: Setting = SETTING, **how: Any) -> list[Table]:
    config = replace(timings[0].config, **how.pop("config", {}))
    return tables(timing_rows(timings, setting, ENVIRONMENT), config, setting, ENVIRONMENT, **{"naive": False} | how)


def test_timing_rows() -> None:
    rows = timing_rows(TIMINGS, SETTING, ENVIRONMENT)
    assert [row["subject"] for row in rows] == ["none", "vanilla", "heuristic", "heuristic-loop"]
    assert rows[0]["median_ms"] == 10.0
    assert rows[2]["ratio_vs_none"] == pytest.approx(1.1)
    assert rows[3]["ratio_vs_vanilla"] == pytest.approx(50)
    masks = ("raised_mask", "fidelity", "mask_of_joint", "mask_agreement", "neurons_timed", "rho", "granularity")
    assert [[row[name] for name in masks] for row in rows] == [
        [None] * 7,
        [None] * 7,
        [0.25, 50.0, 75.0, None, None, 256, "batch"],
        [None, None, None, 100.0, 64, 256, "batch"],
    ]
    assert {(row["what"], row["amp"], row["compiled"], row["torch"]) for row in rows} == {
        ("layer", "bf16", False, "2.99")
    }


def test_timings() -> None:
    [table] = timing_tables(TIMINGS, notes=["N"])
    assert table.title == "The last layer: digits shapes (1x32x32), cnn, batch 64, rho 256, granularity batch"
    headings = ["loss increase", "% of joint's", "overlap with joint %", "overlap with fast form %"]
    assert [column.heading for column in table.columns][-4:] == headings
    assert [row[3:] for row in table.rows()] == [
        ["1", "0.500 [0.500, 0.500]", "1.5", "–", "–", "–", "–"],
        ["2.000 [2.000, 2.000]", "1", "2.0", "–", "–", "–", "–"],
        ["1.100 [1.100, 1.100]", "0.550 [0.550, 0.550]", "1.5", "+0.250", "50.0", "75.0", "–"],
        ["100.0 [100.0, 100.0]", "50.0 [50.0, 50.0]", "–", "–", "–", "–", "100.0"],
    ]
    assert table.notes[0].startswith("3 interleaved samples on ")
    assert table.notes[1].endswith("Neurons timed: heuristic-loop 64.")
    assert table.notes[2:] == ["N"]
    [table] = timing_tables(TIMINGS[:2], replace(SETTING, layer=False))
    assert table.title.startswith("A training step: digits")
    assert len(table.columns) == 6
    assert len(table.notes) == 1


def test_the_devices_own_clock_has_a_column_where_it_was_read() -> None:
    on_device = replace(TIMINGS[2], samples=Samples("heuristic", [0.01] * 3, device_ms=[9.0, 8.0, 7.0]))
    [table] = timing_tables([*TIMINGS[:2], on_device, TIMINGS[3]])
    [column] = [each for each in table.columns if each.heading == "device ms"]
    assert column.cells == ["–", "–", "8.00", "–"]
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


def test_the_papers_table_beside_ours() -> None:
    """Batch 64: 938 steps an epoch, 9,380 in ten; a median step of 10 ms is 93.8 s."""
    _, table = timing_tables(TIMINGS, naive=True)
    assert table.title.startswith("Ten epochs")
    assert table.rows() == [
        ["no dropout: none", "77", "94", "1.00", "1.00"],
        ["vanilla dropout: vanilla", "79", "188", "1.03", "2.00"],
        ["MalDrop, vectorised: heuristic", "184", "103", "2.39", "1.10"],
        ["MalDrop, per neuron (the paper's estimate): heuristic-loop", "28,125", "9,380", "365.26", "100.00"],
    ]


@pytest.mark.parametrize(
    ("config", "shape"), [({}, (3, 32, 32)), ({"depth": 1}, (1, 32, 32)), ({"model": VGG16}, (1, 32, 32))]
)
def test_the_papers_table_is_shown_beside_its_own_shapes_only(
    config: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    [table] = timing_tables(TIMINGS, replace(SETTING, shape=shape), config=config, naive=True)
    assert "section 5.1.1" in table.notes[-1]


def test_plain_progress_is_a_line_an_epoch_with_the_time_left() -> None:
    file = io.StringIO()
    now = iter([0.0, 0.0, 10.0, 20.0])
    progress = ProgressListener(Console(file=file, width=200), clock=lambda: next(now))
    row = RECORDS[0].epochs[0]
    with progress:
        progress.begin(6)
        progress.tell(Started(Job(0, RECORDS[0].config), 0))
        progress.tell(Trained(Job(0, RECORDS[0].config), row))
        progress.tell(Ended(Job(1, replace(RECORDS[0].config, epochs=3)), RECORDS[0], True))  # a reused run
        progress.tell(Trained(Job(0, RECORDS[0].config), replace(row, epoch=2)))
    assert progress.reused == 1
    first, second = file.getvalue().splitlines()
    assert first.startswith("none, seed 0, epoch 1: train loss 1.0000")
    assert first.endswith("1/6, about 50.0 s left")
    assert second.endswith("5/6, about 10.0 s left")
    assert "\x1b" not in file.getvalue()


def test_quiet_says_warnings_only() -> None:
    file = io.StringIO()
    progress = ProgressListener(Console(file=file), quiet=True)
    with progress:
        progress.begin(1)
        progress.tell(Trained(Job(0, RECORDS[0].config), RECORDS[0].epochs[0]))
        progress.preparing("decoding images", 5, 5)
        progress.warn("careful")
    assert file.getvalue() == "maldrop: careful\n"


def test_a_terminal_gets_a_live_bar() -> None:
    file = io.StringIO()
    progress = ProgressListener(Console(file=file, force_terminal=True, width=150))
    with progress:
        progress.preparing("decoding images", 1, 2)
        progress.preparing("decoding images", 2, 2)
        progress.begin(2)
        progress.tell(Started(Job(0, RECORDS[0].config), 1))
        progress.tell(Trained(Job(0, RECORDS[0].config), RECORDS[0].epochs[0]))
    assert progress.resumed == {0}
    assert "none, seed 0  top-1 70.00 %" in file.getvalue()
