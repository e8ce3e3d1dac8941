"""What scripts and stored runs rely on stays as it was: run ids, flags, columns."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from test_cli import QUICK, Run
from typer.main import get_command

from maldrop_cli.cli.app import app
from maldrop_cli.config import RunConfig

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize("number", range(len(GOLDEN["run_ids"])))
def test_run_ids(number: int) -> None:
    golden = GOLDEN["run_ids"][number]
    data = {name: golden["settings"].get(name, default) for name, default in vars(RunConfig().data).items()}
    settings = {name: value for name, value in golden["settings"].items() if name not in data}
    config = RunConfig.from_dict({"data": data, "model": "cnn", **settings})
    assert config.run_id(f"d1{number}") == golden["run_id"]


@pytest.mark.parametrize("command", GOLDEN["flags"])
def test_flags(command: str) -> None:
    parameters = get_command(app).commands[command].params  # type: ignore[attr-defined]
    assert {flag for each in parameters for flag in each.opts} >= set(GOLDEN["flags"][command])


def test_columns(maldrop: Run) -> None:
    commands: dict[str, tuple[object, ...]] = {
        "train": ("train", *QUICK),
        "compare": ("compare", *QUICK, "--seeds", "1"),
        "sweep": ("sweep", *QUICK, "--rho", "0,16"),
        "dry-sweep": ("sweep", *QUICK, "--dry-run"),
        "dry-train": ("train", *QUICK, "--dry-run"),
        "timeit": ("timeit", *TINY, "--rounds", "2", "--no-harm"),
        "scale": ("timeit", *TINY, "--scale", "batch", "--selector", "gradient", "--budget", "0.1"),
        "report": ("report", "maldrop-runs"),
        "report-long": ("report", "maldrop-runs", "--long"),
        "report-by": ("report", "maldrop-runs", "--by", "rho"),
    }
    assert set(commands) == set(GOLDEN["columns"])
    for name, command in commands.items():
        assert maldrop(*command, "-q", "--csv", "t.csv").code == 0
        with Path("t.csv").open() as file:
            assert next(csv.reader(file)) == GOLDEN["columns"][name], name
