"""Every name on the command line has one implementation, and every implementation a name."""

from dataclasses import replace

import pytest
import torch

from maldrop_cli import config, names
from maldrop_cli.data.load import REGISTRY
from maldrop_cli.dropout import SCHEDULES, SELECTORS
from maldrop_cli.dropout.naive import NAIVE
from maldrop_cli.dropout.regularisers import (
    PASS_RATES,
    Composition,
    InvertedDropout,
    MalDropConnect,
    NestedDropout,
    Regulariser,
    TargetedDropout,
    VanillaDropout,
)
from maldrop_cli.dropout.schedules import stop_probability
from maldrop_cli.dropout.scores import SCORES, Options
from maldrop_cli.dropout.selectors import GRANULARITIES
from maldrop_cli.models.variants import VARIANTS, Head, build_regulariser
from maldrop_cli.timing.scaling import AXES


def test_registries_and_names_are_equal() -> None:
    assert set(VARIANTS) == set(names.TAKES) == set(names.Dropout)
    assert set(PASS_RATES) == {str(name) for name in names.PassRate}
    assert set(SCORES) == {str(name) for name in names.Selector if name not in names.WITHOUT_SCORE} | {"random"}
    assert set(REGISTRY) == set(names.Dataset)
    assert set(AXES) == set(names.Axis)
    assert set(SCHEDULES) == {str(name) for name in names.Schedule}
    assert set(SELECTORS) - {"random"} == {str(name) for name in names.Selector}  # random is a --dropout of its own
    assert set(GRANULARITIES) == {str(name) for name in names.Granularity}
    assert {fast for fast, _ in NAIVE.values()} <= set(SELECTORS)


@pytest.mark.parametrize("dropout", names.Dropout)
def test_every_variant_can_be_built(dropout: names.Dropout) -> None:
    regulariser = build_regulariser(config.RunConfig(dropout=dropout, rho=3), Head(8, 2, 4), torch.Generator())
    assert isinstance(regulariser, torch.nn.Module)


def test_the_defaults_of_the_layer_are_those_of_the_command_line() -> None:
    defaults, base = Options(), config.RunConfig()
    assert (defaults.iterations, defaults.vertices) == (base.joint_iterations, base.joint_starts)
    assert defaults.score_bytes == base.score_memory * 2**20


def part(regulariser: Regulariser) -> TargetedDropout:
    members = regulariser.members if isinstance(regulariser, Composition) else [regulariser]
    return next(each for each in members if isinstance(each, TargetedDropout))


@pytest.mark.parametrize("dropout", [each for each in names.Dropout if config.RunConfig(dropout=each).chooses])
def test_settings_reach_what_chooses_neurons(dropout: names.Dropout) -> None:
    chosen = config.RunConfig(
        dropout=dropout, rho=2, omega=0.25, granularity=names.Granularity.SAMPLE, pass_rate=names.PassRate.EPOCH,
        joint_iterations=3, joint_starts=5, score_memory=2.0, selector=names.Selector.GRADIENT,
    )  # fmt: skip
    generator = torch.Generator()
    made = part(build_regulariser(chosen, Head(8, 2, 4), generator))
    area = 2 if dropout is names.Dropout.SPATIAL_MALDROP else 1
    assert made.options == Options(0.25, True, generator, area, 2 * 2**20, 3, 5)
    assert (made.rho, made.pass_rate) == (2, "epoch")
    assert made.selector == ("random" if dropout is names.Dropout.RANDOM else "gradient")


def test_settings_reach_the_other_variants() -> None:
    chosen = config.RunConfig(omega=0.25, p=0.3, pass_rate=names.PassRate.NONE, rho=2)
    generator = torch.Generator()

    def build(dropout: names.Dropout, **change: object) -> Regulariser:
        return build_regulariser(replace(chosen, dropout=dropout, **change), Head(8, 2, 4), generator)  # type: ignore[arg-type]

    nested = build(names.Dropout.NESTED, granularity=names.Granularity.SAMPLE)
    assert isinstance(nested, NestedDropout)
    assert (nested.per_sample, nested.pass_rate, nested.generator) == (True, "none", generator)
    assert nested.stop == stop_probability(8, 0.3)
    connect = build(names.Dropout.MALDROPCONNECT)
    assert isinstance(connect, MalDropConnect)
    assert (connect.omega, connect.rho, connect.pass_rate) == (0.25, 2, "none")
    for dropout in (names.Dropout.VANILLA, names.Dropout.SPATIAL, names.Dropout.DROPCONNECT):
        made = build(dropout)
        assert isinstance(made, InvertedDropout)
        assert made.dropout.p == 0.3
    for dropout, first in ((names.Dropout.VANILLA_MALDROP, True), (names.Dropout.MALDROP_VANILLA, False)):
        both = build(dropout)
        assert isinstance(both, Composition)
        assert isinstance(both.members[0], VanillaDropout) is first
