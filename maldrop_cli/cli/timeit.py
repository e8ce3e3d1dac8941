"""`maldrop timeit`: what a training step costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maldrop_cli.cli.options import (
    RHO_DEFAULT,
    DeviceOptions,
    DropoutsOption,
    OmegaOption,
    OutputOptions,
    PlotOption,
    RhoOption,
    SubjectOptions,
)

if TYPE_CHECKING:
    from maldrop_cli.config import RunConfig
    from maldrop_cli.mask_metrics import Fidelity
    from maldrop_cli.timing import Measured
    from maldrop_cli.timing.naive import NaiveTiming
    from maldrop_cli.timing.timings import ScalePoint, Timing

_PANEL = "Timing"
AXES = ("classes", "width", "batch", "rho")


def timeit(
    subject: SubjectOptions,
    device: DeviceOptions,
    output: OutputOptions,
    dropout: DropoutsOption = "none,vanilla,maldrop,random",
    rho: RhoOption = RHO_DEFAULT,
    omega: OmegaOption = "paper",
    selector: Annotated[
        str,
        typer.Option(help="Which selectors maldrop stands for; commas between.", rich_help_panel=_PANEL),
    ] = "heuristic,single",
    with_naive: Annotated[
        bool,
        typer.Option(
            "--naive",
            help="Time the paper's per-neuron loops as well, and print its table.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    precision: Annotated[
        float, typer.Option(help="Go on until every ratio is known within this many percent.", rich_help_panel=_PANEL)
    ] = 3.0,
    budget: Annotated[float, typer.Option(help="Seconds to spend on that, at most.", rich_help_panel=_PANEL)] = 60.0,
    rounds: Annotated[
        int | None, typer.Option(min=2, help="So many samples of each subject instead.", rich_help_panel=_PANEL)
    ] = None,
    phases: Annotated[
        bool, typer.Option("--phases", help="Also, where the time of a step goes.", rich_help_panel=_PANEL)
    ] = False,
    layer: Annotated[
        bool, typer.Option("--layer", help="The last layer alone instead of a step.", rich_help_panel=_PANEL)
    ] = False,
    scale: Annotated[
        str | None,
        typer.Option(
            help="Instead, how the cost of choosing neurons grows with: classes, width, batch or rho.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    amp: Annotated[str, typer.Option(help="off, or bf16: autocast to bfloat16.", rich_help_panel=_PANEL)] = "off",
    compiled: Annotated[bool, typer.Option("--compile", help="Through torch.compile.", rich_help_panel=_PANEL)] = False,
    no_harm: Annotated[
        bool,
        typer.Option(
            "--no-harm",
            help="Leave out what the masks do to a network that was trained for an epoch.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    plot: PlotOption = None,
) -> None:
    """Time a training step with each variant, interleaved; with --naive, beside the paper's per-neuron loops."""
    import math
    import os
    import time
    from dataclasses import replace
    from statistics import median

    from maldrop_cli.cli.output import check_output, check_plot_file, present
    from maldrop_cli.cli.settings import parse_names, subject_config
    from maldrop_cli.config import Dropout, MaldropError, Selector, UsageError, nearest, parse_omega
    from maldrop_cli.sweep.grammar import parse_single
    from maldrop_cli.sweep.grid import subjects as subject_configs

    check_output(output)
    if plot is not None:
        check_plot_file(plot)
    dropouts = parse_names(Dropout, dropout, "dropout")
    selectors = parse_names(Selector, selector, "selector")
    config = replace(subject_config(subject), omega=parse_omega(omega))
    wanted = parse_single(rho, "rho")
    for flag, value in (("precision", precision), ("budget", budget)):
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(flag, f"{value} is not a number above 0")
    if amp not in ("off", "bf16"):
        raise UsageError("amp", f"{amp!r} is neither 'off' nor 'bf16'")
    if scale is not None and scale not in AXES:
        raise UsageError(
            "scale", f"no axis is called {scale!r}{nearest(scale, list(AXES))} (one of: {', '.join(AXES)})"
        )
    if layer and phases:
        raise UsageError("phases", "they are those of a whole step; leave --layer out")

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which counts the memory, is chatty,
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # and reads both when torch is imported
    from rich.console import Console

    from maldrop_cli import machine as devices
    from maldrop_cli.cli.session import head_of, sized
    from maldrop_cli.data import load as datasets
    from maldrop_cli.models import check_batches
    from maldrop_cli.models.variants import check_variant
    from maldrop_cli.record import describe_machine, environment
    from maldrop_cli.render.progress import Reporter
    from maldrop_cli.render.timings import phase_table, tables, timing_rows
    from maldrop_cli.timing import Setting, measure, naive, peak_mib, subjects
    from maldrop_cli.timing import harm as measure_harm
    from maldrop_cli.timing import phases as measure_phases
    from maldrop_cli.timing import scaling as measure_scale
    from maldrop_cli.timing.timings import doubts

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    where = devices.prepare(device.device, device.threads)
    shape, classes = datasets.describe(config.data, subject.data_dir)
    head = head_of(config, subject)
    check_batches(config, shape, 2 * config.batch_size)
    configs = [sized(each, head, wanted) for each in subject_configs(config, dropouts, selectors)]
    for each in configs:
        check_variant(each, head)
    config = next((each for each in configs if each.has_rho), configs[0])  # whose rho the titles tell
    machine = environment(str(where), devices.device_name(where), devices.threads())
    setting = Setting(shape, classes, where, layer=layer, bf16=amp == "bf16", compiled=compiled)
    with Reporter(Console(stderr=True), quiet=output.quiet) as reporter:
        if scale is not None:
            config = sized(replace(config, dropout=Dropout.MALDROP), head, wanted)
            size = measure_scale.Size(classes, head.width, config.batch_size, config.rho)
            points = measure_scale.scale(config, selectors, scale, size, where, budget=budget, tick=reporter.preparing)
            fixed = size.without(scale) | {"granularity": str(config.granularity)}
            _present_scale(points, scale, fixed, machine, load, output, plot)
            return
        timed = subjects(configs, setting)
        measured = measure(
            timed,
            where,
            (str(Dropout.NONE), str(Dropout.VANILLA)),
            rounds=rounds,
            precision=precision / 100,
            budget=budget,
            tick=reporter.preparing,
        )
        peaks = {each.name: peak_mib(each.step, where) for each in timed}
        found: Mapping[str, Fidelity] = {}
        if not no_harm:
            try:
                data = datasets.load(config.data, subject.data_dir, reporter.preparing, reporter.warn)
                seconds = median(measured.samples[str(Dropout.NONE)])
                found = measure_harm.harm(configs, data, where, int(budget / seconds) * config.batch_size)
            except MaldropError as error:
                reporter.warn(f"no harm beside the times: {error}")
        slow = naive.naive_timings(configs, setting, budget / 10) if with_naive else {}

    timings = _timings(configs, measured, peaks, found, slow)
    how = {"what": "layer" if layer else "step", "amp": amp, "compiled": compiled}
    rows = timing_rows(timings, config, machine, how)
    notes = doubts(
        timings,
        widest=measured.widest,
        precision=precision / 100,
        budget_spent=measured.budget_spent,
        sample_seconds=measured.sample_seconds,
        resolution=time.get_clock_info("perf_counter").resolution,
        load=load,
    )
    what = "The last layer" if layer else "A training step"
    shown = tables(rows, config, shape, machine, naive=with_naive, what=what, notes=notes)
    if phases:
        shown.append(phase_table(measure_phases.phases(configs, setting, len(timings[0].samples))))
    raw = [
        row | {"samples_ms": [1000 * each for each in timing.samples], "device_samples_ms": timing.device_ms}
        for row, timing in zip(rows, timings, strict=True)
    ]
    present(shown, rows, output, raw)
    if plot is not None:
        from maldrop_cli.plots import save
        from maldrop_cli.plots.timings import ratios

        save(ratios(rows, shown[0].title, describe_machine(machine)), plot)


