"""Take the last Linear out of a network, which then maps images to hidden_ND.

The last Linear is found by the order of registration, or by a forward pass of example images. Either way a forward pass
verifies it: the network must return the very tensor that the Linear returned.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

End = tuple[str, ...]  # names within a network: of its last Linear and, if one feeds it directly, of that Dropout

Example = Tensor | tuple[Any, ...] | dict[str, Any]  # images, or all that a network is called with


class Backbone(nn.Module):
    """A network with Identities at its ``end``: images to hidden_ND. The first forward pass in each mode, training and
    evaluation, raises ValueError where the network doesn't end there; later ones are not watched and cost nothing."""

    def __init__(self, network: nn.Module, end: End) -> None:
        super().__init__()
        self.network, self.end = network, end
        self.verified: set[bool] = set()  # the modes, training or not
        self.training = network.training  # not by train(), which would reach parts that were frozen by eval()

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        if self.training in self.verified or torch.compiler.is_compiling():
            hidden_ND: Tensor = self.network(*inputs, **named)
            return hidden_ND
        with _watched(self.network, self.end) as calls:
            try:
                hidden_ND = self.network(*inputs, **named)
            except Exception as error:
                if isinstance(error, AttributeError) or any(call.name == self.end[0] for call in calls):
                    reason = " ".join(f"{type(error).__name__}: {error}".split())
                    raise _unsuitable(f"{self.end[0]!r}, and a network that fails without it ({reason})") from error
                raise  # before the end was reached: not for want of the Linear
        _check_calls(self.end, calls, hidden_ND)
        self.verified.add(self.training)
        return hidden_ND


def strip_head(network: nn.Module, end: End, example: Example | None = None) -> Backbone:
    """Replace the modules at the ``end``, as :func:`find_end` gives it, by Identities in ``network`` itself. With
    ``example`` images, ValueError at once where the network doesn't end there, which is then left as it was."""
    with ExitStack() as undo:
        for name in end:
            module = network.get_submodule(name)
            undo.callback(network.set_submodule, name, module)
            network.set_submodule(name, nn.Identity().train(module.training))
        backbone = Backbone(network, end)
        if example is not None:
            _evaluate(backbone, example)
        undo.pop_all()
    return backbone


def find_end(network: nn.Module, example: Example | None = None) -> tuple[End, nn.Linear]:
    """(The end of ``network``, its last Linear), by the order of registration or by a pass of ``example`` images.

    Raises ValueError where Identities, and a head with the Linear's parameters, would not do what the modules do.
    """
    if isinstance(network, nn.Linear):
        raise _unsuitable("a network that is itself the Linear: put it into an nn.Sequential")
    end = _registered(network) if example is None else _traced(network, example)
    if compiled := next((name for name in end if name.endswith("_orig_mod")), ""):
        raise _unsuitable(f"{compiled!r}, a layer compiled by itself: compile the classifier instead")
    linear = network.get_submodule(end[0])
    if type(linear) is not nn.Linear:
        raise _unsuitable(f"{end[0]!r}, of type {type(linear).__name__}, which does more than an nn.Linear")
    if any(getattr(linear, f"_{kind}_hooks") for kind in ("forward", "forward_pre", "backward", "backward_pre")):
        raise _unsuitable(f"{end[0]!r}, a Linear with hooks, which would be lost")
    for name, parameter in network.named_parameters(remove_duplicate=False):
        shared = parameter is linear.weight or parameter is linear.bias
        if shared and name not in (f"{end[0]}.weight", f"{end[0]}.bias"):
            raise _unsuitable(f"{end[0]!r}, a Linear that is tied to {name!r}")
    for dropout in map(network.get_submodule, end[1:]):
        names = [name for name, module in network.named_modules(remove_duplicate=False) if module is dropout]
        if len(names) > 1:
            raise _unsuitable(f"{end[0]!r}, behind a Dropout of several names ({', '.join(names)})")
    return end, linear


def _registered(network: nn.Module) -> End:
    linears = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        *_, last = network.modules()
        raise _unsuitable(f"no nn.Linear in {type(network).__name__}, whose last module is {type(last).__name__}")
    parent, _, own = linears[-1].rpartition(".")
    for (before, module), (name, _) in pairwise(network.get_submodule(parent).named_children()):
        if name == own and type(module) is nn.Dropout:
            return linears[-1], f"{parent}.{before}".lstrip(".")
    return (linears[-1],)


