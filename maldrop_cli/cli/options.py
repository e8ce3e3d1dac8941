"""The options of the commands: derived from the fields of dataclasses, and read into them.

A command is a function of such dataclasses, and of parameters of its own. :func:`command` unfolds it into one whose
parameters are flags, for Typer.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from maldrop_cli.analysis.settings import NUMERIC
from maldrop_cli.cli import config_file
from maldrop_cli.cli.reading import SETTING_TYPES, read_robustness, read_setting, words
from maldrop_cli.config import DATA, MACHINE, OUTPUT, RARE, SETTINGS, TRAINING, DataConfig, RunConfig, Setting, setting
from maldrop_cli.files import STDOUT, check_apart, check_writable, expand
from maldrop_cli.names import (
    PLOT_SUFFIXES,
    Metric,
    Perturbation,
    PlotKind,
    Preset,
    UsageError,
    parse_name,
    unknown_name,
)
from maldrop_cli.robustness.plan import RobustnessPlan, parse_metric

MAIN = ("dropout", "rho", "dataset", "model", "epochs")  # they come first in --help
TIMED = (  # the settings that `timeit` has
    *("dropout", "rho", "dataset", "model", "image_size", "depth", "p", "selector", "omega", "granularity"),
    *("batch_size", "shape", "classes", "images", "joint_iterations", "joint_starts", "score_memory"),
)
SEEDED = tuple(name for name in SETTINGS if name != "seed")  # of commands with several seeds
_ALIASES = {"dropout": ("--dropouts",), "quiet": ("-q",)}
_SETTING_FIELDS = {each.name: each for kind in (DataConfig, RunConfig) for each in fields(kind)}
MAX_CHOICES = 5  # of names, that --help has room for beside a flag


DRY_RUN = typer.Option(
    "--dry-run", help="Show what would be trained, with rho by epoch; train nothing.", rich_help_panel=MACHINE
)


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
    data_dir: Path | None = setting(None, "Where the files lie, or go; the default is a folder in your cache.", DATA)


@dataclass(frozen=True)
class StoreOptions:
    preset: Preset | None = setting(None, "Settings by name; flags given beside it win.", TRAINING)
    out: Path = setting(Path("maldrop-runs"), "Where runs are kept.", MACHINE)
    fresh: bool = setting(False, "Train again even what is already there.", MACHINE)
    checkpoint_every: int | None = setting(
        None, "Epochs between checkpoints, from which the same command resumes after a crash; 0: if interrupted. "
        "The default is 1 for compare and sweep, 0 for train.", RARE,
    )  # fmt: skip


@dataclass(frozen=True)
class MeasureOptions:
    robustness: str = setting(
        "off", "Top-1 with something hidden: PERTURBATION=SEVERITY[,SEVERITY] with blanks between, of "
        f"{', '.join(Perturbation)}; also every=N, standard, off.", MACHINE,
    )  # fmt: skip
    keep_weights: bool = setting(False, "Keep the weights of finished runs, to measure more of them later.", MACHINE)

    @functools.cached_property
    def plan(self) -> RobustnessPlan:
        """Of ``robustness``; UsageError where it makes no sense."""
        return read_robustness(self.robustness)

    def __post_init__(self) -> None:
        self.plan  # noqa: B018  # a wrong one is an error before any work


@dataclass(frozen=True)
class OutputOptions:
    csv: Path | None = setting(None, "Write the table as CSV, at full precision; - for stdout.", OUTPUT)
    json: Path | None = setting(None, "Write the table as JSON, at full precision; - for stdout.", OUTPUT)
    format: Format = setting(Format.AUTO, "auto: rich on a terminal, else plain.", OUTPUT)
    quiet: bool = setting(False, "Results and errors alone: no progress, no warnings.", OUTPUT)

    def __post_init__(self) -> None:
        for path in (self.csv, self.json):
            if path not in (None, STDOUT):
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
        None, f"One of: {', '.join(PlotKind)}. By default, compare draws forest, sweep metric, report learning.",
        OUTPUT,
    )  # fmt: skip
    metric: str | None = setting(
        None, "Measurements, with commas between: of the verdicts, the first of the plots metric and time: "
        f"{', '.join(Metric)}, top1_occlude_0.5 (with that hidden), top1_occlude (mean), top1_robustness (of all).",
        OUTPUT,
    )  # fmt: skip
    x: str | None = setting(
        None, "Of the plot metric: the setting along the axis, any that is a number; by default the one that varies.",
        OUTPUT,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.x is not None:
            object.__setattr__(self, "x", self.x.strip().replace("-", "_"))
        if self.x not in (None, *NUMERIC):
            raise UsageError("x", unknown_name("setting that is a number", str(self.x), NUMERIC))
        self.metrics  # noqa: B018  # a wrong one is an error before any work
        if self.plot_kind is not None and self.plot is None:
            raise UsageError("plot_kind", "there is no plot without --plot FILE")

    @functools.cached_property
    def metrics(self) -> list[str]:
        """Of ``metric``; empty without."""
        return [parse_metric(item) for item in words(self.metric)] if self.metric else []


def not_plotted(options: PlotOptions, dry_run: bool) -> None:
    """UsageError for a plot of a dry run."""
    if options.plot and dry_run:
        raise UsageError("plot", "a dry run measures nothing that could be plotted")


# --- deriving flags --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Flag:
    """An option of a command, before Typer. ``swept``: it is read by :func:`read_setting`."""

    name: str
    setting: Setting
    kind: Any
    default: Any
    swept: bool = False

    @property
    def enum(self) -> type[StrEnum] | None:
        """Its kind of names, if it is one."""
        kinds = typing.get_args(self.kind) or (self.kind,)
        return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)), None)

    def parameter(self) -> inspect.Parameter:
        """For Typer: whole numbers, switches and paths by their type, all else as text."""
        kind, default = self.kind, self.default
        as_text = self.enum or (self.swept and (kind not in (int, bool, int | None) or bool(self.setting.text)))
        if self.name == "horizon":  # without a number it is that of the epochs
            kind, default = int | None, None
        elif as_text:
            kind = str if default is not None else str | None
            default = "x".join(map(str, default)) if isinstance(default, tuple) else default and str(default)
            default = self.setting.text or default
        choices = "|".join(self.enum) if self.enum and len(self.enum) <= MAX_CHOICES else None
        option = typer.Option(
            f"--{(self.setting.flag or self.name).replace('_', '-')}", *_ALIASES.get(self.name, ()),
            help=self.setting.help, rich_help_panel=self.setting.panel or None, metavar=choices,
            hidden=self.setting.panel == RARE, autocompletion=self.enum and completing(self.enum),
        )  # fmt: skip
        return _keyword(self.name, Annotated[kind, option], default)

    def read(self, value: Any) -> Any:
        """What Typer gave, as the field's type, checked."""
        if isinstance(value, str) and self.enum:
            value = parse_name(self.enum, value, self.name)
        if isinstance(value, Path):
            value = expand(value, f"--{self.name.replace('_', '-')}")
        self.setting.check(self.name, value)
        return value


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _flags(group: Any, settings: Sequence[str], defaults: Mapping[str, str]) -> list[_Flag]:
    """Those of a dataclass; of :class:`Settings`, those of the ``settings``."""
    swept = group is Settings
    own = [_SETTING_FIELDS[name] for name in settings] if swept else fields(group)
    hints = SETTING_TYPES if swept else typing.get_type_hints(group)
    return [
        _Flag(each.name, each.metadata["setting"], hints[each.name], defaults.get(each.name, each.default), swept)
        for each in own
    ]


