"""A dropout variant put into a network of one's own."""

import copy
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maldrop_cli import attach, labels
from maldrop_cli.config import RunConfig
from maldrop_cli.dropout import MalDropLinear, TargetedDropout, VanillaDropout
from maldrop_cli.dropout.scores import Options
from maldrop_cli.models import build_model
from maldrop_cli.names import Dropout

IMAGES = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def sequential(last: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 8), nn.ReLU(), nn.Dropout(),
        last or nn.Linear(8, 3),
    )  # fmt: skip


class Ends(nn.Module):
    """A Linear, and whatever ``end`` makes of it and of the hidden layer."""

    def __init__(self, end: Callable[["Ends", Tensor], Any]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
        self.drop = nn.Dropout()
        self.fc = nn.Linear(8, 8)
        self.end = end

    def forward(self, images: Tensor) -> Any:
        return self.end(self, self.body(images))


@pytest.mark.parametrize("example", [None, IMAGES])
def test_in_evaluation_mode_nothing_changes_before_training(example: Tensor | None) -> None:
    network = sequential().eval()
    expected = network(IMAGES)
    classifier = attach(network, rho=2, example=example)
    assert not classifier.training
    for _ in range(2):  # the first pass is watched
        torch.testing.assert_close(classifier(IMAGES), expected, rtol=0, atol=0)
    assert [type(layer) for layer in network[3:]] == [nn.Dropout, nn.Linear, nn.ReLU, nn.Identity, nn.Identity]
    assert network(IMAGES).shape == (6, 8)


def test_it_trains_as_the_layer_does() -> None:
    """The same gradients as a MalDropLinear put there by hand."""
    network = sequential()
    network[3] = nn.Identity()  # its draws would differ from pass to pass
    by_hand = nn.Sequential(*copy.deepcopy(network[:6]), MalDropLinear(8, 3, rho=3))
    by_hand[6].load_state_dict(network[7].state_dict(), strict=False)
    classifier = attach(network, rho=3)
    nn.functional.cross_entropy(classifier(IMAGES, LABELS), LABELS).backward()
    nn.functional.cross_entropy(by_hand[6](by_hand[:6](IMAGES), LABELS), LABELS).backward()
    for mine, other in zip(classifier.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    with pytest.raises(ValueError, match="needs labels"):
        classifier(IMAGES)
    with pytest.raises(ValueError, match="the label of example 2 is 3; the layer has 3 outputs, so labels are from 0"):
        classifier(IMAGES, LABELS + 1)


def test_the_parameters_are_the_users_own() -> None:
    network = sequential()
    before, state = list(network.parameters()), torch.get_rng_state()
    network[7].bias.requires_grad_(False)
    classifier = attach(network, rho=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(mine is other for mine, other in zip(classifier.parameters(), before, strict=True))
    assert [p.requires_grad for p in classifier.head.parameters()] == [True, False]


@pytest.mark.parametrize("dropout", Dropout)
def test_every_variant(dropout: Dropout) -> None:
    generator = torch.Generator().manual_seed(0)
    classifier = attach(sequential(), dropout=str(dropout), rho=2, channels=4, generator=generator)
    assert classifier(IMAGES, LABELS).shape == (6, 3)


def test_the_settings_reach_the_variant() -> None:
    def targeted(**settings: Any) -> TargetedDropout:
        regulariser = attach(sequential(), **settings).head.regulariser
        assert isinstance(regulariser, TargetedDropout)
        return regulariser

    generator = torch.Generator()
    single = targeted(omega=0.25, selector="single", granularity="sample", generator=generator, score_memory=0.5)
    assert (single.rho, single.selector) == (1, "single")  # 6.25 % of 8 rounded half up
    assert single.options == Options(0.25, True, generator, score_bytes=2**19)
    joint = targeted(selector="joint", joint_iterations=3, joint_starts=2)
    assert (joint.options.iterations, joint.options.vertices) == (3, 2)
    spatial = targeted(dropout="spatial-maldrop", channels=4, pass_rate="epoch")
    assert (spatial.units, spatial.options.area, spatial.rho, spatial.pass_rate) == (4, 2, 1, "epoch")
    assert targeted(rho="40%").rho == 3
    assert targeted(dropout="spatial-maldrop", channels=4, rho="1%").rho == 1
    vanilla = attach(sequential(), dropout="vanilla", p=0.2, rho="6.25%").head.regulariser
    assert isinstance(vanilla, VanillaDropout)
    assert vanilla.dropout.p == 0.2


def test_example_images_find_the_end_whatever_the_order_of_registration() -> None:
    network = Ends(lambda self, hidden: self.fc(self.drop(hidden)))
    network.fc = nn.Linear(8, 3, bias=False)
    body, norm = network.body, nn.BatchNorm1d(8).eval()  # frozen, as one does
    del network.body
    network.body = nn.Sequential(*body, norm)  # its Linear is the one that was registered last
    statistics = copy.deepcopy(norm.state_dict())
    classifier = attach(network, rho=2, example=IMAGES)
    assert [type(network.fc), type(network.drop), type(body[1])] == [nn.Identity, nn.Identity, nn.Linear]
    assert classifier.head.bias is None
    assert [network.training, classifier.training, norm.training] == [True, True, False]
    assert all(map(torch.equal, statistics.values(), norm.state_dict().values()))
    assert classifier(IMAGES, LABELS).shape == (6, 3)
    with pytest.raises(ValueError, match="'fc', which was not called"):
        attach(Ends(lambda self, hidden: hidden))(IMAGES, LABELS)


@pytest.mark.parametrize("example", [None, IMAGES])
def test_a_dropout_before_a_flatten_feeds_the_linear(example: Tensor | None) -> None:
    network = Ends(lambda self, hidden: self.fc(self.drop(hidden[:, :, None, None]).flatten(1)))
    classifier = attach(network, dropout="none", example=example)
    assert isinstance(network.drop, nn.Identity)
    with torch.inference_mode():
        torch.testing.assert_close(classifier.eval()(IMAGES), classifier(IMAGES), rtol=0, atol=0)


def test_a_dropout_that_feeds_something_else_stays() -> None:
    for end in (
        lambda self, hidden: self.fc(self.drop(hidden).relu()),
        lambda self, hidden: (self.drop(hidden), self.fc(hidden))[1],
        lambda self, hidden: self.fc(self.drop(hidden).add_(1)),
    ):
        network = Ends(end)
        classifier = attach(network, dropout="none", example=IMAGES)
        assert isinstance(network.drop, nn.Dropout)
        assert classifier(IMAGES).shape == (6, 8)
        with pytest.raises(ValueError, match="'drop', which does not feed it directly; example images would have"):
            attach(Ends(end))(IMAGES, LABELS)


def hooked() -> nn.Linear:
    linear = nn.Linear(8, 3)
    linear.register_forward_pre_hook(lambda module, arguments: None)
    return linear


def tied() -> nn.Module:
    network, inner = Ends(lambda self, hidden: self.fc(hidden)), nn.Linear(8, 8)
    network.body.append(inner)
    network.fc.weight = inner.weight
    return network


def shared(module: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(16, 16), module), nn.Sequential(module, nn.Linear(16, 3))
    )


UNSUITABLE: list[tuple[str, Callable[[], nn.Module]]] = [
    (r"no nn\.Linear", lambda: nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten())),
    (r"put it into an nn\.Sequential", lambda: nn.Linear(4, 3)),
    ("'7', of type MalDropLinear", lambda: sequential(MalDropLinear(8, 3, rho=1))),
    ("'7', and something after it, a softmax perhaps", lambda: nn.Sequential(*sequential(), nn.Softmax(1))),
    ("'fc', and something after it", lambda: Ends(lambda self, hidden: self.fc(hidden).mul_(2))),
    ("'fc', and something after it", lambda: Ends(lambda self, hidden: self.fc(hidden) + hidden)),
    ("'fc' in a network that returns tuple", lambda: Ends(lambda self, hidden: (self.fc(hidden), hidden))),
    ("'fc' in a network that returns dict", lambda: Ends(lambda self, hidden: {"logits": self.fc(hidden)})),
    ("'fc', which was called 2 times", lambda: Ends(lambda self, hidden: self.fc(self.fc(hidden)))),
    ("'fc', whose input has 3 dimensions", lambda: Ends(lambda self, hidden: self.fc(hidden[:, None]))),
    ("'drop', a Dropout called 2", lambda: Ends(lambda self, hidden: self.fc(self.drop(self.drop(hidden).relu())))),
    ("that fails without it", lambda: Ends(lambda self, hidden: self.fc(hidden * self.fc.weight[0, 0]))),
    ("'7', a Linear with hooks", lambda: sequential(hooked())),
    ("'fc', a Linear that is tied to 'body.2.weight'", tied),
    ("is tied to|was called 2 times", lambda: nn.Sequential(nn.Flatten(), *[nn.Linear(16, 16)] * 2)),
    (r"of several names \(1.1, 2.0\)|a Dropout called 2 times", lambda: shared(nn.Dropout())),
]


def described(network: nn.Module) -> list[object]:
    """Each module and parameter, and the modes."""
    modules = [(name, type(module), module.training) for name, module in network.named_modules()]
    return [*modules, *map(id, network.parameters())]


@pytest.mark.parametrize("example", [None, IMAGES])
@pytest.mark.parametrize(("found", "make"), UNSUITABLE)
def test_an_unsuitable_network_is_refused(found: str, make: Callable[[], nn.Module], example: Tensor | None) -> None:
    """With example images at once, and the network is left alone; without, at the latest on the first forward pass."""
    network = make()
    before = described(network)
    with pytest.raises(ValueError, match=found):
        attach(network, dropout="none", example=example)(IMAGES)
    assert example is None or described(network) == before


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_torch_jit_script_is_refused_as_such_and_exports_are_the_same() -> None:
    classifier = attach(sequential(), rho=2)
    classifier(IMAGES, LABELS)
    for part in (classifier, classifier.head, MalDropLinear(8, 3, rho=2).eval()):
        with pytest.raises(RuntimeError, match=r"torch\.jit\.script can't take .* use torch\.export\.export"):
            torch.jit.script(part)
    expected = classifier.eval()(IMAGES)
    exported = torch.export.export(classifier, (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), expected)


@torch.no_grad()
def test_what_the_documentation_shows() -> None:
    classifier, rhos = attach(sequential(), rho=2), []
    page = (Path(__file__).parents[1] / "docs" / "variants.md").read_text()
    with_labels, schedule, detached = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"classifier": classifier, "images": IMAGES, "targets": LABELS, "epochs": 3, "rho": 8}
    names["loader"] = [(IMAGES, LABELS)] * 2
    exec(with_labels, names)
    assert classifier.head.regulariser.drop_totals() == (2 * 6, 8 * 6)
    classifier.register_forward_pre_hook(lambda *_: rhos.append(classifier.head.regulariser.rho))
    exec(schedule, names)
    assert rhos == [8, 8, 4, 4, 0, 0]
    assert names["batch"] == 5
    expected = classifier.eval()(IMAGES)
    exec(detached, names)
    for network in (names["network"], classifier):
        torch.testing.assert_close(network.eval()(IMAGES), expected, rtol=0, atol=0)


