"""`maldrop timeit`: what a training step costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maldrop_cli.cli.options import TIMED, DataOptions, OutputOptions, PlotFile, Settings, command
from maldrop_cli.cli.reading import positive, read_limit
from maldrop_cli.config import RunConfig, setting
from maldrop_cli.executors import Machine
from maldrop_cli.files import read_up_to
from maldrop_cli.names import MAX_COUNT, Axis, Dropout, Interrupted, MaldropError, UsageError, unknown_name, value_text

if TYPE_CHECKING:
    from maldrop_cli.data.load import ImageData
    from maldrop_cli.render.progress import ProgressListener
    from maldrop_cli.timing.cases import Setting, Timing
    from maldrop_cli.timing.scaling import ScalePoint

TIMING = "Timing"  # a panel of --help


class Amp(StrEnum):
    OFF = "off"
    BF16 = "bf16"


@dataclass(frozen=True)
class TimeitOptions:
    naive: bool = setting(False, "Time the paper's per-neuron loops as well, and print its table.", TIMING)
    precision: float = setting(3.0, "Go on until every ratio is known within this many percent.", TIMING)
    budget: float = setting(60.0, "Seconds to spend on that, at most.", TIMING)
    rounds: int | None = setting(None, "So many samples of each subject instead.", TIMING, low=2)
    phases: bool = setting(False, "Also, where the time of a step goes.", TIMING)
    layer: bool = setting(False, "The last layer alone instead of a step.", TIMING)
    scale: Axis | None = setting(None, "Instead, how the cost of choosing neurons grows along an axis.", TIMING)
    amp: Amp = setting(Amp.OFF, "Autocast to bfloat16.", TIMING)
    compiled: bool = setting(False, "Through torch.compile.", TIMING, flag="compile")
    compare: Path | None = setting(
        None, "A JSON file of timeit: how the ratios to none have changed since, one machine or another.", TIMING
    )
    no_harm: bool = setting(False, "Leave out the loss increase on a network trained for an epoch.", TIMING)

    def __post_init__(self) -> None:
        positive("precision", self.precision)
        positive("budget", self.budget)
        if self.layer and self.phases:
            raise UsageError("phases", "they are those of a whole step; leave --layer out")
        if self.compare and self.scale:
            raise UsageError("compare", "along an axis there are no ratios to none; leave --scale out")

    @property
    def how(self) -> dict[str, Any]:
        """What tells timings apart beside their subjects, by its column."""
        return {"what": "layer" if self.layer else "step", "amp": str(self.amp), "compiled": self.compiled}


FAIL_IF = typer.Option(
    metavar="SUBJECT>NUMBER",
    help="Exit with 1 if its ratio to none is above; with --compare, that ratio against the one before. Repeatable.",
    rich_help_panel=TIMING,
)


@command(TIMED, several=("dropout", "selector"), dropout="none,vanilla,maldrop,random", selector="heuristic,single")
def timeit(
    settings: Settings,
    data: DataOptions,
    machine: Machine,
    options: TimeitOptions,
    output: OutputOptions,
    plotting: PlotFile,
    fail_if: Annotated[list[str] | None, FAIL_IF] = None,
) -> None:
    """Time a training step with each variant, interleaved; with --naive, beside the paper's per-neuron loops."""
    import os

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which counts the memory, is chatty,
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # and reads both when torch is imported
    from rich.console import Console

    from maldrop_cli.cli.output import present
    from maldrop_cli.cli.run import head_of
    from maldrop_cli.data import load as datasets
    from maldrop_cli.machine import environment, use_machine
    from maldrop_cli.models import check_batches
    from maldrop_cli.plots import save
    from maldrop_cli.plots.timings import ratios, scale
    from maldrop_cli.record import describe_machine
    from maldrop_cli.render import timings as render
    from maldrop_cli.render.progress import ProgressListener
    from maldrop_cli.sweep.grid import build, build_timed
    from maldrop_cli.timing import scaling
    from maldrop_cli.timing.cases import Setting, phases
    from maldrop_cli.timing.timings import other_work, warnings

    gates = [read_limit(text) for text in fail_if or []]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    device = use_machine(machine.device, machine.threads)
    head = head_of(data.data_dir)
    configs = build_timed(settings.values, head)
    shape, classes = datasets.describe(configs[0].data, data.data_dir)
    for config in configs:
        check_batches(config, shape, 2 * config.batch_size)
    bf16, here = options.amp is Amp.BF16, environment(device)
    where = Setting(shape, classes, device, layer=options.layer, bf16=bf16, compiled=options.compiled)
    progress = ProgressListener(Console(stderr=True), quiet=output.quiet)

    before = _before(options.compare, configs[0], options) if options.compare else None
    _check_limits(gates, configs, options, before)

    notes: list[str] = []  # where Ctrl-C ended it

    if options.scale:
        selectors = settings.values["selector"]
        [config] = build({**settings.values, "dropout": [Dropout.MALDROP], "selector": selectors[:1]}, head)
        sizes = {"classes": classes, "width": head(config).width, "batch": config.batch_size, "rho": config.rho}
        points: list[ScalePoint] = []
        with progress, _interruptible(points, notes):
            how: Any = {"budget": options.budget, "tick": progress.preparing, "points": points}
            scaling.scale(config, selectors, options.scale, sizes, device, **how)
        fits = scaling.exponents(points)
        fixed = {**sizes, "granularity": config.granularity}
        del fixed[options.scale]
        rows = raw = _with_status(render.scale_rows(points, fits, options.scale, fixed, here), notes)
        words = ", ".join(f"{name} {value}" for name, value in fixed.items())
        shown = [render.scale_table(rows, words, [*other_work(load), *notes])]
        figure = partial(scale, points, fits, options.scale, render.SCALE_TITLE.format(options.scale))
        captions = [words, describe_machine(here), *notes]
    else:
        timings: list[Timing] = []
        parts: Mapping[str, Mapping[str, float]] = {}
        with _interruptible(timings, notes):
            _time(timings, configs, where, options, lambda: datasets.load(configs[0].data, data.data_dir), progress)
            if options.phases:
                parts = phases(configs, where, len(timings[0].samples.seconds))
        rows = _with_status(render.timing_rows(timings, where, here), notes)
        rows = render.with_before(rows, before) if before else rows
        titled = next((each for each in configs if each.has_rho), configs[0])
        asked = options.precision / 100 if options.rounds is None and not notes else float("inf")
        doubts = [*warnings(timings, precision=asked, load=load), *notes]
        shown = render.tables(rows, titled, where, here, naive=options.naive, notes=doubts)
        shown += [render.phase_table(parts)] if parts else []
        shown += [render.before_table(rows, str(options.compare))] if before else []
        raw = render.with_samples(rows, timings)
        figure = partial(ratios, rows, shown[0].title)
        captions = [describe_machine(here), *notes]
    present(shown, rows, output, "timeit", json_rows=raw)
    if plotting.plot:
        save(figure("; ".join(captions)), plotting.plot)
    if notes:
        raise Interrupted("interrupted; what was sampled by then is shown, and written, marked as interrupted")
    if gates:
        _fail(gates, {row["subject"]: row["ratio_vs_before" if before else "ratio_vs_none"] for row in rows})


