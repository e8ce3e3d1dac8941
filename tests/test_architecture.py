"""Imports go one way, and nobody pays for what they do not use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from maldrop_cli.__main__ import run

PACKAGE = Path(__file__).parents[1] / "maldrop_cli"

# From the bottom up. A module may import from its own layer and from those below.
LAYERS = [
    {"names"},
    {"config"},
    {"files", "dropout"},
    {"record"},
    {"data", "machine"},
    {"models", "mask_metrics"},
    {"train"},
    {"robustness"},
    {"runs"},
    {"analysis"},
    {"sweep"},
    {"executors"},
    {"timing"},
    {"render"},
    {"plots"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
ENTRY_POINTS = {"__init__", "__main__"}  # they hand out what lies below, lazily


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0][:-3] not in ENTRY_POINTS)


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    """The layers of ours that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "maldrop_cli" else {module}
    ours = {name.split(".")[1] for name in names if name.startswith("maldrop_cli.")}
    return ours - {"__version__"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    mine = layer(path)
    assert mine in RANK, f"{mine} has no place in the order; add it to LAYERS"
    for other in imported_layers(path):
        assert RANK[other] <= RANK[mine], f"{path.name} ({mine}) imports {other}, which lies above it"
    if mine == "dropout":
        assert imported_layers(path) <= {"dropout"}, "dropout is a library: it imports nothing else of ours"


def test_an_upward_import_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    from maldrop_cli.render import tables\n    from maldrop_cli import engine\n")
    assert imported_layers(path) == {"render", "engine"}


def loaded_after(code: str) -> set[str]:
    """The top-level modules in sys.modules after ``code``, in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([each, "--help"] for each in ("train", "report"))])
def test_help_is_cheap(arguments: list[str]) -> None:
    loaded = loaded_after(f"from maldrop_cli.__main__ import run\nassert run({arguments}) == 0")
    assert not loaded & {"torch", "torchvision", "pandas", "numpy", "scipy", "matplotlib"}


@pytest.mark.parametrize("flag", ["--nonsense=1", "--dropout=foo", "--rho=abc", "--lr=nan", "--format=html"])
def test_a_wrong_flag_is_cheap(flag: str) -> None:
    loaded = loaded_after(f"from maldrop_cli.__main__ import run\nassert run(['train', {flag!r}]) == 2")
    assert not loaded & {"torch", "pandas"}


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    command = ["train", "--epochs", "1", "--dataset", "synthetic", "--out", str(tmp_path), "-q"]
    assert run(command) == 0
    loaded = loaded_after(f"from maldrop_cli.__main__ import run\nassert run(['report', {str(tmp_path)!r}]) == 0")
    assert not loaded & {"torch", "torchvision", "sklearn", "matplotlib"}
    plotted = ["report", str(tmp_path), "--plot", str(tmp_path / "plot.svg")]
    loaded = loaded_after(f"from maldrop_cli.__main__ import run\nassert run({plotted}) == 0")
    assert not loaded & {"torch", "torchvision", "sklearn"}


def test_torchvision_only_where_needed(tmp_path: Path) -> None:
    command = ["compare", "--epochs", "1", "--seeds", "1", "--dataset", "synthetic", "--out", str(tmp_path), "-q"]
    assert "torchvision" not in loaded_after(f"from maldrop_cli.__main__ import run\nassert run({command}) == 0")


def test_the_layer_comes_without_the_command_line() -> None:
    for code in (
        "from maldrop_cli import MalDropLinear\nMalDropLinear(4, 2, rho=1)",
        "from torch import nn\nfrom maldrop_cli import attach\nattach(nn.Sequential(nn.Linear(4, 2)))",
    ):
        assert not loaded_after(code) & {"typer", "rich", "pandas", "torchvision", "scipy"}
