"""How much each selector raises the loss of a trained network, and how much any set of neurons could.

    python docs/benchmarks/loss_raised.py DATA_DIR [RHO]

The paper's CNN, one MNIST epoch without dropout (SGD 0.01, batch 64, seed 0), then the first 128 validation images,
D = 4,096, rho = 256. DATA_DIR is the folder that `maldrop --dataset mnist --data-dir` takes.
"""

import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, linear

from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.data.load import load
from maldrop_cli.dropout import SELECTORS, keep_mask, worst_set
from maldrop_cli.models import Classifier, Normalise, build_model, make_optimizer
from maldrop_cli.names import Dataset, Dropout
from maldrop_cli.render.tables import Column, Table, number, to_text

IMAGES = 128
TOO_SLOW = ("exhaustive", "greedy")


def trained(data_dir: Path) -> tuple[torch.Tensor, Classifier, torch.Tensor]:
    """hidden_ND of the images, the network after one epoch, and labels_N."""
    data = load(DataConfig(dataset=Dataset.MNIST), data_dir)
    config = RunConfig(dropout=Dropout.NONE, batch_size=64, lr=0.01, momentum=0.0)
    torch.manual_seed(0)
    model, normalise = build_model(config, data.shape, len(data.classes)), Normalise(data.mean, data.std)
    optimizer = make_optimizer(model, config, torch.device("cpu"))
    for index in torch.randperm(len(data.train.labels)).split(config.batch_size):
        optimizer.zero_grad()
        cross_entropy(model(normalise(data.train.images[index])), data.train.labels[index]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return model.backbone(normalise(data.val.images[:IMAGES])), model, data.val.labels[:IMAGES]


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    rho = int(sys.argv[2]) if len(sys.argv) == 3 else 256
    hidden, model, labels = trained(Path(sys.argv[1]))
    weight, bias = model.head.weight.detach(), model.head.bias.detach()

    def loss(hidden: torch.Tensor) -> float:
        return float(cross_entropy(linear(hidden, weight, bias), labels))

    before = loss(hidden)
    ceiling = float(worst_set(hidden, weight, labels, rho, bias_C=bias).ceiling_N.mean())
    names = [name for name in SELECTORS if name not in TOO_SLOW]
    for granularity in ("sample", "batch"):
        after, seconds = [], []
        for name in names:
            begin = time.perf_counter()
            mask = keep_mask(hidden, weight, labels, rho, bias_C=bias, selector=name, granularity=granularity)
            seconds.append(time.perf_counter() - begin)
            after.append(loss(hidden * mask))
        raised = [value - before for value in after]
        reference = raised[names.index("heuristic")]
        columns = [
            Column("selector", names, left=True),
            Column("loss after", [number(value, 3) for value in after]),
            Column("× heuristic", [number(value / reference, 2) for value in raised]),
            Column("of the ceiling %", [number(100 * value / (ceiling - before), 1) for value in raised]),
            Column("ms", [number(1000 * value, 1) for value in seconds]),
        ]
        title = (
            f"{granularity}: mean loss {before:.3f}; at most {ceiling:.3f} without {rho} of {hidden.shape[1]} neurons"
        )
        print(to_text([Table(title, columns)], "markdown") + "\n")


if __name__ == "__main__":
    main()