def _before(path: Path, config: RunConfig, options: TimeitOptions) -> dict[str, float]:
    """The ratios to ``none`` in a JSON file of timeit, by subject. MaldropError where it is none, or one of another
    step: of other images, say."""
    import json

    now = {"dataset": config.data.dataset, "model": config.model, "batch_size": config.batch_size, **options.how}
    try:
        content = json.loads(read_up_to(2**26, path))
        rows = {row["subject"]: row for row in content["rows"] if content["command"] == "timeit"}
        ratios = {subject: float(row["ratio_vs_none"]) for subject, row in rows.items()}
        then = {name: rows["none"][name] for name in now}
    except OSError as error:
        raise MaldropError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise MaldropError(
            f"{path} is no JSON file with the ratios of timeit; `maldrop timeit --json` writes one"
        ) from None
    for name, value in now.items():
        if then[name] != value:
            raise MaldropError(
                f"{path} timed something else: {name} is {value_text(then[name])} there and {value_text(value)} here"
            )
    return ratios


def _check_limits(
    gates: Sequence[tuple[str, float]],
    configs: Sequence[RunConfig],
    options: TimeitOptions,
    before: Mapping[str, float] | None,
) -> None:
    """UsageError for a subject that won't be timed, or was not ``before``."""
    from maldrop_cli.dropout.naive import NAIVE
    from maldrop_cli.timing.cases import name_of

    subjects = [name_of(config) for config in configs]
    subjects += [name for name, (fast, _) in NAIVE.items() if options.naive and fast in subjects]
    for subject, _ in gates:
        if options.scale:
            raise UsageError("fail_if", "along an axis there are no ratios to none; leave --scale out")
        if subject not in subjects[1:]:
            raise UsageError("fail_if", unknown_name("subject", subject, subjects[1:]))
        if before is not None and subject not in before:
            raise UsageError("fail_if", f"{options.compare} has no {subject}, but {', '.join(before)}")


