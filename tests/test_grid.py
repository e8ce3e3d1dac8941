"""Plans: which runs, in which order."""

from dataclasses import replace
from typing import Any

from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.models.variants import Head
from maldrop_cli.names import Dataset, Dropout, Preset, Schedule, Selector
from maldrop_cli.record import RunRecord
from maldrop_cli.sweep.grammar import Quantity, parse_axis
from maldrop_cli.sweep.grid import REFERENCES, aliases, build, build_timed, distinct, over_seeds, trained_as

BASE = RunConfig()


def head(config: RunConfig) -> Head:
    return Head(32, 10, 4)


def values(**change: list[Any]) -> dict[str, list[Any]]:
    return {"dropout": [Dropout.MALDROP], "rho": [Quantity(5)], **change}


def test_one_value_each_is_one_config_with_all_of_them() -> None:
    data: dict[str, list[Any]] = {"dataset": [Dataset.SYNTHETIC], "shape": [(1, 8, 8)]}
    [config] = build({**values(epochs=[3], rho=[Quantity(25, percent=True)]), **data}, head)
    assert config == RunConfig(data=DataConfig(dataset=Dataset.SYNTHETIC, shape=(1, 8, 8)), epochs=3, horizon=3, rho=8)
    assert build(values(epochs=[3], horizon=[7]), head)[0].horizon == 7


def test_every_combination_once_and_rho_varies_fastest() -> None:
    points = build(
        values(rho=parse_axis("1,2,3", "rho"), schedule=[Schedule.STANDARD, Schedule.FORWARD], omega=["paper", 0.5]),
        head,
    )
    assert len(points) == 12
    assert [each.rho for each in points[:3]] == [1, 2, 3]
    assert len({each.run_id("") for each in points}) == 12


def test_a_percentage_is_of_what_the_variant_drops() -> None:
    dropouts = [Dropout.MALDROP, Dropout.SPATIAL_MALDROP, Dropout.MALDROPCONNECT]
    points = build(values(dropout=dropouts, rho=[Quantity(50, percent=True)]), head)
    assert [point.rho for point in points] == [16, 2, 160]


def test_settings_without_effect_do_not_multiply() -> None:
    points = build(
        values(dropout=[Dropout.VANILLA, Dropout.RANDOM], rho=parse_axis("1,2", "rho"), omega=["paper", 0.5],
               selector=list(Selector)), head,
    )  # fmt: skip
    assert [(each.dropout, each.rho) for each in points if each.has_rho] == [(Dropout.RANDOM, 1), (Dropout.RANDOM, 2)]
    assert len(points) == 3


def test_references_come_first_and_once_for_each_base() -> None:
    points = build(
        values(dropout=[Dropout.VANILLA, Dropout.MALDROP], lr=[0.1, 0.2], p=[0.3, 0.5]), head, references=REFERENCES
    )
    assert [(each.dropout.value, each.lr, each.p) for each in points[:6]] == [
        ("none", 0.1, 0.3), ("vanilla", 0.1, 0.3), ("vanilla", 0.1, 0.5),
        ("none", 0.2, 0.3), ("vanilla", 0.2, 0.3), ("vanilla", 0.2, 0.5),
    ]  # fmt: skip
    assert [(each.dropout.value, each.lr) for each in points[6:]] == [("maldrop", 0.1), ("maldrop", 0.2)]


def test_what_is_timed() -> None:
    dropouts = [Dropout.MALDROP, Dropout.VANILLA, Dropout.SPATIAL_MALDROP]
    several = values(dropout=dropouts, selector=[Selector.JOINT, Selector.SINGLE], rho=[Quantity(1)])
    assert [(each.dropout.value, each.selector.value) for each in build_timed(several, head)] == [
        ("none", "heuristic"), ("vanilla", "heuristic"), ("maldrop", "joint"), ("maldrop", "single"),
        ("spatial-maldrop", "heuristic"),
    ]  # fmt: skip


def test_the_preset_fills_what_is_not_given() -> None:
    [config] = build(values(epochs=[3], lr=[0.5]), head, Preset.PAPER, frozenset({"lr"}))
    assert (config.lr, config.momentum, config.epochs, config.horizon) == (0.5, 0.0, 10, 10)


def test_distinct_keeps_the_first() -> None:
    one, same = replace(BASE, dropout=Dropout.NONE, rho=1), replace(BASE, dropout=Dropout.NONE, rho=2)
    assert distinct([one, BASE, same]) == [one, BASE]


def test_points_with_the_same_rhos_are_trained_once() -> None:
    forward = [replace(BASE, schedule=Schedule.FORWARD, rho=rho) for rho in (0, 10, 20, 32)]
    everything = replace(BASE, rho=32)
    linear = replace(BASE, schedule=Schedule.LINEAR, rho=32, rho_end=32)
    assert trained_as([*forward, everything, linear], head) == [forward[0], *[forward[1]] * 5]
    others = [
        replace(everything, dropout=Dropout.RANDOM),
        replace(everything, lr=0.5),
        replace(everything, omega="classes"),
        *(replace(BASE, schedule=Schedule.RANDOMIZED, rho=rho) for rho in (1, 2)),
        *(
            replace(BASE, schedule=Schedule.PERIODIC, rho=rho, period=period)
            for rho, period in ((3, 2), (3, 3), (4, 2))
        ),
    ]
    assert trained_as([everything, *others], head) == [everything, *others]
    nothing = [replace(BASE, rho=0), replace(BASE, rho=0, schedule=Schedule.PERIODIC)]
    assert trained_as(nothing, head) == [nothing[0]] * 2
    every = replace(BASE, rho=5, schedule=Schedule.PERIODIC, period=1)
    assert trained_as([replace(BASE, rho=5), every], head) == [replace(BASE, rho=5)] * 2


def test_a_point_has_the_records_of_the_one_that_was_trained() -> None:
    first, second = (replace(BASE, schedule=Schedule.FORWARD, rho=rho) for rho in (10, 20))
    records = [RunRecord(run_id=str(seed), config=replace(first, seed=seed)) for seed in (0, 4)]
    assert aliases([first, second], [first, first], records) == [
        replace(record, config=replace(second, seed=record.config.seed), trained_as=record.config) for record in records
    ]


def test_seeds_rotate_the_arms() -> None:
    arms = [replace(BASE, dropout=dropout) for dropout in (Dropout.NONE, Dropout.VANILLA, Dropout.RANDOM)]
    planned = over_seeds(arms, [4, 5, 6, 7], rotate=True)
    order = [[each.dropout.value[0] for each in planned[start : start + 3]] for start in range(0, 12, 3)]
    assert order == [["n", "v", "r"], ["v", "r", "n"], ["r", "n", "v"], ["n", "v", "r"]]
    assert [each.seed for each in planned] == [4] * 3 + [5] * 3 + [6] * 3 + [7] * 3