def _traced(network: nn.Module, example: Example) -> End:
    kinds = (nn.Linear, nn.Dropout)
    with _watched(network, [name for name, module in network.named_modules() if isinstance(module, kinds)]) as calls:
        returned = _evaluate(network, example)
    linears = [call for call in calls if isinstance(call.module, nn.Linear)]
    if not linears:
        raise _unsuitable(f"no nn.Linear that {type(network).__name__} calls")
    last = next((call for call in linears if call.output is returned), linears[-1])
    end = last.name, *[call.name for call in calls if type(call.module) is nn.Dropout and call.feeds(last)][-1:]
    _check_calls(end, calls, returned)
    return end


class _Call(NamedTuple):
    """A module called by a network: its name, its first argument and its output."""

    name: str
    module: nn.Module
    input: Any
    output: Tensor

    @property
    def overwritten(self) -> bool:
        """Whether the output was changed in place later."""
        return not self.output.is_inference() and self.output._version > 0

    def feeds(self, other: Self) -> bool:
        """Whether the output is the input of ``other``, unchanged but perhaps in another shape."""
        if not isinstance(other.input, Tensor) or self.overwritten:
            return False
        same = self.output.untyped_storage()._cdata == other.input.untyped_storage()._cdata  # a pointer, on meta too
        return same and self.output.numel() == other.input.numel()


@contextmanager
def _watched(network: nn.Module, names: Sequence[str]) -> Iterator[list[_Call]]:
    """The calls of these modules, in order. Each output gets memory of its own, which tells a module that does nothing,
    an Identity or a Dropout in evaluation mode, from none."""
    calls: list[_Call] = []

    def record(name: str, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        calls.append(_Call(name, module, arguments[0] if arguments else None, output.clone()))
        return calls[-1].output

    with ExitStack() as hooks:
        if "torch._dynamo" in sys.modules:  # else nothing is compiled; compiled code may pass by the hooks
            hooks.enter_context(torch.compiler.set_stance("force_eager"))
        for name in names:
            hooks.enter_context(network.get_submodule(name).register_forward_hook(partial(record, name)))
        yield calls


@torch.no_grad()
def _evaluate(network: nn.Module, example: Example) -> object:
    """What ``network`` makes of ``example`` in evaluation mode; afterwards every module is in its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        if isinstance(example, dict):
            return network.eval()(**example)
        return network.eval()(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for module, mode in modes:
            module.training = mode


def _check_calls(end: End, calls: Sequence[_Call], returned: object) -> None:
    """ValueError unless the Linear was called once, on hidden_ND fed by its Dropout, and gave what was ``returned``."""
    linear, *dropouts = end
    last = [call for call in calls if call.name == linear]
    if not last:
        raise _unsuitable(f"{linear!r}, which was not called")
    if len(last) > 1:
        raise _unsuitable(f"{linear!r}, which was called {len(last)} times")
    if not isinstance(returned, Tensor):
        raise _unsuitable(f"{linear!r} in a network that returns {type(returned).__name__}, not a tensor")
    if returned is not last[0].output or last[0].overwritten:
        raise _unsuitable(f"{linear!r}, and something after it, a softmax perhaps")
    if returned.ndim != 2:
        raise _unsuitable(f"{linear!r}, whose input has {returned.ndim} dimensions, not the two of (N, D)")
    for dropout in dropouts:
        drops = [call for call in calls if call.name == dropout]
        if not any(call.feeds(last[0]) for call in drops):
            stranger = f"{dropout!r}, which does not feed it directly; example images would have shown that in time"
            raise _unsuitable(f"{linear!r} and, registered before it, {stranger}")
        if len(drops) > 1:
            several = f"a Dropout called {len(drops)} times: give it one of its own"
            raise _unsuitable(f"{linear!r} behind {dropout!r}, {several}")


def _unsuitable(found: str) -> ValueError:
    return ValueError(f"looked for a last nn.Linear whose output is the network's output; found {found}")
