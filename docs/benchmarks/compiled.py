"""Training steps under torch.compile with its real compiler: the same losses, and one compilation for every rho?

    python docs/benchmarks/compiled.py

The paper's CNN, batch 128, random images of 32x32, eight steps with a rho of their own each. Variants that draw
from torch's global stream (vanilla) draw other numbers when compiled, so their losses differ.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import cross_entropy

from maldrop_cli.config import RunConfig
from maldrop_cli.models import Classifier, build_model, describe_head, make_optimizer
from maldrop_cli.names import Dropout, Granularity, Selector, UsageError
from maldrop_cli.render.runs import name
from maldrop_cli.render.tables import Column, Table, number, to_text

SHAPE, CLASSES, STEPS = (1, 32, 32), 10, 8
SELECTORS = (Selector.HEURISTIC, Selector.GRADIENT, Selector.SINGLE, Selector.JOINT)


@dataclass
class Outcome:
    losses: list[float]
    seconds: list[float]
    graphs: list[int]


def configs() -> list[RunConfig]:
    """Each variant with the heuristic, maldrop with the others as well, and both granularities of maldrop."""
    found = []
    for dropout in Dropout:
        for selector in SELECTORS if dropout is Dropout.MALDROP else SELECTORS[:1]:
            for granularity in Granularity if dropout is Dropout.MALDROP else (Granularity.BATCH,):
                try:
                    found.append(RunConfig(dropout=dropout, selector=selector, granularity=granularity, rho=0))
                except UsageError:
                    continue
    return found


def train(config: RunConfig, wrap: Callable[[Classifier], Callable[..., Tensor]], graphs: Callable[[], int]) -> Outcome:
    torch.manual_seed(0)
    model = build_model(config, SHAPE, CLASSES, torch.Generator().manual_seed(0))
    optimizer = make_optimizer(model, config, torch.device("cpu"))
    forward, outcome = wrap(model), Outcome([], [], [])
    data = torch.Generator().manual_seed(1)
    images, labels = torch.randn(128, *SHAPE, generator=data), torch.randint(0, CLASSES, (128,), generator=data)
    units = describe_head(config, SHAPE, CLASSES).units(config.unit)
    for step in range(STEPS):
        model.head.regulariser.rho = 2 + step % 3 if units < 16 else units // 16 + 7 * step
        begin = time.perf_counter()
        loss = cross_entropy(forward(images, labels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        outcome.seconds.append(time.perf_counter() - begin)
        outcome.losses.append(loss.item())
        outcome.graphs.append(graphs())
    return outcome


def main() -> None:
    warnings.simplefilter("ignore")
    rows = []
    for config in configs():
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("inductor")

        def compiled(model: Classifier, counter: CompileCounterWithBackend = counter) -> Callable[..., Tensor]:
            forward: Callable[..., Tensor] = torch.compile(model, backend=counter)
            return forward

        eager = train(config, lambda model: model, lambda: 0)
        fast = train(config, compiled, lambda counter=counter: counter.frame_count)  # type: ignore[misc]
        gap = max(abs(one - other) for one, other in zip(eager.losses, fast.losses, strict=True))
        rows.append((config, eager, fast, gap))
    columns = [
        Column("variant", [name(config).replace(" rho=0", "") for config, *_ in rows], left=True),
        Column(
            "graphs after 1, 2, 8 values of rho", ["/".join(str(f.graphs[k]) for k in (0, 1, 7)) for *_, f, _ in rows]
        ),
        Column("largest gap in the loss", [f"{gap:.0e}" for *_, gap in rows]),
        Column("first step s", [number(f.seconds[0], 1) for *_, f, _ in rows]),
        Column("best step, × eager", [number(min(f.seconds[2:]) / min(e.seconds), 2) for _, e, f, _ in rows]),
    ]
    print(to_text([Table(f"torch {torch.__version__}, {torch.get_num_threads()} threads", columns)], "markdown"))


if __name__ == "__main__":
    main()
