"""Every dropout variant, as what it does to the last affine layer.

A regulariser maps what enters the layer to the ``(hidden_ND, weight_CD)`` that ``F.linear`` then uses. To zero a
neuron's column of the weight drops it in the whole batch, with the same logits and gradients, and the weight is usually
the smaller array: batch masks and test scaling act on it.

*Inverted* dropout (vanilla, spatial, DropConnect) drops with probability p and scales up what is left, so that nothing
is to be done at test time. *Counted* dropout (MalDrop and its relatives) does not scale in training, but counts how
often each neuron passes, and scales by that rate at test time (section 4.2).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from maldrop_cli.dropout import fused
from maldrop_cli.dropout.schedules import stop_probability
from maldrop_cli.dropout.scores import LastLayer, Options, omega_value, ranking, uniform, weight_scores
from maldrop_cli.dropout.selectors import NEEDS_LABELS, SELECTORS, check_choice, check_layer, check_rho, selected_mask

PASS_RATES = ("cumulative", "epoch", "none")


class Regulariser(nn.Module):
    """No dropout, and the base of the others: passes hidden and weight through.

    ``rho``: how many of ``units`` neurons, channels or weights the next training batch drops; may be set before any
    batch, also to a percentage, ``"6.25%"``. Where there is nothing to set, both are 0.
    """

    units: int = 0
    unit: str = "neuron"
    # The length of an empty tensor: torch.compile makes code anew for every value of a number that a module holds, but
    # not for every length of a tensor (0 and 1 apart, which are special to it).
    _rho_as_length = torch.empty(0, dtype=torch.bool)

    @property
    def rho(self) -> int:
        return self._rho_as_length.shape[0]

    @rho.setter
    def rho(self, rho: int | str) -> None:
        if self.units:
            self._rho_as_length = torch.empty(check_rho(rho, self.units, self.unit), dtype=torch.bool, device="cpu")
            # as torch._dynamo.maybe_mark_dynamic does, which takes a second to load: the length will change
            vars(self._rho_as_length).update(_dynamo_weak_dynamic_indices={0}, _has_dynamo_dim_marking=True)

    def forward(self, layer: LastLayer) -> tuple[Tensor, Tensor]:
        """The hidden_ND and weight_CD to multiply. Subclasses use ``self.training`` as ``nn.Dropout`` does."""
        return layer.hidden_ND, layer.weight_CD

    def begin_epoch(self) -> None:
        """Called before each epoch of training."""

    def reset_parameters(self) -> None:
        """Sets all counts to 0, as BatchNorm does: every buffer of a regulariser and of its members is a count."""
        for count in self.buffers():
            count.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """After ``to_empty``, what was on the meta device would hold whatever is in memory: such counts begin at 0."""
        was_empty = any(count.is_meta for count in self.buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if was_empty:
            self.reset_parameters()
        return self

    def drop_totals(self) -> tuple[int, int]:
        """(dropped, offered): units counted one by one over the training examples so far."""
        return 0, 0


class Observed(Regulariser):
    """Reports the realised rate without slowing training, from the first example of every batch: of the neurons that
    were not 0, how many are 0 now."""

    dropped: Tensor
    offered: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("dropped", torch.zeros((), dtype=torch.int64))
        self.register_buffer("offered", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def _observe(self, before: Tensor, after: Tensor) -> None:
        active = torch.count_nonzero(before)
        self.offered += active
        self.dropped += active - torch.count_nonzero(after)

    def drop_totals(self) -> tuple[int, int]:
        return int(self.dropped), int(self.offered)


class InvertedDropout(Observed):
    """Drops and scales up the rest in training, by one of torch's own modules."""

    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, layer: LastLayer) -> tuple[Tensor, Tensor]:
        hidden_ND = self.drop(layer.hidden_ND)
        if self.training:
            self._observe(layer.hidden_ND[:1], hidden_ND[:1])
        return hidden_ND, layer.weight_CD

    def drop(self, tensor: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(tensor)
        return dropped


class VanillaDropout(InvertedDropout):
    """``nn.Dropout``: every neuron of every example with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(nn.Dropout(p))


class SpatialDropout(InvertedDropout):
    """``nn.Dropout1d``: every channel of every example with probability ``p`` (Tompson et al., 2015).

    ``channels``: how many the D neurons make up, each D/channels neurons in a row.
    """

    def __init__(self, channels: int, p: float = 0.5) -> None:
        super().__init__(nn.Dropout1d(p))
        self.channels = channels

    def drop(self, tensor: Tensor) -> Tensor:
        return super().drop(tensor.unflatten(1, (self.channels, -1))).flatten(1)


class DropConnect(InvertedDropout):
    """Every weight of the layer with probability ``p`` (Wan et al., 2013), one mask for the batch.

    At test time the mean weights are used, without the paper's sampling: of an affine layer the mean is exact.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(nn.Dropout(p))

    def forward(self, layer: LastLayer) -> tuple[Tensor, Tensor]:
        weight_CD = self.drop(layer.weight_CD)
        if self.training:
            self._observe(layer.weight_CD, weight_CD)
        return layer.hidden_ND, weight_CD


class CountedDropout(Regulariser):
    """Drops in training without scaling, and counts; at test time each unit is scaled by its pass rate (section 4.2).

    Args:
        shape: of what is counted: (D,) neurons or (C, D) weights.
        pass_rate: ``cumulative``, over all training; ``epoch``, since :meth:`begin_epoch`; ``none``, no scaling.

    Buffers, saved with the module: ``drops``, how many examples each unit was dropped for; ``examples``;
    ``already_zero``, in how many of them another dropout had set it to 0 before. Each forward pass in training mode
    counts, under activation checkpointing twice.
    """

    drops: Tensor
    examples: Tensor
    already_zero: Tensor

    def __init__(self, shape: Sequence[int], pass_rate: str = "cumulative") -> None:
        super().__init__()
        if pass_rate not in PASS_RATES:
            raise ValueError(f"no pass rate is called {pass_rate!r}; there are {', '.join(PASS_RATES)}")
        self.pass_rate = pass_rate
        self.register_buffer("drops", torch.zeros(*shape, dtype=torch.int64))
        self.register_buffer("examples", torch.zeros((), dtype=torch.int64))
        self.register_buffer("already_zero", torch.zeros(*shape, dtype=torch.int64))

    def drop(self, layer: LastLayer, zero_ND: Tensor | None) -> tuple[Tensor, Tensor]:
        """The hidden_ND and weight_CD of a training batch; adds to ``drops``, but not where ``zero_ND``."""
        raise NotImplementedError

    def pass_rates(self, dtype: torch.dtype | None = None) -> Tensor:
        """p^Pass of section 4.2, shaped like ``drops``: the share of training examples in which each unit passed, of
        those in which it could be dropped; 1 before training."""
        offered = (self.examples - self.already_zero).clamp(min=1)
        return 1.0 - self.drops.to(dtype or torch.get_default_dtype()) / offered

    def forward(self, layer: LastLayer, zero_ND: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``zero_ND``: True where a dropout before this one has set a neuron to 0."""
        hidden_ND, weight_CD = layer.hidden_ND, layer.weight_CD
        if self.training:
            hidden_ND, weight_CD = self.drop(layer, zero_ND)
            self.examples += hidden_ND.shape[0]  # last: a call that raises counts nothing
            if zero_ND is not None:
                self.already_zero += zero_ND.sum(0)
        elif self.pass_rate != "none":
            precise = torch.promote_types(weight_CD.dtype, torch.float32)  # a count has more digits than bf16
            weight_CD = weight_CD * self.pass_rates(precise).to(weight_CD.dtype)
        return hidden_ND, weight_CD

    def begin_epoch(self) -> None:
        if self.pass_rate == "epoch":
            self.reset_parameters()

    def drop_totals(self) -> tuple[int, int]:
        return int(self.drops.sum()), int(self.examples) * self.drops.numel()


class TargetedDropout(CountedDropout):
    """MalDrop and its controls: drops exactly ``rho`` neurons, or channels, chosen by ``selector``.

    Args:
        width, classes: D and C of the layer that follows.
        rho: neurons to drop in a training batch, or channels where there are any; or a percentage, ``"6.25%"``.
        omega, selector, granularity: as in :func:`maldrop_cli.dropout.keep_mask`.
        channels: how many channels the D neurons make up, dropped as a whole, by their summed score; None: none.
        pass_rate: as in :class:`CountedDropout`.
        generator: the randomness of the selector ``random``; not under activation checkpointing, which would draw anew.
        search: further fields of :class:`maldrop_cli.dropout.scores.Options`.

    Raises:
        ValueError: an unknown name, rho out of range, channels that do not divide the width; while training, shapes
            that do not fit, labels missing or no classes, as in :func:`maldrop_cli.dropout.keep_mask`.
        RuntimeError: a ``generator`` under activation checkpointing.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        rho: int | str,
        omega: float | str | None = None,
        selector: str = "heuristic",
        granularity: str = "batch",
        channels: int | None = None,
        pass_rate: str = "cumulative",
        generator: torch.Generator | None = None,
        **search: Any,
    ) -> None:
        if channels is not None and (channels < 1 or width % channels):
            raise ValueError(f"{width} neurons can't be divided into {channels} channels")
        super().__init__((width,), pass_rate)
        self.units, self.unit = (channels, "channel") if channels else (width, "neuron")
        self.rho = rho
        area = width // channels if channels else 1
        check_choice(selector, granularity, area)
        self.selector = selector
        self.options = Options(omega_value(omega, width, classes), granularity == "sample", generator, area, **search)

    def select(self, layer: LastLayer) -> Tensor:
        """Indices of the neurons to drop: drop_NR, or one drop_R for the whole batch."""
        return SELECTORS[self.selector](layer, self.rho, self.options)

    def mask(self, layer: LastLayer, rho: int, generator: torch.Generator | None) -> Tensor:
        """The mask that these settings give with another rho and source of randomness: keep_ND, counting nothing."""
        options = self.options._replace(generator=generator)
        return selected_mask(layer, self.selector, check_rho(rho, self.units), options)

    def drop(self, layer: LastLayer, zero_ND: Tensor | None) -> tuple[Tensor, Tensor]:
        layer = check_layer(layer, f"the selector {self.selector!r}", self.selector in NEEDS_LABELS)
        hidden_ND, weight_CD = layer.hidden_ND, layer.weight_CD
        if self.rho == 0:
            return hidden_ND, weight_CD
        ranked = ranking(layer, self.selector, self.options) if zero_ND is None else None  # a kernel counts every drop
        if ranked is not None:
            return fused.drop_highest(hidden_ND, ranked, self.rho, self.drops), weight_CD
        drop = self.select(layer)
        if drop.ndim == 2:
            counts = torch.ones_like(drop) if zero_ND is None else (~zero_ND).gather(1, drop).to(drop.dtype)
            self.drops.index_add_(0, drop.flatten(), counts.flatten())
            return hidden_ND.scatter(1, drop, 0.0), weight_CD
        counts = torch.full_like(drop, hidden_ND.shape[0])
        self.drops.index_add_(0, drop, counts if zero_ND is None else counts - zero_ND[:, drop].sum(0))
        if weight_CD.shape[0] <= hidden_ND.shape[0]:
            return hidden_ND, weight_CD.index_fill(1, drop, 0.0)
        return hidden_ND.index_fill(1, drop, 0.0), weight_CD

    def extra_repr(self) -> str:
        granularity = "sample" if self.options.per_sample else "batch"
        return f"rho={self.rho}, omega={self.options.omega:g}, selector={self.selector}, granularity={granularity}"


class MalDropConnect(CountedDropout):
    """Drops exactly the ``rho`` weights of the layer that help the right answer most, by
    :func:`maldrop_cli.dropout.scores.weight_scores`; one mask for the batch."""

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        rho: int | str,
        omega: float | str | None = None,
        pass_rate: str = "cumulative",
    ) -> None:
        super().__init__((classes, width), pass_rate)
        self.units, self.unit = classes * width, "weight"
        self.rho = rho
        self.omega = omega_value(omega, width, classes)

    def drop(self, layer: LastLayer, zero_ND: Tensor | None) -> tuple[Tensor, Tensor]:
        layer = check_layer(layer, "maldropconnect", needs_labels=True)
        hidden_ND, weight_CD = layer.hidden_ND, layer.weight_CD
        if self.rho == 0:
            return hidden_ND, weight_CD
        with torch.no_grad():
            drop_R = weight_scores(layer, self.omega).flatten().topk(self.rho, sorted=False).indices
        self.drops.view(-1).index_add_(0, drop_R, torch.full_like(drop_R, hidden_ND.shape[0]))
        return hidden_ND, weight_CD.flatten().index_fill(0, drop_R, 0.0).view_as(weight_CD)


