"""Several processes that train one network: two of them, by gloo on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from maldrop_cli import attach
from maldrop_cli.models import Classifier

PROCESSES, STEPS = 2, 3


def classifier(**settings: Any) -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    return attach(network, **({"rho": 2} | settings))


def batches(rank: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(rank)
    return [
        (torch.randn(5 + rank, 16, generator=generator), torch.randint(3, (5 + rank,), generator=generator))
        for _ in range(STEPS)
    ]


def train(network: Callable[..., Tensor], rank: int) -> None:
    torch.manual_seed(rank)
    for images, labels in batches(rank):
        cross_entropy(network(images, labels), labels).backward()


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor, labels: Tensor) -> Any:
        return checkpoint(self.inner, images, labels, use_reentrant=False)


CASES: dict[str, tuple[dict[str, Any], Callable[[nn.Module], nn.Module]]] = {
    "batch": ({}, DistributedDataParallel),
    "sample": ({"granularity": "sample"}, DistributedDataParallel),
    "weights": ({"dropout": "maldropconnect"}, DistributedDataParallel),
    "observed": ({"dropout": "vanilla"}, DistributedDataParallel),
    "composition": ({"dropout": "vanilla+maldrop"}, DistributedDataParallel),
    "own buffers": ({}, lambda net: DistributedDataParallel(net, forward_sync_buffers=False)),
    "checkpointed": ({}, lambda net: DistributedDataParallel(Checkpointed(net))),
    "compiled": ({}, lambda net: DistributedDataParallel(torch.compile(net, backend="aot_eager", fullgraph=True))),
    "apart": ({}, lambda net: net),
}


def work(rank: int, folder: str) -> None:
    """What each process does: trains every case, and keeps what it counted."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=PROCESSES)
    counted = {}
    for name, (settings, wrap) in CASES.items():
        trained = classifier(**settings)
        train(wrap(trained), rank)
        counted[name] = trained.head.regulariser.state_dict()
    joined = DistributedDataParallel(classifier())
    for throws in (True, False):
        with joined.join(throw_on_early_termination=throws):
            if throws:
                train(joined, rank)
            else:
                with pytest.raises(RuntimeError, match="give each process as many batches"):
                    train(joined, rank)
                break
    torch.save(counted, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """The counts of each process, by case."""
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("torch was built without gloo")
    folder: Path = tmp_path_factory.mktemp("gloo")
    spawn(work, (str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_all_processes(name: str, counted: list[dict[str, dict[str, Tensor]]]) -> None:
    """As of one process that trains on the batches of both; a network without DistributedDataParallel counts alone."""
    settings, _ = CASES[name]
    alone = []
    for rank in range(PROCESSES):
        trained = classifier(**settings)
        train(trained, rank)
        alone.append(trained.head.regulariser.state_dict())
    for rank, mine in enumerate(each[name] for each in counted):
        expected = alone[rank] if name == "apart" else {key: alone[0][key] + alone[1][key] for key in mine}
        assert {key: count.tolist() for key, count in mine.items()} == {
            key: count.tolist() for key, count in expected.items()
        }
