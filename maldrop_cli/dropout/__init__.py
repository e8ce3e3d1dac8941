"""Malicious Dropout as a library: needs torch, and nothing else of this package."""

from maldrop_cli.dropout.layers import (
    DropoutLinear,
    MalDropLinear,
    Regulariser,
    TargetedDropout,
    VanillaDropout,
)
from maldrop_cli.dropout.schedules import SCHEDULES, Step
from maldrop_cli.dropout.selectors import SELECTORS, keep_mask, worst_set
from maldrop_cli.dropout.worst import WorstSet

__all__ = [
    "SCHEDULES",
    "SELECTORS",
    "DropoutLinear",
    "MalDropLinear",
    "Regulariser",
    "Step",
    "TargetedDropout",
    "VanillaDropout",
    "WorstSet",
    "keep_mask",
    "worst_set",
]
