"""From options to settings: reads and checks what stands on the command line, without torch."""

from __future__ import annotations

import re
from dataclasses import replace

from maldrop_cli.cli.options import Given, SubjectOptions, TrainingOptions
from maldrop_cli.config import (
    DataConfig,
    Dataset,
    Granularity,
    Name,
    Preset,
    RunConfig,
    UsageError,
    apply_preset,
    parse_name,
)


def base_config(subject: SubjectOptions, training: TrainingOptions, given: Given) -> RunConfig:
    """The settings that do not vary within a command; rho, omega, schedule, dropout and seed are set by each."""
    config = replace(
        subject_config(subject),
        period=training.period,
        epochs=training.epochs,
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        deterministic=training.deterministic,
    )
    if training.preset is None:
        return config
    return apply_preset(parse_name(Preset, training.preset, "--preset"), config, set(given.names))


def subject_config(subject: SubjectOptions) -> RunConfig:
    """Data, model and the settings of the variants that every command takes."""
    return RunConfig(
        data=DataConfig(
            dataset=parse_name(Dataset, subject.dataset, "--dataset"),
            image_size=subject.image_size,
            shape=_shape(subject.shape),
            classes=subject.classes,
            images=subject.images,
        ),
        model=subject.model,
        depth=subject.depth,
        p=subject.p,
        granularity=parse_name(Granularity, subject.granularity, "--granularity"),
        batch_size=subject.batch_size,
    )


def _shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text.strip().lower())
    if not match:
        raise UsageError(f"--shape: {text!r} is not channels x height x width; write e.g. 3x32x32")
    return int(match[1]), int(match[2]), int(match[3])


def parse_names(kind: type[Name], text: str, flag: str) -> list[Name]:
    """Commas between names, each once."""
    return list(dict.fromkeys(parse_name(kind, item.strip(), flag) for item in text.split(",")))
