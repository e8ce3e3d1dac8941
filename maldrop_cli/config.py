"""The names, settings and errors that every layer above shares. Imports neither torch nor pandas.

A name here has exactly one entry in the registry that implements it (``tests/test_names.py`` keeps them equal).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, TypeVar

MAX_COUNT = 2**31 - 1  # of any count
CNN, VGG16 = "cnn", "vgg16"  # the paper's models; torchvision, which is slow to load, knows the names of the others
SCHEMA = 1  # of the records; raise it whenever the same settings would give other numbers


class MaldropError(Exception):
    """Something outside the command line went wrong: files, network, disk, memory, a failed run. One line."""

    exit_code = 1


class UsageError(MaldropError):
    """A setting is wrong in itself, for this model, or for this machine. One line.

    ``setting``: its name, as in Python; empty where the message speaks of several.
    """

    exit_code = 2

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(f"{setting}: {message}" if setting else message)
        self.setting, self.message = setting, message

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers send it to the command, and pickle would call it with its text alone."""
        return UsageError, (self.setting, self.message)

    def as_flag(self) -> str:
        """The line as the command line shows it: ``--batch-size: 0 is not ...``."""
        return f"--{self.setting.replace('_', '-')}: {self.message}" if self.setting else self.message


class Dataset(StrEnum):
    DIGITS = "digits"
    SYNTHETIC = "synthetic"
    MNIST = "mnist"
    FASHION_MNIST = "fashion-mnist"
    CIFAR10 = "cifar10"
    TINY_IMAGENET = "tiny-imagenet"
    IMAGEFOLDER = "imagefolder"


class Dropout(StrEnum):
    NONE = "none"
    VANILLA = "vanilla"
    MALDROP = "maldrop"
    RANDOM = "random"
    NESTED = "nested"
    DROPCONNECT = "dropconnect"
    MALDROPCONNECT = "maldropconnect"
    SPATIAL = "spatial"
    SPATIAL_MALDROP = "spatial-maldrop"
    VANILLA_MALDROP = "vanilla+maldrop"
    MALDROP_VANILLA = "maldrop+vanilla"


class Selector(StrEnum):
    HEURISTIC = "heuristic"
    SINGLE = "single"
    GRADIENT = "gradient"
    JOINT = "joint"
    GREEDY = "greedy"
    EXHAUSTIVE = "exhaustive"
    LEAST_USEFUL = "least-useful"
    MAGNITUDE = "magnitude"


class Schedule(StrEnum):
    STANDARD = "standard"
    RANDOMIZED = "randomized"
    FORWARD = "forward"
    REVERSE = "reverse"
    PERIODIC = "periodic"
    FORWARD_SMOOTH = "forward-smooth"
    REVERSE_SMOOTH = "reverse-smooth"
    LINEAR = "linear"


class Granularity(StrEnum):
    BATCH = "batch"
    SAMPLE = "sample"


class PassRate(StrEnum):
    CUMULATIVE = "cumulative"
    EPOCH = "epoch"
    NONE = "none"


class Executor(StrEnum):
    AUTO = "auto"
    SERIAL = "serial"
    PROCESSES = "processes"
    RAY = "ray"


class Preset(StrEnum):
    PAPER = "paper"


class PlotKind(StrEnum):
    LEARNING = "learning"
    METRIC = "metric"
    TIME = "time"
    MASKS = "masks"


class Metric(StrEnum):
    """What a plot shows of an epoch: fields of EpochRow."""

    VAL_TOP1 = "val_top1"
    VAL_TOP5 = "val_top5"
    VAL_LOSS = "val_loss"
    TRAIN_LOSS = "train_loss"
    TRAIN_SECONDS = "train_seconds"
    DROP_RATE = "drop_rate"


PLOT_SUFFIXES = (".png", ".svg", ".pdf")


class Unit(StrEnum):
    """What a variant with a rho drops rho of."""

    NEURON = "neuron"
    CHANNEL = "channel"
    WEIGHT = "weight"


UNITS = {Dropout.SPATIAL_MALDROP: Unit.CHANNEL, Dropout.MALDROPCONNECT: Unit.WEIGHT}  # the others: neurons
SPATIAL = (Dropout.SPATIAL, Dropout.SPATIAL_MALDROP)
OF_WEIGHTS = (Dropout.DROPCONNECT, Dropout.MALDROPCONNECT)
WITHOUT_SCORE = (Selector.JOINT, Selector.GREEDY, Selector.EXHAUSTIVE)  # selectors of sets, not of single neurons

