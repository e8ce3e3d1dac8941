"""Paths and files, as a user types them: home folders, variables, links, pipes, files without end."""

import os
import threading
from pathlib import Path

import pytest
from conftest import TINY
from test_cli import Run

from maldrop_cli.runs import checkpoint

ONCE = ("train", *TINY, "--epochs", "1", "-q")
posix = pytest.mark.skipif(os.name == "nt", reason="links, pipes and devices of POSIX")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HOME, and beside it a folder that the variable SCRATCH names."""
    for name in ("home", "scratch"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "home"


# --- ~ and variables -------------------------------------------------------------------------------------------------


def test_home_folders_and_variables_in_flags(maldrop: Run, home: Path) -> None:
    files = ("--csv", "$SCRATCH/t.csv", "--json", "~/t.json", "--save", "${SCRATCH}/t.pt", "--save-config", "~/t.toml")
    result = maldrop(*ONCE, "--out", "~/runs", *files)
    assert result.code == 0, result.err
    assert {path.name for path in home.iterdir()} == {"runs", "t.json", "t.toml"}
    assert {path.name for path in (home.parent / "scratch").iterdir()} == {"t.csv", "t.pt"}
    assert {path.name for path in Path().iterdir()} == {"home", "scratch"}
    result = maldrop("report", "~/runs", "--by", "rho", "--plot", "$SCRATCH/p.svg")
    assert result.code == 0, result.err
    assert (home.parent / "scratch" / "p.svg").exists()


def test_home_folders_and_variables_in_a_file(maldrop: Run, home: Path) -> None:
    (home / "a.toml").write_text('out = "~/runs"\ncsv = "$SCRATCH/t.csv"\n')
    result = maldrop(*ONCE, "--config", "~/a.toml")
    assert result.code == 0, result.err
    assert (home / "runs").is_dir()
    assert (home.parent / "scratch" / "t.csv").is_file()


def test_home_folders_and_variables_of_the_cache_and_the_data(
    maldrop: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALDROP_CACHE", "~/cache")
    result = maldrop(*ONCE, "--dataset", "imagefolder", "--data-dir", "$SCRATCH/images")
    assert f"{home.parent}/scratch/images/train is no folder" in result.err
    monkeypatch.setenv("MALDROP_CACHE", "$NO_SUCH_VARIABLE/cache")
    result = maldrop(*ONCE, "--dataset", "mnist")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "MALDROP_CACHE: $NO_SUCH_VARIABLE/cache names the variable NO_SUCH_VARIABLE, which is not set" in result.err


@pytest.mark.parametrize("path", ["$NO_SUCH_VARIABLE/x", "${NO_SUCH_VARIABLE}/x", "~no-such-user/x"])
@pytest.mark.parametrize("flag", ["--out", "--csv", "--save", "--save-config", "--data-dir", "--config", "--resume"])
def test_what_no_shell_could_expand_is_one_line(flag: str, path: str, maldrop: Run) -> None:
    result = maldrop(*ONCE, flag, path)
    assert (result.code, result.err.count("\n"), result.out) == (1, 1, "")
    assert result.err.startswith(f"maldrop: {flag}: {path} ")
    assert not list(Path().iterdir())


@posix
def test_a_file_that_is_there_may_have_any_name(maldrop: Run) -> None:
    Path("a$b.toml").write_text("seed = 3\n")
    assert "seed 3" in maldrop(*ONCE, "--config", "a$b.toml").out


def test_without_a_home_folder_the_cache_has_to_be_named(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: neither HOME nor an entry in passwd."""
    for name in ("MALDROP_CACHE", "HOME", "USERPROFILE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    pwd = pytest.importorskip("pwd")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for command in (ONCE, ("sweep", "--rho", "0", "--dry-run")):
        result = maldrop(*command, "--dataset", "mnist")
        assert (result.code, result.err.count("\n"), result.out) == (1, 1, "")
        assert "set the variable MALDROP_CACHE to a folder" in result.err
    result = maldrop(*ONCE, "--out", "~/runs")
    assert "--out: ~/runs begins with a home folder that is not known" in result.err
    assert maldrop(*ONCE).code == 0  # it needs no cache


# --- links, pipes, devices -------------------------------------------------------------------------------------------


@posix
def test_a_link_stays_and_what_it_leads_to_is_written(maldrop: Run) -> None:
    Path("there").mkdir()
    names = {"save": "t.pt", "csv": "t.csv", "json": "t.json", "save-config": "t.toml"}
    Path("there/t.csv").write_text("old")  # the others do not exist yet
    for name in (*names.values(), "p.svg"):
        Path(name).symlink_to(Path("there") / name)
    result = maldrop(*ONCE, *(word for flag, name in names.items() for word in (f"--{flag}", name)))
    assert result.code == 0, result.err
    assert maldrop("report", "maldrop-runs", "--by", "rho", "--plot", "p.svg").code == 0
    for name in (*names.values(), "p.svg"):
        assert Path(name).is_symlink()
        assert (Path("there") / name).stat().st_size > 100
    assert checkpoint.read(Path("there/t.pt")).epochs == 1
    assert not list(Path("there").glob(".*"))


@posix
def test_a_pipe_is_written_to_and_stays_one(maldrop: Run) -> None:
    os.mkfifo("pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()))
    reader.start()
    assert maldrop(*ONCE, "--save", "pipe").code == 0
    reader.join(30)
    assert Path("pipe").is_fifo()
    Path("copy.pt").write_bytes(got[0])
    assert checkpoint.read(Path("copy.pt")).epochs == 1


PATHS = ("save", "save-config", "csv", "json", "out", "data-dir", "config", "resume")


@posix
@pytest.mark.parametrize("path", ["loop", "loop/x", "x" * 300])
@pytest.mark.parametrize("flag", PATHS)
def test_a_path_that_leads_nowhere_is_one_line(flag: str, path: str, maldrop: Run) -> None:
    Path("loop").symlink_to("other")
    Path("other").symlink_to("loop")
    result = maldrop(*ONCE, f"--{flag}", path)
    assert (result.code, result.err.count("\n"), result.out) == (1, 1, "")
    assert result.err.startswith(f"maldrop: --{flag}: {path} can't be followed: ")


@posix
def test_other_paths_that_lead_nowhere_are_one_line(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("loop").symlink_to("loop")
    monkeypatch.setenv("MALDROP_CACHE", "loop")
    for command in (("report", "loop"), (*ONCE, "--dataset", "mnist")):
        result = maldrop(*command)
        assert (result.code, result.err.count("\n"), result.out) == (1, 1, "")
        assert "loop can't be followed" in result.err


# --- two flags, one file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        ("--csv", "both", "--json", "both"),
        ("--csv", "both", "--json", "folder/../both"),
        ("--json", "both", "--save", "link"),
        ("--save", "both", "--save-config", "both"),
        ("--config", "a.toml", "--csv", "a.toml"),
        ("--out", "both", "--csv", "both"),
    ],
    ids=" ".join,
)
def test_two_flags_with_one_file_are_refused(flags: tuple[str, ...], maldrop: Run) -> None:
    Path("a.toml").write_text("seed = 3\n")
    Path("folder").mkdir()
    Path("link").symlink_to("both")
    result = maldrop(*ONCE, *flags)
    assert (result.code, result.err.count("\n"), result.out) == (2, 1, "")
    assert "as well, and one would overwrite the other" in result.err
    assert Path("a.toml").read_text() == "seed = 3\n"
    assert not Path("both").exists()


@posix
def test_a_file_may_be_written_anew_and_a_device_takes_all(maldrop: Run) -> None:
    assert maldrop(*ONCE, "--save", "a.pt", "--save-config", "a.toml").code == 0
    anew = ("--resume", "a.pt", "--save", "a.pt", "--config", "a.toml", "--save-config", "a.toml")
    result = maldrop(*ONCE, *anew, "--csv", "/dev/null", "--json", "/dev/null")
    assert result.code == 0, result.err


# --- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_file_with_a_byte_order_mark(encoding: str, maldrop: Run) -> None:
    Path("a.toml").write_bytes('# é\r\nseed = 3\r\nlr = "0.02"\r\n'.encode(encoding))
    result = maldrop(*ONCE, "--config", "a.toml")
    assert result.code == 0, result.err
    assert "lr 0.02" in result.out
    assert "seed 3" in result.out


@posix
def test_files_without_end_are_one_line(maldrop: Run) -> None:
    with Path("big.toml").open("wb") as file:
        file.truncate(2**40)  # of zeros that take no place
    for arguments, code in (
        (("--config", "/dev/zero"), 2),
        (("--config", "big.toml"), 2),
        (("--resume", "/dev/zero"), 1),
    ):
        result = maldrop(*ONCE, *arguments)
        assert (result.code, result.err.count("\n"), result.out) == (code, 1, ""), result.err
    Path("full.toml").write_text("seed = 3\n".ljust(2**20))
    assert maldrop(*ONCE, "--config", "full.toml").code == 0
