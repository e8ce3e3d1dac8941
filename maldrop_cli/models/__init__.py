"""Classifiers: a backbone from images to hidden_ND, and a head, the last affine layer behind a dropout variant."""

from maldrop_cli.data.dataset import Shape as Shape
from maldrop_cli.models.attach import attach as attach
from maldrop_cli.models.build import Classifier as Classifier
from maldrop_cli.models.build import Normalise as Normalise
from maldrop_cli.models.build import PaperCNN as PaperCNN
from maldrop_cli.models.build import build_model as build_model
from maldrop_cli.models.build import check_batches as check_batches
from maldrop_cli.models.build import describe_head as describe_head
from maldrop_cli.models.build import hidden_width as hidden_width
from maldrop_cli.models.build import make_optimizer as make_optimizer
from maldrop_cli.models.torchvision import lacks_deterministic_gradient as lacks_deterministic_gradient
