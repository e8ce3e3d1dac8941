"""The fused kernels: interpreted, compiled for the GPUs they are for, run on a GPU if there is one; and left alone."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from maldrop_cli.dropout import fused

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
