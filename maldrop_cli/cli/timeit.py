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
    RhoOption,
    SubjectOptions,
)

_PANEL = "Timing"


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
    naive: Annotated[
        bool,
        typer.Option(
            "--naive",
            help="Time the paper's per-neuron loops as well, and print its table.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    rounds: Annotated[int, typer.Option(min=2, help="Samples of each subject.", rich_help_panel=_PANEL)] = 30,
) -> None:
    """Time a training step with each variant, interleaved; with --naive, beside the paper's per-neuron loops."""
    import os
    from dataclasses import replace

    from maldrop_cli.cli.output import check_output, present
    from maldrop_cli.cli.settings import parse_names, subject_config
    from maldrop_cli.config import Dropout, Selector, parse_omega
    from maldrop_cli.sweep.axes import parse_single
    from maldrop_cli.sweep.plan import subjects as subject_configs

    check_output(output)
    dropouts = parse_names(Dropout, dropout, "--dropout")
    selectors = parse_names(Selector, selector, "--selector")
    config = replace(subject_config(subject), omega=parse_omega(omega))
    wanted = parse_single(rho, "--rho")

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which counts the memory, is chatty,
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # and reads both when torch is imported
    from rich.console import Console

    from maldrop_cli import datasets, devices, timing
    from maldrop_cli.cli.session import head_of, sized
    from maldrop_cli.models import check_batches
    from maldrop_cli.render.progress import Reporter
    from maldrop_cli.render.timings import tables, timing_rows
    from maldrop_cli.results.records import environment
    from maldrop_cli.results.timings import Timing
    from maldrop_cli.variants import check_variant

    where = devices.prepare(device.device, device.threads)
    shape, classes = datasets.describe(config.data, subject.data_dir)
    head = head_of(config, subject)
    check_batches(config, shape, rounds * config.batch_size)
    config = sized(replace(config, dropout=Dropout.MALDROP), head, wanted)
    configs = [sized(each, head, wanted) for each in subject_configs(config, dropouts, selectors)]
    for each in configs:
        check_variant(each, head)
    with Reporter(Console(stderr=True), quiet=output.quiet) as reporter:
        subjects = timing.subjects(configs, shape, classes, where, naive=naive)
        samples = timing.measure(subjects, where, rounds, tick=reporter.preparing)
        peaks = {each.name: timing.peak_mib(each.step, where) for each in subjects if not each.naive}
        agreement = timing.mask_agreement(config, shape, classes, selectors) if naive else {}

    timings = [
        Timing(each.name, samples[each.name], peaks.get(each.name, float("nan")), agreement.get(each.name))
        for each in subjects
    ]
    machine = environment(str(where), devices.device_name(where), devices.threads())
    rows = timing_rows(timings, config, machine)
    present(tables(rows, config, shape, machine, naive=naive), rows, output)
