"""Where runs are trained: devices, threads, random streams, and the versions and machine that a record names."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from maldrop_cli.names import UsageError


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device if there is one, else the CPU. UsageError lists those present."""
    present = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if name == "auto":
        name = "cuda:0" if "cuda:0" in present else "cpu"
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in present:
        raise UsageError("device", f"there is no {name!r} on this machine (there are: auto, {', '.join(present)})")
    return torch.device(wanted)


def use_machine(device: str, threads: int | None) -> torch.device:
    """Use so many CPU threads (None: torch's default) and find the device; UsageError when it is not there."""
    if threads is not None:
        torch.set_num_threads(threads)
    return resolve_device(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's global random streams: the CPU's, and that of ``device`` where it has one of its own."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(*_index(device))
    return states


def set_random_state(device: torch.device, states: dict[str, torch.Tensor]) -> None:
    """Restore what :func:`random_state` gave, on a device of the same type."""
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type], *_index(device))


def _index(device: torch.device) -> tuple[torch.device, ...]:
    """Which device a random stream is of, where its module asks: there may be several with CUDA."""
    return (device,) if device.type == "cuda" else ()


def environment(device: torch.device, workers: int = 1) -> dict[str, Any]:
    """Where a run is trained: versions, machine, device, threads, concurrent runs, time of day."""
    packages = ("maldrop-cli", "torch", "torchvision", "numpy")
    versions = {package.partition("-")[0]: _version(package) for package in packages}
    return {
        **versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "workers": workers,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu_name() -> str:
    """The processor's model where Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
