"""The classifiers: the paper's layers, VGG16, and where labels travel."""

import pytest
import torch
from torch import nn

from maldrop_cli.config import Dropout, Model, RunConfig, UsageError
from maldrop_cli.models import build_model, hidden_width, make_optimizer

BASE = RunConfig(rho=8)


def test_the_cnn_is_the_papers() -> None:
    model = build_model(BASE, (3, 32, 32), 10)
    assert isinstance(model.backbone, nn.Sequential)
    first, relu, norm, second, relu2, flatten = model.backbone
    assert [type(layer) for layer in (relu, relu2, flatten)] == [nn.ReLU, nn.ReLU, nn.Flatten]
    assert isinstance(norm, nn.BatchNorm2d)
    for convolution, channels in ((first, (3, 10)), (second, (10, 4))):
        assert isinstance(convolution, nn.Conv2d)
        assert (convolution.in_channels, convolution.out_channels) == channels
        assert (convolution.kernel_size, convolution.padding, convolution.stride) == ((3, 3), (1, 1), (1, 1))
    assert norm.num_features == 10
    assert (model.head.in_features, model.head.out_features) == (4096, 10)


def test_depth_1_is_the_text_to_the_letter() -> None:
    assert hidden_width(Model.CNN, 1, (1, 32, 32)) == 1024
    assert hidden_width(Model.CNN, 4, (1, 32, 32)) == 4096
    assert hidden_width(Model.CNN, 4, (2, 5, 7)) == 140


def test_vgg16_is_torchvisions_with_its_end_replaced() -> None:
    from torchvision.models import vgg16

    torch.manual_seed(0)
    ours = build_model(RunConfig(model=Model.VGG16, dropout=Dropout.VANILLA), (3, 32, 32), 7).eval()
    torch.manual_seed(0)
    theirs = vgg16(weights=None, num_classes=7).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
    assert sum(isinstance(layer, nn.Dropout) for layer in ours.backbone.modules()) == 1  # its first stays
    grey = images[:, :1]
    with torch.no_grad():
        torch.testing.assert_close(ours(grey), theirs(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("shape", [(3, 31, 32), (3, 8, 8), (2, 32, 32)])
def test_images_that_vgg16_cannot_take(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="vgg16"):
        hidden_width(Model.VGG16, 4, shape)


@pytest.mark.parametrize("dropout", Dropout)
def test_labels_travel_as_an_argument(dropout: Dropout) -> None:
    model = build_model(RunConfig(dropout=dropout, rho=2), (1, 8, 8), 3, torch.Generator())
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    assert model(images, labels).shape == (4, 3)
    if dropout is Dropout.MALDROP:
        with pytest.raises(ValueError, match="needs labels"):
            model(images)
    model.eval()
    assert torch.equal(model(images), model(images, labels))


def test_the_optimizer_is_plain_sgd() -> None:
    """One step of momentum-free SGD with weight decay, against the formula."""
    model = nn.Linear(3, 2)
    config = RunConfig(lr=0.1, momentum=0.0, weight_decay=0.5)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, config, torch.device("cpu"))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before - 0.1 * (1 + 0.5 * before))
