"""The documentation names what exists, and all of it."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import TINY, rows
from test_cli import QUICK, Run
from typer.main import get_command

from maldrop_cli import names
from maldrop_cli.cli.app import COMMANDS, app
from maldrop_cli.sweep.grammar import parse_axis

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
GROUP = get_command(app)


def command_lines() -> list[tuple[str, str]]:
    """(page, `maldrop ...` line) from every code block and inline span of the documentation."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", "", page.read_text())
        spans = re.findall(r"`(maldrop [a-z][^`]*)`", text)
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            prompt = "$ " if "$ " in block else ""  # with a prompt, the lines without are output
            spans += [line.removeprefix(prompt) for line in block.split("\n") if line.startswith(f"{prompt}maldrop ")]
        found += [(page.name, span.split(" #")[0].strip()) for span in spans]
    return found


def flags(command: str) -> set[str]:
    return {name for parameter in GROUP.commands[command].params for name in parameter.opts}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_documented_commands_and_flags_exist(page: str, line: str) -> None:
    _, command, *arguments = shlex.split(line)
    assert command in COMMANDS, f"{page}: {line}"
    for argument in arguments:
        if argument.startswith("--"):
            assert argument in flags(command), f"{page}: {line}"


def test_some_commands_are_documented() -> None:
    assert {line.split()[1] for _, line in command_lines()} == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("kind", [names.Dataset, names.Dropout, names.Selector, names.Schedule])
def test_every_name_is_documented(kind: type[names.Dropout]) -> None:
    text = " ".join(page.read_text() for page in PAGES)
    for name in kind:
        assert f"`{name}`" in text, f"{name} is documented nowhere"


def test_the_data_dictionary_has_every_column(maldrop: Run) -> None:
    documented = set(re.findall(r"`([a-zA-Z_0-9]+)`", (ROOT / "docs" / "data-dictionary.md").read_text()))
    maldrop("train", *QUICK, "-q", "--csv", "train.csv")
    maldrop("compare", *QUICK, "-q", "--seeds", "1", "--csv", "compare.csv")
    maldrop("sweep", *QUICK, "-q", "--csv", "sweep.csv")
    maldrop("timeit", *TINY, "-q", "--rounds", "2", "--csv", "timeit.csv")
    maldrop("timeit", "--scale", "rho", "--selector", "heuristic", "--budget", "0.1", "-q", "--csv", "scale.csv")
    maldrop("sweep", *QUICK, "--dry-run", "--csv", "dry-run.csv")
    maldrop("report", "maldrop-runs", "--csv", "report.csv")
    for name in ("train", "compare", "sweep", "timeit", "scale", "report", "dry-run"):
        columns = [re.sub(r"top1_[a-z-]+_[0-9.]+", "METRIC", each) for each in rows(f"{name}.csv")[0]]
        assert {re.sub(r"METRIC(?=$|_mean|_ci95)", "top1_NAME_SEVERITY", each) for each in columns} <= documented, name


def test_the_grammar_in_the_readme_is_understood() -> None:
    for axis in re.findall(r"--rho ([^\s`]+)", (ROOT / "README.md").read_text()):
        assert parse_axis(axis, "--rho")


def test_every_benchmark_script_is_mentioned() -> None:
    text = " ".join(page.read_text() for page in PAGES)
    for script in (ROOT / "docs" / "benchmarks").glob("*.py"):
        assert f"docs/benchmarks/{script.name}" in text
