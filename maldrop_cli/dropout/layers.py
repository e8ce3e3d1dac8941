"""The last affine layer with a regulariser in front: the place where every dropout variant acts."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from maldrop_cli.dropout.regularisers import Regulariser, TargetedDropout
from maldrop_cli.dropout.scores import LastLayer

_labels: ContextVar[Tensor | None] = ContextVar("labels", default=None)


@contextmanager
def labels(labels_N: Tensor) -> Iterator[None]:
    """For networks whose forward takes no labels: each layer called within, in training mode and without labels of its
    own, takes ``labels_N``. It nests, and holds for this thread alone, until its end: activation checkpointing, which
    calls layers again later, and ``nn.DataParallel``, which calls them in other threads, need labels as an argument.

    Example:
        >>> network = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), MalDropLinear(4, 2, rho=1))
        >>> with labels(torch.tensor([0, 1, 1])):
        ...     logits_NC = network(torch.rand(3, 8))
    """
    token = _labels.set(labels_N)
    try:
        yield
    finally:
        _labels.reset(token)


def _sum_over_processes(counts: list[Tensor], before: list[Tensor]) -> None:
    """Adds to ``counts``, which were ``before`` this forward pass, what the other processes have counted in theirs, if
    DistributedDataParallel makes it: all processes make it together then, and those of one alone may train apart.
    Outside of it, activation checkpointing makes a pass again, whose counts were summed the first time."""
    ddp = DistributedDataParallel._active_ddp_module
    if ddp is not None:
        if ddp._join_config.enable and not ddp._join_config.throw_on_early_termination:
            raise RuntimeError(
                "what is dropped is summed over all processes, which DistributedDataParallel.join() does not wait for: "
                "use join(throw_on_early_termination=True), or give each process as many batches"
            )
        added = torch.cat([(now - old).flatten() for now, old in zip(counts, before, strict=True)])
        distributed.all_reduce(added, group=ddp.process_group)
        for now, old, part in zip(counts, before, added.split([old.numel() for old in before]), strict=True):
            now.copy_(old + part.view_as(old))
    elif torch._C._current_graph_task_id() != -1:
        for now, old in zip(counts, before, strict=True):
            now.copy_(old)


# An operator, so that torch.compile takes it as a whole.
_LIBRARY = torch.library.Library("maldrop", "FRAGMENT")
_LIBRARY.define("sum_over_processes(Tensor(a!)[] counts, Tensor[] before) -> ()")
_LIBRARY.impl("sum_over_processes", _sum_over_processes, "CompositeExplicitAutograd")
torch.library.register_fake("maldrop::sum_over_processes", lambda counts, before: None, lib=_LIBRARY)


class DropoutLinear(nn.Linear):
    """An affine layer behind a regulariser; its labels come with the call, or from :func:`labels`.

    Under DistributedDataParallel its counts are those of all processes. Limits, each a RuntimeError that says so:
    transforms of ``torch.func`` (``grad``, ``vmap``) in training mode, ``DistributedDataParallel.join`` of unequal
    numbers of batches, and ``torch.jit.script`` in either mode. In evaluation mode it can be exported and traced.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, regulariser: Regulariser) -> None:
        super().__init__(in_features, out_features, bias)
        self.regulariser = regulariser

    def reset_parameters(self) -> None:
        """As ``nn.Linear``; the regulariser forgets what it has counted."""
        super().reset_parameters()
        if hasattr(self, "regulariser"):  # not while the nn.Linear is made
            self.regulariser.reset_parameters()

    def forward(self, input: Tensor, labels_N: Tensor | None = None) -> Tensor:
        """hidden_ND (and, while training, labels_N) to logits_NC."""
        counts = self.training and type(self.regulariser) is not Regulariser
        if counts and not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            raise RuntimeError(
                "in training mode this layer counts what it drops, which torch.func (grad, vmap) does not allow: "
                "use loss.backward(), or keep_mask outside of the transform and its mask within"
            )
        if labels_N is None and self.training:
            labels_N = _labels.get()
        several = counts and distributed.is_available() and distributed.is_initialized()
        before = [count.clone() for count in self.regulariser.buffers()] if several else []
        hidden_ND, weight_CD = self.regulariser(LastLayer(input, self.weight, self.bias, labels_N))
        if before:
            torch.ops.maldrop.sum_over_processes(list(self.regulariser.buffers()), before)
        return F.linear(hidden_ND, weight_CD, self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """The state dict of an nn.Linear will do as well: the counts begin at 0."""
        own = f"{prefix}regulariser."
        if f"{prefix}weight" in state_dict and not any(key.startswith(own) for key in state_dict):
            state_dict |= {f"{own}{name}": torch.zeros_like(count) for name, count in self.regulariser.named_buffers()}
        super()._load_from_state_dict(state_dict, prefix, *others)

    def __prepare_scriptable__(self) -> NoReturn:
        """What ``torch.jit.script`` calls before it compiles."""
        raise RuntimeError(
            "torch.jit.script can't take a layer with a dropout variant: use torch.export.export or torch.jit.trace on "
            "the network in evaluation mode"
        )


class MalDropLinear(DropoutLinear):
    """Malicious Dropout and the affine layer behind it: a drop-in for ``nn.Dropout`` and the last ``nn.Linear``.

    In training mode it drops the ``rho`` inputs that help the right answer most (section 4.1) and counts how often each
    passes; in evaluation mode it scales each by its pass rate (section 4.2). ``layer.rho`` may be changed at any time.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``.
        rho: neurons to drop, 0 to ``in_features``, or a percentage of them as text, ``"6.25%"``.
        omega, selector, granularity: as in :func:`maldrop_cli.dropout.keep_mask`.

    Raises:
        ValueError: an unknown name, rho out of range; on a call in training mode, labels missing or no classes, as in
            :func:`maldrop_cli.dropout.keep_mask`.
        TypeError: rho neither a whole number nor text.

    Example:
        >>> layer = MalDropLinear(4096, 10, rho=256)
        >>> logits_NC = layer(torch.rand(8, 4096), torch.arange(8))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rho: int | str,
        omega: float | str | None = None,
        selector: str = "heuristic",
        granularity: str = "batch",
    ) -> None:
        regulariser = TargetedDropout(
            in_features, out_features, rho=rho, omega=omega, selector=selector, granularity=granularity
        )
        super().__init__(in_features, out_features, bias, regulariser=regulariser)

    @property
    def rho(self) -> int:
        """Neurons dropped in a training batch."""
        return self.regulariser.rho

    @rho.setter
    def rho(self, rho: int | str) -> None:
        self.regulariser.rho = rho

    def forward(self, input: Tensor, labels_N: Tensor | None = None) -> Tensor:
        """hidden_ND to logits_NC; labels, whole numbers, are required while training: here, or by :func:`labels`."""
        if self.training and labels_N is None and _labels.get() is None:
            raise ValueError(
                "MalDropLinear needs the labels while training: layer(hidden, labels), or around the network "
                "'with maldrop_cli.labels(...)'"
            )
        return super().forward(input, labels_N)
