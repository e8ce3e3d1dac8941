"""Take the last Linear out of a network, which then maps images to hidden_ND.

Which one is last can be read off the network, where the modules stand in the order in which they were registered, or
off a forward pass. Either way a forward pass proves it: what leaves the Linear must be the very object that the
network returns. Each mode, training and evaluation, has its first pass watched; later ones cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class End:
    """The names, within a network, of its last Linear and of the Dropout that feeds it, if there is one."""

    linear: str
    dropout: str | None = None

    @property
    def names(self) -> list[str]:
        return [self.linear] if self.dropout is None else [self.dropout, self.linear]


class CutNetwork(nn.Module):
    """A network with Identities at its end: images to hidden_ND.

    Raises ValueError on the first forward pass in a mode where the network doesn't end there.
    """

    def __init__(self, network: nn.Module, end: End) -> None:
        super().__init__()
        self.network = network
        self.end = end
        self.proven: set[bool] = set()  # the modes, training or not, in which a pass has been watched
        self.training = network.training  # without train(), which would reach parts that were frozen by eval()

    def forward(self, images: Tensor) -> Tensor:
        if self.training in self.proven or torch.compiler.is_compiling():
            hidden: Tensor = self.network(images)
            return hidden
        hidden = _proven(self.network, self.end, images)
        self.proven.add(self.training)
        return hidden


def cut(network: nn.Module, end: End | None = None, example: Tensor | None = None) -> tuple[CutNetwork, nn.Linear]:
    """Replace the last Linear, and the Dropout that feeds it directly, by Identities: (the network so changed, Linear).

    Directly: with nothing between the two but a change of shape.

    ``end``: as :func:`find_end` gives it, which is called where it is missing. With ``example`` images the outcome is
    proven at once, else on the first forward pass. Other Dropouts stay.

    Raises ValueError for a network that doesn't end in a Linear, and then leaves it as it was.
    """
    end = end or find_end(network, example)
    linear = network.get_submodule(end.linear)
    assert isinstance(linear, nn.Linear)
    taken = {name: network.get_submodule(name) for name in end.names}
    for name, module in taken.items():
        network.set_submodule(name, nn.Identity().train(module.training))
    backbone = CutNetwork(network, end)
    if example is not None:
        try:
            with _evaluating(backbone):
                backbone(example)
        except BaseException:
            for name, module in taken.items():
                network.set_submodule(name, module)
            raise
    return backbone, linear


def find_end(network: nn.Module, example: Tensor | None = None) -> End:
    """The last Linear and what feeds it: by the order of registration, or by a forward pass of ``example`` images.

    Raises ValueError for a network whose end can't be replaced. Changes nothing: the pass is in evaluation mode.
    """
    if isinstance(network, nn.Linear):
        raise _unsuitable("a network that is itself the Linear: put it into an nn.Sequential")
    end = _registered(network) if example is None else _traced(network, example)
    _check_replaceable(network, end)
    return end


def _registered(network: nn.Module) -> End:
    modules = list(network.named_modules())
    linears = [name for name, module in modules if isinstance(module, nn.Linear)]
    if not linears:
        raise _unsuitable(f"no nn.Linear in {type(network).__name__}, whose last module is {_kind(modules[-1][1])}")
    parent, _, own = linears[-1].rpartition(".")
    siblings = list(network.get_submodule(parent).named_children())
    place = [name for name, _ in siblings].index(own)
    if place > 0 and type(siblings[place - 1][1]) is nn.Dropout:
        return End(linears[-1], f"{parent}.{siblings[place - 1][0]}".lstrip("."))
    return End(linears[-1])


def _traced(network: nn.Module, example: Tensor) -> End:
    kinds = (nn.Linear, nn.Dropout)
    watched = {name: module for name, module in network.named_modules() if isinstance(module, kinds)}
    with _evaluating(network), _watched(watched) as calls:
        returned = network(example)
    linears = [call for call in calls if isinstance(watched[call.name], nn.Linear)]
    if not linears:
        raise _unsuitable(f"no nn.Linear that {type(network).__name__} calls")
    last = next((call for call in linears if call.left is returned), linears[-1])
    feeding = [call.name for call in calls if type(watched[call.name]) is nn.Dropout and call.feeds(last)]
    end = End(last.name, *feeding[-1:])
    _check_calls(end, calls, returned)
    return end


def _check_replaceable(network: nn.Module, end: End) -> None:
    """ValueError where an Identity, or a head with the same parameters, would do something else than the modules."""
    linear = network.get_submodule(end.linear)
    if type(linear) is not nn.Linear:
        raise _unsuitable(f"{end.linear!r}, of type {_kind(linear)}, which does more than an nn.Linear")
    if any(getattr(linear, hooks) for hooks in _HOOKS):
        raise _unsuitable(f"{end.linear!r}, a Linear with hooks, which would be lost")
    own = {f"{end.linear}.weight", f"{end.linear}.bias"}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if name not in own and (parameter is linear.weight or parameter is linear.bias):
            raise _unsuitable(f"{end.linear!r}, a Linear that is tied to {name!r}")
    if end.dropout is not None:
        dropout = network.get_submodule(end.dropout)
        names = [name for name, module in network.named_modules(remove_duplicate=False) if module is dropout]
        if len(names) > 1:
            raise _unsuitable(f"{end.linear!r}, behind a Dropout of several names ({', '.join(names)})")


class _Call(NamedTuple):
    """A module's name, and what entered and left it in one call."""

    name: str
    entered: Any
    left: Tensor

    @property
    def overwritten(self) -> bool:
        """Whether something has changed in place what left."""
        return not self.left.is_inference() and self.left._version > 0

    def feeds(self, other: _Call) -> bool:
        """Whether what left here entered there, unchanged but perhaps in another shape."""
        if not isinstance(other.entered, Tensor) or self.overwritten:
            return False
        same = self.left.untyped_storage()._cdata == other.entered.untyped_storage()._cdata  # a pointer, on meta too
        return same and self.left.numel() == other.entered.numel()


