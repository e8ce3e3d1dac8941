"""Plans: which runs, in which order."""

from dataclasses import replace

from maldrop_cli.config import Dropout, RunConfig, Schedule
from maldrop_cli.models.variants import EpochRho, rho_by_epoch
from maldrop_cli.sweep.grid import arms, distinct, grid, over_seeds, trained_once, with_references

BASE = RunConfig()


def test_arms_differ_in_their_dropout_alone() -> None:
    planned = arms(BASE, list(Dropout))
    assert [replace(each, dropout=Dropout.MALDROP) for each in planned] == [BASE] * len(Dropout)


def test_every_combination_once() -> None:
    points = grid([(BASE, [1, 2, 3])], [Schedule.STANDARD, Schedule.FORWARD], ["paper", 0.5])
    assert len(points) == 12
    assert [each.rho for each in points[:3]] == [1, 2, 3]
    assert len({each.run_id("") for each in points}) == 12


def test_settings_without_effect_do_not_multiply() -> None:
    variants = list(zip(arms(BASE, [Dropout.VANILLA, Dropout.RANDOM]), ([1], [1, 2]), strict=True))
    points = grid(variants, [Schedule.STANDARD], ["paper", 0.5])
    assert [(each.dropout, each.rho) for each in points] == [
        (Dropout.VANILLA, 1),
        (Dropout.RANDOM, 1),
        (Dropout.RANDOM, 2),
    ]


def test_references_come_first_and_once() -> None:
    variants = [(arm, [5]) for arm in arms(BASE, [Dropout.VANILLA, Dropout.MALDROP])]
    points = with_references([BASE], grid(variants, [Schedule.STANDARD], ["paper"]))
    assert [each.dropout for each in points] == [Dropout.NONE, Dropout.VANILLA, Dropout.MALDROP]


def test_distinct_keeps_the_first() -> None:
    one, same = replace(BASE, dropout=Dropout.NONE, rho=1), replace(BASE, dropout=Dropout.NONE, rho=2)
    assert distinct([one, BASE, same]) == [one, BASE]


def test_points_with_the_same_rhos_are_trained_once() -> None:
    def rhos(point: RunConfig) -> list[EpochRho]:
        return rho_by_epoch(point, 32)

    forward = [replace(BASE, schedule=Schedule.FORWARD, rho=rho) for rho in (0, 10, 20, 32)]
    everything = replace(BASE, rho=32)
    linear = replace(BASE, schedule=Schedule.LINEAR, rho=32, rho_end=32)
    points = [*forward, everything, linear]
    assert trained_once(points, rhos) == [forward[0], *[forward[1]] * 5]
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
    assert trained_once([everything, *others], rhos) == [everything, *others]
    nothing = [replace(BASE, rho=0), replace(BASE, rho=0, schedule=Schedule.PERIODIC)]
    assert trained_once(nothing, rhos) == [nothing[0]] * 2
    every = replace(BASE, rho=5, schedule=Schedule.PERIODIC, period=1)
    assert trained_once([replace(BASE, rho=5), every], rhos) == [replace(BASE, rho=5)] * 2


def test_seeds_rotate_the_arms() -> None:
    planned = over_seeds(arms(BASE, [Dropout.NONE, Dropout.VANILLA, Dropout.RANDOM]), [4, 5, 6, 7], rotate=True)
    order = [[each.dropout.value[0] for each in planned[start : start + 3]] for start in range(0, 12, 3)]
    assert order == [["n", "v", "r"], ["v", "r", "n"], ["r", "n", "v"], ["n", "v", "r"]]
    assert [each.seed for each in planned] == [4] * 3 + [5] * 3 + [6] * 3 + [7] * 3
