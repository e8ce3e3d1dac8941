"""Stored runs taken together: what tells their arms apart, and what may not be held against each other."""

from __future__ import annotations

from collections.abc import Sequence

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.compare import Comparison
from maldrop_cli.analysis.settings import order, varying
from maldrop_cli.record import RunRecord
from maldrop_cli.render.runs import (
    arm_table,
    cell,
    failures,
    machine_line,
    setting_columns,
    shared_settings,
    verdict_table,
)
from maldrop_cli.render.tables import Column, Table, plural

DIGITS = 8  # of a data digest, where it is shown


def in_order(arms: Sequence[Arm], by: Sequence[str]) -> list[Arm]:
    """By the values of the settings ``by``, then by all others: the same runs give the same table."""
    further = varying([arm.config.flat_settings() for arm in arms])

    def key(arm: Arm) -> tuple[object, ...]:
        values = arm.config.flat_settings()
        return (*(order(values.get(name)) for name in (*by, *further)), arm.data_digest)

    return sorted(arms, key=key)


def id_columns(arms: Sequence[Arm], by: Sequence[str]) -> list[Column]:
    """A column for each setting in ``by``, then one for each other that varies among the arms; empty where a setting
    has no effect. And the images, where those of one data set differ."""
    several = [arm.config.flat_settings() for arm in arms]
    names = list(dict.fromkeys([*by, *varying(several)]))
    if "dropout" not in names:
        names.insert(len(by), "dropout")
    columns = setting_columns(several, names)
    if _digests([run for arm in arms for run in arm.runs.values()]):
        columns.append(Column("data-digest", [arm.data_digest[:DIGITS] for arm in arms], left=True))
    return columns


def report_tables(comparison: Comparison, by: Sequence[str]) -> list[Table]:
    """The arms, and where there is a baseline the verdicts."""
    arms = comparison.arms
    records = list({run.run_id: run for arm in arms for run in arm.runs.values()}.values())
    ids = id_columns(arms, by)
    notes = [
        "±: 95 % t-interval over seeds. × none: training time an epoch, against the arm without dropout that is alike "
        "in all else.",
        machine_line(records),
        *mixed_data(records),
        *failures(records),
    ]
    title = f"{plural(len(records), 'stored run')} in {plural(len(arms), 'arm')}: {shared_settings(arms)}"
    if comparison.label is None:
        return [arm_table(comparison, title, notes, ids)]
    if not any(comparison.differences):
        notes.append(f"Nothing to test: no arm is like one with {comparison.label} in all else, on the same images.")
        return [arm_table(comparison, title, notes, ids)]
    return [arm_table(comparison, title, notes, ids), verdict_table(comparison, ids)]


def mixed_data(records: Sequence[RunRecord]) -> list[str]:
    """A line where the runs did not all see the same images: what no table, test or plot holds against each other."""
    datasets = sorted({str(run.config.data.dataset) for run in records})
    lines = []
    if len(datasets) > 1:
        lines.append(
            f"Runs of {len(datasets)} data sets ({', '.join(datasets)}): nothing is compared across them; "
            f"--where dataset={datasets[0]} picks one."
        )
    for dataset, digests in _digests(records).items():
        lines.append(
            f"Runs of {dataset} saw different images (data digests {', '.join(digests)}): nothing is compared across "
            f"them; --where data_digest={digests[0]} picks one."
        )
    return lines


def _digests(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """By data set and its settings, the digests of those that have several."""
    found: dict[str, set[str]] = {}
    for run in records:
        found.setdefault(_images(run), set()).add(run.data_digest[:DIGITS])
    return {images: sorted(digests) for images, digests in found.items() if len(digests) > 1}


def _images(run: RunRecord) -> str:
    """The images that a run asked for, in words."""
    data = run.config.effective_settings()["data"]
    return " ".join(
        cell(data[name]) for name in ("dataset", "shape", "classes", "images", "image_size") if data.get(name)
    )
