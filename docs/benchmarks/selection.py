"""Ways to choose the rho highest scores of each row on a CPU.

    python docs/benchmarks/selection.py [--rounds 60]

A mask of N = 128 rows of D = 4,096 numbers that drops the highest rho of each, for several rho: torch's topk, which
maldrop uses, beside what else torch and NumPy offer. Scores without ties, and, as after a ReLU, half of them 0; there
those that compare with a threshold may drop another number of neurons than rho, which would have to be mended.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from maldrop_cli.analysis.stats import ratio_interval
from maldrop_cli.render.tables import Column, Table, to_text, with_interval
from maldrop_cli.timing.clock import measure

N, D = 128, 4096


def topk(scores_ND: Tensor, rho: int) -> Tensor:
    return without(scores_ND, scores_ND.topk(rho, sorted=False).indices)


def sort(scores_ND: Tensor, rho: int) -> Tensor:
    return without(scores_ND, scores_ND.sort(descending=True).indices[:, :rho])


def kthvalue(scores_ND: Tensor, rho: int) -> Tensor:
    return (scores_ND < scores_ND.kthvalue(D - rho + 1, keepdim=True).values).float()


def partition(scores_ND: Tensor, rho: int) -> Tensor:
    threshold_N1 = np.partition(scores_ND.numpy(), D - rho, axis=1)[:, D - rho, None]
    return (scores_ND < torch.from_numpy(threshold_N1)).float()


def argpartition(scores_ND: Tensor, rho: int) -> Tensor:
    drop_NR = np.argpartition(scores_ND.numpy(), D - rho, axis=1)[:, D - rho :]
    return without(scores_ND, torch.from_numpy(drop_NR))


def without(scores_ND: Tensor, drop_NR: Tensor) -> Tensor:
    return torch.ones_like(scores_ND).scatter_(1, drop_NR, 0.0)


WAYS: tuple[Callable[[Tensor, int], Tensor], ...] = (topk, kthvalue, partition, argpartition, sort)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    generator = torch.Generator().manual_seed(0)
    normal_ND = torch.randn(N, D, generator=generator)
    rows = []
    for what, scores_ND in (("distinct", normal_ND), ("half of them 0", normal_ND.relu())):
        for rho in (16, 256, 1024):
            if what == "distinct":
                assert all(torch.equal(way(scores_ND, rho), topk(scores_ND, rho)) for way in WAYS)
            calls = {way.__name__: partial(way, scores_ND, rho) for way in WAYS}
            first, *others = measure(calls, torch.device("cpu"), ["topk"], rounds=rounds)
            ratios = [with_interval(*ratio_interval(other.seconds, first.seconds)) for other in others]
            rows.append([what, str(rho), f"{first.median_ms:.2f}", *ratios])
    headings = ["scores", "rho", "topk ms", *(f"{way.__name__}, × topk" for way in WAYS[1:])]
    columns = [
        Column(heading, cells, left=heading == "scores")
        for heading, cells in zip(headings, zip(*rows, strict=True), strict=True)
    ]
    print(
        to_text(
            [Table(f"Highest rho of {N} x {D}, {torch.get_num_threads()} threads, torch {torch.__version__}", columns)],
            "markdown",
        )
    )


if __name__ == "__main__":
    main()
