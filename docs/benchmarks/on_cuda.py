"""What the fused kernels cost on a CUDA device: the layer, training steps, and ten epochs.

    python docs/benchmarks/on_cuda.py [BATCH_SIZE ...]

The layer: forward and backward through MalDrop alone, without the affine layer, a mask for each example, beside
nn.Dropout on the same tensor, D = 4,096, rho = 256. "Eager" is from CUDA events around calls as a program makes them,
what the host takes included; "graph" replays them as a CUDA graph, so that only the device counts. Steps and epochs:
the whole network on random data in float32; the small one's step as a CUDA graph too. Interleaved rounds after a
warm-up, medians. Without CUDA it says so.
"""

import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maldrop_cli.config import RunConfig
from maldrop_cli.dropout import TargetedDropout, fused
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.models import build_model, make_optimizer
from maldrop_cli.names import CNN, VGG16, Dropout, Granularity
from maldrop_cli.render.tables import Column, Table, number, to_text
from maldrop_cli.timing.cases import Setting, training_steps
from maldrop_cli.timing.clock import measure

WIDTH, CLASSES, RHO, ROUNDS, CALLS = 4096, 10, 256, 30, 20
IMAGES, BATCH, EPOCHS = 50_000, 128, 10
LAYER_BAR, CNN_BAR, VGG_BAR, SECONDS_BAR = 1.5, 1.05, 1.01, 10.0

Call = Callable[[], object]


class Row(NamedTuple):
    """``result`` is a ratio, or seconds; ``mine`` and ``other`` are the milliseconds whose ratio it is. nan: no bar."""

    what: str
    result: float
    bar: float
    mine: float | None = None
    other: float | None = None


def milliseconds(calls: dict[str, Call]) -> dict[str, float]:
    """Of one call each: the median of ROUNDS samples of CALLS calls, in random order within each round."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    rng = random.Random(0)
    for call in calls.values():
        for _ in range(CALLS):
            call()
    for _ in range(ROUNDS):
        for name in rng.sample(list(calls), len(calls)):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            begin.record()
            for _ in range(CALLS):
                calls[name]()
            end.record()
            torch.cuda.synchronize()
            samples[name].append(begin.elapsed_time(end) / CALLS)
    return {name: statistics.median(times) for name, times in samples.items()}


def as_graph(call: Call) -> Call:
    """``call`` recorded: its kernels, without what the host does to launch them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def layer_rows(batch_size: int, dtype: torch.dtype, device: torch.device) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(batch_size, WIDTH, generator=generator).relu().to(device, dtype).requires_grad_()
    weight_CD = (torch.randn(CLASSES, WIDTH, generator=generator) / 64).to(device)
    labels_N = torch.randint(0, CLASSES, (batch_size,), generator=generator).to(device)
    grad_ND = torch.ones_like(hidden_ND)
    maldrop = TargetedDropout(WIDTH, CLASSES, rho=RHO, granularity="sample").to(device)
    dropout = nn.Dropout(0.5)

    def through(masked: Callable[[], Tensor]) -> Call:
        return lambda: torch.autograd.grad(masked(), hidden_ND, grad_ND)

    calls = {
        "maldrop": through(lambda: maldrop(LastLayer(hidden_ND, weight_CD, None, labels_N))[0]),
        "dropout": through(lambda: dropout(hidden_ND)),
    }
    rows = []
    graphs = {name: as_graph(call) for name, call in calls.items()}
    for how, timed in (("eager", calls), ("graph", graphs)):
        mine, other = milliseconds(timed).values()
        what = f"layer, {batch_size} x {WIDTH}, {str(dtype).removeprefix('torch.')}, {how}: × nn.Dropout"
        rows.append(Row(what, mine / other, LAYER_BAR, mine, other))
    return rows


