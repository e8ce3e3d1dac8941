"""Jobs, and what runners tell about them: the messages between a command and its workers. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from maldrop_cli.config import RunConfig
from maldrop_cli.record import EpochRow, RunRecord


@dataclass(frozen=True)
class Job:
    """A run of the plan. ``attempt`` counts from 0. ``wait``: until another process has trained the same run; else the
    job ends unfinished at once, as other jobs may be left to do."""

    number: int
    config: RunConfig
    attempt: int = 0
    wait: bool = False


@dataclass(frozen=True)
class Started:
    """``epochs``: those of the checkpoint from which the run is resumed; 0 for a new run."""

    job: Job
    epochs: int


@dataclass(frozen=True)
class Progressed:
    """``epochs``: those that are trained by now, the one under way by the share of its batches; in another process,
    whole ones, where the run is waited for."""

    job: Job
    epochs: float


@dataclass(frozen=True)
class Trained:
    job: Job
    row: EpochRow


@dataclass(frozen=True)
class Waiting:
    """Another process trains the same run."""

    job: Job


@dataclass(frozen=True)
class Ended:
    """``reused``: the run was finished already."""

    job: Job
    record: RunRecord
    reused: bool


@dataclass(frozen=True)
class Retried:
    """The run failed, for that ``reason``, and is tried again."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Warned:
    message: str


Event = Started | Progressed | Trained | Waiting | Ended | Retried | Warned
Tell = Callable[[Event], None]
Stop = Callable[[], bool]  # asked after each epoch
Train = Callable[[Job, Tell, Stop], Ended]
OpenRunner = Callable[[], Train]  # called once in each worker: loads the data
