"""What was timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from maldrop_cli.results.stats import ratio_interval


@dataclass(frozen=True)
class Timing:
    """One subject. ``samples``: seconds a step. ``agreement``: of a naive form with its fast one, in percent."""

    subject: str
    samples: Sequence[float]
    peak_mib: float
    agreement: float | None = None

    @property
    def median_ms(self) -> float:
        return 1000 * median(self.samples)

    @property
    def iqr_ms(self) -> float:
        low, high = np.percentile(self.samples, [25, 75])
        return float(1000 * (high - low))

    def ratio_to(self, reference: Timing) -> tuple[float, float, float]:
        """Median ratio of the samples of the same round, and its 95 % interval."""
        return ratio_interval(self.samples, reference.samples)
