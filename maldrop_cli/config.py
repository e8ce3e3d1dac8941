"""The settings of a run, each defined once: a field whose metadata give its flag, its checks and its effect."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from types import NoneType
from typing import Any

from maldrop_cli.names import (
    CNN,
    MAX_COUNT,
    OF_WEIGHTS,
    TAKES,
    UNITS,
    VGG16,
    WITHOUT_SCORE,
    Dataset,
    Dropout,
    Granularity,
    Omega,
    PassRate,
    Preset,
    Schedule,
    Selector,
    Unit,
    UsageError,
)

SCHEMA = 1  # of the records; raise it whenever the same settings would give other numbers

MAX_BYTES = 2**36  # of synthetic images

DATA, DROPOUT, TRAINING, MACHINE = "Data and model", "Dropout", "Training", "Machine and records"  # panels of --help
OUTPUT, RARE = "Output", "Rarely needed"


@dataclass(frozen=True)
class Setting:
    """The metadata of a field: flags, checks, run ids and labels follow from it.

    ``panel``: of ``--help``; empty for the five main settings. ``low``, ``high``: bounds of a number; ``above``:
    ``low`` itself is out. It has an effect on runs whose variant TAKES it, whose schedule, selector or model is among
    ``of``, and of which ``when`` is true. ``flag``, ``text``: the flag and its default, where not name and value.
    """

    help: str
    panel: str = ""
    low: float = 0
    high: float = math.inf
    above: bool = False
    of: Collection[str] = ()
    when: Callable[[RunConfig], bool] = lambda run: True
    flag: str = ""
    text: str = ""

    def check(self, name: str, value: Any) -> None:
        """UsageError, by its flag, for a number out of bounds."""
        name = self.flag or name
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        if isinstance(value, int) and isinstance(self.low, int):
            check_whole(name, value, self.low, self.high)
        elif not (self.low <= value <= self.high and math.isfinite(value)) or (self.above and value == self.low):
            bounded = f"a number from {self.low:g} to {self.high:g}"
            allowed = "a finite number of at least 0" if math.isinf(self.high) else bounded
            raise UsageError(name, f"{value} is not {'a finite number above 0' if self.above else allowed}")


def check_whole(name: str, value: int, low: int, high: float = math.inf) -> None:
    """UsageError unless ``value`` is from ``low`` to ``high``, or at most MAX_COUNT."""
    high = min(high, MAX_COUNT)
    if not low <= value <= high:
        raise UsageError(name, f"{value} is not a whole number from {low} to {high:,}")


def setting(default: Any, help: str, panel: str = "", **rest: Any) -> Any:
    """A field with a :class:`Setting`."""
    return field(default=default, metadata={"setting": Setting(help, panel, **rest)})


def _omega_matters(run: RunConfig) -> bool:
    """To ``joint`` as a start of the batch's mask; to weights as they have no other selector."""
    in_start = run.granularity is Granularity.BATCH and run.joint_starts > 0
    scored = (Selector.HEURISTIC, Selector.LEAST_USEFUL, *([Selector.JOINT] if in_start else []))
    return run.selector in scored or run.unit is Unit.WEIGHT


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images. ``image_size`` None: the data set's own; the last three: of ``synthetic`` only."""

    dataset: Dataset = setting(Dataset.DIGITS, f"One of: {', '.join(Dataset)}.")
    image_size: int | None = setting(None, "Side to scale images to; the default is the data set's own.", DATA)
    shape: tuple[int, int, int] = setting((1, 16, 16), "Of synthetic images: channels x height x width.", RARE)
    classes: int = setting(10, "Of synthetic images.", RARE)
    images: int = setting(1000, "Number of synthetic images.", RARE)

    def __post_init__(self) -> None:
        if self.image_size is not None:
            check_whole("image_size", self.image_size, 1)
        if self.dataset is Dataset.SYNTHETIC:
            check_whole("classes", self.classes, 2)
            check_whole("images", self.images, 2 * self.classes)
            if min(self.shape) < 1:
                raise UsageError("shape", f"{self.shape} has a side below 1; write e.g. 3x32x32")
            if (size := math.prod(self.shape) * self.images) > MAX_BYTES:
                raise UsageError("shape", f"{self.images} images have {size:,} pixels; {MAX_BYTES:,} are the most")

    def effective_settings(self) -> dict[str, Any]:
        """As :meth:`RunConfig.effective_settings`."""
        if self.dataset is Dataset.SYNTHETIC:
            return dict(vars(self))
        return {"dataset": self.dataset, "image_size": self.image_size}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that changes a run's numbers. See docs/data-dictionary.md.

    ``rho`` is the resolved base count. ``horizon`` does not follow ``epochs``, so that a longer run keeps its schedule.
    The default ``rate`` takes the default rho past half the layer in the middle of ten epochs. ``score_memory`` changes
    only the time, ``fidelity_every`` (0: never) no number.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: str = setting(CNN, "cnn, the paper's, or a classifier of torchvision: vgg16, resnet18, vit_b_16 ...")
    depth: int = setting(
        4, "Channels of the CNN's second convolution; the paper's text says 1, its 4,096 neurons need 4.",
        DATA, low=1, of=[CNN],
    )  # fmt: skip
    dropout: Dropout = setting(Dropout.MALDROP, f"One of: {', '.join(Dropout)}.")
    p: float = setting(0.5, "Rate of vanilla, spatial, dropconnect, nested.", DROPOUT, low=0.0, high=1.0)
    rho: int = setting(256, "Neurons (channels, weights) to drop: a count, or a percentage of all.", text="6.25%")
    selector: Selector = setting(Selector.HEURISTIC, f"How maldrop chooses neurons: {', '.join(Selector)}.", DROPOUT)
    omega: Omega = setting(
        "paper", "Weight of the wrong classes: paper (1/(D-1)), classes (1/(C-1)) or a number.",
        DROPOUT, low=-math.inf, when=_omega_matters,
    )  # fmt: skip
    granularity: Granularity = setting(Granularity.BATCH, "One mask for a batch, or for each sample (image).", DROPOUT)
    pass_rate: PassRate = setting(
        PassRate.CUMULATIVE,
        "Pass rates that scale neurons at test time: of all training, or of the last epoch.",
        DROPOUT,
    )
    joint_iterations: int = setting(10, "Of the selector joint: rounds of ascent, at most.", RARE, of=[Selector.JOINT])
    joint_starts: int = setting(16, "Of the selector joint: starts beside softmax, at most.", RARE, of=[Selector.JOINT])
    score_memory: float = setting(
        4.0, "Of the selector single: MiB to work in.", RARE, low=0.0, above=True, when=lambda run: False
    )
    schedule: Schedule = setting(Schedule.STANDARD, f"How rho changes: {', '.join(Schedule)}.", DROPOUT)
    period: int = setting(5, "Of periodic: drop in every N-th batch.", DROPOUT, low=1, of=[Schedule.PERIODIC])
    rate: float = setting(
        0.5, "Of forward-smooth, reverse-smooth: change of the log-odds of rho each epoch.",
        DROPOUT, low=0.0, above=True, of=[Schedule.FORWARD_SMOOTH, Schedule.REVERSE_SMOOTH],
    )  # fmt: skip
    rho_end: int = setting(
        0, "Of linear: rho in its last epoch, a count or a percentage.", DROPOUT, text="0", of=[Schedule.LINEAR]
    )
    horizon: int = setting(
        10, "Of linear: the epochs over which it runs; the default is --epochs.", DROPOUT, low=1, of=[Schedule.LINEAR]
    )
    epochs: int = setting(10, "Passes over the training images.", low=1, high=100_000)  # a record holds no more
    batch_size: int = setting(64, "Images in a training batch.", TRAINING, low=1)
    lr: float = setting(0.005, "SGD's learning rate.", TRAINING, low=0.0)
    momentum: float = setting(0.9, "SGD's momentum.", TRAINING, low=0.0)
    weight_decay: float = setting(0.0, "SGD's L2 penalty.", TRAINING, low=0.0)
    seed: int = setting(0, "Of weights, batch order and noise.", TRAINING)
    train_images: int = setting(
        0, "Train on so many images, drawn from the seed, each class in its share; 0: all.", DATA, text="0",
        when=lambda run: run.train_images > 0,
    )  # fmt: skip
    tune_split: float = setting(
        0.0, "Share of the training images to tune on: best: and the best point go by these.", DATA, low=0.0, high=0.9,
        when=lambda run: run.tune_split > 0,
    )  # fmt: skip
    deterministic: bool = setting(False, "Only deterministic algorithms, slower on CUDA.", RARE)
    fidelity_every: int = setting(
        0, "every=N: each N epochs, compare the mask with the jointly worst on a probe batch; off.",
        DROPOUT, flag="fidelity", text="off", when=lambda run: run.fidelity_every > 0 and run.chooses,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in _OF_RUNS:
            SETTINGS[name].check(name, getattr(self, name))
        if self.dropout in OF_WEIGHTS and self.granularity is Granularity.SAMPLE:
            raise UsageError(
                "granularity",
                f"{self.dropout} drops weights, and these are shared by all images of a batch: "
                "a mask for each image has no meaning there; use --granularity batch",
            )
        if self.dropout is Dropout.SPATIAL_MALDROP and self.selector in WITHOUT_SCORE:
            scored = ", ".join(each for each in Selector if each not in WITHOUT_SCORE)
            raise UsageError(
                "selector",
                f"{self.selector} finds a set of neurons and gives them no score to sum over a channel; "
                f"for {self.dropout} use one of {scored}",
            )

    @property
    def has_rho(self) -> bool:
        """Whether the variant drops a set number of units in each batch."""
        return "rho" in TAKES[self.dropout]

    @property
    def chooses(self) -> bool:
        """Whether the variant chooses neurons, so that its masks can be compared with the jointly worst."""
        return self.has_rho and self.unit is not Unit.WEIGHT

    @property
    def unit(self) -> Unit:
        """What ``rho`` counts."""
        return UNITS.get(self.dropout, Unit.NEURON)

    def effective_settings(self) -> dict[str, Any]:
        """The settings that have an effect on this run, and only those: ``p`` is no part of a run of ``maldrop``."""
        taken, chosen = TAKES[self.dropout], {self.model, self.schedule, self.selector}

        def has_effect(name: str, setting: Setting) -> bool:
            variant_has_it = name in taken or name not in _OF_VARIANTS
            return variant_has_it and (not setting.of or not chosen.isdisjoint(setting.of)) and setting.when(self)

        effective = {name: getattr(self, name) for name in _OF_RUNS if has_effect(name, SETTINGS[name])}
        return {"data": self.data.effective_settings(), **effective}

    @property
    def key(self) -> str:
        """The same for configs whose runs have the same numbers, on the same images."""
        return repr(self.effective_settings())

    def flat_settings(self) -> dict[str, Any]:
        """As :meth:`effective_settings`, with those of the data among the others."""
        effective = self.effective_settings()
        return {**effective.pop("data"), **effective}

    def run_id(self, data_digest: str) -> str:
        """Sixteen hexadecimal digits that name the run: never a path, a device or a machine."""
        text = json.dumps({"schema": SCHEMA, "digest": data_digest, **self.effective_settings()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> RunConfig:
        """The inverse of ``dataclasses.asdict`` after a trip through JSON; an exception of any kind when it is not
        one."""
        data = dict(stored["data"])
        channels, height, width = map(int, data["shape"])
        data |= {"shape": (channels, height, width), "dataset": Dataset(data["dataset"])}
        rest = {name: value for name, value in stored.items() if name != "data"}
        rest |= {name: type(default)(rest[name]) for name, default in _NAMES.items() if name in rest}
        _check_types(DataConfig, data)
        _check_types(cls, rest)
        return cls(data=DataConfig(**data), **rest)


def _check_types(kind: type[DataConfig | RunConfig], values: dict[str, Any]) -> None:
    """TypeError for a value whose type is not that of its field."""
    for each in fields(kind):
        value = values.get(each.name, each.default)
        wanted = _TYPES.get(each.name, (int, float) if isinstance(each.default, float) else type(each.default))
        if each.name in values and (not isinstance(value, wanted) or isinstance(value, bool) is not (wanted is bool)):
            raise TypeError(f"{each.name} is {value!r}")


SETTINGS: dict[str, Setting] = {
    each.name: each.metadata["setting"] for kind in (DataConfig, RunConfig) for each in fields(kind) if each.metadata
}
_OF_RUNS = [each.name for each in fields(RunConfig) if each.metadata]
_OF_VARIANTS = {name for names in TAKES.values() for name in names}
_TYPES: dict[str, Any] = {"omega": (str, int, float), "image_size": (int, NoneType)}  # beside those of the defaults
_NAMES = {each.name: each.default for each in fields(RunConfig) if isinstance(each.default, StrEnum)}


# The paper gives hardly any hyper-parameters; docs/method.md says which of these it states and how the rest were found.
_PAPER_GREY = {"lr": 0.0015, "momentum": 0.0, "batch_size": 64}
_PAPER_COLOUR = {"lr": 0.01, "momentum": 0.9, "batch_size": 128}
_PAPER_VGG16 = {"lr": 0.001, "momentum": 0.0, "batch_size": 320}


def apply_preset(preset: Preset, config: RunConfig, given: Collection[str]) -> RunConfig:
    """``config`` with the preset's settings, except the fields in ``given``, which the user set by hand."""
    assert preset is Preset.PAPER
    grey = config.data.dataset in (Dataset.DIGITS, Dataset.MNIST, Dataset.FASHION_MNIST)
    settings: dict[str, Any] = {"epochs": 10}
    settings |= _PAPER_VGG16 if config.model == VGG16 else _PAPER_GREY if grey else _PAPER_COLOUR
    return replace(config, **{name: value for name, value in settings.items() if name not in given})
