"""The classifiers: the paper's layers, torchvision's networks, and where labels travel."""

import random
from dataclasses import replace

import pytest
import torch
import torchvision.models
from torch import nn
from torchvision.models import get_model, list_models

from maldrop_cli import models
from maldrop_cli.config import RunConfig
from maldrop_cli.data.dataset import Shape
from maldrop_cli.dropout import Regulariser
from maldrop_cli.models.strip_head import Backbone
from maldrop_cli.models.torchvision import SIDES, blank, size_error
from maldrop_cli.models.variants import rho_by_epoch, rho_of
from maldrop_cli.names import Dropout, Schedule, UsageError

BASE = RunConfig(rho=8)
CONVOLUTIONAL = ["squeezenet1_0", "squeezenet1_1"]  # up to the end: there is no Linear to take out


def width(model: str, shape: Shape, depth: int = 4) -> int:
    return models.describe_head(RunConfig(model=model, depth=depth), shape, 10).width


def test_the_cnn_is_the_papers() -> None:
    model = models.build_model(BASE, (3, 32, 32), 10)
    convolutions = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 4, 3, padding=1)
    layers = [convolutions[0], nn.ReLU(), nn.BatchNorm2d(10), convolutions[1], nn.ReLU(), nn.Flatten()]
    assert list(map(str, model.backbone.children())) == list(map(str, layers))
    assert (model.head.in_features, model.head.out_features) == (4096, 10)
    shapes: list[tuple[int, Shape]] = [(1, (1, 32, 32)), (4, (1, 32, 32)), (4, (2, 5, 7))]
    assert [width("cnn", shape, depth) for depth, shape in shapes] == [1024, 4096, 140]


@pytest.mark.parametrize("name", sorted(set(list_models(module=torchvision.models)) - set(CONVOLUTIONAL)))
def test_every_classifier_of_torchvision_can_be_cut(name: str) -> None:
    side = next(side for side in SIDES if not size_error(name, side, side))
    backbone, linear = blank(name, side, side)
    classifier = models.Classifier(backbone, models.to_dropout_linear(linear, Regulariser())).eval()
    images = torch.empty(2, 3, side, side, device="meta")
    with torch.no_grad():
        assert classifier.backbone(images).shape == (2, width(name, (1, side, side)))
        assert classifier(images).shape == (2, 10)
    stripped = backbone[1]
    assert isinstance(stripped, Backbone)
    assert stripped.verified == {False}


def ours(config: RunConfig, shape: Shape, classes: int) -> models.Classifier:
    torch.manual_seed(0)
    return models.build_model(config, shape, classes, torch.Generator().manual_seed(0))


TWINS = [
    ("resnet18", 32, 0, 0), ("densenet121", 32, 0, 0), ("alexnet", 64, 0, 2), ("vgg16", 32, 0.5, 1),
    ("mobilenet_v3_small", 32, 0.2, 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "side", "p", "others"), TWINS)
