"""How long `maldrop report` takes over many stored runs, imports and all: fresh interpreters.

    python docs/benchmarks/report_speed.py [RUNS] [EPOCHS]

1,000 runs of 50 epochs without them: 200 settings, five seeds each, made up, in a folder that is removed afterwards.
Each command is run three times; the median and the worst are printed.
"""

import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from maldrop_cli.config import RunConfig
from maldrop_cli.record import EpochRow, RunRecord, Status
from maldrop_cli.runs.store import Store

SEEDS, ROUNDS = 5, 3
COMMANDS = (
    (),
    ("--long",),
    ("--by", "rho"),
    ("--by", "rho", "--baseline", "rho=0"),
    ("--plot", "plot.svg", "--plot-kind", "metric"),
)


def made_up(config: RunConfig, noise: random.Random) -> RunRecord:
    rows = tuple(
        EpochRow(
            epoch=epoch,
            train_loss=noise.random(),
            val_loss=noise.random(),
            val_top1=90 + noise.random(),
            val_top5=99 + noise.random(),
            train_seconds=1 + noise.random(),
            rho_mean=float(config.rho),
            drop_rate=config.rho / 40.96,
        )
        for epoch in range(1, config.epochs + 1)
    )
    machine = {"device": "cpu", "device_name": "cpu", "cpu": "made up", "threads": 2, "torch": "2"}
    return RunRecord(
        run_id=config.run_id("digest"),
        config=config,
        data_digest="digest",
        environment=machine,
        hidden_width=4096,
        epochs=rows,
        status=Status.DONE,
    )


def main() -> None:
    runs, epochs = (int(word) for word in [*sys.argv[1:], *("1000", "50")[len(sys.argv) - 1 :]])
    noise = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "runs")
        for number in range(runs):
            config = RunConfig(rho=20 * (number // SEEDS), epochs=epochs, horizon=epochs, seed=number % SEEDS)
            record = made_up(config, noise)
            store.start(record)
            for row in record.epochs:
                store.append(record.run_id, row)
            store.finish(record)
        for extra in COMMANDS:
            command = [sys.executable, "-m", "maldrop_cli", "report", "runs", *extra]
            seconds = []
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
                seconds.append(time.perf_counter() - begin)
            shown = " ".join(["maldrop report runs", *extra])
            print(f"{shown}: {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