def step_row(model: str, side: int, granularity: Granularity, bar: float, device: torch.device) -> Row:
    """A training step with MalDrop beside one without dropout: the median of the rounds' ratios."""
    batch_size = BATCH if model == CNN else BATCH // 2
    configs = [
        RunConfig(model=model, batch_size=batch_size, rho=0, dropout=Dropout.NONE),
        RunConfig(model=model, batch_size=batch_size, rho=RHO, granularity=granularity),
    ]
    setting = Setting((3, side, side), CLASSES, device)
    none, maldrop = measure(training_steps(configs, setting), device, ["none"], rounds=ROUNDS)
    ratio = statistics.median(one / other for one, other in zip(maldrop.seconds, none.seconds, strict=True))
    what = f"step, {model}, batch {batch_size}, {side}x{side}, {granularity}: × none"
    return Row(what, ratio, bar, maldrop.median_ms, none.median_ms)


def graph_rows(granularity: Granularity, device: torch.device) -> list[Row]:
    """The small network's whole step replayed as a CUDA graph, beside the step as a program makes it: whether graphs
    would pay. A step that can't be recorded is a row that says why."""
    configs = [
        RunConfig(batch_size=BATCH, rho=0, dropout=Dropout.NONE),
        RunConfig(batch_size=BATCH, rho=RHO, granularity=granularity),
    ]
    rows = []
    for name, step in training_steps(configs, Setting((3, 32, 32), CLASSES, device)).items():
        what = f"step, cnn, batch {BATCH}, 32x32, {granularity}, {name}: graph × eager"
        try:
            eager, graph = milliseconds({"eager": step, "graph": as_graph(step)}).values()
        except RuntimeError as error:
            rows.append(Row(f"{what}: not recorded, {str(error).splitlines()[0]}", math.nan, math.nan))
            continue
        rows.append(Row(what, graph / eager, math.nan, graph, eager))
    return rows


def epochs_row(device: torch.device) -> Row:
    """As many random images as CIFAR-10 has, on the device, in a new order in each epoch."""
    config = RunConfig(batch_size=BATCH, rho=RHO)
    torch.manual_seed(0)
    model = build_model(config, (3, 32, 32), CLASSES).to(device).train()
    optimizer = make_optimizer(model, config, device)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.randint(0, CLASSES, (IMAGES,), device=device)

    def train(batches: int | None = None) -> None:
        for index in torch.randperm(IMAGES, device=device).split(BATCH)[:batches]:
            loss = F.cross_entropy(model(images[index].float().div_(255), labels[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    train(20)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(EPOCHS):
        train()
    torch.cuda.synchronize()
    return Row(
        f"{EPOCHS} epochs, cnn, batch {BATCH}, {IMAGES} images: seconds", time.perf_counter() - begin, SECONDS_BAR
    )


def main() -> None:
    if not torch.cuda.is_available():
        print("No CUDA device: nothing was measured.")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    if not fused.applies("drop_highest", torch.empty(1, device=device), torch.empty(1, device=device)):
        print("No fused kernels (no Triton, an older device, or MALDROP_FUSED=0): this is the eager code.\n")
    rows = []
    for batch_size in [int(text) for text in sys.argv[1:]] or [128, 4096]:
        for dtype in (torch.float32, torch.bfloat16):
            rows += layer_rows(batch_size, dtype, device)
    for granularity in Granularity:
        rows.append(step_row(CNN, 32, granularity, CNN_BAR, device))
        rows.append(step_row(VGG16, 224, granularity, VGG_BAR, device))
        rows += graph_rows(granularity, device)
    rows.append(epochs_row(device))
    columns = [
        Column("what", [row.what for row in rows], left=True),
        Column("maldrop ms", [number(row.mine, 4) for row in rows]),
        Column("other ms", [number(row.other, 4) for row in rows]),
        Column("result", [number(row.result, 3) for row in rows]),
        Column("at most", [number(row.bar, 2) for row in rows]),
        Column("reached", ["" if math.isnan(row.bar) else "yes" if row.result <= row.bar else "no" for row in rows]),
    ]
    print(to_text([Table(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}", columns)], "markdown"))


if __name__ == "__main__":
    main()