_RANDOM = ("rho", "granularity", "schedule", "pass_rate")
_MALDROP = (*_RANDOM, "selector")
SETTINGS: dict[Dropout, tuple[str, ...]] = {  # of RunConfig, that have an effect on runs with this variant alone
    Dropout.NONE: (),
    Dropout.VANILLA: ("p",),
    Dropout.MALDROP: _MALDROP,
    Dropout.RANDOM: _RANDOM,
    Dropout.NESTED: ("p", "granularity", "pass_rate"),
    Dropout.DROPCONNECT: ("p",),
    Dropout.MALDROPCONNECT: ("rho", "schedule", "omega", "pass_rate"),
    Dropout.SPATIAL: ("p",),
    Dropout.SPATIAL_MALDROP: _MALDROP,
    Dropout.VANILLA_MALDROP: (*_MALDROP, "p"),
    Dropout.MALDROP_VANILLA: (*_MALDROP, "p"),
}
FURTHER_SETTINGS: dict[str, dict[Any, tuple[str, ...]]] = {  # and those that depend on the value of another
    "model": {CNN: ("depth",)},
    "schedule": {
        Schedule.PERIODIC: ("period",),
        Schedule.FORWARD_SMOOTH: ("rate",),
        Schedule.REVERSE_SMOOTH: ("rate",),
        Schedule.LINEAR: ("rho_end", "horizon"),
    },
    "selector": {
        Selector.HEURISTIC: ("omega",),
        Selector.LEAST_USEFUL: ("omega",),
        Selector.JOINT: ("omega", "joint_iterations", "joint_starts"),  # omega: in a start, with one mask a batch
    },
}
CONDITIONAL = {name for names in SETTINGS.values() for name in names} | {
    name for further in FURTHER_SETTINGS.values() for names in further.values() for name in names
}
WITHOUT_EFFECT = {"score_memory"}  # on any number but the time

Omega = float | Literal["paper", "classes"]
Name = TypeVar("Name", bound=StrEnum)


