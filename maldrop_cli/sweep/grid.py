"""From the values of settings to an ordered plan of run configs: pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from maldrop_cli.config import DataConfig, RunConfig, apply_preset
from maldrop_cli.models.variants import Head, check_variant, rho_by_epoch
from maldrop_cli.names import Dropout, Preset
from maldrop_cli.record import RunRecord
from maldrop_cli.sweep.grammar import Quantity

Values = Mapping[str, Sequence[Any]]  # by setting of RunConfig or DataConfig; of rho and rho_end, Quantities
Heads = Callable[[RunConfig], Head]  # the last layer of a run

# From the slowest to the fastest: the settings of which a command may take several values.
NESTING = ("dataset", "model", "train_images", "lr", "p", "dropout", "selector", "schedule", "omega", "rho")
REFERENCES = (Dropout.NONE, Dropout.VANILLA)
_OF_DATA = {each.name for each in fields(DataConfig)}
_RHO_SETTINGS = ("rho", "schedule", "period", "rate", "rho_end", "horizon")  # from which rho follows in each batch


def build(
    values: Values,
    head: Heads,
    preset: Preset | None = None,
    given: frozenset[str] = frozenset(),
    references: Sequence[Dropout] = (),
) -> list[RunConfig]:
    """Every combination of ``values``, finished and checked; of those alike in all that has an effect, the first.

    ``preset``: fills the settings that are not ``given``. ``references``: variants of each combination that come before
    all others. Raises UsageError for a setting that does not fit its model or variant.
    """
    names = [*(name for name in values if name not in NESTING), *(name for name in NESTING if name in values)]
    combinations = [
        dict(zip(names, each, strict=True)) for each in itertools.product(*(values[name] for name in names))
    ]
    before = [combination | {"dropout": each} for combination in combinations for each in references]
    configs: list[tuple[RunConfig, dict[str, Quantity]]] = []
    for combination in [*before, *combinations]:
        rhos: dict[str, Quantity] = {name: combination.pop(name) for name in ("rho", "rho_end") if name in combination}
        data = DataConfig(**{name: combination.pop(name) for name in list(combination) if name in _OF_DATA})
        config = RunConfig(data=data, **combination)
        if preset:
            config = apply_preset(preset, config, given)
        if "horizon" not in combination:
            config = replace(config, horizon=config.epochs)
        configs.append((config, rhos))
    return distinct([resolve_rho(config, head, rhos) for config, rhos in configs])


def build_timed(values: Values, head: Heads) -> list[RunConfig]:
    """What to time: ``none`` and ``vanilla``, then the others; ``maldrop`` with each of its selectors."""
    configs = []
    for dropout in dict.fromkeys([*REFERENCES, *values["dropout"]]):
        selectors = values["selector"] if dropout is Dropout.MALDROP else [RunConfig.selector]
        configs += build({**values, "dropout": [dropout], "selector": selectors}, head)
    return configs


def resolve_rho(config: RunConfig, head: Heads, rhos: Mapping[str, Quantity]) -> RunConfig:
    """``config`` with ``rhos``, of rho and rho_end, as numbers of what its variant drops. UsageError where there are
    too few of these, or the variant can't be had."""
    last_layer = head(config)
    check_variant(replace(config, rho=0), last_layer)
    if not config.has_rho:
        return config
    units = last_layer.units(config.unit)
    counts: dict[str, Any] = {name: each.count(units, name, config.unit) for name, each in rhos.items()}
    resolved = replace(config, **counts)
    check_variant(resolved, last_layer)
    return resolved


def distinct(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """The configs without those whose numbers would be those of an earlier one."""
    unique: dict[str, RunConfig] = {}
    for config in configs:
        unique.setdefault(config.key, config)
    return list(unique.values())


def trained_as(points: Sequence[RunConfig], head: Heads) -> list[RunConfig]:
    """For each point, the first one whose runs would be the same: alike in all but the settings of rho, and with the
    same rho in every batch. In ``forward``, these are all points beyond saturation."""
    first: dict[Hashable, RunConfig] = {}
    keys = [_same_runs(point, head) for point in points]
    for key, point in zip(keys, points, strict=True):
        first.setdefault(key, point)
    return [first[key] for key in keys]


def aliases(points: Sequence[RunConfig], trained: Sequence[RunConfig], records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records of the points that were ``trained`` as another: those of the other under their own settings."""
    runs: dict[str, list[RunRecord]] = {}
    for record in records:
        runs.setdefault(replace(record.config, seed=0).run_id(""), []).append(record)
    return [
        replace(record, config=replace(point, seed=record.config.seed), trained_as=record.config)
        for point, other in zip(points, trained, strict=True)
        if point != other
        for record in runs.get(replace(other, seed=0).run_id(""), ())
    ]


def _same_runs(point: RunConfig, head: Heads) -> Hashable:
    effective = point.effective_settings()
    rhos = rho_by_epoch(point, head(point).units(point.unit))
    if any(each.low != each.high for each in rhos):  # it changes within an epoch
        return repr(effective)
    rest = {name: value for name, value in effective.items() if not (rhos and name in _RHO_SETTINGS)}
    return repr(rest), tuple(each.low for each in rhos)


def over_seeds(configs: Sequence[RunConfig], seeds: Sequence[int], *, rotate: bool = False) -> list[RunConfig]:
    """Every config with every seed, seed by seed. ``rotate`` starts each seed with the next config, so that none is
    always first on a cold machine."""
    plan = []
    for turn, seed in enumerate(seeds):
        start = turn % len(configs) if rotate else 0
        plan += [replace(config, seed=seed) for config in [*configs[start:], *configs[:start]]]
    return plan
