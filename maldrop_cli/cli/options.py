"""The options of the commands: derived from the fields of dataclasses, and read into them.

A command is a function of such dataclasses, and of parameters of its own. :func:`command` unfolds it into one whose
parameters are flags, for Typer.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from maldrop_cli.cli import config_file
from maldrop_cli.config import (
    MACHINE,
    OUTPUT,
    PLOT_SUFFIXES,
    RARE,
    SETTINGS,
    TRAINING,
    DataConfig,
    Metric,
    PlotKind,
    Preset,
    RunConfig,
    Setting,
    UsageError,
    parse_name,
    setting,
)
from maldrop_cli.files import check_writable
from maldrop_cli.sweep import grammar

MAIN = ("dropout", "rho", "dataset", "model", "epochs")
SWEPT = ("dropout", "rho", "dataset", "model", "lr", "p", "selector", "schedule", "omega")  # `sweep` takes several
TIMED = (  # the settings that `timeit` has
    *("dropout", "rho", "dataset", "model", "image_size", "depth", "p", "selector", "omega", "granularity"),
    *("batch_size", "shape", "classes", "images", "joint_iterations", "joint_starts", "score_memory"),
)
TRAINED = (*MAIN, *(name for name in SETTINGS if name not in MAIN))
SEEDED = tuple(name for name in TRAINED if name != "seed")
_ALIASES = {"dropout": ("--dropouts",), "quiet": ("-q",)}
_SETTING_TYPES = typing.get_type_hints(DataConfig) | typing.get_type_hints(RunConfig)


class Format(StrEnum):
    AUTO = "auto"
    RICH = "rich"
    PLAIN = "plain"
    MARKDOWN = "markdown"
    LATEX = "latex"


@dataclass(frozen=True)
class Settings:
    """``values``: of each setting that the command has, as :func:`maldrop_cli.sweep.grid.build` takes them. ``given``:
    which options of the command were set, on the command line or in a file."""

    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DataOptions:
    data_dir: Path | None = setting(
        None, "Where the files lie, or go; the default is a folder in your cache.", "Data and model"
    )


@dataclass(frozen=True)
class StoreOptions:
    preset: Preset | None = setting(None, "Settings by name; flags given beside it win.", TRAINING)
    out: Path = setting(Path("maldrop-runs"), "Where runs are kept.", MACHINE)
    fresh: bool = setting(False, "Train again even what is already there.", MACHINE)
    checkpoint_every: int | None = setting(
        None,
        "Epochs between checkpoints, from which the same command resumes after a crash; 0: only when it is "
        "interrupted. The default is 1 for compare and sweep, 0 for train.",
        RARE,
    )


@dataclass(frozen=True)
class OutputOptions:
    csv: Path | None = setting(None, "Write the table as CSV, at full precision.", OUTPUT)
    json: Path | None = setting(None, "Write the table as JSON, at full precision.", OUTPUT)
    format: Format = setting(Format.AUTO, "auto: rich on a terminal, else plain.", OUTPUT)
    quiet: bool = setting(False, "No progress on stderr.", OUTPUT)

    def __post_init__(self) -> None:
        for path in (self.csv, self.json):
            if path is not None:
                check_writable(path)


@dataclass(frozen=True)
class PlotFile:
    plot: Path | None = setting(None, f"Draw a plot: a file that ends in {', '.join(PLOT_SUFFIXES)}.", OUTPUT)

    def __post_init__(self) -> None:
        if self.plot is not None:
            if self.plot.suffix.lower() not in PLOT_SUFFIXES:
                raise UsageError("plot", f"{self.plot} ends in none of {', '.join(PLOT_SUFFIXES)}; write e.g. plot.png")
            check_writable(self.plot)


@dataclass(frozen=True)
class PlotOptions(PlotFile):
    plot_kind: PlotKind | None = setting(
        None,
        "Loss and accuracy by epoch; a measurement by a setting; accuracy by training time; pass rates. The default is "
        "learning, of sweep: metric.",
        OUTPUT,
    )
    metric: Metric = setting(Metric.VAL_TOP1, "What the plots metric and time show.", OUTPUT)
    x: str = setting("rho", "Of the plot metric: the setting along the axis, any that is a number.", OUTPUT)

    def __post_init__(self) -> None:
        from maldrop_cli.analysis.settings import NUMERIC
        from maldrop_cli.config import unknown_name

        super().__post_init__()
        if self.x not in NUMERIC:
            raise UsageError("x", unknown_name("setting that is a number", self.x, list(NUMERIC)))
        if self.plot_kind is not None and self.plot is None:
            raise UsageError("plot-kind", "there is no plot without --plot FILE")


# --- reading ---------------------------------------------------------------------------------------------------------


def read_setting(name: str, text: Any, several: Collection[str]) -> list[Any]:
    """The values of a setting of RunConfig or DataConfig, checked; UsageError for more than one, unless it may have
    ``several``."""
    if not isinstance(text, str):
        values = [text]
    elif name in ("rho", "rho_end"):
        values = list(grammar.parse_axis(text, name))
    elif name == "omega":
        values = list(grammar.parse_omegas(text))
    elif name == "shape":
        values = [_shape(text)]
    elif name == "fidelity_every":
        values = [_fidelity(text)]
    elif isinstance(kind := _SETTING_TYPES[name], type) and issubclass(kind, StrEnum):
        values = [parse_name(kind, item, name) for item in words(text)]
    elif kind is float:
        values = list(grammar.parse_numbers(text, name))
    else:
        values = list(words(text))
    if len(values) > 1 and name not in several:
        where = f"; `maldrop sweep --{name}` takes several" if name in SWEPT else ""
        raise UsageError(name, f"{text!r} names {len(values)} values, and this takes one{where}")
    for value in values:
        SETTINGS[name].check(SETTINGS[name].flag or name, value)
    return values


def words(text: str) -> list[str]:
    """Commas between words, each once."""
    return list(dict.fromkeys(item.strip() for item in text.split(",")))


def names(kind: type[StrEnum], text: str, setting: str) -> list[Any]:
    """Commas between names, each once."""
    return [parse_name(kind, item, setting) for item in words(text)]


def positive(name: str, value: float) -> float:
    """UsageError unless it is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise UsageError(name, f"{value} is not a number above 0")
    return value


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


