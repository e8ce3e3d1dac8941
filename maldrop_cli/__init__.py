"""maldrop: benchmarks of Malicious Dropout, and the layer itself.

``MalDropLinear``, a drop-in for ``nn.Dropout`` and the last ``nn.Linear``, ``attach``, which puts a dropout variant
into a network that is there already, and ``labels``, for networks whose forward takes none, are imported on first use,
so that ``maldrop --help`` does not pay for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maldrop_cli.dropout import MalDropLinear as MalDropLinear
    from maldrop_cli.dropout import labels as labels
    from maldrop_cli.models.attach import attach as attach

__version__ = "0.1.0"
__all__ = ["MalDropLinear", "__version__", "attach", "labels"]


def __getattr__(name: str) -> Any:
    if name in ("MalDropLinear", "labels"):
        from maldrop_cli import dropout

        return getattr(dropout, name)
    if name == "attach":
        from maldrop_cli.models.attach import attach

        return attach
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
