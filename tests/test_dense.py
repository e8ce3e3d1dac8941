"""The dense form of docs/benchmarks/dense.py, against which maldrop is timed, drops the same neurons."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from maldrop_cli.dropout import keep_mask
from maldrop_cli.dropout.scores import LastLayer

SCRIPT = Path(__file__).parents[1] / "docs" / "benchmarks" / "dense.py"
EXAMPLES, WIDTH, CLASSES, RHO = 16, 60, 5, 7


@pytest.fixture(scope="module")
def dense() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dense", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("selector", ["heuristic", "gradient", "single", "joint"])
def test_the_dense_form_drops_the_same_neurons(dense: ModuleType, selector: str, granularity: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(EXAMPLES, WIDTH, generator=generator, dtype=torch.float64)  # no ReLU: no equal scores
    weight = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64)
    bias = torch.randn(CLASSES, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (EXAMPLES,), generator=generator)
    keep = keep_mask(hidden, weight, labels, RHO, bias_C=bias, selector=selector, granularity=granularity)
    for classes_last in (False, True):
        twin = dense.Dense(selector, granularity == "sample", RHO, classes_last)
        after, same_weight = twin(LastLayer(hidden, weight, bias, labels))
        assert torch.equal(after, hidden * keep)
        assert same_weight is weight
