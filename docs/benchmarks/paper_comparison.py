"""The paper's accuracies (sections 5.1 and 5.2) beside those of stored runs, as Markdown.

    python docs/benchmarks/paper_comparison.py mnist RUNS_DIR
    python docs/benchmarks/paper_comparison.py cifar10 RUNS_DIR

RUNS_DIR is the `--out` folder of a `maldrop compare --preset paper`; docs/results.md has the commands.
"""

import sys
from pathlib import Path

from maldrop_cli.analysis.arms import Arm, group
from maldrop_cli.names import Dropout
from maldrop_cli.render.runs import name
from maldrop_cli.render.tables import Column, Table, number, plus_minus, to_text
from maldrop_cli.runs.store import Store

# Top-1 in percent by epoch. MNIST: the table of section 5.1. CIFAR-10: the text of section 5.2.
PAPER: dict[str, dict[Dropout, dict[int, float]]] = {
    "mnist": {
        Dropout.NONE: {1: 91.63, 5: 97.31, 10: 97.91},
        Dropout.VANILLA: {1: 91.57, 5: 96.95, 10: 97.81},
        Dropout.MALDROP: {1: 91.04, 5: 94.83, 10: 97.46},
    },
    "cifar10": {Dropout.NONE: {10: 52.5}, Dropout.VANILLA: {10: 54.4}, Dropout.MALDROP: {10: 54.5}},
}


def table(which: str, arms: list[Arm]) -> Table:
    """For each epoch that the paper reports: its accuracy, ours with the 95 % interval, and the difference."""
    paper = PAPER[which]
    columns = [Column("dropout", [name(arm.config) for arm in arms], left=True)]
    for epoch in sorted({epoch for values in paper.values() for epoch in values}):
        theirs = [paper.get(arm.config.dropout, {}).get(epoch) for arm in arms]
        ours = [arm.metric("val_top1", epoch) for arm in arms]
        gaps = [None if their is None else our.mean - their for our, their in zip(ours, theirs, strict=True)]
        columns += [
            Column(f"paper @{epoch}", [number(their, 2) for their in theirs]),
            Column(f"ours @{epoch}", [plus_minus(our.mean, our.half, 2) for our in ours]),
            Column("gap", [number(gap, 2, sign=True) for gap in gaps]),
        ]
    return Table(f"Top-1 %, {which}: the paper and {max(len(arm.done) for arm in arms)} seeds of ours", columns)


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in PAPER:
        sys.exit(__doc__)
    arms = group(Store(Path(sys.argv[2])).scan())
    order = list(Dropout)
    arms.sort(key=lambda arm: order.index(arm.config.dropout))
    print(to_text([table(sys.argv[1], arms)], "markdown"))


if __name__ == "__main__":
    main()
