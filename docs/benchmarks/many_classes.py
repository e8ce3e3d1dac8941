"""What scoring, selecting and masking cost with many classes, without the linear layer.

    python docs/benchmarks/many_classes.py [CLASSES ...]

Selector heuristic, batch 128, D = 4,096, rho = 256, interleaved rounds; the ratio is to the first number of classes.
Memory: the most that is held beyond the inputs, the masked array included, in arrays of N x D.
"""

import statistics
import sys

import torch
from torch import Tensor

from maldrop_cli.dropout.scores import LastLayer, Options
from maldrop_cli.dropout.selectors import SELECTORS
from maldrop_cli.render.tables import Column, Table, number, to_text
from maldrop_cli.timing.clock import Step, measure, peak_mib

EXAMPLES, WIDTH, RHO, ROUNDS = 128, 4096, 256, 40


def layer(classes: int) -> LastLayer:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(EXAMPLES, WIDTH, generator=generator).relu()
    weight = torch.randn(classes, WIDTH, generator=generator) / 64
    return LastLayer(hidden, weight, None, torch.randint(0, classes, (EXAMPLES,), generator=generator))


def masked(inputs: LastLayer, per_sample: bool) -> Tensor:
    drop = SELECTORS["heuristic"](inputs, RHO, Options(1 / (WIDTH - 1), per_sample))
    if per_sample:
        return inputs.hidden_ND.scatter(1, drop, 0.0)
    if len(inputs.weight_CD) <= EXAMPLES:
        return inputs.weight_CD.index_fill(1, drop, 0.0)
    return inputs.hidden_ND.index_fill(1, drop, 0.0)


def main() -> None:
    many = [int(text) for text in sys.argv[1:]] or [10, 100, 1000]
    cpu, array = torch.device("cpu"), 4 * EXAMPLES * WIDTH / 2**20
    for granularity in ("sample", "batch"):
        cases: dict[str, Step] = {}
        for classes in many:
            inputs = layer(classes)

            def step(inputs: LastLayer = inputs, per_sample: bool = granularity == "sample") -> None:
                masked(inputs, per_sample)

            cases[str(classes)] = step
        measured = measure(cases, cpu, list(cases)[:1], rounds=ROUNDS)
        first = measured[0].seconds
        ratios = [statistics.median(a / b for a, b in zip(each.seconds, first, strict=True)) for each in measured]
        columns = [
            Column("classes", list(cases)),
            Column("median ms", [number(each.median_ms, 2) for each in measured]),
            Column(f"× {measured[0].name}", [number(ratio, 2) for ratio in ratios]),
            Column("arrays of N x D", [number(peak_mib(step, cpu) / array, 1) for step in cases.values()]),
        ]
        print(to_text([Table(f"{granularity}, {torch.get_num_threads()} threads", columns)], "markdown") + "\n")


if __name__ == "__main__":
    main()
