"""The names and errors that every layer above shares. Imports neither torch nor pandas.

A name here has exactly one entry in the registry that implements it (``tests/test_names.py`` keeps them equal).
"""

from __future__ import annotations

import difflib
import math
import re
import signal
from enum import StrEnum
from typing import Any, Literal, TypeVar

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
MAX_COUNT = 2**31 - 1  # of any count
CNN, VGG16 = "cnn", "vgg16"  # the paper's models; torchvision, which is slow to load, knows the names of the others


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


class Interrupted(MaldropError):  # noqa: N818
    """Ctrl-C, in a command that says itself what it has kept. One line."""

    exit_code = 130


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


class Perturbation(StrEnum):
    OCCLUDE = "occlude"
    OCCLUDE_CENTRE = "occlude-centre"
    NOISE = "noise"
    BLUR = "blur"
    NEURONS = "neurons"
    WORST_NEURONS = "worst-neurons"
    WORST_NEURONS_JOINT = "worst-neurons-joint"


class Executor(StrEnum):
    AUTO = "auto"
    SERIAL = "serial"
    PROCESSES = "processes"
    RAY = "ray"


class Preset(StrEnum):
    PAPER = "paper"


class PlotKind(StrEnum):
    FOREST = "forest"
    LEARNING = "learning"
    METRIC = "metric"
    TIME = "time"
    MASKS = "masks"
    ROBUSTNESS = "robustness"
    EXAMPLES = "examples"


class Metric(StrEnum):
    """What a plot shows of an epoch, beside measurements under perturbations: fields of EpochRow."""

    VAL_TOP1 = "val_top1"
    VAL_TOP5 = "val_top5"
    VAL_LOSS = "val_loss"
    TRAIN_LOSS = "train_loss"
    TRAIN_SECONDS = "train_seconds"
    DROP_RATE = "drop_rate"


class Outcome(StrEnum):
    """The verdict on an arm."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"
    TOO_FEW = "too few seeds"


class Axis(StrEnum):
    """Along what `timeit --scale` times the choosing of neurons."""

    CLASSES = "classes"
    WIDTH = "width"
    BATCH = "batch"
    RHO = "rho"


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

_RHO = ("rho", "schedule", "period", "rate", "rho_end", "horizon", "pass_rate")
_MALDROP = (*_RHO, "granularity", "selector", "omega", "joint_iterations", "joint_starts")
TAKES: dict[Dropout, tuple[str, ...]] = {  # the settings that only some variants have
    Dropout.NONE: (),
    Dropout.VANILLA: ("p",),
    Dropout.MALDROP: _MALDROP,
    Dropout.RANDOM: (*_RHO, "granularity"),
    Dropout.NESTED: ("p", "granularity", "pass_rate"),
    Dropout.DROPCONNECT: ("p",),
    Dropout.MALDROPCONNECT: (*_RHO, "omega"),
    Dropout.SPATIAL: ("p",),
    Dropout.SPATIAL_MALDROP: _MALDROP,
    Dropout.VANILLA_MALDROP: (*_MALDROP, "p"),
    Dropout.MALDROP_VANILLA: (*_MALDROP, "p"),
}

Omega = float | Literal["paper", "classes"]
Name = TypeVar("Name", bound=StrEnum)


def one_line(text: object) -> str:
    """A text, of an exception say, as one line that a terminal shows and does not obey: line breaks become a blank,
    other characters that can't be seen their escapes. The type of an exception that has no text."""
    line = str(text)
    if not line.isprintable():
        line = re.sub(r"\s*[\n\v\f\r\x85\u2028\u2029]\s*", " ", line)
        line = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
    return line.strip() or (type(text).__name__ if isinstance(text, BaseException) else "")


def value_text(value: object, none: str = "") -> str:
    """The value of a setting as it is typed: ``1x8x8``, ``0.005``, ``true``; ``none`` for None."""
    if isinstance(value, tuple | list):
        return "x".join(map(str, value))
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else str(value)
    if isinstance(value, bool):
        return str(value).lower()
    return none if value is None else str(value)


def nearest(text: str, names: list[str]) -> str:
    """Say which name was probably meant, as the end of an error message; empty when nothing is near."""
    near = difflib.get_close_matches(text, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def parse_name(kind: type[Name], text: str, setting: str) -> Name:
    """The member of ``kind`` called ``text``; else a UsageError with the nearest name."""
    try:
        return kind(text)
    except ValueError:
        what = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()  # PassRate: pass rate
        raise UsageError(setting, unknown_name(what, text, [str(name) for name in kind])) from None


def unknown_name(what: str, text: str, names: list[str]) -> str:
    """The message for a ``text`` that is none of ``names``."""
    return f"no {what} is called {text!r}{nearest(text, names)} (one of: {', '.join(names)})"


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