def nearest(text: str, names: list[str]) -> str:
    """Say which name was probably meant, as the end of an error message; empty when nothing is near."""
    near = difflib.get_close_matches(text, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def parse_name(kind: type[Name], text: str, flag: str) -> Name:
    """The member of ``kind`` called ``text``; else a UsageError that names the flag and the nearest name."""
    try:
        return kind(text)
    except ValueError:
        names = [member.value for member in kind]
        raise UsageError(
            flag, f"no {_words(kind.__name__)} is called {text!r}{nearest(text, names)} (one of: {', '.join(names)})"
        ) from None


def _words(name: str) -> str:
    """``PassRate`` as ``pass rate``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def parse_omega(text: str) -> Omega:
    """``paper``, ``classes`` or a finite number; else a UsageError."""
    if text == "paper":
        return "paper"
    if text == "classes":
        return "classes"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError("omega", f"{text!r} is neither 'paper' (1/(D-1)) nor 'classes' (1/(C-1)) nor a finite number")
    return value


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images. ``image_size`` None: the data set's own. ``shape`` (C, H, W), ``classes``, ``images``:
    of ``synthetic`` only."""

    dataset: Dataset = Dataset.DIGITS
    image_size: int | None = None
    shape: tuple[int, int, int] = (1, 16, 16)
    classes: int = 10
    images: int = 1000

    def __post_init__(self) -> None:
        if self.image_size is not None:
            _require("image_size", self.image_size, 1)
        if self.dataset is Dataset.SYNTHETIC:
            _require("classes", self.classes, 2)
            _require("images", self.images, 2 * self.classes)
            if min(self.shape) < 1:
                raise UsageError("shape", f"{self.shape} has a side below 1; write e.g. 3x32x32")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that changes a run's numbers; ``rho`` is the resolved base count. See docs/data-dictionary.md.

    ``horizon`` is a setting of its own, so that a run keeps its schedule whatever becomes of ``epochs``.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: str = CNN
    depth: int = 4
    dropout: Dropout = Dropout.MALDROP
    p: float = 0.5
    rho: int = 256
    selector: Selector = Selector.HEURISTIC
    omega: Omega = "paper"
    granularity: Granularity = Granularity.BATCH
    pass_rate: PassRate = PassRate.CUMULATIVE
    joint_iterations: int = 10
    joint_starts: int = 16
    score_memory: float = 4.0
    schedule: Schedule = Schedule.STANDARD
    period: int = 5
    rate: float = 0.5  # takes the default rho, 6.25 %, past half the layer in the middle of ten epochs
    rho_end: int = 0
    horizon: int = 10
    epochs: int = 10
    batch_size: int = 64
    lr: float = 0.005
    momentum: float = 0.9
    weight_decay: float = 0.0
    seed: int = 0
    deterministic: bool = False
    fidelity_every: int = 0  # epochs; 0: never

    def __post_init__(self) -> None:
        for flag, whole, least in (
            ("depth", self.depth, 1),
            ("rho", self.rho, 0),
            ("joint_iterations", self.joint_iterations, 0),
            ("joint_starts", self.joint_starts, 0),
            ("period", self.period, 1),
            ("rho_end", self.rho_end, 0),
            ("horizon", self.horizon, 1),
            ("epochs", self.epochs, 1),
            ("batch_size", self.batch_size, 1),
            ("seed", self.seed, 0),
            ("fidelity", self.fidelity_every, 0),
        ):
            _require(flag, whole, least)
        for flag, value, low, high in (
            ("p", self.p, 0.0, 1.0),
            ("lr", self.lr, 0.0, math.inf),
            ("momentum", self.momentum, 0.0, math.inf),
            ("weight_decay", self.weight_decay, 0.0, math.inf),
        ):
            if not (low <= value <= high and math.isfinite(value)):
                allowed = "a number from 0 to 1" if high == 1.0 else "a finite number of at least 0"
                raise UsageError(flag, f"{value} is not {allowed}")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise UsageError("rate", f"{self.rate} is not a finite number above 0")
        if not 0 < self.score_memory <= MAX_COUNT:
            raise UsageError("score_memory", f"{self.score_memory} is not a number of MiB above 0")
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
        return "rho" in SETTINGS[self.dropout]

    @property
    def chooses(self) -> bool:
        """Whether the variant chooses neurons, so that its masks can be held against the jointly worst."""
        return self.has_rho and self.unit is not Unit.WEIGHT

    @property
    def unit(self) -> Unit:
        """What ``rho`` counts."""
        return UNITS.get(self.dropout, Unit.NEURON)

    def effective_settings(self) -> dict[str, Any]:
        """The settings that matter to this run, and only those: ``p`` is no part of a run of ``maldrop``."""
        settings = {**vars(self), "data": dict(vars(self.data))}  # not asdict: its deep copies take ten times as long
        relevant = set(settings) - CONDITIONAL - WITHOUT_EFFECT | set(SETTINGS[self.dropout])
        for kind, settings_of in FURTHER_SETTINGS.items():
            if kind in relevant:
                relevant |= set(settings_of.get(getattr(self, kind), ()))
        if not self.fidelity_every or not self.chooses:  # it changes no number, but is missed where it was not measured
            relevant -= {"fidelity_every"}
        if self.selector is Selector.JOINT and (self.granularity is Granularity.SAMPLE or not self.joint_starts):
            relevant -= {"omega"}
        identity = {name: value for name, value in settings.items() if name in relevant}
        if self.data.dataset is not Dataset.SYNTHETIC:
            identity["data"] = {"dataset": self.data.dataset, "image_size": self.data.image_size}
        return identity

    def run_id(self, data_digest: str) -> str:
        """Sixteen hexadecimal digits that name the run: never a path, a device or a machine."""
        text = json.dumps({"schema": SCHEMA, "digest": data_digest, **self.effective_settings()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> RunConfig:
        """The inverse of ``dataclasses.asdict`` after a trip through JSON; KeyError, TypeError or ValueError
        when it is not one."""
        data = dict(stored["data"])
        data["shape"] = tuple(data["shape"])
        rest = {name: value for name, value in stored.items() if name != "data"}
        if not isinstance(rest["model"], str):
            raise TypeError(f"the model is {rest['model']!r}, not a name")
        enums = (
            ("dropout", Dropout),
            ("selector", Selector),
            ("granularity", Granularity),
            ("pass_rate", PassRate),
            ("schedule", Schedule),
        )
        rest |= {name: kind(rest[name]) for name, kind in enums if name in rest}
        return cls(data=DataConfig(**data | {"dataset": Dataset(data["dataset"])}), **rest)


# The paper gives hardly any hyper-parameters; docs/method.md says which of these it states and how the rest were found.
_PAPER_GREY = {"lr": 0.0015, "momentum": 0.0, "batch_size": 64}
_PAPER_COLOUR = {"lr": 0.01, "momentum": 0.9, "batch_size": 128}
_PAPER_VGG16 = {"lr": 0.001, "momentum": 0.0, "batch_size": 320}


def apply_preset(preset: Preset, config: RunConfig, given: set[str]) -> RunConfig:
    """``config`` with the preset's settings, except the fields in ``given``, which the user set by hand."""
    assert preset is Preset.PAPER
    grey = config.data.dataset in (Dataset.DIGITS, Dataset.MNIST, Dataset.FASHION_MNIST)
    settings: dict[str, Any] = {"epochs": 10}
    settings |= _PAPER_VGG16 if config.model == VGG16 else _PAPER_GREY if grey else _PAPER_COLOUR
    return replace(config, **{name: value for name, value in settings.items() if name not in given})


def _require(flag: str, value: int, least: int) -> None:
    if not least <= value <= MAX_COUNT:
        raise UsageError(flag, f"{value} is not a whole number from {least} to {MAX_COUNT:,}")