@pytest.mark.parametrize("example", [None, IMAGES])
@pytest.mark.parametrize("dropout", Dropout)
def test_detach_gives_the_users_network_back(dropout: Dropout, example: Tensor | None) -> None:
    """In evaluation mode with the same logits, and with the keys that it had."""
    network = sequential()
    keys = list(network.state_dict())
    network[7].bias.requires_grad_(False)
    classifier = attach(network, dropout=str(dropout), rho=2, channels=4, generator=torch.Generator(), example=example)
    classifier(IMAGES, LABELS)
    before = copy.deepcopy(classifier.state_dict())
    plain = classifier.detach()
    assert [type(layer) for layer in plain.modules()] == [
        nn.Sequential, nn.Flatten, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Identity, nn.Linear
    ]  # fmt: skip
    assert list(plain.state_dict()) == keys
    assert [each.requires_grad for each in plain.parameters()] == [True] * 5 + [False]
    assert plain.training
    torch.testing.assert_close(plain.eval()(IMAGES), classifier.eval()(IMAGES), rtol=0, atol=0)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert all(map(torch.equal, before.values(), classifier.state_dict().values()))
    assert attach(plain, rho=2)(IMAGES, LABELS).shape == (6, 3)


@torch.no_grad()
def test_detach_of_a_compiled_network_and_of_a_classifier_of_ours() -> None:
    network: Any = torch.compile(sequential().eval(), backend="eager")
    classifier = attach(network, dropout="none")
    torch.testing.assert_close(classifier.detach()(IMAGES), classifier(IMAGES), rtol=0, atol=0)
    ours = build_model(RunConfig(rho=2), (1, 4, 4), 3).eval()
    torch.testing.assert_close(ours.detach()(IMAGES), ours(IMAGES), rtol=0, atol=0)


