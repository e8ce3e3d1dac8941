"""Masks as tables: pass rates, turnover, and the loss increase on the probe batch."""

from __future__ import annotations

from collections.abc import Sequence

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.config import Unit
from maldrop_cli.record import PROBED, EpochRow, RunRecord
from maldrop_cli.render.tables import Column, Table, number, number_column, plural

MEASURED = ("turnover", *PROBED, "fidelity")  # of EpochRow
REPORTED = ("never_passed", "always_passed")  # of RunRecord
BAR = 30  # characters that stand for all neurons


def epoch_columns(rows: Sequence[EpochRow]) -> list[Column]:
    """The columns of the probe batch, where it was looked at."""
    if all(row.raised_mask is None for row in rows):
        return []
    return [
        number_column("raised by mask", [row.raised_mask for row in rows], 3, sign=True),
        number_column("by joint", [row.raised_joint for row in rows], 3, sign=True),
        number_column("ceiling", [row.raised_ceiling for row in rows], 3, sign=True),
        number_column("mask/joint %", [row.fidelity for row in rows], 1),
    ]


def pass_rate_table(run: RunRecord) -> Table | None:
    """How many neurons passed how often over all of training; None where nothing was counted."""
    histogram, never, always = run.pass_histogram, run.never_passed, run.always_passed
    if not histogram or never is None or always is None:
        return None
    units = sum(histogram)
    what = "weight" if run.config.unit is Unit.WEIGHT else "neuron"
    shown = [bin for bin, count in enumerate(histogram) if count]
    columns = [
        Column("pass rate %", [f"{10 * bin}..{10 * (bin + 1)}" for bin in shown]),
        Column(f"{what}s", [str(histogram[bin]) for bin in shown]),
        Column("% of them", [number(100 * histogram[bin] / units, 2) for bin in shown]),
        Column("", ["#" * max(round(BAR * histogram[bin] / units), 1) for bin in shown], left=True),
    ]
    notes = [f"{plural(never, what)} never passed, {always} always."]
    moved = [row.turnover for row in run.epochs if row.turnover is not None]
    if moved:
        first = f"{number(100 * moved[0], 1)} % at first, " if len(moved) > 1 else ""
        notes.append(
            f"Turnover, the share of the dropping that moves to other {what}s from one epoch to the next: "
            f"{first}{number(100 * moved[-1], 1)} % at last."
        )
    return Table(f"Pass rates of {units:,} {what}s over all of training", columns, notes)


def mask_table(arms: Sequence[Arm], id_columns: Sequence[Column]) -> Table | None:
    """One row an arm that counts what it drops, means over its seeds at the last epoch; None without such an arm.

    ``id_columns``: those that say which arm it is.
    """
    rows = [row for row, arm in enumerate(arms) if arm.of_runs("never_passed").n]
    if not rows:
        return None
    counting = [arms[row] for row in rows]

    def means(heading: str, field: str, digits: int, factor: float = 1.0, *, sign: bool = False) -> Column:
        return number_column(heading, [factor * arm.metric(field).mean for arm in counting], digits, sign=sign)

    columns = [
        *(each.only(rows) for each in id_columns),
        number_column("never passed", [arm.of_runs("never_passed").mean for arm in counting], 1),
        number_column("always", [arm.of_runs("always_passed").mean for arm in counting], 1),
        means("turnover %", "turnover", 1, 100.0),
        means("probe loss", "probe_loss", 4),
        means("raised by mask", "raised_mask", 3, sign=True),
        means("by joint", "raised_joint", 3, sign=True),
        means("ceiling", "raised_ceiling", 3, sign=True),
        means("mask/joint %", "fidelity", 1),
    ]
    notes = [
        "never passed, always: neurons (of maldropconnect, weights), over all of training. turnover: the share of the "
        "dropping that moved to others since the epoch before. raised: the loss of the probe images without the "
        "neurons of the run's own mask, of the jointly worst set, and at most without any set."
    ]
    return Table("Masks, means over seeds at the last epoch", columns, notes)
