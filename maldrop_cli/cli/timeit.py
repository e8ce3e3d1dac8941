"""`maldrop timeit`: what a training step costs."""

from __future__ import annotations

from typing import Annotated

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
    from dataclasses import replace

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
    import torch
    from rich.console import Console

    from maldrop_cli import machine as devices
    from maldrop_cli.cli.session import head_of, sized
    from maldrop_cli.data import load as datasets
    from maldrop_cli.data.load import Split
    from maldrop_cli.mask_metrics import probe_images
    from maldrop_cli.models import check_batches
    from maldrop_cli.models.variants import check_variant
    from maldrop_cli.record import describe_machine, environment
    from maldrop_cli.render import timings as render
    from maldrop_cli.render.progress import Reporter
    from maldrop_cli.timing import scaling
    from maldrop_cli.timing.cases import Setting
    from maldrop_cli.timing.phases import phases as time_phases
    from maldrop_cli.timing.timings import other_work, time_cases, warnings, with_fidelity
    from maldrop_cli.train import Training

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    where = devices.prepare(device.device, device.threads)
    shape, classes = datasets.describe(config.data, subject.data_dir)
    setting = Setting(shape, classes, where, layer=layer, bf16=amp == "bf16", compiled=compiled)
    head = head_of(config, subject)
    check_batches(config, shape, 2 * config.batch_size)
    configs = [sized(each, head, wanted) for each in subject_configs(config, dropouts, selectors)]
    for each in configs:
        check_variant(each, head)
    machine = environment(str(where), devices.device_name(where), devices.threads())
    reporter = Reporter(Console(stderr=True), quiet=output.quiet)
    if scale is not None:
        config = sized(replace(config, dropout=Dropout.MALDROP), head, wanted)
        sizes = {"classes": classes, "width": head.width, "batch": config.batch_size, "rho": config.rho}
        with reporter:
            points = scaling.scale(config, selectors, scale, sizes, where, budget=budget, tick=reporter.preparing)
        fits = scaling.exponents(points)
        fixed = {**sizes, "granularity": config.granularity}
        del fixed[scale]
        rows = render.scale_rows(points, fits, scale, fixed, machine)
        words = ", ".join(f"{name} {value}" for name, value in fixed.items())
        present([render.scale_table(rows, words, other_work(load))], rows, output)
        if plot is not None:
            from maldrop_cli.plots import save
            from maldrop_cli.plots.scale import scale as draw

            title = render.SCALE_TITLE.format(scale)
            save(draw(points, fits, scale, title, f"{words}; {describe_machine(machine)}"), plot)
        return
    with reporter:
        timings = time_cases(
            configs,
            setting,
            rounds=rounds,
            precision=precision / 100,
            budget=budget,
            naive=with_naive,
            tick=reporter.preparing,
        )
        if not no_harm:
            try:
                data = datasets.load(config.data, subject.data_dir, reporter.preparing, reporter.warn)
                # an epoch without dropout, of as many images as can be trained on within the budget
                steps = int(1000 * budget / timings[0].samples.median_ms)
                order = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))
                index = order[: max(steps * config.batch_size, 1)]
                part = replace(data, train=Split(data.train.images[index], data.train.labels[index])).to(where)
                training = Training(replace(configs[0], epochs=1), part, where)
                training.epoch()
                probe = probe_images(data.train).to(where)
                timings = with_fidelity(timings, setting, training.model, training.normalise, probe)
            except MaldropError as error:
                reporter.warn(f"no loss increase beside the times: {error}")
    rows = render.timing_rows(timings, setting, machine)
    asked = precision / 100 if rounds is None else math.inf
    shown = render.tables(
        rows,
        next((each for each in configs if each.has_rho), configs[0]),
        setting,
        machine,
        naive=with_naive,
        notes=warnings(timings, precision=asked, load=load),
    )
    if phases:
        shown.append(render.phase_table(time_phases(configs, setting, rows[0]["n_samples"])))
    raw = [
        row | {"samples_ms": [1000 * each for each in own.seconds], "device_samples_ms": own.device_ms}
        for row, own in zip(rows, (timing.samples for timing in timings), strict=True)
    ]
    present(shown, rows, output, raw)
    if plot is not None:
        from maldrop_cli.plots import save
        from maldrop_cli.plots.ratios import ratios

        save(ratios(rows, shown[0].title, describe_machine(machine)), plot)
