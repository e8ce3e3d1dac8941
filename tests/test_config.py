"""Settings: what is valid, what identifies a run, what a preset sets."""

import dataclasses
import json
import math
from dataclasses import replace

import pytest

from maldrop_cli.config import DataConfig, RunConfig, apply_preset
from maldrop_cli.names import (
    VGG16,
    Dataset,
    Dropout,
    Granularity,
    PassRate,
    Preset,
    Schedule,
    Selector,
    UsageError,
    parse_name,
    parse_omega,
)

BASE = RunConfig()


@pytest.mark.parametrize(
    ("dropout", "change", "matters"),
    [
        (Dropout.NONE, {"p": 0.1}, False),
        (Dropout.NONE, {"rho": 1}, False),
        (Dropout.NONE, {"lr": 0.5}, True),
        (Dropout.VANILLA, {"p": 0.1}, True),
        (Dropout.VANILLA, {"omega": "classes"}, False),
        (Dropout.MALDROP, {"p": 0.1}, False),
        (Dropout.MALDROP, {"rho": 1}, True),
        (Dropout.MALDROP, {"omega": "classes"}, True),
        (Dropout.MALDROP, {"period": 2}, False),
        (Dropout.MALDROP, {"seed": 1}, True),
        (Dropout.MALDROP, {"granularity": Granularity.SAMPLE}, True),
        (Dropout.MALDROP, {"schedule": Schedule.PERIODIC}, True),
        (Dropout.RANDOM, {"omega": "classes"}, False),
        (Dropout.RANDOM, {"selector": Selector.SINGLE}, False),
        (Dropout.RANDOM, {"rho": 1}, True),
        (Dropout.MALDROP, {"pass_rate": PassRate.NONE}, True),
        (Dropout.VANILLA, {"pass_rate": PassRate.NONE}, False),
        (Dropout.MALDROP, {"joint_starts": 0}, False),
        (Dropout.MALDROP, {"score_memory": 1.0}, False),
        (Dropout.MALDROPCONNECT, {"selector": Selector.SINGLE}, False),
        (Dropout.MALDROPCONNECT, {"omega": "classes"}, True),
        (Dropout.NESTED, {"p": 0.1}, True),
        (Dropout.NESTED, {"rho": 1}, False),
        (Dropout.SPATIAL, {"rho": 1}, False),
        (Dropout.VANILLA_MALDROP, {"p": 0.1}, True),
        (Dropout.VANILLA_MALDROP, {"rho": 1}, True),
    ],
)
def test_a_run_is_named_by_what_changes_its_numbers(dropout: Dropout, change: dict[str, object], matters: bool) -> None:
    one = replace(BASE, dropout=dropout)
    assert (one.run_id("data") != replace(one, **change).run_id("data")) is matters  # type: ignore[arg-type]


def test_other_data_are_another_run() -> None:
    assert BASE.run_id("one") != BASE.run_id("other")
    assert BASE.run_id("one") == RunConfig().run_id("one")


def test_conditional_settings() -> None:
    for selector in (Selector.LEAST_USEFUL, Selector.JOINT):
        chosen = replace(BASE, selector=selector)
        assert chosen.run_id("") != replace(chosen, omega=0.5).run_id("")
    single = replace(BASE, selector=Selector.SINGLE)
    assert single.run_id("") == replace(single, omega=0.5).run_id("")
    periodic = replace(BASE, schedule=Schedule.PERIODIC)
    assert periodic.run_id("") != replace(periodic, period=2).run_id("")
    for schedule in (Schedule.FORWARD_SMOOTH, Schedule.REVERSE_SMOOTH):
        smooth = replace(BASE, schedule=schedule)
        assert smooth.run_id("") != replace(smooth, rate=1.0).run_id("")
        assert smooth.run_id("") == replace(smooth, rho_end=1, horizon=2, period=3).run_id("")
    linear = replace(BASE, schedule=Schedule.LINEAR)
    assert linear.run_id("") == replace(linear, rate=1.0).run_id("")
    assert len({each.run_id("") for each in (linear, replace(linear, rho_end=1), replace(linear, horizon=2))}) == 3
    vgg = replace(BASE, model=VGG16)
    assert vgg.run_id("") == replace(vgg, depth=1).run_id("")
    assert BASE.run_id("") != replace(BASE, depth=1).run_id("")