class Named(nn.Module):
    """A network whose last Linear is called ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.body = name, nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8))
        self.add_module(name, nn.Linear(8, 3))

    def forward(self, images: Tensor) -> Any:
        return self.get_submodule(self.name)(self.body(images))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", ["fc", "head", "backbone"])
def test_a_classifier_loads_the_state_dict_of_the_network_from_before(name: str, wrapped: bool) -> None:
    network = Named(name)
    network(IMAGES)
    state, expected = copy.deepcopy(network.state_dict()), network.eval()(IMAGES)
    classifier = attach(Named(name).eval(), rho=2)
    classifier.train()(IMAGES, LABELS)
    if wrapped:  # within another module, as DistributedDataParallel has it
        outer = nn.ModuleDict({"module": classifier})
        outer.load_state_dict({f"module.{key}": value for key, value in state.items()})
    else:
        classifier.load_state_dict(state)
    torch.testing.assert_close(classifier.eval()(IMAGES), expected, rtol=0, atol=0)
    assert classifier.head.regulariser.drop_totals() == (0, 0)
    del state["body.1.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"backbone.network.body.1.bias\""):
        classifier.load_state_dict(state)


class Asks(nn.Module):
    """Takes more than images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = sequential()

    def forward(self, tokens: Tensor, mask: Tensor, *, scale: float = 1.0) -> Any:
        return self.inner(tokens * mask * scale)


