"""Plans: which runs, in which order."""

from dataclasses import replace

from maldrop_cli.config import Dropout, RunConfig, Schedule
from maldrop_cli.sweep.plan import arms, distinct, grid, over_seeds, with_references

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
    points = with_references(BASE, grid(variants, [Schedule.STANDARD], ["paper"]))
    assert [each.dropout for each in points] == [Dropout.NONE, Dropout.VANILLA, Dropout.MALDROP]


def test_distinct_keeps_the_first() -> None:
    one, same = replace(BASE, dropout=Dropout.NONE, rho=1), replace(BASE, dropout=Dropout.NONE, rho=2)
    assert distinct([one, BASE, same]) == [one, BASE]


def test_seeds_rotate_the_arms() -> None:
    planned = over_seeds(arms(BASE, [Dropout.NONE, Dropout.VANILLA, Dropout.RANDOM]), [4, 5, 6, 7], rotate=True)
    order = [[each.dropout.value[0] for each in planned[start : start + 3]] for start in range(0, 12, 3)]
    assert order == [["n", "v", "r"], ["v", "r", "n"], ["r", "n", "v"], ["n", "v", "r"]]
    assert [each.seed for each in planned] == [4] * 3 + [5] * 3 + [6] * 3 + [7] * 3
