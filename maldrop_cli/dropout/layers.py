"""The last affine layer with a regulariser in front: the place where every dropout variant acts.

The seam: a regulariser maps what enters the layer to the ``(hidden_ND, weight_CD)`` that ``F.linear`` then uses.
Dropping a neuron in the whole batch and zeroing its column of the weight give the same logits and gradients, and the
column is shorter than the batch, so batch masks and test scaling act on the weight.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maldrop_cli.dropout.scores import LastLayer, omega_value
from maldrop_cli.dropout.selectors import SELECTORS, check_choice, check_layer, check_rho


class Regulariser(nn.Module):
    """No dropout, and the base of the others: passes hidden and weight through."""

    rho: int = 0  # neurons to drop in the next training batch, where that applies

    def forward(self, layer: LastLayer) -> tuple[Tensor, Tensor]:
        """The hidden_ND and weight_CD to multiply. Subclasses draw on ``self.training`` as ``nn.Dropout`` does."""
        return layer.hidden_ND, layer.weight_CD

    def drop_totals(self) -> tuple[int, int]:
        """(dropped, offered): neurons counted one by one over all training examples so far."""
        return 0, 0


class VanillaDropout(Regulariser):
    """``nn.Dropout``: every neuron of every example with probability ``p``, inverted scaling.

    ``nn.Dropout`` keeps no mask. To report the realised rate without slowing it, the first example of every batch is
    looked at: of its neurons that were not 0, how many are 0 now.
    """

    dropped: Tensor
    offered: Tensor

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)
        self.register_buffer("dropped", torch.zeros((), dtype=torch.int64))
        self.register_buffer("offered", torch.zeros((), dtype=torch.int64))

    def forward(self, layer: LastLayer) -> tuple[Tensor, Tensor]:
        hidden_ND = self.dropout(layer.hidden_ND)
        if self.training:
            with torch.no_grad():
                before = torch.count_nonzero(layer.hidden_ND[0])
                self.offered += before
                self.dropped += before - torch.count_nonzero(hidden_ND[0])
        return hidden_ND, layer.weight_CD

    def drop_totals(self) -> tuple[int, int]:
        return int(self.dropped), int(self.offered)


class TargetedDropout(Regulariser):
    """Drops exactly ``rho`` neurons, chosen by ``selector``, without rescaling; at test time each neuron is scaled by
    its pass rate in training (section 4.2).

    Args:
        width, classes: D and C of the layer that follows.
        rho: neurons to drop in a training batch; may be set anew before any batch.
        omega, selector, granularity: as in :func:`maldrop_cli.dropout.keep_mask`.
        generator: the randomness of the selector ``random``.

    The counts behind the pass rates are buffers: they move, save and load with the module. Each forward pass in
    training mode counts: under activation checkpointing twice, and with several processes on each for itself.
    Raises ValueError for an unknown name or a rho outside 0 to D; while training, for shapes that do not fit and for
    labels that are missing.
    """

    drops_D: Tensor
    examples: Tensor

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        rho: int,
        omega: float | str | None = None,
        selector: str = "heuristic",
        granularity: str = "batch",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_choice(selector, granularity)
        self.width = width
        self.rho = check_rho(rho, width)
        self.omega = omega_value(omega, width, classes)
        self.selector = selector
        self.granularity = granularity
        self.generator = generator
        self.register_buffer("drops_D", torch.zeros(width, dtype=torch.int64))
        self.register_buffer("examples", torch.zeros((), dtype=torch.int64))

    @property
    def pass_rate_D(self) -> Tensor:
        """p_j^Pass of section 4.2: the share of all training examples that neuron j passed; 1 before training."""
        return self._pass_rates(torch.get_default_dtype())

    def _pass_rates(self, dtype: torch.dtype) -> Tensor:
        return 1.0 - self.drops_D.to(dtype) / self.examples.clamp(min=1)

    def select(self, layer: LastLayer) -> Tensor:
        """Indices of the neurons to drop: drop_NR, or one drop_R for the whole batch."""
        per_sample = self.granularity == "sample"
        return SELECTORS[self.selector](layer, check_rho(self.rho, self.width), self.omega, per_sample, self.generator)

    def forward(self, layer: LastLayer) -> tuple[Tensor, Tensor]:
        hidden_ND, weight_CD = layer.hidden_ND, layer.weight_CD
        if not self.training:
            precise = torch.promote_types(weight_CD.dtype, torch.float32)  # a count has more digits than bf16
            return hidden_ND, weight_CD * self._pass_rates(precise).to(weight_CD.dtype)
        check_layer(layer, self.selector)
        if self.rho > 0:
            drop = self.select(layer)
            if self.granularity == "sample":
                flat = drop.flatten()
                self.drops_D.index_add_(0, flat, torch.ones_like(flat))
                hidden_ND = hidden_ND.scatter(1, drop, 0.0)
            else:
                self.drops_D.index_add_(0, drop, torch.full_like(drop, hidden_ND.shape[0]))
                weight_CD = weight_CD.index_fill(1, drop, 0.0)
        self.examples += hidden_ND.shape[0]  # last: a call that raises counts nothing
        return hidden_ND, weight_CD

    def drop_totals(self) -> tuple[int, int]:
        return int(self.drops_D.sum()), int(self.examples) * self.width

    def extra_repr(self) -> str:
        return f"rho={self.rho}, omega={self.omega:g}, selector={self.selector}, granularity={self.granularity}"


class DropoutLinear(nn.Linear):
    """An affine layer behind a regulariser; its labels come with the call."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, regulariser: Regulariser) -> None:
        super().__init__(in_features, out_features, bias)
        self.regulariser = regulariser

    def forward(self, input: Tensor, labels_N: Tensor | None = None) -> Tensor:
        """hidden_ND (and, while training, labels_N) to logits_NC."""
        hidden_ND, weight_CD = self.regulariser(LastLayer(input, self.weight, self.bias, labels_N))
        return F.linear(hidden_ND, weight_CD, self.bias)