@torch.no_grad()
@pytest.mark.parametrize("example", [None, (IMAGES, IMAGES > 0), {"tokens": IMAGES, "mask": IMAGES > 0}])
def test_further_arguments_are_passed_on(example: Any) -> None:
    network, mask = Asks().eval(), IMAGES > 0
    expected = network(IMAGES, mask, scale=2.0)
    classifier = attach(network, rho=2, example=example)
    for logits in (
        classifier(IMAGES, None, mask, scale=2.0),
        classifier(IMAGES, mask=mask, scale=2.0),
        classifier(tokens=IMAGES, mask=mask, scale=2.0, labels=LABELS),
    ):
        torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'mask'"):
        classifier(IMAGES)
    assert classifier.train()(tokens=IMAGES, mask=mask, labels=LABELS).shape == (6, 3)
    with labels(LABELS):
        assert classifier(tokens=IMAGES, mask=mask).shape == (6, 3)


def in_place(graph: Any, inputs: object) -> Callable[..., Any]:
    """A backend whose outputs have been written to, as Inductor's have."""
    return lambda *arguments: [output.add_(0.0) for output in graph(*arguments)]


@torch.no_grad()
@pytest.mark.parametrize("example", [None, IMAGES])
@pytest.mark.parametrize("part", ["the network", "the network in place", "its end", "its end in place", "its body"])
def test_a_compiled_network(part: str, example: Tensor | None) -> None:
    network: Any = nn.Sequential(sequential()[:6], sequential()[6:]).eval()
    expected = network(IMAGES)
    if part == "the network":
        network = torch.compile(network, backend=in_place)
    elif part == "its end":
        network[1] = torch.compile(network[1], backend=in_place)
    else:
        {"the network in place": network, "its end in place": network[1], "its body": network[0]}[part].compile(
            backend=in_place
        )
    network(IMAGES)
    classifier = attach(network, rho=2, example=example)
    for _ in range(2):  # the first pass is watched
        torch.testing.assert_close(classifier(IMAGES), expected)
    assert classifier.train()(IMAGES, LABELS).shape == (6, 3)