@contextmanager
def _watched(modules: Mapping[str, nn.Module]) -> Iterator[list[_Call]]:
    """The calls of ``modules``, in their order. What leaves one gets memory of its own, so that a module that does
    nothing, an Identity or a Dropout in evaluation mode, can be told from none."""
    calls: list[_Call] = []

    def hook(name: str) -> Any:
        def keep(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            calls.append(_Call(name, arguments[0] if arguments else None, output.clone()))
            return calls[-1].left

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; afterwards every module is in its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _proven(network: nn.Module, end: End, images: Tensor) -> Tensor:
    """``network(images)``; ValueError unless that is what leaves the Identity that stands for the last Linear."""
    with _watched({name: network.get_submodule(name) for name in end.names}) as calls:
        try:
            returned = network(images)
        except Exception as error:
            if isinstance(error, AttributeError) or any(call.name == end.linear for call in calls):
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise _unsuitable(f"{end.linear!r}, and a network that fails without it ({reason})") from error
            raise  # before the end was reached: nothing that the cut has done
    _check_calls(end, calls, returned)
    hidden: Tensor = returned
    return hidden


def _check_calls(end: End, calls: Sequence[_Call], returned: object) -> None:
    """ValueError unless the Linear was called once, on hidden_ND, straight behind its Dropout and straight before the
    network returned."""
    last = [call for call in calls if call.name == end.linear]
    if not last:
        raise _unsuitable(f"{end.linear!r}, which was not called")
    if len(last) > 1:
        raise _unsuitable(f"{end.linear!r}, which was called {len(last)} times")
    if not isinstance(returned, Tensor):
        raise _unsuitable(f"{end.linear!r} in a network that returns {_kind(returned)}, not a tensor")
    if returned is not last[0].left or last[0].overwritten:
        raise _unsuitable(f"{end.linear!r}, and something after it, a softmax perhaps")
    if last[0].left.ndim != 2:
        raise _unsuitable(f"{end.linear!r}, whose input has {last[0].left.ndim} dimensions, not the two of (N, D)")
    if end.dropout is not None:
        drops = [call for call in calls if call.name == end.dropout]
        if not any(call.feeds(last[0]) for call in drops):
            raise _unsuitable(
                f"{end.linear!r} and, registered before it, {end.dropout!r}, which does not feed it directly; "
                "example images would have shown that in time"
            )
        if len(drops) > 1:
            raise _unsuitable(
                f"{end.linear!r} behind {end.dropout!r}, a Dropout called {len(drops)} times: give it one of its own"
            )


def _unsuitable(found: str) -> ValueError:
    return ValueError(f"looked for a last nn.Linear whose output is the network's output; found {found}")


def _kind(thing: object) -> str:
    return type(thing).__name__