class MalDropLinear(DropoutLinear):
    """Malicious Dropout and the affine layer behind it: a drop-in for ``nn.Dropout`` and the last ``nn.Linear``.

    In training mode it drops the ``rho`` inputs that help the right answer most (section 4.1) and counts how often each
    passes; in evaluation mode it scales each by its pass rate (section 4.2). ``layer.rho`` may be changed at any time.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``.
        rho: neurons to drop, 0 to ``in_features``.
        omega: weight of the wrong classes; None is the paper's 1/(D-1), ``"classes"`` is 1/(C-1), or a number.
        selector: ``"heuristic"``, ``"single"`` or ``"random"``.
        granularity: ``"batch"``, one mask for the batch, or ``"sample"``, one for each example.

    Raises:
        ValueError: an unknown name, rho out of range; on a call in training mode, labels missing.

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
        rho: int,
        omega: float | str | None = None,
        selector: str = "heuristic",
        granularity: str = "batch",
    ) -> None:
        chosen: dict[str, Any] = {
            "rho": rho,
            "omega": omega,
            "selector": selector,
            "granularity": granularity,
        }
        regulariser = TargetedDropout(in_features, out_features, **chosen)
        super().__init__(in_features, out_features, bias, regulariser=regulariser)

    @property
    def rho(self) -> int:
        """Neurons dropped in a training batch."""
        return self.regulariser.rho

    @rho.setter
    def rho(self, rho: int) -> None:
        self.regulariser.rho = check_rho(rho, self.in_features)

    def forward(self, input: Tensor, labels_N: Tensor | None = None) -> Tensor:
        """hidden_ND to logits_NC; ``labels_N`` (int64) are required while training."""
        if self.training and labels_N is None:
            raise ValueError("MalDropLinear needs the labels while training: layer(hidden, labels)")
        return super().forward(input, labels_N)