# --- deriving flags --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Flag:
    """An option of a command, before Typer."""

    name: str
    setting: Setting
    kind: Any
    default: Any

    @property
    def enum(self) -> type[StrEnum] | None:
        """Its kind of names, if it is one."""
        kinds = typing.get_args(self.kind) if isinstance(self.kind, types.UnionType) else (self.kind,)
        return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)), None)

    def parameter(self) -> inspect.Parameter:
        """For Typer: numbers that can't be swept, switches and paths by their type, all else as text."""
        flags = [f"--{(self.setting.flag or self.name).replace('_', '-')}", *_ALIASES.get(self.name, ())]
        native = {int, bool, Path, int | None, float | None, Path | None, str | None}
        kind = self.kind if self.kind in native else str | None if self.default is None else str
        names = "|".join(self.enum) if self.enum and len(self.enum) <= 5 else None
        option = typer.Option(*flags, help=self.setting.help, rich_help_panel=self.setting.panel or None, metavar=names)
        return _keyword(self.name, Annotated[kind, option], self.default)

    def read(self, value: Any) -> Any:
        """What Typer gave, as the field's type, checked."""
        if isinstance(value, str) and self.enum:
            value = parse_name(self.enum, value, self.name)
        elif isinstance(value, str) and self.name == "x":
            value = value.strip().replace("-", "_")
        self.setting.check(self.name, value)
        return value


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _setting_flags(names: Sequence[str], defaults: Mapping[str, str]) -> list[_Flag]:
    fields_of = {each.name: each for kind in (DataConfig, RunConfig) for each in dataclasses.fields(kind)}
    flags = []
    for name in names:
        default: Any = fields_of[name].default
        kind = _SETTING_TYPES[name]
        if name == "shape":
            default = "x".join(map(str, default))
        elif name == "horizon":
            default, kind = None, int | None  # the number of epochs
        elif kind not in (int, bool, int | None) or SETTINGS[name].text:
            default, kind = SETTINGS[name].text or str(default), str
        flags.append(_Flag(name, SETTINGS[name], kind, defaults.get(name, default)))
    return flags


def _group_flags(group: Any) -> list[_Flag]:
    hints, flags = typing.get_type_hints(group), []
    for each in dataclasses.fields(group):
        default = str(each.default) if isinstance(each.default, StrEnum) else each.default
        flags.append(_Flag(each.name, each.metadata["setting"], hints[each.name], default))
    return flags


CONFIG = Annotated[
    Path | None,
    typer.Option(
        help="Take settings from a TOML file; flags win.",
        rich_help_panel=MACHINE,
        callback=config_file.use,
        is_eager=True,
    ),
]
SAVE_CONFIG = Annotated[Path | None, typer.Option(help="Write what was set to a TOML file.", rich_help_panel=MACHINE)]


def command(
    settings: Sequence[str] = (), several: Collection[str] = (), **defaults: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Unfold a function of dataclasses into one for Typer, with a flag for each field.

    A parameter of type :class:`Settings` becomes the flags of the settings so named, of which some may have
    ``several`` values; ``defaults`` replaces their own. The other parameters stay. Two flags are added, for
    :mod:`maldrop_cli.cli.config_file`.
    """

    def unfold(function: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(function, include_extras=True)
        groups: dict[str, list[_Flag]] = {}
        own = []
        for name, parameter in inspect.signature(function).parameters.items():
            if hints[name] is Settings:
                groups[name] = _setting_flags(settings, defaults)
            elif dataclasses.is_dataclass(hints[name]):
                groups[name] = _group_flags(hints[name])
            else:
                own.append(_keyword(name, hints[name], parameter.default))
        flags = [flag.parameter() for group in groups.values() for flag in group]
        main = [each for each in flags if each.name in MAIN]
        rare = [flag.name for group in groups.values() for flag in group if flag.setting.panel == RARE]
        rest = [each for each in flags if each not in main]
        parameters = [
            _keyword("ctx", typer.Context, inspect.Parameter.empty),
            *main,
            *own,
            *(each for each in rest if each.name not in rare),
            _keyword("config", CONFIG, None),
            _keyword("save_config", SAVE_CONFIG, None),
            *(each for each in rest if each.name in rare),
        ]

        @functools.wraps(function)
        def flat(*, ctx: typer.Context, config: Path | None, save_config: Path | None, **texts: Any) -> None:
            given = frozenset(name for name in texts if config_file.is_set(ctx, name))
            saved = {name: texts[name] for name in given}
            arguments: dict[str, Any] = {}
            for name, group in groups.items():
                values = {flag.name: texts.pop(flag.name) for flag in group}
                if hints[name] is Settings:
                    if values.get("horizon", 0) is None:
                        del values["horizon"]
                    read = {key: read_setting(key, text, several) for key, text in values.items()}
                    arguments[name] = Settings(read, given)
                else:
                    arguments[name] = hints[name](**{flag.name: flag.read(values[flag.name]) for flag in group})
            if save_config is not None:
                check_writable(save_config)
            try:
                function(**arguments, **texts)
            except UsageError:  # a file with a wrong setting helps nobody
                save_config = None
                raise
            finally:
                if save_config is not None:
                    config_file.save(save_config, saved, ctx)

        flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return flat

    return unfold
