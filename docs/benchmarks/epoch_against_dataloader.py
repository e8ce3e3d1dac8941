"""One training epoch on MNIST: maldrop's engine with MalDrop against a plain script with vanilla dropout.

    python docs/benchmarks/epoch_against_dataloader.py DATA_DIR [--rounds 3] [--workers 0,2]

The plain script is what one writes with torchvision and a DataLoader; the net, the batch size (64), the optimiser and
the number of threads are the same. Both are timed in turn, in one process, evaluation left out; the best number of
workers counts. DATA_DIR is the folder that `maldrop --dataset mnist --data-dir` takes.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets as tv_datasets
from torchvision import transforms

from maldrop_cli import train as engine
from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.data.load import ImageData, load
from maldrop_cli.names import Dataset, Dropout


def plain_epoch(root: Path, workers: int) -> float:
    """Seconds of one epoch, as a tutorial would write it."""
    transform = transforms.Compose(
        [transforms.Pad(2), transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    train = tv_datasets.MNIST(root, train=True, transform=transform)
    loader = DataLoader(train, batch_size=64, shuffle=True, num_workers=workers)
    model = nn.Sequential(
        nn.Conv2d(1, 10, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(10),
        nn.Conv2d(10, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4096, 10),
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    model.train()
    begin = time.perf_counter()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


def maldrop_epoch(data: ImageData, dropout: Dropout) -> float:
    """Seconds of one epoch in maldrop's engine."""
    config = RunConfig(
        data=DataConfig(dataset=Dataset.MNIST), dropout=dropout, epochs=1, batch_size=64, lr=0.001, momentum=0.0
    )
    device = torch.device("cpu")
    record = engine.train_run(engine.start_record(config, data, "", device), data, device)
    return record.epochs[0].train_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="0,2")
    arguments = parser.parse_args()
    data = load(DataConfig(dataset=Dataset.MNIST), arguments.data_dir)
    workers = [int(count) for count in arguments.workers.split(",")]
    plain: dict[int, list[float]] = {count: [] for count in workers}
    ours: dict[Dropout, list[float]] = {Dropout.MALDROP: [], Dropout.VANILLA: [], Dropout.NONE: []}
    for number in range(arguments.rounds + 1):
        for count in workers:
            plain[count].append(plain_epoch(arguments.data_dir, count))
        for dropout in ours:
            ours[dropout].append(maldrop_epoch(data, dropout))
        print(f"round {number} of {arguments.rounds} done", flush=True)
    for seconds in (*plain.values(), *ours.values()):
        del seconds[0]  # round 0 warms up

    best = min(workers, key=lambda count: statistics.median(plain[count]))
    for count in workers:
        print(f"DataLoader script, vanilla, {count} workers: {_seconds(plain[count])}")
    for dropout, seconds in ours.items():
        ratios = [mine / theirs for mine, theirs in zip(seconds, plain[best], strict=True)]
        print(
            f"maldrop, {dropout}: {_seconds(seconds)}; "
            f"{statistics.median(ratios):.2f} times the script ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch 64, one epoch of 60,000 images")


def _seconds(values: list[float]) -> str:
    return f"median {statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
