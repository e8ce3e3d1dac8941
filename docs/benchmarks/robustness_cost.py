"""What measuring top-1 under six perturbations costs, beside an epoch of training.

    python docs/benchmarks/robustness_cost.py DATA_DIR

The paper's CNN on MNIST, batch 64: an epoch on 60,000 images without dropout, then six severities on the 10,000
validation images. DATA_DIR is the folder that `maldrop --dataset mnist --data-dir` takes.
"""

import sys
import time
from pathlib import Path

import torch

from maldrop_cli.cli.reading import read_robustness
from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.data.load import load
from maldrop_cli.names import Dataset, Dropout
from maldrop_cli.robustness.evaluate import top1_under
from maldrop_cli.train import Training

PLAN = "occlude=0.25,0.5 noise=0.2 blur=0.1 neurons=0.9 worst-neurons=64"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = load(DataConfig(dataset=Dataset.MNIST), Path(sys.argv[1]))
    training = Training(
        RunConfig(data=DataConfig(dataset=Dataset.MNIST), dropout=Dropout.NONE), data, torch.device("cpu")
    )
    epoch = training.epoch().train_seconds
    begin = time.perf_counter()
    found = top1_under(training.model, training.normalise, data.val, 64, read_robustness(PLAN), 0)
    seconds = time.perf_counter() - begin
    print(f"{len(found)} severities: {seconds:.1f} s; an epoch: {epoch:.1f} s; {seconds / epoch:.2f} of it")


if __name__ == "__main__":
    main()
