"""How close choosing neurons comes to what this machine can do at all.

    python docs/benchmarks/ceilings.py [--seconds 1]

First the ceilings, by torch.utils.benchmark: memory, float32 arithmetic, exponentials, top-k, random numbers. Then, for
each selector, what it can't do without, the time that this takes at each ceiling, and the time that scoring, selecting,
masking and counting take, at N = 128, D = 4,096, C = 10, rho = 256, without gradients. --seconds for each line.

Least bytes: hidden (4 N D) and weight (4 C D) are read once, and what is masked is written once: the weight, with one
mask a batch, else hidden; both are in the cache, as they are after a forward pass. Least flops: `needs`. An exponential
and a logarithm count alike. `joint`: its starts alone, as how far it ascends depends on what it finds.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from maldrop_cli.analysis.stats import ratio_interval
from maldrop_cli.dropout import TargetedDropout
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.machine import environment
from maldrop_cli.names import Granularity
from maldrop_cli.record import describe_machine
from maldrop_cli.render.tables import Column, Table, number, to_text, with_interval

N, D, C, RHO = 128, 4096, 10, 256
LARGE, SIDE = 2**26, 2048  # numbers, far beyond every cache; rows of a square matrix
SELECTORS = ("heuristic", "gradient", "single", "joint", "random")


class Needs(NamedTuple):
    """What a selector can't do without. ``top``: numbers that the rho largest of each row are chosen from."""

    bytes: int
    flops: int = 0
    exps: int = 0
    top: int = 0
    draws: int = 0


def needs(selector: str, per_sample: bool) -> Needs:
    hidden, weight = 4 * N * D, 4 * C * D
    memory = 2 * hidden + weight if per_sample else hidden + 2 * weight
    rows = N if per_sample else 1
    logits = 2 * N * C * D
    match selector:
        case "heuristic":  # W_yj - omega sum_k W_kj for each class; then h_j times that, or the sums of h_j by class
            return Needs(memory, N * D + 4 * C * D, 0, rows * D)
        case "single" if not per_sample:  # as `gradient`, which is a bound; what that leaves undecided is not counted
            return Needs(memory, 2 * logits + rows * D, 0, rows * D)
        case "gradient":  # the logits, and (onehot - p) W or its transpose times h
            return Needs(memory, 2 * logits + rows * D, 0, rows * D)
        case "single":  # the logits, and z_k - h_j W_kj, summed over k
            return Needs(memory, logits + 3 * N * C * D, N * D * (C + 1), rows * D)
        case "joint" if per_sample:  # V(p) and the loss of softmax and of C - 1 vertices
            return Needs(memory, C * 2 * logits, 0, C * rows * D)
        case "joint":  # V(p) of softmax and of the right classes; the loss without each of C + 3 sets of rho neurons
            return Needs(memory, 3 * logits + (C + 3) * 2 * N * C * RHO, 0, (C + 3) * D)
        case _:
            return Needs(memory - (0 if per_sample else hidden), 0, 0, rows * D, rows * D)


class Ceiling(NamedTuple):
    """``amount`` of ``what`` is done by one execution of ``statement``; ``of``: the field of Needs that it bounds."""

    what: str
    unit: str
    amount: int
    statement: str
    names: dict[str, Tensor]
    of: str = ""