def completing(names: Iterable[str]) -> Callable[[str], list[str]]:
    """For a shell: the names that the last word of a list with commas begins."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

    return complete


def _show_all(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        for parameter in ctx.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]
        typer.echo(ctx.get_help())
        raise typer.Exit


_HELP_ALL = Annotated[
    bool, typer.Option("--help-all", help="Rarely needed options as well.", callback=_show_all, is_eager=True)
]


def _option(help: str, **how: Any) -> Any:
    return Annotated[Path | None, typer.Option(help=help, rich_help_panel=MACHINE, **how)]


_CONFIG = _option("Take settings from a TOML file; flags win.", callback=config_file.use, is_eager=True)
_SAVE_CONFIG = _option(
    "Write what was set to a TOML file.", callback=lambda path: path and expand(path, "--save-config")
)


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
        groups = {name: _flags(hint, settings, defaults) for name, hint in hints.items() if is_dataclass(hint)}
        own = [
            _keyword(name, hints[name], each.default)
            for name, each in inspect.signature(function).parameters.items()
            if name not in groups
        ]
        flags = [flag for group in groups.values() for flag in group]
        main = sorted((flag for flag in flags if flag.name in MAIN), key=lambda flag: MAIN.index(flag.name))
        rare = [flag for flag in flags if flag.setting.panel == RARE]
        usual = [flag for flag in flags if flag not in main and flag not in rare]
        parameters = [
            _keyword("ctx", typer.Context),
            *(flag.parameter() for flag in main),
            _keyword("help_all", _HELP_ALL, False),
            *own,
            *(flag.parameter() for flag in usual),
            *(_keyword(name, hint, None) for name, hint in (("config", _CONFIG), ("save_config", _SAVE_CONFIG))),
            *(flag.parameter() for flag in rare),
        ]

        @functools.wraps(function)
        def flat(
            *, ctx: typer.Context, config: Path | None, save_config: Path | None, help_all: bool, **texts: Any
        ) -> None:
            given = frozenset(name for name in texts if config_file.is_set(ctx, name))
            saved = {name: texts[name] for name in given}
            arguments: dict[str, Any] = {}
            for name, group in groups.items():
                values = {flag.name: texts.pop(flag.name) for flag in group}
                if hints[name] is Settings:
                    if values.get("horizon", MISSING) is None:
                        del values["horizon"]
                    read = {key: read_setting(key, text, several) for key, text in values.items()}
                    arguments[name] = Settings(read, given)
                else:
                    arguments[name] = hints[name](**{flag.name: flag.read(values[flag.name]) for flag in group})
            paths = {key: value for options in arguments.values() for key, value in vars(options).items()}
            check_apart({"config": config, "save_config": save_config, **paths})
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
