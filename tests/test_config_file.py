"""Settings in a file: what it can hold, what wins, and what is refused."""

import tomllib
from pathlib import Path

import pytest
from conftest import TINY, rows
from test_cli import QUICK, Run

from maldrop_cli.runs.store import Store


def test_flags_win_over_the_file(maldrop: Run) -> None:
    Path("a.toml").write_text('lr = 0.02\nrho = "5%"\nmomentum = 0.5\nepochs = 1\nquiet = true\n')
    result = maldrop("train", *TINY, "--config", "a.toml", "--momentum", "0.7", "--csv", "t.csv")
    assert result.code == 0, result.err
    assert result.err == ""
    [row] = rows("t.csv")
    assert (row["lr"], row["rho"], row["momentum"], row["epochs"]) == ("0.02", "13", "0.7", "1")


def test_a_saved_file_gives_the_same_run(maldrop: Run) -> None:
    maldrop("train", *QUICK, "--rho", "7", "--save-config", "a.toml", "--deterministic", "--csv", "one.csv")
    saved = tomllib.loads(Path("a.toml").read_text())
    expected = {"dataset": "synthetic", "shape": "1x8x8", "classes": 3, "images": 150, "epochs": 2, "rho": "7"}
    assert {key: saved[key] for key in expected} == expected
    assert saved["deterministic"] is True
    assert "momentum" not in saved  # a default
    again = maldrop("train", "--config", "a.toml", "--csv", "other.csv")
    assert "1 of 1 run already finished" in again.err
    assert rows("one.csv") == rows("other.csv")
    assert len(list(Store(Path("maldrop-runs")).scan())) == 1


def test_tables_are_for_their_command(maldrop: Run) -> None:
    tables = '[sweep]\nrho = [0, 16]\nepochs = 2\n[compare]\ndropouts = ["none", "vanilla"]\nseeds = 1\n'
    Path("a.toml").write_text("epochs = 1\nlr = 0.02\n" + tables)
    maldrop("sweep", *TINY, "--config", "a.toml", "--csv", "s.csv")
    assert [(row["rho"], row["epochs"]) for row in rows("s.csv")] == [("", "2"), ("", "2"), ("0", "2"), ("16", "2")]
    maldrop("compare", *TINY, "--config", "a.toml", "--csv", "c.csv")
    assert [(row["dropout"], row["epochs"]) for row in rows("c.csv")] == [("none", "1"), ("vanilla", "1")]


def test_the_file_counts_as_given_by_hand(maldrop: Run) -> None:
    """It wins over a preset."""
    Path("a.toml").write_text("momentum = 0.5\nepochs = 1\n")
    result = maldrop("train", *TINY, "--preset", "paper", "--config", "a.toml")
    assert "1 epoch, SGD lr 0.01, momentum 0.5, batch 128" in result.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epocs = 3", "did you mean 'epochs'?"),
        ("[swep]\nrho = 1", "did you mean 'sweep'?"),
        ("epochs = ", "is not TOML"),
        ("quiet = 1", "must be true or false"),
        ("lr = true", "must be a text, a number or a list"),
        ("[train.lr]\nx = 1", "must be a text, a number or a list"),
        ('epochs = "many"', "epochs"),
        ("epochs = 0", "--epochs: 0 is not a whole number from 1"),
        ('config = "b.toml"', "takes no such setting"),
        ("train = 3", "wants a table: [train]"),
        ("[[train]]\nlr = 1", "wants a table: [train]"),
        (f"seed = {'1' * 5000}", "is not TOML"),
        (f"seed = {'[' * 5000}", "is not TOML"),
        (f"[train]\nlr{'.a' * 5000} = 1", "must be a text, a number or a list"),
        ("dropout = 'none'\ndropouts = 'vanilla'", "twice"),
        ("batch_size = 3\nbatch-size = 4", "twice"),
    ],
    ids=lambda value: value[:20],
)
def test_what_a_file_cannot_hold(content: str, message: str, maldrop: Run) -> None:
    Path("a.toml").write_text(content)
    result = maldrop("train", *TINY, "--config", "a.toml")
    assert (result.code, result.err.count("\n"), result.out) == (2, 1, "")
    assert message in result.err


def test_files_that_are_not_there(maldrop: Run) -> None:
    assert "can't read none.toml" in maldrop("train", "--config", "none.toml").err
    result = maldrop("train", *TINY, "--save-config", "none/a.toml")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "can't write none/a.toml" in result.err


def test_what_is_saved_is_what_was_trained(maldrop: Run) -> None:
    maldrop("train", *QUICK, "--dry-run", "-q", "--fresh", "--save-config", "a.toml")
    assert not {"dry-run", "quiet", "fresh"} & tomllib.loads(Path("a.toml").read_text()).keys()
    assert maldrop("train", *TINY, "--epochs", "0", "--save-config", "bad.toml").code == 2
    assert not Path("bad.toml").exists()


def test_a_list_of_one_seed_is_that_seed(maldrop: Run) -> None:
    Path("a.toml").write_text("seeds = [5]\ndropouts = ['none']\n")
    maldrop("compare", *QUICK, "--config", "a.toml", "-q")
    assert [record.config.seed for record in Store(Path("maldrop-runs")).scan()] == [5]
