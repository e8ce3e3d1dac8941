"""The devices of this machine."""

from __future__ import annotations

import torch

from maldrop_cli.config import UsageError


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device if there is one, else the CPU. UsageError lists those present."""
    present = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if name == "auto":
        return torch.device("cuda:0" if "cuda:0" in present else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is not None and device.type == "cuda" and device.index is None:
        device = torch.device("cuda:0")
    if device is None or str(device) not in present:
        raise UsageError("device", f"there is no {name!r} on this machine (there are: auto, {', '.join(present)})")
    return device


def device_name(device: torch.device) -> str:
    """The model of a CUDA device; of another its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def prepare(device: str, threads: int | None) -> torch.device:
    """Use so many CPU threads (None: torch's default) and find the device; UsageError when it is not there."""
    if threads is not None:
        torch.set_num_threads(threads)
    return resolve_device(device)


def threads() -> int:
    """CPU threads that torch uses."""
    return torch.get_num_threads()


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's global random streams: the CPU's, and that of ``device`` where it has one of its own."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(device: torch.device, states: dict[str, torch.Tensor]) -> None:
    """Put them back as :func:`random_state` gave them, on a device of the same type."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["mps"])
