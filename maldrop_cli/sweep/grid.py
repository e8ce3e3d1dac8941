"""Which runs a command asks for: pure functions from settings to an ordered list of run configs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from maldrop_cli.config import FURTHER_SETTINGS, Dropout, Omega, RunConfig, Schedule, Selector

if TYPE_CHECKING:  # it imports torch
    from maldrop_cli.models.variants import EpochRho


def arms(base: RunConfig, dropouts: Sequence[Dropout]) -> list[RunConfig]:
    """One config for each dropout variant, alike in all else."""
    return [replace(base, dropout=dropout) for dropout in dropouts]


def subjects(base: RunConfig, dropouts: Sequence[Dropout], selectors: Sequence[Selector]) -> list[RunConfig]:
    """What to time: ``none`` and ``vanilla``, then the others; ``maldrop`` with each of the selectors."""
    references = (Dropout.NONE, Dropout.VANILLA)
    plan = []
    for dropout in [*references, *(each for each in dropouts if each not in references)]:
        if dropout is Dropout.MALDROP:
            plan += [replace(base, dropout=dropout, selector=selector) for selector in selectors]
        else:
            plan.append(replace(base, dropout=dropout))
    return plan


def grid(
    variants: Sequence[tuple[RunConfig, Sequence[int]]], schedules: Sequence[Schedule], omegas: Sequence[Omega]
) -> list[RunConfig]:
    """Every combination, rho varying fastest; combinations that differ only in a setting without effect come once.

    ``variants``: each with its rhos, numbers of the neurons, channels or weights that it drops.
    """
    points = [
        replace(variant, schedule=schedule, omega=omega, rho=rho)
        for variant, rhos in variants
        for schedule, omega, rho in itertools.product(schedules, omegas, rhos)
    ]
    return distinct(points)


def with_references(bases: Sequence[RunConfig], points: Sequence[RunConfig]) -> list[RunConfig]:
    """``none`` and ``vanilla`` of each base before the points, unless they are among them."""
    references = [each for base in bases for each in arms(base, (Dropout.NONE, Dropout.VANILLA))]
    return distinct([*references, *points])


def distinct(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """The configs without those whose numbers would be those of an earlier one."""
    unique: dict[str, RunConfig] = {}
    for config in configs:
        unique.setdefault(repr(config.effective_settings()), config)
    return list(unique.values())


_WHAT_RHO_COMES_FROM = {"rho", "schedule", *(name for names in FURTHER_SETTINGS["schedule"].values() for name in names)}


def trained_once(points: Sequence[RunConfig], rhos: Callable[[RunConfig], Sequence[EpochRho]]) -> list[RunConfig]:
    """For each point, the first one whose runs would be the same: alike in all but where rho comes from, and with the
    same rho in every batch. In ``forward``, these are all points beyond saturation."""
    first: dict[Hashable, RunConfig] = {}
    for point in points:
        first.setdefault(_same_runs(point, rhos), point)
    return [first[_same_runs(point, rhos)] for point in points]


def _same_runs(point: RunConfig, rhos: Callable[[RunConfig], Sequence[EpochRho]]) -> Hashable:
    by_epoch = tuple(rhos(point)) if point.has_rho else ()
    identity = point.effective_settings()
    if all(each.low == each.high for each in by_epoch):
        identity = {name: value for name, value in identity.items() if name not in _WHAT_RHO_COMES_FROM}
    return repr(identity), by_epoch


def over_seeds(configs: Sequence[RunConfig], seeds: Sequence[int], *, rotate: bool = False) -> list[RunConfig]:
    """Every config with every seed, seed by seed. ``rotate`` starts each seed with the next config, so that none is
    always first on a cold machine."""
    plan = []
    for turn, seed in enumerate(seeds):
        start = turn % len(configs) if rotate else 0
        plan += [replace(config, seed=seed) for config in [*configs[start:], *configs[:start]]]
    return plan
