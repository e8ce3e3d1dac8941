"""A sweep with two workers, killed with SIGKILL again and again at random moments, against one that was left alone.

    python docs/benchmarks/kill_test.py [--kills 50] [--seed 0]

Two of three kills hit a worker, the third hits the command itself, which is then given again, as a person would. At the
end both sweeps must have measured the same numbers; no record that was there at a kill may have changed since, and
every run must have each of its epochs once. Linux only, as it looks for processes in /proc.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS = 20
SWEEP = ("--dataset", "synthetic", "--images", "600", "--rho", "0..1024/22", "--epochs", str(EPOCHS))
TIMES = ("seconds", "time_vs_none", "workers")


def start(folder: Path, workers: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "maldrop_cli", "sweep", *SWEEP, "--threads", "1", "-q", "--csv", "sweep.csv"]
    more = ["--workers", str(workers), "--retries", "1000000"]  # this is no place for giving up
    return subprocess.Popen([*command, *more], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measured(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return [
            {name: value for name, value in row.items() if not any(word in name for word in TIMES)}
            for row in csv.DictReader(file)
        ]


def results(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("maldrop-runs/*/result.json")}


def workers_of(process: int) -> list[int]:
    """The spawned children: the other one keeps their semaphores."""
    found = []
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        try:
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                found.append(int(child))
        except OSError:  # gone in the meantime
            pass
    return found


def wait_for_epochs(folder: Path, epochs: int, process: "subprocess.Popen[bytes]") -> None:
    """Until so many more are written down: some are lost at every kill, so that the number may fall as well."""
    seen: set[int] = set()
    while len(seen) <= epochs and process.poll() is None:
        seen.add(sum(path.read_bytes().count(b"\n") for path in folder.glob("maldrop-runs/*/epochs.jsonl")))
        time.sleep(0.005)


def check(before: dict[Path, bytes], folder: Path) -> None:
    now = results(folder)
    changed = [path for path, content in before.items() if now.get(path) != content]
    assert not changed, f"finished runs were touched again: {changed}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        alone, killed = Path(name) / "alone", Path(name) / "killed"
        alone.mkdir()
        killed.mkdir()
        assert start(alone, 1).wait() == 0
        kills = {"worker": 0, "command": 0}
        before: dict[Path, bytes] = {}
        process = start(killed, 2)
        while sum(kills.values()) < arguments.kills:
            wait_for_epochs(killed, rng.randrange(4), process)
            time.sleep(rng.choice([rng.uniform(0, 0.05), rng.uniform(0, 3)]))  # in mid-run, or while workers start
            assert process.poll() is None, "the sweep ended before all kills: it needs more points, or more epochs"
            targets = workers_of(process.pid)
            if rng.random() < 1 / 3:
                kind, target = "command", process.pid
            elif targets:
                kind, target = "worker", rng.choice(targets)
            else:
                continue
            check(before, killed)
            before = results(killed)
            os.kill(target, signal.SIGKILL)
            kills[kind] += 1
            if kind == "command":
                process.wait()
                process = start(killed, 2)
        assert process.wait() == 0
        check(before, killed)
        assert measured(killed) == measured(alone), "the numbers differ"
        from maldrop_cli.runs.store import Store

        warnings: list[str] = []
        records = list(Store(killed / "maldrop-runs", warnings.append).scan())
        assert not warnings, warnings
        assert len(records) == len(measured(alone))
        assert all([row.epoch for row in run.epochs] == list(range(1, EPOCHS + 1)) for run in records)
        left = [path for path in killed.rglob(".*") if path.is_file() and path.suffix != ".lock"]
        print(
            f"{kills['worker']} workers and {kills['command']} commands killed over {len(records)} runs; "
            f"all measured as in the sweep that was left alone; half-written files left: {len(left)}"
        )


if __name__ == "__main__":
    main()
