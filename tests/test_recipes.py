"""The recipes of CONTRIBUTING.md: their blocks, added to a copy of the package, do what they say."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

from maldrop_cli.config import RunConfig

ROOT = Path(__file__).parents[1]
RECIPES = dict(re.findall(r"^### Adding an? (.+)\n((?s:.*?))(?=^##)", (ROOT / "CONTRIBUTING.md").read_text(), re.M))
BLOCK = re.compile(r"^```python\n# (\S+), (in|above) (.+)\n((?s:.*?))^```", re.M)


def add(code: str, path: Path, where: str, place: str) -> None:
    """As the recipes say: below the line that opens ``place``, or above the first line that starts with it."""
    lines = path.read_text().splitlines(keepends=True)
    opened = re.compile(rf"\s*(class )?{re.escape(place)}(?![\w\[])")
    found = next((number for number, line in enumerate(lines) if opened.match(line)), None)
    assert found is not None, f"{path.name} has no line that starts with {place}"
    lines.insert(found + (where == "in"), code)
    path.write_text("".join(lines))


class Copy:
    """The package with a recipe's blocks added, in a folder of its own."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "maldrop_cli", folder / "maldrop_cli", ignore=shutil.ignore_patterns("__pycache__"))
        for file, where, place, code in BLOCK.findall(RECIPES[recipe]):
            add(code, folder / file, where, place)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def train(self, *arguments: str) -> list[dict[str, str]]:
        """The rows of `maldrop train`, one an epoch."""
        done = self.python("-m", "maldrop_cli", "train", *TINY, "--batch-size", "8", *arguments, "-q", "--csv", "t.csv")
        assert done.returncode == 0, done.stderr
        with (self.folder / "t.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Copy:
    return Copy(tmp_path, request.param)


def recipe(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("copy", [name], indirect=True)


@recipe("selector")
def test_a_selector(copy: Copy) -> None:
    [row] = copy.train("--selector", "norm", "--epochs", "1")
    assert (row["selector"], row["drop_rate"], row["omega"]) == ("norm", "6.25", "")


@recipe("schedule")
def test_a_schedule(copy: Copy) -> None:
    rows = copy.train("--schedule", "halving", "--rho", "12", "--epochs", "3")
    assert [float(row["rho_mean"]) for row in rows] == [12, 6, 3]


@recipe("data set")
def test_a_data_set(copy: Copy) -> None:
    [*_, row] = copy.train("--dataset", "bars", "--epochs", "3")
    assert (row["dataset"], row["hidden_width"]) == ("bars", "256")
    assert float(row["val_top1"]) > 80


@recipe("perturbation")
def test_a_perturbation(copy: Copy) -> None:
    [row] = copy.train("--robustness", "darken=0,1", "--epochs", "1")
    assert row["top1_darken_0"] == row["val_top1"]
    assert float(row["top1_darken_1"]) < 60  # black images: one class for all


@recipe("setting")
def test_a_setting(copy: Copy) -> None:
    first, second = copy.train("--clip", "1e-9", "--epochs", "2")
    assert first["clip"] == "1e-09"
    assert float(second["train_loss"]) > 0.9 * float(first["train_loss"])  # it has learnt nothing
    wrong = copy.python("-m", "maldrop_cli", "train", "--clip", "-1")
    assert (wrong.returncode, "--clip: -1.0 is not a finite number of at least 0" in wrong.stderr) == (2, True)


@recipe("setting")
def test_a_setting_without_effect_leaves_run_ids_alone(copy: Copy) -> None:
    code = "from maldrop_cli.config import RunConfig as C\nprint(C().run_id(''), C(clip=1.0).run_id(''))"
    without, with_effect = copy.python("-c", code).stdout.split()
    assert without == RunConfig().run_id("") != with_effect


def test_every_recipe_names_what_is_there() -> None:
    """Files, tests and names in `code` of the recipes."""
    assert set(RECIPES) >= {
        "selector",
        "schedule",
        "data set",
        "perturbation",
        "setting",
        "variant",
        "model",
        "plot",
        "executor",
    }
    sources = "\n".join(path.read_text() for kind in ("maldrop_cli", "tests") for path in (ROOT / kind).rglob("*.py"))
    for text in RECIPES.values():
        for code in re.findall(r"`([^`\n]+)`", re.sub(r"(?s)```.*?```", "", text)):
            if "/" in code:
                assert (ROOT / code).exists() or (ROOT / "maldrop_cli" / code).exists(), code
            elif re.fullmatch(r"[A-Za-z_][\w.]*", code):
                assert all(re.search(rf"\b{part}\b", sources) for part in code.split(".")), code
