"""What passes on a device's own clock, beside what the host sees."""

from __future__ import annotations

from typing import Protocol

import torch


class DeviceTimer(Protocol):
    """Two marks in the work that a device is given. It is read after the device has been synchronised."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def milliseconds(self) -> float:
        """Between the marks, the device's waiting for the host included."""
        ...


class CudaTimer:
    """A pair of CUDA events, recorded again for each sample. ``device``: a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def start(self) -> None:
        self._record(self.begin)

    def stop(self) -> None:
        self._record(self.end)

    def milliseconds(self) -> float:
        return float(self.begin.elapsed_time(self.end))

    def _record(self, event: torch.cuda.Event) -> None:
        # Without a stream it would be that of the current device, which is the first, whatever --device says.
        event.record(torch.cuda.current_stream(self.device))


def device_timer(device: torch.device) -> DeviceTimer | None:
    """None where there is nothing to measure beside the wall clock."""
    return CudaTimer(device) if device.type == "cuda" else None
