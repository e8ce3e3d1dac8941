"""The options that several subcommands share, each written once.

A command takes a parameter of one of the dataclasses below, and :func:`flatten` unfolds it into the flags of its
fields. Only strings and numbers here: reading them into configs is ``session.py``'s work.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from maldrop_cli.cli import config_file
from maldrop_cli.cli.writable import check_writable
from maldrop_cli.config import (
    PLOT_SUFFIXES,
    Dataset,
    Dropout,
    Executor,
    Granularity,
    Metric,
    PassRate,
    Preset,
    RunConfig,
    Schedule,
    Selector,
    UsageError,
)

_DEFAULT = RunConfig()


def _names(kind: Any) -> str:
    return ", ".join(kind)


def _panel(title: str) -> Callable[..., Any]:
    return functools.partial(typer.Option, rich_help_panel=title)


_data, _variant, _training, _machine, _workers, _output = map(
    _panel, ("Data and model", "Dropout", "Training", "Machine and records", "Workers and failures", "Output")
)


@dataclass(frozen=True)
class SubjectOptions:
    """What is trained or timed."""

    dataset: Annotated[str, _data(help=f"One of: {_names(Dataset)}.")] = str(_DEFAULT.data.dataset)
    data_dir: Annotated[
        Path | None, _data(help="Where the files lie, or go; the default is a folder in your cache.")
    ] = None
    image_size: Annotated[int | None, _data(help="Scale images to this side; the default is the data set's own.")] = (
        None
    )
    shape: Annotated[str, _data(help="Of synthetic images: channels x height x width.")] = "1x16x16"
    classes: Annotated[int, _data(help="Of synthetic images.")] = _DEFAULT.data.classes
    images: Annotated[int, _data(help="Of synthetic images: how many.")] = _DEFAULT.data.images
    model: Annotated[
        str,
        _data(
            help="cnn, the paper's, or a classifier of torchvision: vgg16, resnet18, mobilenet_v3_small, vit_b_16 ..."
        ),
    ] = _DEFAULT.model
    depth: Annotated[
        int,
        _data(help="Channels of the CNN's second convolution; the paper's text says 1, its 4,096 neurons need 4."),
    ] = _DEFAULT.depth
    p: Annotated[str, _variant(help="Rate of vanilla, also in compositions, spatial, dropconnect, nested.")] = str(
        _DEFAULT.p
    )
    granularity: Annotated[str, _variant(help=f"One mask for what? {_names(Granularity)}.")] = str(_DEFAULT.granularity)
    joint_iterations: Annotated[int, _variant(help="Of the selector joint: rounds of ascent, at most.")] = (
        _DEFAULT.joint_iterations
    )
    joint_starts: Annotated[int, _variant(help="Of the selector joint: starts beside softmax, at most.")] = (
        _DEFAULT.joint_starts
    )
    score_memory: Annotated[float, _machine(help="Of the selector single: MiB to work in.")] = _DEFAULT.score_memory
    batch_size: Annotated[int, _training(help="Images in a training batch.")] = _DEFAULT.batch_size


@dataclass(frozen=True)
class TrainingOptions:
    """How it is trained."""

    period: Annotated[int, _variant(help="Of the schedule periodic: drop in every so many-th batch.")] = _DEFAULT.period
    pass_rate: Annotated[
        str, _variant(help=f"What scales neurons at test time: how often they passed, {_names(PassRate)}.")
    ] = str(_DEFAULT.pass_rate)
    rate: Annotated[
        float, _variant(help="Of forward-smooth, reverse-smooth: by how much the log-odds of rho move each epoch.")
    ] = _DEFAULT.rate
    rho_end: Annotated[
        str, _variant(help="Of the schedule linear: rho in its last epoch, a count or a percentage of the width.")
    ] = str(_DEFAULT.rho_end)
    horizon: Annotated[
        int | None, _variant(help="Of the schedule linear: the epochs over which it runs; the default is --epochs.")
    ] = None
    fidelity: Annotated[
        str, _variant(help="every=N: each N epochs, compare the mask with the jointly worst on a probe batch; off.")
    ] = "off"
    epochs: Annotated[int, _training(help="Passes over the training images.")] = _DEFAULT.epochs
    lr: Annotated[str, _training(help="SGD's learning rate.")] = str(_DEFAULT.lr)
    momentum: Annotated[float, _training(help="SGD's momentum.")] = _DEFAULT.momentum
    weight_decay: Annotated[float, _training(help="SGD's L2 penalty.")] = _DEFAULT.weight_decay
    preset: Annotated[
        str | None, _training(help=f"Settings by name ({_names(Preset)}); flags given beside it win.")
    ] = None
    deterministic: Annotated[
        bool, _machine("--deterministic", help="Only deterministic algorithms, slower on CUDA.")
    ] = False
    out: Annotated[Path, _machine(help="Where runs are kept.")] = Path("maldrop-runs")
    fresh: Annotated[bool, _machine("--fresh", help="Train again even what is already there.")] = False
    checkpoint_every: Annotated[
        int | None,
        _machine(
            min=0,
            help="Epochs between checkpoints, from which the same command goes on after a crash; 0: only when it is "
            "interrupted. The default is 1 for compare and sweep, 0 for train.",
        ),
    ] = None


@dataclass(frozen=True)
class ExecutionOptions:
    """Where several runs are trained at a time, and what to do when one fails."""

    workers: Annotated[
        int | None, _workers(min=1, max=1024, help="Runs at a time, each in a process of its own; the default is 1.")
    ] = None
    executor: Annotated[str, _workers(help=f"Where runs are trained: {_names(Executor)}.")] = str(Executor.AUTO)
    ray_address: Annotated[
        str | None, _workers(help="Of a Ray cluster; by default RAY_ADDRESS, else one is started here.")
    ] = None
    cpus_per_run: Annotated[
        float | None, _workers(min=0, help="Of ray: CPUs that a run needs; the default is its threads.")
    ] = None
    gpus_per_run: Annotated[
        float | None,
        _workers(min=0, help="Of ray: GPUs that a run needs, e.g. 0.25; the default is 1 with --device cuda."),
    ] = None
    retries: Annotated[
        int | None,
        _workers(
            min=0,
            help="How often to try a run again that failed; by default once where its worker was killed.",
        ),
    ] = None
    fail_fast: Annotated[bool, _workers("--fail-fast", help="Stop at the first run that fails or diverges.")] = False


@dataclass(frozen=True)
class DeviceOptions:
    """Where it runs."""

    device: Annotated[str, _machine(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    threads: Annotated[int | None, _machine(min=1, max=1024, help="CPU threads; the default is torch's.")] = None


@dataclass(frozen=True)
class OutputOptions:
    """What comes out."""

    csv: Annotated[Path | None, _output(help="Write the table as CSV, at full precision.")] = None
    json: Annotated[Path | None, _output(help="Write the table as JSON, at full precision.")] = None
    format: Annotated[
        str, _output(help="auto (rich on a terminal, else plain), rich, plain, markdown or latex (booktabs).")
    ] = "auto"
    quiet: Annotated[bool, _output("--quiet", "-q", help="No progress on stderr.")] = False


PlotOption = Annotated[Path | None, _output(help=f"Draw a plot: a file that ends in {', '.join(PLOT_SUFFIXES)}.")]


@dataclass(frozen=True)
class PlotOptions:
    """A picture of the same runs."""

    plot: PlotOption = None
    plot_kind: Annotated[
        str | None,
        _output(
            help="learning (loss and accuracy by epoch), metric (a measurement by a setting) or time (accuracy by "
            "training time); the default is learning, of sweep: metric."
        ),
    ] = None
    metric: Annotated[str, _output(help=f"What the plots metric and time show: {_names(Metric)}.")] = str(
        Metric.VAL_TOP1
    )
    x: Annotated[str, _output(help="Of the plot metric: the setting along the axis, any that is a number.")] = "rho"


RhoOption = Annotated[str, _variant(help="Neurons (channels, weights) to drop: a count, or a percentage of all.")]
OmegaOption = Annotated[
    str, _variant(help="Weight of the wrong classes: paper (1/(D-1)), classes (1/(C-1)) or a number.")
]
SelectorOption = Annotated[str, _variant(help=f"How maldrop chooses neurons: {_names(Selector)}.")]
ScheduleOption = Annotated[str, _variant(help=f"How rho changes: {_names(Schedule)}.")]
DropoutOption = Annotated[str, _variant("--dropout", "--dropouts", help=f"One of: {_names(Dropout)}.")]
DropoutsOption = Annotated[str, _variant("--dropout", "--dropouts", help=f"Commas between any of: {_names(Dropout)}.")]
DryRunOption = Annotated[
    bool, _machine("--dry-run", help="Show what would be trained, with rho epoch by epoch, and train nothing.")
]
ConfigOption = Annotated[Path | None, _machine(help="Take settings from a TOML file; flags win.")]
SaveConfigOption = Annotated[Path | None, _machine(help="Write what was set to a TOML file.")]
RHO_DEFAULT = "6.25%"


def flatten(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with each parameter that is one of the dataclasses above unfolded into its fields.

    The unfolded function takes three more arguments: ``ctx``, from which the dataclass ``Given`` is filled, and the
    files of :mod:`maldrop_cli.cli.config_file`.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            fields = typing.get_type_hints(groups[name], include_extras=True)
            parameters += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=fields[field.name],
                )
                for field in dataclasses.fields(groups[name])
                if groups[name] is not Given
            ]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in (("config", ConfigOption), ("save_config", SaveConfigOption))
    ]

    @functools.wraps(command)
    def flat(*, ctx: typer.Context, config: Path | None, save_config: Path | None, **values: Any) -> None:
        names = frozenset(name for name in values if _by_hand(ctx, name))
        if config is not None:
            stored = config_file.read(config, ctx)
            values |= {name: value for name, value in stored.items() if name not in names}
            names |= stored.keys()
        given = Given(names, tuple(ctx.obj or ()))
        set_by_hand = {name: values[name] for name in names}
        arguments: dict[str, Any] = {}
        for name, group in groups.items():
            own = {field.name: values.pop(field.name) for field in dataclasses.fields(group) if group is not Given}
            arguments[name] = given if group is Given else group(**own)
        if save_config is not None:
            check_writable(save_config)
        try:
            command(**arguments, **values)
        except UsageError:  # a file with a wrong setting helps nobody
            save_config = None
            raise
        finally:
            if save_config is not None:
                config_file.save(save_config, names, set_by_hand, ctx)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


@dataclass(frozen=True)
class Given:
    """What was set: ``names`` of parameters, on the command line or by a file, as against those at their defaults, and
    ``arguments``, the command line as typed."""

    names: frozenset[str] = frozenset()
    arguments: tuple[str, ...] = ()


def _by_hand(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