def ceilings() -> list[Ceiling]:
    large = {"x": torch.rand(LARGE), "y": torch.empty(LARGE)}
    hidden = {"x": torch.randn(N, D).relu(), "y": torch.empty(N, D)}
    square = {"x": torch.rand(SIDE, SIDE), "y": torch.empty(SIDE, SIDE)}
    top = f"x.topk({RHO}, sorted=False)"
    return [
        Ceiling("read, 256 MiB", "GB", 4 * LARGE, "x.sum()", large),
        Ceiling("read and write, 256 MiB", "GB", 8 * LARGE, "y.copy_(x)", large),
        Ceiling("read, 2 MiB, as hidden", "GB", 4 * N * D, "x.sum()", hidden, "bytes"),
        Ceiling("read and write, 2 MiB", "GB", 8 * N * D, "y.copy_(x)", hidden),
        Ceiling("float32 matrix product", "Gflop", 2 * SIDE**3, "torch.mm(x, x, out=y)", square, "flops"),
        Ceiling("exponentials", "10⁹", N * D, "torch.exp(x, out=y)", hidden, "exps"),
        Ceiling(f"top {RHO} of {D}, {N} rows", "10⁹", N * D, top, hidden, "top"),
        Ceiling(f"top {RHO} of {D}, one row", "10⁹", D, top, {"x": hidden["x"][0]}),
        Ceiling("Bernoulli draws", "10⁹", N * D, "y.bernoulli_(0.5)", hidden),
        Ceiling("uniform draws", "10⁹", N * D, "y.uniform_()", hidden, "draws"),
    ]


def seconds(statement: str, names: Mapping[str, object], least: float) -> tuple[float, float, float]:
    """Of one execution, on all of maldrop's threads: the median and its 95 % interval."""
    timer = Timer(statement, globals={"torch": torch, **names}, num_threads=torch.get_num_threads())
    times = timer.blocked_autorange(min_run_time=least).times
    return ratio_interval(times, [1.0] * len(times))


def ceiling_table(found: Sequence[tuple[Ceiling, tuple[float, float, float]]]) -> Table:
    rates = [[each.amount / 1e9 / took for took in (times[0], times[2], times[1])] for each, times in found]
    columns = [
        Column("ceiling", [each.what for each, _ in found], left=True),
        Column("statement", [f"`{each.statement}`" for each, _ in found], left=True),
        Column("a second", [with_interval(*rate) for rate in rates]),
        Column("unit", [each.unit for each, _ in found], left=True),
    ]
    machine = describe_machine(environment(torch.device("cpu")))
    return Table(f"Ceilings, medians and 95 % intervals; {machine}", columns)


def selector_table(rates: Mapping[str, float], least: float) -> Table:
    """``rates``: by field of Needs, how much of it this machine does in a second."""
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(N, D, generator=generator).relu()
    weight_CD = torch.randn(C, D, generator=generator) / D**0.5
    layer = LastLayer(hidden_ND, weight_CD, None, torch.randint(0, C, (N,), generator=generator))
    rows = []
    for selector, granularity in itertools.product(SELECTORS, Granularity):
        wanted = needs(selector, granularity is Granularity.SAMPLE)
        floors = {field: 1000 * amount / rates[field] for field, amount in wanted._asdict().items()}
        drop = TargetedDropout(D, C, rho=RHO, selector=selector, granularity=granularity).train()
        with torch.no_grad():
            took = [1000 * each for each in seconds("drop(layer)", {"drop": drop, "layer": layer}, least)]
        roof, most = max(floors["bytes"], floors["flops"]), max(floors, key=floors.__getitem__)
        rows.append(
            [
                f"{selector}, {granularity}",
                number(wanted.bytes / 1e6, 2),
                number(wanted.flops / 1e6, 1),
                *(number(floors[field], 3) if getattr(wanted, field) else "–" for field in Needs._fields),
                with_interval(*took),
                number(took[0] / roof, 1),
                f"{took[0] / floors[most]:.1f} ({most})",
            ]
        )
    headings = ["selector, granularity", "MB", "Mflop", *(f"{field} ms" for field in Needs._fields)]
    headings += ["measured ms", "× bytes or flops", "× the largest"]
    columns = [
        Column(heading, cells, left=heading == headings[0])
        for heading, cells in zip(headings, zip(*rows, strict=True), strict=True)
    ]
    notes = ["Milliseconds at the ceiling for each need, and measured; the last two: measured by the larger floor."]
    return Table("Selectors beside the ceilings", columns, notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    least = parser.parse_args().seconds
    found = [(each, seconds(each.statement, each.names, least)) for each in ceilings()]
    rates = {each.of: each.amount / times[0] for each, times in found}
    print(to_text([ceiling_table(found), selector_table(rates, least)], "markdown"))


if __name__ == "__main__":
    main()
