"""Malicious Dropout as a library: needs torch, and nothing else of this package."""

from maldrop_cli.dropout.layers import DropoutLinear, MalDropLinear, labels
from maldrop_cli.dropout.regularisers import (
    Composition,
    CountedDropout,
    DropConnect,
    MalDropConnect,
    NestedDropout,
    Regulariser,
    SpatialDropout,
    TargetedDropout,
    VanillaDropout,
)
from maldrop_cli.dropout.schedules import SCHEDULES, Step
from maldrop_cli.dropout.selectors import SELECTORS, keep_mask, worst_set
from maldrop_cli.dropout.worst import WorstSet

__all__ = [
    "SCHEDULES",
    "SELECTORS",
    "Composition",
    "CountedDropout",
    "DropConnect",
    "DropoutLinear",
    "MalDropConnect",
    "MalDropLinear",
    "NestedDropout",
    "Regulariser",
    "SpatialDropout",
    "Step",
    "TargetedDropout",
    "VanillaDropout",
    "WorstSet",
    "keep_mask",
    "labels",
    "worst_set",
]
