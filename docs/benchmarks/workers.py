"""What two workers gain: a sweep of 16 points on digits, one run at a time against two, in turn.

    python docs/benchmarks/workers.py [--rounds 2] [--epochs 10]

Both have one CPU thread a run and are timed from the command to its end, loading and starting included. Says what the
machine was doing beforehand: on a busy one the figure is worth nothing.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(workers: int, epochs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "maldrop_cli", "sweep", "--rho", "0..4096/14", "--epochs", str(epochs)]
        more = ["--threads", "1", "--workers", str(workers), "-q"]
        begin = time.perf_counter()
        subprocess.run([*command, *more], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        assert len(list(Path(folder).glob("maldrop-runs/*/result.json"))) == 16  # 14, none and vanilla
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} CPUs")
    pairs = [(seconds(1, arguments.epochs), seconds(2, arguments.epochs)) for _ in range(arguments.rounds)]
    for one, two in pairs:
        print(f"one run at a time {one:.1f} s, two {two:.1f} s: {one / two:.2f} times as fast")
    print(f"median {statistics.median(one / two for one, two in pairs):.2f}")


if __name__ == "__main__":
    main()
