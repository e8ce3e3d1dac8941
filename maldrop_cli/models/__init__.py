"""Classifiers, a backbone from images to hidden_ND and the last affine layer with its dropout variant: the paper's, any
of torchvision's that ends in a Linear, or a network of one's own."""

from maldrop_cli.data.dataset import Shape
from maldrop_cli.models.attach import attach
from maldrop_cli.models.build import (
    build_model,
    check_batches,
    describe_head,
    hidden_width,
    lacks_deterministic_gradient,
)
from maldrop_cli.models.classifier import Classifier, Normalise, make_optimizer
from maldrop_cli.models.paper_cnn import PaperCNN

__all__ = [
    "Classifier",
    "Normalise",
    "PaperCNN",
    "Shape",
    "attach",
    "build_model",
    "check_batches",
    "describe_head",
    "hidden_width",
    "lacks_deterministic_gradient",
    "make_optimizer",
]
