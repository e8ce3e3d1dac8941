"""How long the training of a plan would take: what a dry run says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from maldrop_cli.config import RunConfig
from maldrop_cli.record import RunRecord
from maldrop_cli.render.tables import duration

Measure = Callable[[RunConfig], float | None]  # seconds of an epoch; None where its images are not at hand


def estimate(left: Sequence[RunConfig], stored: Iterable[RunRecord], measure: Measure, workers: int = 1) -> str:
    """Of the runs that are ``left``, so many at a time: by the epochs of ``stored`` runs with the same data, model,
    batch size, variant and selector, of this machine; by ``measure`` where there are none."""
    known: dict[object, list[float]] = {}
    for run in stored:
        if run.epochs:
            known.setdefault(_costs_alike(run.config), []).append(median(row.train_seconds for row in run.epochs))
    missing = {_costs_alike(config): config for config in left if _costs_alike(config) not in known}
    for kind, config in missing.items():
        seconds = measure(config)
        if seconds is None:
            return f"how long they take can't be told before the images of {config.data.dataset} are here"
        known[kind] = [seconds]
    total = sum(config.epochs * median(known[_costs_alike(config)]) for config in left) / workers
    basis = "the first batches of an epoch, trained to see" if missing else "epochs stored"
    return f"about {duration(total)} of training left, going by {basis}"


def _costs_alike(config: RunConfig) -> tuple[object, ...]:
    """What the time of an epoch depends on, and rho hardly is."""
    return (
        *(config.data, config.model, config.depth, config.batch_size, config.deterministic),
        *(config.dropout, config.granularity, config.effective_settings().get("selector")),
    )
