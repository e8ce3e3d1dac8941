"""Points of a sweep that were not trained, as their runs would be those of another point.

A sweep writes down which, in ``points.jsonl`` beside its runs, so that a report can show each point as the sweep does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from maldrop_cli.config import RunConfig
from maldrop_cli.record import RunRecord


@dataclass(frozen=True)
class Shared:
    """``point`` has the runs of ``trained``: the two are alike in all that has an effect on a run but where rho comes
    from, and have the same rho in every batch. Seeds are those of the runs."""

    point: RunConfig
    trained: RunConfig

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"point": asdict(self.point), "trained": asdict(self.trained)}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Shared:
        """The inverse; KeyError, TypeError or ValueError when ``stored`` is none."""
        return Shared(RunConfig.from_dict(stored["point"]), RunConfig.from_dict(stored["trained"]))


def shared(points: Sequence[RunConfig], trained: Sequence[RunConfig]) -> list[Shared]:
    """Those of the ``points`` that were ``trained`` as another."""
    return [Shared(point, one) for point, one in zip(points, trained, strict=True) if point != one]


def runs_of_points(records: Iterable[RunRecord], points: Iterable[Shared]) -> Iterator[RunRecord]:
    """The records once more under the settings of each point that has their runs, marked."""
    by_trained: dict[str, list[RunConfig]] = {}
    for each in points:
        by_trained.setdefault(_key(each.trained), []).append(each.point)
    if not by_trained:  # most folders have none, and a key takes a hash for each record
        return
    for record in records:
        for point in by_trained.get(_key(record.config), ()):
            yield replace(record, config=replace(point, seed=record.config.seed), trained_as=record.config)


def _key(config: RunConfig) -> str:
    return replace(config, seed=0).run_id("")
