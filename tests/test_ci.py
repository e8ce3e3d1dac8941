"""What a CI job asks of the command line: rows on stdout, and an exit code that says whether all is well."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from test_cli import QUICK, Run

from maldrop_cli import __version__
from maldrop_cli.names import Outcome

ARMS = ("compare", *TINY, "--epochs", "1", "--dropout", "vanilla,maldrop", "--selector", "heuristic")
TIMED = ("timeit", *TINY, "--rounds", "2", "--no-harm", "--batch-size", "4", "--selector", "heuristic")
COMMANDS = {
    "train": ("train", *QUICK),
    "compare": (*ARMS, "--seeds", "2"),
    "sweep": ("sweep", *QUICK, "--rho", "0,16", "--seeds", "2"),
    "timeit": TIMED,
    "report": ("report", "maldrop-runs", "--by", "rho"),
}


@pytest.fixture
def content(maldrop: Run) -> dict[str, Any]:
    """By command, what `--json -` writes."""
    return {name: json.loads(maldrop(*command, "--json", "-").out) for name, command in COMMANDS.items()}


def test_json_on_stdout_is_an_object_with_the_rows_of_the_csv(content: dict[str, Any], maldrop: Run) -> None:
    for name, written in content.items():
        assert list(written) == ["version", "schema", "command", "rows", "by_seed"]
        assert (written["version"], written["schema"], written["command"]) == (__version__, 1, name)
    for name in ("train", "compare", "sweep", "report"):  # the runs are stored
        table = list(csv.DictReader(io.StringIO(maldrop(*COMMANDS[name], "--csv", "-").out)))
        assert [list(row) for row in table] == [list(row) for row in content[name]["rows"]]
        assert [row["dropout"] for row in table] == [row["dropout"] for row in content[name]["rows"]]


def test_by_seed_has_the_values_that_the_means_are_of(content: dict[str, Any]) -> None:
    for name in ("compare", "sweep"):
        for arm in content[name]["rows"]:
            runs = [
                each for each in content[name]["by_seed"] if all(each[key] == arm[key] for key in ("dropout", "rho"))
            ]
            assert [run["seed"] for run in runs] == [0, 1]
            assert sum(run["val_top1"] for run in runs) / 2 == pytest.approx(arm["val_top1_mean"])
    assert content["timeit"]["by_seed"] == []
    [run] = content["train"]["by_seed"]
    assert run["val_loss"] == content["train"]["rows"][-1]["val_loss"]


@pytest.mark.parametrize("name", ["train", "sweep"])
def test_a_dry_run_has_no_runs(name: str, maldrop: Run) -> None:
    written = json.loads(maldrop(*COMMANDS[name], "--dry-run", "--json", "-").out)
    assert written["by_seed"] == []
    assert written["rows"][0]["epoch"] == 1


def test_one_stdout_is_not_enough_for_two_files(maldrop: Run) -> None:
    result = maldrop("train", *QUICK, "--json", "-", "--csv", "-")
    assert (result.code, result.out) == (2, "")
    both = maldrop("train", *QUICK, "--json", "-", "--csv", "t.csv")
    assert json.loads(both.out)["command"] == "train"
    assert Path("t.csv").exists()
    assert not Path("-").exists()


def test_quiet_leaves_results_and_errors(maldrop: Run) -> None:
    assert maldrop("train", *QUICK, "-q").err == ""
    again = maldrop("train", *QUICK, "-q")
    assert (again.err, "top-1 %" in again.out) == ("", True)
    assert maldrop("train", *QUICK, "-q", "--csv", "no/t.csv").err.startswith("maldrop: can't write")
    (*Path("maldrop-runs").glob("*/result.json"),)[0].write_text("{")
    assert "is left out" in maldrop("report", "maldrop-runs").err
    quiet = maldrop("report", "maldrop-runs", "-q")
    assert (quiet.err, "its final record is damaged" in quiet.out) == ("", True)


@pytest.mark.parametrize("arm", ["maldrop", "maldrop rho=16", "mine"])
def test_a_verdict_that_is_not_to_be_is_exit_1_after_the_table(arm: str, maldrop: Run) -> None:
    own = ("--arm", "mine: maldrop rho=40") if arm == "mine" else ()
    result = maldrop(*ARMS, *own, "--fail-if", f"{arm}:{','.join(Outcome)}", "-q", "--csv", "c.csv")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert result.err.startswith(f"maldrop: not as asked: {arm}")
    assert "top-1 %" in result.out
    assert Path("c.csv").exists()


def test_a_verdict_that_did_not_come_is_exit_0(maldrop: Run) -> None:
    result = maldrop(*ARMS, "--fail-if", "maldrop:too few seeds", "--fail-if", "maldrop:too few seeds", "-q")
    assert (result.code, result.err) == (0, "")


def test_the_lowest_top1(maldrop: Run) -> None:
    assert maldrop(*ARMS, "--min-top1", "0", "-q").code == 0
    result = maldrop(*ARMS, "--min-top1", "100", "-q")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "vanilla p=0.5 has a mean top-1 of" in result.err
    assert "maldrop rho=16 has a mean top-1 of" in result.err


def test_times_against_those_of_before(maldrop: Run) -> None:
    assert maldrop(*TIMED, "--json", "old.json", "-q").code == 0
    same = maldrop(*TIMED, "--compare", "old.json", "--fail-if", "heuristic>1e6", "-q", "--json", "new.json")
    assert (same.code, same.err) == (0, "")
    assert "Against old.json" in same.out
    old, new = (
        {row["subject"]: row for row in json.loads(Path(name).read_text())["rows"]} for name in ("old.json", "new.json")
    )
    for subject, row in new.items():
        assert row["before_vs_none"] == old[subject]["ratio_vs_none"]
        assert row["ratio_vs_before"] == row["ratio_vs_none"] / row["before_vs_none"]
    slower = maldrop(*TIMED, "--compare", "old.json", "--fail-if", "heuristic > 1e-6", "-q")
    assert (slower.code, slower.err.count("\n")) == (1, 1)
    assert "not as asked: heuristic is " in slower.err
    assert "Against old.json" in slower.out
    assert maldrop(*TIMED, "--fail-if", "random>1e-6", "-q").code == 1  # the ratio itself
    saved = maldrop(*TIMED, "--compare", "old.json", "--save-config", "t.toml", "-q")
    assert saved.code == 0
    assert maldrop("timeit", "--config", "t.toml", "-q").code == 0


WRONG = [
    ((*ARMS, "--fail-if", "maldorp:worse"), "--fail-if: 'maldorp' is not among the arms: vanilla p=0.5, maldrop rho"),
    ((*ARMS, "--fail-if", "maldrop:wrose"), "did you mean 'worse'?"),
    ((*ARMS, "--fail-if", "maldrop"), "is no ARM:VERDICT"),
    ((*ARMS, "--fail-if", "vanilla:worse"), "is what the others are tested against"),
    ((*ARMS, "--fail-if", "maldrop:worse", "--seeds", "2"), "a verdict takes 3 seeds, and --seeds names 2"),
    ((*ARMS, "--min-top1", "101"), "--min-top1"),
    ((*ARMS, "--min-top1", "nan"), "--min-top1"),
    ((*TIMED, "--fail-if", "heuristc>1"), "did you mean 'heuristic'?"),
    ((*TIMED, "--fail-if", "none>1"), "no subject is called 'none'"),
    ((*TIMED, "--fail-if", "heuristic"), "is no SUBJECT>NUMBER"),
    ((*TIMED, "--fail-if", "heuristic>-1"), "is not a number above 0"),
    ((*TIMED, "--scale", "batch", "--fail-if", "heuristic>1"), "leave --scale out"),
    ((*TIMED, "--scale", "batch", "--compare", "old.json"), "leave --scale out"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG, ids=lambda value: value[-1] if isinstance(value, tuple) else ""
)
def test_a_gate_that_can_not_be_is_one_line_before_any_work(
    arguments: tuple[str, ...], message: str, maldrop: Run
) -> None:
    result = maldrop(*arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err
    assert not Path("maldrop-runs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't read old.json: No such file"),
        ("{", "is no JSON file with the ratios of timeit"),
        ("[]", "is no JSON file with the ratios of timeit"),
        ('{"command": "train", "rows": []}', "is no JSON file with the ratios of timeit"),
        ("[" * 100_000, "is no JSON file with the ratios of timeit"),
    ],
)
def test_a_file_to_compare_with_that_is_none(content: str | None, message: str, maldrop: Run) -> None:
    if content is not None:
        Path("old.json").write_text(content)
    result = maldrop(*TIMED, "--compare", "old.json")
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert message in result.err


def test_a_file_of_another_step_is_not_compared_with(maldrop: Run) -> None:
    maldrop(*TIMED, "--json", "old.json", "-q")
    result = maldrop(*TIMED, "--compare", "old.json", "--batch-size", "8")
    assert (result.code, result.out) == (1, "")
    assert "old.json timed something else: batch_size is 4 there and 8 here" in result.err
    result = maldrop(*TIMED, "--compare", "old.json", "--dropout", "none,nested", "--fail-if", "nested>2")
    assert (result.code, result.out) == (2, "")
    assert "old.json has no nested, but none, vanilla, heuristic, random" in result.err
