"""The fused kernels: interpreted, compiled for the GPUs they are for, run on a GPU if there is one; and left alone."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from maldrop_cli import dropout
from maldrop_cli.dropout import MalDropLinear, fused, keep_mask

TESTS = Path(__file__).parent
LINUX_WITH_TRITON = pytest.mark.skipif(sys.platform != "linux", reason="Triton comes with torch on Linux only")


def python(*arguments: str, **environment: str) -> str:
    """What Python prints, in a process that knows nothing of Triton but what ``environment`` says."""
    clean = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "MALDROP_FUSED")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=TESTS.parent,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@LINUX_WITH_TRITON
@pytest.mark.parametrize("where", ["interpreter", "cuda"])
def test_kernels_against_eager_code(where: str) -> None:
    pytest.importorskip("triton")
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    kernels = str(TESTS / "fused_kernels.py")
    out = python("-m", "pytest", "-q", "-p", "no:cacheprovider", kernels, TRITON_INTERPRET=str(int(where != "cuda")))
    assert " passed" in out
    assert " skipped" not in out


MEANT_FOR = [80, 90]  # compute capabilities: A100, H100


@LINUX_WITH_TRITON
@pytest.mark.skipif(fused.INTERPRETED, reason="Triton interprets in this process, and compiles nothing")
@pytest.mark.parametrize("capability", MEANT_FOR)
def test_kernels_compile_without_a_gpu(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To machine code, with what assembling it finds wrong; the scalars' values are not compiled in."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from maldrop_cli.dropout.triton_kernels import LINEAR_TILE, SINGLE_TILE, drop_kernel, linear_kernel, single_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    integers, floats = ("labels_ptr", "drops_ptr"), ("right", "other")

    def compiled(kernel: Any, hidden: str, warps: int, **constants: Any) -> Any:
        def type_of(name: str) -> str:
            if name in constants:
                return "constexpr"
            if name.endswith("_ptr"):
                element = "i64" if name in integers else "i1" if name == "drop_ptr" else "fp32"
                return "*" + (hidden if name in ("hidden_ptr", "masked_ptr") else element)
            return "fp32" if name in floats else "i32"

        names = kernel.arg_names
        source = ASTSource(
            kernel,
            {name: type_of(name) for name in names},
            {(names.index(name),): value for name, value in constants.items()},
        )
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})

    for built in (
        compiled(drop_kernel, "bf16", 16, LINEAR=True, BLOCK=4096),
        compiled(drop_kernel, "fp32", 32, LINEAR=False, BLOCK=fused.MAX_WIDTH, weight_ptr=None, labels_ptr=None),
        compiled(linear_kernel, "bf16", 4, **LINEAR_TILE),
        compiled(single_kernel, "fp16", 4, PER_SAMPLE=True, **SINGLE_TILE),
        compiled(single_kernel, "fp32", 4, PER_SAMPLE=False, **SINGLE_TILE),
    ):
        assert f".target sm_{capability}" in built.asm["ptx"]
        assert built.asm["cubin"]


TRAIN = """
import sys, torch
from maldrop_cli import MalDropLinear
for granularity in ("batch", "sample"):
    for selector in ("heuristic", "single"):
        layer = MalDropLinear(6, 3, rho=2, granularity=granularity, selector=selector)
        layer(torch.rand(4, 6), torch.arange(4) % 3).sum().backward()
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_on_the_cpu_the_eager_code_runs_and_triton_is_not_imported() -> None:
    assert "triton" not in python("-c", TRAIN).split()


@LINUX_WITH_TRITON
def test_maldrop_fused_0_turns_them_off() -> None:
    pytest.importorskip("triton")
    assert "triton" in python("-c", TRAIN, TRITON_INTERPRET="1").split()
    assert "triton" not in python("-c", TRAIN, TRITON_INTERPRET="1", MALDROP_FUSED="0").split()


@pytest.mark.parametrize(("has_triton", "major", "expected"), [(True, 8, True), (True, 7, False), (False, 9, False)])
def test_cuda_without_triton_or_too_old_for_it_is_eager(
    has_triton: bool, major: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "HAS_TRITON", has_triton)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
    assert fused._run_on(torch.device("cuda:0")) is expected


