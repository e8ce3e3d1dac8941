"""Every name on the command line has one implementation, and every implementation a name."""

import pytest
import torch

from maldrop_cli import config
from maldrop_cli.datasets import REGISTRY
from maldrop_cli.dropout import SCHEDULES, SELECTORS
from maldrop_cli.dropout.naive import NAIVE
from maldrop_cli.dropout.regularisers import PASS_RATES
from maldrop_cli.dropout.scores import SCORES, Options
from maldrop_cli.dropout.selectors import GRANULARITIES
from maldrop_cli.variants import VARIANTS, Head, build_regulariser


def test_registries_and_names_are_equal() -> None:
    assert set(VARIANTS) == set(config.SETTINGS) == set(config.Dropout)
    assert set(PASS_RATES) == {str(name) for name in config.PassRate}
    assert set(SCORES) == {str(name) for name in config.Selector if name not in config.WITHOUT_SCORE} | {"random"}
    assert set(REGISTRY) == set(config.Dataset)
    assert set(SCHEDULES) == {str(name) for name in config.Schedule}
    assert set(SELECTORS) - {"random"} == {str(name) for name in config.Selector}  # random is a --dropout of its own
    assert set(GRANULARITIES) == {str(name) for name in config.Granularity}
    assert {fast for fast, _ in NAIVE.values()} <= set(SELECTORS)


@pytest.mark.parametrize("dropout", config.Dropout)
def test_every_variant_can_be_built(dropout: config.Dropout) -> None:
    regulariser = build_regulariser(config.RunConfig(dropout=dropout, rho=3), Head(8, 2, 4), torch.Generator())
    assert isinstance(regulariser, torch.nn.Module)


def test_the_defaults_of_the_layer_are_those_of_the_command_line() -> None:
    defaults, base = Options(), config.RunConfig()
    assert (defaults.iterations, defaults.vertices) == (base.joint_iterations, base.joint_starts)
    assert defaults.score_bytes == base.score_memory * 2**20