class NestedDropout(CountedDropout):
    """Draws b from a geometric prior and drops every neuron after the b-th (Rippel et al., 2014), b at most D.

    ``p``: the share of neurons dropped in the mean, 0 to 1, else ValueError. One b for each example (granularity
    ``sample``) or for the batch.
    """

    def __init__(
        self,
        width: int,
        *,
        p: float = 0.5,
        granularity: str = "batch",
        pass_rate: str = "cumulative",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__((width,), pass_rate)
        check_choice("random", granularity)
        self.stop = stop_probability(width, p)
        self.per_sample = granularity == "sample"
        self.generator = generator

    def drop(self, layer: LastLayer, zero_ND: Tensor | None) -> tuple[Tensor, Tensor]:
        hidden_ND, weight_CD = layer.hidden_ND, layer.weight_CD
        (examples, width), device = hidden_ND.shape, hidden_ND.device
        draws = examples if self.per_sample else 1
        drawn = uniform((draws,), self.generator, device, torch.float32)
        if 0 < self.stop < 1:  # the inverse of P(b <= k) = 1 - (1 - stop)^k; the index of the last that passes is b - 1
            last = torch.log1p(-drawn) / math.log1p(-self.stop)
        else:  # everything passes, or the first neuron alone
            last = torch.full_like(drawn, 0.0 if self.stop else width)
        gone = torch.arange(width, device=device) > last.clamp(max=width).floor().unsqueeze(1)
        if self.per_sample:
            self.drops += gone.sum(0)
            return hidden_ND.masked_fill(gone, 0.0), weight_CD
        self.drops += gone[0] * examples
        return hidden_ND, weight_CD.masked_fill(gone, 0.0)


class Composition(Observed):
    """Several regularisers, each applied to what the one before it left.

    One dropout layer after the other, as in footnote 4 of the paper, may set a 0 to 0. MalDrop after vanilla dropout
    scores the thinned hidden layer, where a neuron that is 0 scores 0; if it takes one nevertheless, its pass rate
    counts that example neither as a drop nor as a pass.
    """

    def __init__(self, *members: Regulariser) -> None:
        super().__init__()
        self.modules_in_order = nn.ModuleList(members)
        self.units = max(member.units for member in members)

    @property
    def members(self) -> list[Regulariser]:
        """In the order in which they are applied."""
        return [member for member in self.modules_in_order if isinstance(member, Regulariser)]

    @property
    def rho(self) -> int:
        return max(member.rho for member in self.members)

    @rho.setter
    def rho(self, rho: int | str) -> None:
        for member in self.members:
            member.rho = rho

    def forward(self, layer: LastLayer) -> tuple[Tensor, Tensor]:
        hidden_ND, weight_CD, zero_ND = layer.hidden_ND, layer.weight_CD, None
        for member in self.members:
            now = layer._replace(hidden_ND=hidden_ND, weight_CD=weight_CD)
            if isinstance(member, CountedDropout):
                hidden_ND, weight_CD = member(now, zero_ND)
            else:
                hidden_ND, weight_CD = member(now)
                if self.training:
                    zero_ND = (now.hidden_ND != 0) & (hidden_ND == 0)
        if self.training:
            gone_D = (weight_CD == 0).all(0) & (layer.weight_CD != 0).any(0)
            self._observe(layer.hidden_ND[:1], hidden_ND[:1].masked_fill(gone_D, 0.0))
        return hidden_ND, weight_CD

    def begin_epoch(self) -> None:
        for member in self.members:
            member.begin_epoch()