@pytest.mark.parametrize("example", [None, IMAGES])
@pytest.mark.parametrize("place", [6, 7])
def test_a_layer_compiled_by_itself_is_refused_as_such(place: int, example: Tensor | None) -> None:
    network = sequential()
    network[place] = torch.compile(network[place], backend="eager")  # type: ignore[assignment]
    if place == 6 and example is None:  # a Dropout that is not seen stays
        assert attach(network, rho=2)(IMAGES, LABELS).shape == (6, 3)
    else:
        with pytest.raises(
            ValueError, match=f"'{place}._orig_mod', a layer compiled by itself: compile the classifier"
        ):
            attach(network, rho=2, example=example)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rho": 9}, "rho must be from 0 to 8"),
        ({"rho": -1}, "rho must be from 0 to 8"),
        ({"rho": "101%"}, "rho is '101%', but the layer has 8 neurons; rho must be from 0 to 8"),
        ({"p": 1.5}, "^p: 1.5"),
        ({"dropout": "maldorp"}, "did you mean 'maldrop'"),
        ({"selector": "heuristics"}, "did you mean 'heuristic'"),
        ({"granularity": "row"}, "one of: batch, sample"),
        ({"omega": "big"}, "omega: 'big'"),
        ({"omega": float("nan")}, "omega: 'nan'"),
        ({"dropout": "spatial"}, "needs to know their number"),
        ({"dropout": "spatial-maldrop", "channels": 3}, "8 neurons can't be divided into 3"),
        ({"dropout": "maldropconnect", "granularity": "sample"}, "drops weights"),
        ({"selector": "joint", "joint_starts": -1}, "-1 is not a whole number"),
        ({"score_memory": 0}, "score_memory: 0 is not a finite number above 0"),
        ({"pass_rate": "always"}, "one of: cumulative, epoch, none"),
    ],
)
def test_a_wrong_setting_leaves_the_network_alone(wrong: dict[str, Any], message: str) -> None:
    network = sequential()
    before = described(network)
    with pytest.raises(ValueError, match=message):
        attach(network, **wrong)
    assert described(network) == before


def test_a_second_mode_is_watched_too() -> None:
    """As torchvision's googlenet, which returns more in training than in evaluation."""
    network = Ends(lambda self, hidden: (self.fc(hidden), hidden) if self.training else self.fc(hidden))
    classifier = attach(network, example=IMAGES)
    classifier.eval()(IMAGES)
    with pytest.raises(ValueError, match="returns tuple"):
        classifier.train()(IMAGES, LABELS)


def test_an_error_of_the_network_itself_comes_through() -> None:
    network = sequential()
    before = described(network)
    with pytest.raises(RuntimeError, match="shapes"):
        attach(network, example=torch.randn(2, 5))
    assert described(network) == before


def test_state_dicts_round_trip_and_copies_work() -> None:
    first, second = attach(sequential(), rho=2), attach(sequential(), rho=2)
    first(IMAGES, LABELS)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    second.load_state_dict(torch.load(io.BytesIO(file.getvalue())))
    first.eval()
    for other in (second.eval(), copy.deepcopy(first)):
        torch.testing.assert_close(other(IMAGES), first(IMAGES), rtol=0, atol=0)


def test_device_and_dtype_are_the_linears(device: torch.device) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        classifier = attach(sequential().to(device, dtype), rho=2, example=IMAGES.to(device, dtype))
        logits = classifier(IMAGES.to(device, dtype), LABELS.to(device))
        assert (logits.dtype, logits.device) == (dtype, device)
        assert {buffer.device for buffer in classifier.head.buffers()} == {device}


def test_it_compiles() -> None:
    classifier = attach(sequential(), dropout="none").eval()
    compiled = torch.compile(copy.deepcopy(classifier), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(IMAGES), classifier(IMAGES))