class Kernels:
    """Stand in for triton_kernels.py: right, or with a ``fault``, "raises" or "differs"."""

    def __init__(self, fault: str) -> None:
        self.fault, self.calls = fault, 0

    def called(self, result: Tensor) -> Tensor:
        self.calls += 1
        if self.fault == "raises":
            raise RuntimeError("out of resource:\n shared memory")
        return result.flip(-1) if self.fault == "differs" else result

    def linear_score(self, hidden: Tensor, weight: Tensor, labels: Tensor, total: Tensor, *factors: float) -> Tensor:
        right, other = factors
        return self.called((hidden * (right * weight[labels] - other * total)).sum(0))

    def single_score(self, hidden: Tensor, weight: Tensor, logp: Tensor, labels: Tensor, per_sample: bool) -> Tensor:
        score = (logp[:, None] - hidden[:, :, None] * weight.T).logsumexp(2) + hidden * weight[labels]
        return self.called(score if per_sample else score.sum(0))

    def drop_highest(self, hidden: Tensor, source: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        weight, labels, right, other, rho, drops = others
        score = source if weight is None else hidden * (right * weight[labels] - other * source)
        drop = torch.zeros_like(hidden, dtype=torch.bool).scatter_(1, self.called(score).topk(rho).indices, True)
        drops += drop.sum(0)
        return hidden.masked_fill(drop, 0.0), drop


@pytest.fixture
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    """In the place of Triton's on the CPU, and not used before."""
    stand_in = Kernels(request.param)
    monkeypatch.setitem(sys.modules, "maldrop_cli.dropout.triton_kernels", stand_in)
    monkeypatch.setattr(dropout, "triton_kernels", stand_in, raising=False)
    for name, value in {"ENABLED": True, "INTERPRETED": True, "INSISTS": False, "_found_right": {}}.items():
        monkeypatch.setattr(fused, name, value)
    return stand_in


HIDDEN, WEIGHT = (torch.randn(size, 40, generator=torch.Generator().manual_seed(size)) for size in (6, 3))
USED_BY = [("heuristic", "batch", "linear_score"), ("single", "batch", "single_score")]
USED_BY += [("single", "sample", "single_score"), ("heuristic", "sample", "drop_highest")]
USED_BY += [("magnitude", "sample", "drop_highest")]


def mask(selector: str, granularity: str, dtype: torch.dtype = torch.float32) -> Tensor:
    labels = torch.arange(6) % 3
    return keep_mask(HIDDEN.to(dtype), WEIGHT.to(dtype), labels, 7, selector=selector, granularity=granularity)


@pytest.mark.parametrize("kernels", ["", "raises", "differs"], indirect=True)
@pytest.mark.parametrize(("selector", "granularity", "name"), USED_BY)
def test_a_kernel_is_checked_at_its_first_use(kernels: Kernels, selector: str, granularity: str, name: str) -> None:
    """If it fails there is one warning, and the eager code from then on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = mask(selector, granularity)
        before = kernels.calls
        again = mask(selector, granularity)
    expected = mask(selector, granularity, torch.float64)  # no kernel takes it
    assert torch.equal(found, expected)
    assert torch.equal(again, expected)
    assert before > 0
    assert (kernels.calls > before) is (kernels.fault == "")
    messages = [str(warning.message) for warning in caught if f"the fused kernel {name}" in str(warning.message)]
    assert len(messages) == bool(kernels.fault)
    for message in messages:
        assert "fails: RuntimeError: out of resource: shared memory" in message or "gives other numbers" in message
        assert "; eager code takes its place on cpu for float32 (MALDROP_FUSED=0" in message
    state = torch.get_rng_state()
    fused._found_right.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mask(selector, granularity)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kernels", ["raises"], indirect=True)
def test_maldrop_fused_1_insists(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "INSISTS", True)
    with pytest.raises(RuntimeError, match="out of resource"):
        mask("heuristic", "batch")
    flags = "from maldrop_cli.dropout import fused; print(fused.ENABLED, fused.INSISTS)"
    for value, expected in {"1": "True True", "0": "False False", "": "True False"}.items():
        assert python("-c", flags, MALDROP_FUSED=value).strip() == expected


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("kernels", ["", "raises"], indirect=True)
def test_compiled_code_checks_a_kernel_when_it_is_compiled(kernels: Kernels, granularity: str) -> None:
    torch._dynamo.reset()
    layer, labels = MalDropLinear(40, 3, rho=7, granularity=granularity), torch.arange(6) % 3
    layer.requires_grad_(False)
    expected = linear(HIDDEN * keep_mask(HIDDEN.double(), layer.weight.double(), labels, 7, granularity=granularity),
                      layer.weight, layer.bias)  # fmt: skip
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            torch.testing.assert_close(compiled(HIDDEN, labels), expected)
    assert any("eager code takes its place" in str(each.message) for each in caught) is bool(kernels.fault)
    assert (kernels.calls > 2) is (kernels.fault == "")