def test_the_numbers_are_torchvisions_own(name: str, side: int, p: float, others: int) -> None:
    """Logits and gradients; in training the same seed zeros the same neurons, as vanilla replaces the last Dropout."""
    mine = ours(RunConfig(model=name, dropout=Dropout.VANILLA if p else Dropout.NONE, p=p), (3, side, side), 7)
    assert sum(isinstance(layer, nn.Dropout) for layer in mine.backbone.modules()) == others
    torch.manual_seed(0)
    theirs = get_model(name, weights=None, num_classes=7)
    images = torch.randn(2, 3, side, side)
    grey = images[:, :1]
    for training in (False, True):
        for shown, coloured in ((images, images), (grey, grey.expand(-1, 3, -1, -1))):  # the first pass is watched
            outcomes = []
            for model, given in ((mine, shown), (theirs, coloured)):
                torch.manual_seed(1)
                logits = model.train(training)(given)
                outcomes.append([logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))])
            torch.testing.assert_close(*outcomes, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        ("vgg16", (3, 31, 32), "^vgg16 .*--image-size 32"),
        ("vgg16", (3, 8, 8), "^vgg16 .*--image-size 32"),
        ("vgg16", (2, 32, 32), "^vgg16 .*1 or 3 channels, not 2"),
        ("alexnet", (3, 32, 32), "^alexnet .*--image-size 64"),
        ("inception_v3", (1, 32, 32), "^inception_v3 .*--image-size 96"),
        ("vit_b_16", (3, 100, 100), "^vit_b_16 .*patch size.*--image-size 32"),
        ("vit_b_16", (3, 32, 64), "^vit_b_16 .*width.*--image-size 32"),
        ("vit_h_14", (3, 32, 32), "^vit_h_14 .*--image-size 224"),
        ("maxvit_t", (3, 32, 32), "^maxvit_t .*--image-size 224"),
        ("swin_t", (3, 1, 1), "^swin_t .*--image-size 32"),
        ("cnn", (3, 1, 1), "more than one pixel"),
        *[(name, (3, 64, 64), r"a last nn\.Linear .* found no nn\.Linear in SqueezeNet") for name in CONVOLUTIONAL],
        ("resnet5O", (3, 32, 32), "^model: no model is called 'resnet5O'; did you mean 'resnet50'"),
    ],
)
def test_what_a_model_cannot_be_or_take(model: str, shape: Shape, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        width(model, shape)


def test_looking_at_shapes_draws_nothing() -> None:
    """Else the weights would depend on whether the width was looked up before."""
    blank.cache_clear()
    before = torch.get_rng_state()
    blank("vit_b_32", 32, 32)
    assert torch.equal(torch.get_rng_state(), before)
    assert nn.Linear(1, 1).weight.device.type == "cpu"


def test_a_single_image_that_batch_norm_cannot_train_on() -> None:
    config, shape = RunConfig(model="resnet18", batch_size=17), (3, 32, 32)
    for batch, examples, message in (
        (17, 120, r"^batch_size: 120 training images in batches of 17 leave one over.*--batch-size 18$"),
        (1, 9, r"^batch_size: resnet18 .*--batch-size 3$"),  # 2 would leave one over as well
        (17, 1, r"try more images$"),
    ):
        with pytest.raises(UsageError, match=message):
            models.check_batches(replace(config, batch_size=batch), shape, examples)
    models.check_batches(replace(config, batch_size=18), shape, 120)
    models.check_batches(config, (3, 64, 64), 120)  # maps of 2x2
    for model in ("cnn", "vgg16", "vit_b_32"):
        models.check_batches(replace(config, model=model), shape, 120)
    trained = ours(replace(config, dropout=Dropout.NONE), shape, 3)  # what the check says is so
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        trained(torch.randn(1, 3, 32, 32))
    assert trained(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("dropout", Dropout)
def test_labels_travel_as_an_argument(dropout: Dropout) -> None:
    model = models.build_model(RunConfig(dropout=dropout, rho=2), (1, 8, 8), 3, torch.Generator())
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    assert model(images, labels).shape == (4, 3)
    if dropout is Dropout.MALDROP:
        with pytest.raises(ValueError, match="needs labels"):
            model(images)
    model.eval()
    assert torch.equal(model(images), model(images, labels))


def test_the_optimizer_is_plain_sgd() -> None:
    """One step of momentum-free SGD with weight decay, by the formula."""
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    optimizer = models.make_optimizer(model, RunConfig(lr=0.1, momentum=0.0, weight_decay=0.5), torch.device("cpu"))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before - 0.1 * (1 + 0.5 * before))


def test_weights_are_drawn_from_the_first_layer_to_the_last() -> None:
    """Another order would give other runs the same id."""
    torch.manual_seed(0)
    literal = [*models.PaperCNN(1, 4).parameters(), *nn.Linear(256, 3).parameters()]
    assert all(map(torch.equal, ours(BASE, (1, 8, 8), 3).parameters(), literal))


@pytest.mark.parametrize("schedule", Schedule)
def test_rho_by_epoch_sums_up_the_batches(schedule: Schedule) -> None:
    config = RunConfig(schedule=schedule, rho=3, rho_end=9, period=4)
    rng = random.Random(0)
    for epoch, expected in enumerate(rho_by_epoch(config, 10)):
        rhos = [rho_of(config, 10, epoch, batch, rng) for batch in range(400)]
        assert (min(rhos), max(rhos)) == expected[:2]
        assert sum(rhos) / 400 == pytest.approx(expected.mean, abs=0.5 if schedule is Schedule.RANDOMIZED else 0)
