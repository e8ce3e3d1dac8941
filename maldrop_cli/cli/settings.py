"""From options to settings: reads and checks what stands on the command line, without torch."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from maldrop_cli.cli.options import Given, SubjectOptions, TrainingOptions
from maldrop_cli.config import (
    DataConfig,
    Dataset,
    Granularity,
    Name,
    PassRate,
    Preset,
    RunConfig,
    UsageError,
    apply_preset,
    parse_name,
)
from maldrop_cli.sweep.grammar import parse_number, parse_numbers


def base_config(subject: SubjectOptions, training: TrainingOptions, given: Given) -> RunConfig:
    """The settings that do not vary within a command; each sets rho, rho_end, omega, schedule, dropout and seed."""
    config = replace(
        subject_config(subject),
        period=training.period,
        pass_rate=parse_name(PassRate, training.pass_rate, "pass_rate"),
        rate=training.rate,
        fidelity_every=_fidelity(training.fidelity),
        epochs=training.epochs,
        lr=parse_number(training.lr, "lr"),
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        deterministic=training.deterministic,
    )
    if training.preset is not None:
        config = apply_preset(parse_name(Preset, training.preset, "preset"), config, set(given.names))
    return replace(config, horizon=config.epochs if training.horizon is None else training.horizon)


def several_bases(subject: SubjectOptions, training: TrainingOptions, given: Given) -> list[RunConfig]:
    """As :func:`base_config`, for every combination of data sets, models, learning rates and rates."""
    return [
        base_config(replace(subject, dataset=dataset, model=model, p=repr(p)), replace(training, lr=repr(lr)), given)
        for dataset, model, lr, p in itertools.product(
            _items(subject.dataset),
            _items(subject.model),
            parse_numbers(training.lr, "lr"),
            parse_numbers(subject.p, "p"),
        )
    ]


def _items(text: str) -> list[str]:
    """Commas between words, each once."""
    return list(dict.fromkeys(item.strip() for item in text.split(",")))


def subject_config(subject: SubjectOptions) -> RunConfig:
    """Data, model and the settings of the variants that every command takes."""
    return RunConfig(
        data=DataConfig(
            dataset=parse_name(Dataset, subject.dataset, "dataset"),
            image_size=subject.image_size,
            shape=_shape(subject.shape),
            classes=subject.classes,
            images=subject.images,
        ),
        model=subject.model,
        depth=subject.depth,
        p=parse_number(subject.p, "p"),
        granularity=parse_name(Granularity, subject.granularity, "granularity"),
        joint_iterations=subject.joint_iterations,
        joint_starts=subject.joint_starts,
        score_memory=subject.score_memory,
        batch_size=subject.batch_size,
    )


def _fidelity(text: str) -> int:
    match = re.fullmatch(r"off|every=([1-9]\d*)", text.strip())
    if not match:
        raise UsageError("fidelity", f"{text!r} is neither 'off' nor 'every=N', a number of epochs; write e.g. every=5")
    return int(match[1] or 0)


def _shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text.strip().lower())
    if not match:
        raise UsageError("shape", f"{text!r} is not channels x height x width; write e.g. 3x32x32")
    return int(match[1]), int(match[2]), int(match[3])


def check_margin(margin: float) -> None:
    """UsageError unless it is a finite number above 0."""
    if not (math.isfinite(margin) and margin > 0):
        raise UsageError("margin", f"{margin} is not a number above 0")


SMOOTH = {"forward": "forward-smooth", "reverse": "reverse-smooth"}


def smooth_command(arguments: Sequence[str], schedule: str) -> str:
    """The command line ``arguments``, quoted for a shell, with smooth schedules in place of equations (1) and (2).
    ``schedule``: what it amounts to, wherever it came from."""
    words = list(arguments)
    for index, word in enumerate(words):
        if word.startswith("--schedule="):
            words[index] = f"--schedule={_smooth(word.partition('=')[2])}"
        elif index and words[index - 1] == "--schedule":
            words[index] = _smooth(word)
    if not any(word.partition("=")[0] == "--schedule" for word in words):  # it stands in a file
        words += ["--schedule", _smooth(schedule)]
    return shlex.join(["maldrop", *words])


def _smooth(schedules: str) -> str:
    names = [name.strip() for name in schedules.split(",")]
    return ",".join(dict.fromkeys(SMOOTH.get(name, name) for name in names))


def parse_names(kind: type[Name], text: str, flag: str) -> list[Name]:
    """Commas between names, each once."""
    return [parse_name(kind, item, flag) for item in _items(text)]