def _timings(
    configs: Sequence[RunConfig],
    measured: Measured,
    peaks: Mapping[str, float],
    harm: Mapping[str, Fidelity],
    slow: Mapping[str, NaiveTiming],
) -> list[Timing]:
    """What was measured, by subject; the per-neuron forms after the fast one whose step they are added to."""
    import math

    from maldrop_cli.config import Dropout
    from maldrop_cli.timing import naive, name_of
    from maldrop_cli.timing.timings import Timing

    timings = []
    for each in configs:
        name = name_of(each)
        done = harm.get(name)
        timings.append(
            Timing(
                name,
                measured.samples[name],
                peaks[name],
                raised=done.mask if done else None,
                harm_of_joint=done.of_joint if done else None,
                mask_of_joint=done.agreement if done else None,
                rho=each.effective_settings().get("rho"),
                granularity=each.effective_settings().get("granularity"),
                device_ms=measured.device_ms.get(name),
            )
        )
        if each.dropout is Dropout.MALDROP:
            timings += [
                Timing(
                    form,
                    [step + extra for step, extra in zip(measured.samples["none"], timing.seconds, strict=False)],
                    math.nan,
                    timing.agreement,
                    timing.neurons,
                    rho=each.rho,
                    granularity=each.granularity,
                )
                for form, timing in slow.items()
                if naive.fast_form(form) == each.selector.value
            ]
    return timings


def _present_scale(
    points: Sequence[ScalePoint],
    axis: str,
    fixed: Mapping[str, Any],
    machine: Mapping[str, Any],
    load: float | None,
    output: OutputOptions,
    plot: Path | None,
) -> None:
    """Table, files and plot of the cost along an axis; ``fixed``: what stayed as it was."""
    from maldrop_cli.cli.output import present
    from maldrop_cli.record import describe_machine
    from maldrop_cli.render.timings import scale_rows, scale_table, scale_title, where
    from maldrop_cli.timing.timings import exponents, other_work

    fits = exponents(points)
    rows = scale_rows(points, fits, axis, {**fixed, **where(machine)})
    words = ", ".join(f"{name} {value}" for name, value in fixed.items())
    present([scale_table(rows, fits, words, other_work(load))], rows, output)
    if plot is not None:
        from maldrop_cli.plots import save
        from maldrop_cli.plots.timings import scale

        save(scale(points, fits, axis, scale_title(axis), f"{words}; {describe_machine(machine)}"), plot)