def _fail(gates: Sequence[tuple[str, float]], ratios: Mapping[str, float | None]) -> None:
    """MaldropError for ratios above their limits."""
    bad = [
        f"{subject} is {ratio:.3f}, above {limit:g}"
        for subject, limit in gates
        if (ratio := ratios[subject]) is not None and ratio > limit
    ]
    if bad:
        raise MaldropError(f"not as asked: {'; '.join(bad)}")


@contextmanager
def _interruptible(found: Sequence[object], notes: list[str]) -> Iterator[None]:
    """Ctrl-C ends what is within, if something was ``found`` by then, and adds to the ``notes`` that it did."""
    try:
        yield
    except KeyboardInterrupt:
        if not found:
            raise
        notes.append("Interrupted: this is what was sampled by then, and what would have come later is missing.")


def _with_status(rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> list[dict[str, Any]]:
    return [row | {"status": "interrupted" if notes else "done"} for row in rows]


def _time(
    timings: list[Timing],
    configs: list[RunConfig],
    where: Setting,
    options: TimeitOptions,
    load_images: Any,
    progress: ProgressListener,
) -> None:
    """Into ``timings``: times, and the loss increase by the masks where the images can be had."""
    from maldrop_cli.timing.timings import time_cases, with_fidelity

    with progress:
        time_cases(
            configs, where, rounds=options.rounds, precision=options.precision / 100, budget=options.budget,
            naive=options.naive, tick=progress.preparing, timings=timings,
        )  # fmt: skip
        if options.no_harm:
            return
        try:
            steps = int(min(1000 * options.budget / timings[0].samples.median_ms, MAX_COUNT))
            timings[:] = with_fidelity(timings, where, *_trained(configs[0], load_images(), where, steps))
        except MaldropError as error:
            progress.warn(f"no loss increase beside the times: {error}")


def _trained(config: RunConfig, data: ImageData, where: Setting, steps: int) -> tuple[Any, Any, Any]:
    """(model, normalise, probe images): after an epoch without dropout, or so many steps of one."""
    from dataclasses import replace

    import torch

    from maldrop_cli.mask_metrics import probe_images
    from maldrop_cli.train import Training

    order = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))
    index = order[: max(steps * config.batch_size, 1)]
    part = replace(data, train=data.train[index]).to(where.device)
    training = Training(replace(config, epochs=1), part, where.device)
    training.epoch()
    return training.model, training.normalise, probe_images(data.train).to(where.device)