def test_every_setting_is_decided_upon() -> None:
    """A new field enters the identity of some run, or is known to change nothing but the time."""
    shown = {
        name
        for dropout in Dropout
        for schedule in Schedule
        for selector in (Selector.HEURISTIC, Selector.JOINT)
        if dropout is not Dropout.SPATIAL_MALDROP
        for name in replace(
            BASE,
            dropout=dropout,
            schedule=schedule,
            selector=selector,
            fidelity_every=1,
            train_images=9,
            tune_split=0.1,
        ).effective_settings()
    }
    assert shown | {"score_memory"} == {field.name for field in dataclasses.fields(RunConfig)}
    assert "score_memory" not in shown


def test_json_round_trip() -> None:
    config = replace(
        BASE,
        data=DataConfig(dataset=Dataset.SYNTHETIC, shape=(3, 5, 7), image_size=9),
        omega=0.25,
        schedule=Schedule.REVERSE,
        dropout=Dropout.RANDOM,
    )
    assert RunConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with pytest.raises(TypeError, match="model"):
        RunConfig.from_dict(dataclasses.asdict(config) | {"model": 3})


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"rho": -1}, "rho"),
        ({"period": 0}, "period"),
        ({"rate": 0.0}, "rate"),
        ({"rate": -1.0}, "rate"),
        ({"rate": math.inf}, "rate"),
        ({"rate": math.nan}, "rate"),
        ({"rho_end": -1}, "rho_end"),
        ({"horizon": 0}, "horizon"),
        ({"depth": 0}, "depth"),
        ({"seed": -1}, "seed"),
        ({"p": 1.5}, "p"),
        ({"p": math.nan}, "p"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"momentum": -0.1}, "momentum"),
        ({"weight_decay": math.inf}, "weight_decay"),
        ({"joint_iterations": -1}, "joint_iterations"),
        ({"joint_starts": -1}, "joint_starts"),
        ({"score_memory": 0.0}, "score_memory"),
        ({"score_memory": math.nan}, "score_memory"),
        ({"dropout": Dropout.DROPCONNECT, "granularity": Granularity.SAMPLE}, "granularity"),
        ({"dropout": Dropout.MALDROPCONNECT, "granularity": Granularity.SAMPLE}, "granularity"),
        ({"dropout": Dropout.SPATIAL_MALDROP, "selector": Selector.JOINT}, "selector"),
    ],
)
def test_a_wrong_value_names_its_flag(change: dict[str, object], flag: str) -> None:
    with pytest.raises(UsageError, match=f"^{flag}: "):
        replace(BASE, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"image_size": 0}, {"classes": 1}, {"images": 3}, {"shape": (0, 4, 4)}],
    ids=lambda change: next(iter(change)),
)
def test_wrong_data_settings(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        DataConfig(dataset=Dataset.SYNTHETIC, **change)  # type: ignore[arg-type]


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"dropout: no dropout is called 'maldorp'; did you mean 'maldrop'\?"):
        parse_name(Dropout, "maldorp", "dropout")
    with pytest.raises(UsageError, match=r"one of: none, vanilla, maldrop, random"):
        parse_name(Dropout, "zzz", "dropout")


def test_omega_words_and_numbers() -> None:
    assert [parse_omega(text) for text in ("paper", "classes", "0.5", "-1e-3")] == ["paper", "classes", 0.5, -0.001]
    for text in ("papers", "nan", "inf", ""):
        with pytest.raises(UsageError, match="omega"):
            parse_omega(text)


def test_the_preset_yields_to_flags_given_by_hand() -> None:
    config = apply_preset(Preset.PAPER, replace(BASE, lr=0.5, epochs=2), {"epochs"})
    assert (config.lr, config.momentum, config.batch_size, config.epochs) == (0.0015, 0.0, 64, 2)


def test_the_preset_depends_on_data_and_model() -> None:
    cifar = apply_preset(Preset.PAPER, replace(BASE, data=DataConfig(dataset=Dataset.CIFAR10)), set())
    assert (cifar.lr, cifar.momentum, cifar.batch_size) == (0.01, 0.9, 128)
    vgg = apply_preset(Preset.PAPER, replace(BASE, model=VGG16), set())
    assert (vgg.lr, vgg.batch_size) == (0.001, 320)  # section 5.3 and 5.3.2
