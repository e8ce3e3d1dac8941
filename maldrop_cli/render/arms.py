"""Arms and sweep points as rows (for files) and tables (for people)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maldrop_cli.analysis.arms import Arm, marked_epochs, time_ratio
from maldrop_cli.analysis.compare import TOP1, Comparison, lower_is_better
from maldrop_cli.analysis.settings import NUMERIC, order, varying
from maldrop_cli.analysis.stats import MAX_SEEDS, Difference, Interval, Outcome
from maldrop_cli.config import RunConfig
from maldrop_cli.names import value_text
from maldrop_cli.record import TUNE, RunRecord, measured_names
from maldrop_cli.render import runs
from maldrop_cli.render.tables import Column, Table, number, number_column, plural

DIGITS = 8  # of a data digest, where it is shown
_METRICS = ("val_top1", "val_top5", "val_loss", "train_loss", "drop_rate", "rho_mean", *runs.OF_MASKS)  # of an arm

SIGNS = {Outcome.BETTER: "+", Outcome.WORSE: "-", Outcome.EQUIVALENT: "=", Outcome.INCONCLUSIVE: "?"}


def arm_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row an arm, at the last epoch."""
    further = measured_names(run for arm in comparison.arms for run in arm.done.values())
    return [
        {
            **runs.setting_cells(arm.config, runs.FIRST),
            "epoch": arm.config.epochs,
            "n_seeds": len(arm.done),
            "n_failed": len(arm.runs) - len(arm.done),
            **_interval_cells(**{field: arm.metric(field) for field in (*_METRICS, *further)}),
            **{f"{field}_mean": arm.of_runs(field).mean for field in runs.REPORTED},
            **_interval_cells(
                val_top1_first=arm.metric("val_top1", 1),
                val_top1_middle=arm.metric("val_top1", (arm.config.epochs + 1) // 2),
                train_seconds=arm.metric("train_seconds"),
                total_train_seconds=arm.total_seconds(),
            ),
            "time_vs_none": time_ratio(arm, reference),
            "baseline": comparison.label,
            **_test_cells(comparison, number),
            "trained_as": arm.trained_as and runs.name(arm.trained_as),
            "margin": comparison.margin,
            "arm": arm.label or None,
            **runs.setting_cells(arm.config, runs.FURTHER),
            "data_digest": arm.data_digest,
            **{key: _common(run.environment.get(key) for run in arm.runs.values()) for key in runs.ENVIRONMENT},
        }
        for number, (arm, reference) in enumerate(zip(comparison.arms, comparison.references, strict=True))
    ]


def seed_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """One row a run, at its last epoch, with what the user calls its arm; in the order of the arms, then the seeds."""
    return [
        {**row, "arm": arm.label or None}
        for arm in arms
        for row in runs.run_rows([arm.runs[seed] for seed in sorted(arm.runs)])
    ]


def _test_cells(comparison: Comparison, number: int) -> dict[str, Any]:
    """The tests of the arm with that number: of top-1 by the plain names, of other metrics with theirs before them."""
    cells: dict[str, Any] = {}
    for metric in dict.fromkeys([TOP1, *comparison.differences]):
        tested = metric in comparison.differences
        difference = comparison.differences[metric][number] if tested else None
        base = comparison.baselines[metric][number] if tested else None
        prefix, name = ("", "diff_top1") if metric == TOP1 else (f"{metric}_", f"{metric}_diff")
        cells |= {
            **_interval_cells(**{name: difference.interval if difference else None}),
            f"{prefix}p_value": difference and difference.p,
            f"{prefix}p_holm": difference and difference.p_holm,
            f"{prefix}verdict": difference and str(difference.outcome),
            f"{prefix}more_seeds": difference and difference.more_seeds,
            f"{prefix}against": base and difference and (base.label or runs.name(base.config)),
        }
    return cells


def _interval_cells(**intervals: Interval | None) -> dict[str, float | None]:
    cells: dict[str, float | None] = {}
    for name, each in intervals.items():
        cells |= {f"{name}_mean": each.mean if each else None, f"{name}_ci95": each.half if each else None}
    return cells


def _common(values: Iterable[object]) -> object:
    """The value that all have; ``mixed`` where they differ."""
    first, *others = dict.fromkeys(values)
    return "mixed" if others else first


def arm_table(
    comparison: Comparison, title: str, notes: Sequence[str] = (), id_columns: Sequence[Column] | None = None
) -> Table:
    """Accuracy at the first, middle and last epoch, or at the last one and with something hidden, where that was
    measured; losses, times and drop rates; one row an arm. ``id_columns``: those that say which arm it is; by default,
    its name."""
    arms = comparison.arms
    lengths = {arm.config.epochs for arm in arms}
    hidden = hidden_metrics(arms)
    marked: dict[str, int | None] = {"first epoch": 1, "last epoch": None}
    if len(lengths) == 1:
        marked = {f"epoch {epoch}": epoch for epoch in ([*lengths] if hidden else marked_epochs(*lengths))}
    columns = [
        *(id_columns or _named(arms)),
        *(_accuracy(arms, label, epoch, len(marked) - at) for at, (label, epoch) in enumerate(marked.items(), 1)),
        *runs.measured(hidden, arms, Arm.metric),
        *_tuning(arms),
        *_means(arms, "train_loss", "val_loss"),
        number_column("train s", [arm.total_seconds().mean for arm in arms], 1, spare=5),
        number_column("time × none", map(time_ratio, arms, comparison.references), 2, spare=3),
        *_means(arms, "drop_rate"),
        _seeds(arms),
    ]
    if any(arm.trained_as for arm in arms):
        columns.append(_remarks(arms, {}))
    return Table(title, columns, [*notes, *runs.hidden_note(hidden)])


def hidden_metrics(arms: Sequence[Arm]) -> list[str]:
    """The measurements under perturbations that any of the arms has."""
    names = measured_names(run for arm in arms for run in arm.done.values())
    return [name for name in names if not name.startswith(TUNE)]


def _tuning(arms: Sequence[Arm]) -> list[Column]:
    """Top-1 on the tuning images, where there are some."""
    return runs.measured([runs.TUNE_TOP1] if any(arm.config.tune_split for arm in arms) else [], arms, Arm.metric)


def labels(arms: Sequence[Arm], without: str = "") -> list[str]:
    """What each arm is called: by the user, else its variant, and the settings that vary among the arms. ``without``:
    one left out."""
    settings = [arm.config.flat_settings() for arm in arms]
    differing = [field for field in varying(settings) if field != without]
    names = [runs.name(arm.config, without, differing) for arm in arms]
    said = {"dropout", "schedule", "selector", "granularity"}  # by their value alone
    said |= {word.partition("=")[0].replace("-", "_") for text in names for word in text.split() if "=" in word}
    further = [field for field in differing if field not in said]
    return [
        arm.label
        or " ".join([text, *(f"{field.replace('_', '-')}={each[field]}" for field in further if field in each)])
        for arm, text, each in zip(arms, names, settings, strict=True)
    ]


def _named(arms: Sequence[Arm]) -> list[Column]:
    return [Column("dropout", labels(arms), left=True)]


def _accuracy(arms: Sequence[Arm], label: str, epoch: int | None = None, spare: int = 0) -> Column:
    return number_column(f"top-1 %, {label}", [arm.metric("val_top1", epoch) for arm in arms], 2, spare=spare)


def _means(arms: Sequence[Arm], *fields: str) -> list[Column]:
    """Means over seeds at the last epoch, the turnover in percent."""
    return runs.measured(fields, arms, lambda arm, field: arm.metric(field).mean * (100 if field == "turnover" else 1))


def _seeds(arms: Sequence[Arm]) -> Column:
    counts = [(len(arm.done), len(arm.runs)) for arm in arms]
    return Column("seeds", [str(done) if done == tried else f"{done} of {tried}" for done, tried in counts], spare=3)


def _remarks(arms: Sequence[Arm], marks: Mapping[int, str]) -> Column:
    """The mark of an arm, by its number, and, where it was not trained, whose runs it shows."""
    shown = [f"the runs of {runs.name(arm.trained_as)}" if arm.trained_as else "" for arm in arms]
    return Column("", [", ".join(filter(None, [marks.get(row), each])) for row, each in enumerate(shown)], left=True)


def verdict_table(comparison: Comparison, id_columns: Sequence[Column] | None = None) -> Table:
    """Each arm that has a baseline against it, seed by seed, by each measurement. ``id_columns``: as of
    :func:`arm_table`."""
    several = len(comparison.differences) > 1
    tests = [
        (metric, number, difference)
        for metric, of_arms in comparison.differences.items()
        for number, difference in enumerate(of_arms)
        if difference is not None
    ]
    differences = [difference for *_, difference in tests]
    [*metrics] = [runs.metric_name(metric) for metric, *_ in tests]
    title, baselines = against(comparison, [(metric, number) for metric, number, _ in tests])
    what = "difference" if several else f"{runs.metric_name(*comparison.differences)} difference"
    losses = {*map(lower_is_better, comparison.differences)}
    unit = "points or nats" if len(losses) > 1 else "nats" if losses == {True} else "points"
    columns = [
        *([Column("measurement", metrics, left=True)] if several else []),
        *(each.only(number for _, number, _ in tests) for each in id_columns or _named(comparison.arms)),
        *baselines,
        number_column(f"{what}, {unit}", [each.interval for each in differences], 2, sign=True),
        Column(
            "p (Holm)", ["< 0.001" if each.p_holm < 0.001 else number(each.p_holm, 3) for each in differences], spare=1
        ),
        Column("verdict", [f"{SIGNS.get(each.outcome, '')} {each.outcome}".strip() for each in differences], left=True),
        Column("more seeds", [_more_seeds(each) for each in differences], spare=2),
    ]
    family = f", corrected over all {len(tests)} rows together" if several else ""
    nats = f", of losses ±{comparison.margin / 10:g} nats" if True in losses else ""
    notes = [
        "±: 95 % t-interval of the difference, not corrected.",
        f"better, worse: Holm-corrected p below 0.05{family}; equivalent: within ±{comparison.margin:g} points{nats} "
        "(two one-sided t-tests).",
    ]
    open_ones = [each for each in differences if each.outcome is Outcome.INCONCLUSIVE]
    if open_ones:
        notes.append("more seeds: about how many would decide, should mean and spread stay as they are.")
    if any(math.isnan(each.p) for each in open_ones):
        notes.append("Without p: the differences are all equal, so there is no spread to test against.")
    styles = {Outcome.BETTER: "green", Outcome.WORSE: "red"}
    marked = {row: styles[each.outcome] for row, each in enumerate(differences) if each.outcome in styles}
    return Table(title, columns, notes, marked)


def against(comparison: Comparison, tests: Sequence[tuple[str, int]]) -> tuple[str, list[Column]]:
    """The title of the verdicts, and, where the baseline is the best of several, a column that names it."""
    if base := comparison.baseline:
        return f"Against {base.label or runs.name(base.config)}, paired by seed, epoch {base.config.epochs}", []
    if not (comparison.label or "").startswith("best:"):
        return f"Against {comparison.label}, each arm's own, paired by seed, last epoch", []
    bases = [comparison.baselines[metric][number] for metric, number in tests]
    names = [(each.label or runs.name(each.config)) if each else "" for each in bases]
    title = f"Against {comparison.label} by the tuning images, paired by seed, last epoch"
    return title, [Column("against", names, left=True)]


def _more_seeds(difference: Difference) -> str:
    """How many would decide; a dash where it is decided, or can't be told."""
    if difference.outcome is not Outcome.INCONCLUSIVE or math.isnan(difference.p):
        return "–"
    return f"> {MAX_SEEDS:,}" if difference.more_seeds is None else str(difference.more_seeds)


def mask_tables(arms: Sequence[Arm], id_columns: Sequence[Column] | None = None) -> list[Table]:
    """One row an arm that counts what it drops, means over its seeds at the last epoch; no table without such an arm.
    ``id_columns``: as of :func:`arm_table`."""
    rows = [row for row, arm in enumerate(arms) if arm.of_runs("never_passed").n]
    if not rows:
        return []
    counting = [arms[row] for row in rows]
    columns = [
        *(each.only(rows) for each in id_columns or _named(arms)),
        number_column("never passed", [arm.of_runs("never_passed").mean for arm in counting], 1),
        number_column("always passed", [arm.of_runs("always_passed").mean for arm in counting], 1),
        *_means(counting, *runs.OF_MASKS),
    ]
    notes = [
        "never, always passed: neurons (of maldropconnect, weights), over all of training. turnover: the share of the "
        "dropping that moved to others since the epoch before. raised: by how much the loss of the probe images is "
        "higher without the neurons of the run's own mask, of the jointly worst set, and at most without any set."
    ]
    return [Table("Masks, means over seeds at the last epoch", columns, notes)]


def sweep_title(points: Sequence[RunConfig], seeds: int) -> str:
    """What all points of a sweep share."""
    shared, *others = {runs.settings_line(point) for point in points}
    if others:
        shared = "a grid over data, models or learning rates"
    selectors = {point.selector for point in points if "selector" in point.effective_settings()}
    one = selectors if len(selectors) == 1 else ()
    return ", ".join([shared, *one, f"{points[0].granularity} masks", plural(seeds, "seed")])


def point_columns(points: Sequence[RunConfig]) -> list[Column]:
    """What tells the points of a sweep apart: variant, schedule, omega, rho, and what else varies."""
    several = [point.flat_settings() for point in points]
    differing = varying(several)
    further = [field for field in ("dataset", "model", "train_images", "selector", "lr", "p") if field in differing]
    return setting_columns(several, ["dropout", *further, "schedule", "omega", "rho"])


def setting_columns(several: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[Column]:
    """A column for each of the settings ``names``; empty where one has no effect. ``several``: flat settings by row."""
    numeric = {*NUMERIC} - {"omega"}
    return [
        Column(
            name.replace("_", "-"), cells, left=name not in numeric, spare=9 if len({*filter(None, cells)}) < 2 else 0
        )
        for name in names
        for cells in [[value_text(each.get(name)) for each in several]]
    ]


def sweep_table(comparison: Comparison, title: str, notes: Sequence[str] = ()) -> Table:
    """One row a point, the references first; the best and the worst point marked."""
    arms, hidden = comparison.arms, hidden_metrics(comparison.arms)
    tuned = all(arm.config.tune_split for arm in arms)
    by = runs.TUNE_TOP1 if tuned else TOP1
    means = {row: arm.metric(by).mean for row, arm in enumerate(arms) if arm.config.has_rho and arm.done}
    marks: dict[int, str] = {}
    if len(set(means.values())) > 1:
        marks = {max(means, key=means.__getitem__): "+ best", min(means, key=means.__getitem__): "- worst"}
    configs = [arm.config for arm in arms]
    rates = [[row.drop_rate for run in arm.done.values() for row in run.epochs] for arm in arms]
    columns = [
        *point_columns(configs),
        _accuracy(arms, f"epoch {configs[0].epochs}"),
        *runs.measured(hidden, arms, Arm.metric),
        *_tuning(arms),
        *_means(arms, "val_loss"),
        number_column("train s", [arm.total_seconds().mean for arm in arms], 1, spare=5),
        number_column("dropped %", [sum(each) / len(each) if each else None for each in rates], 2, spare=3),
        _seeds(arms),
        _remarks(arms, marks),
    ]
    chosen = ["best, worst: by top-1 on the tuning images."] if tuned and marks else []
    notes = [*runs.schedule_settings(configs), *notes, *saturated_arms(arms), *chosen, *runs.hidden_note(hidden)]
    styles = {"+ best": "green", "- worst": "red"}
    return Table(title, columns, notes, {row: styles[mark] for row, mark in marks.items()})


def saturated_arms(arms: Sequence[Arm]) -> list[str]:
    """:func:`maldrop_cli.render.runs.saturation` of arms."""
    return runs.saturation((arm.config, runs.scheduled_rates(arm.done.values())) for arm in arms)


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
        "±: 95 % t-interval over seeds. time × none: training time an epoch, against the arm without dropout that is "
        "alike in all else.",
        runs.machine_line(records),
        *mixed_data(records),
        *runs.failures(records),
    ]
    title = f"{plural(len(records), 'stored run')} in {plural(len(arms), 'arm')}: {runs.shared_settings(arms)}"
    tested = any(map(any, comparison.differences.values()))
    if comparison.label and not tested:
        notes.append(f"Nothing to test: no arm is like one with {comparison.label} in all else, on the same images.")
    return [arm_table(comparison, title, notes, ids), *([verdict_table(comparison, ids)] if tested else [])]


def mixed_data(records: Sequence[RunRecord]) -> list[str]:
    """A line where the runs did not all see the same images: what no table, test or plot holds against each other."""
    datasets = sorted({str(run.config.data.dataset) for run in records})
    mixed = [
        (f"{dataset} saw different images (data digests {', '.join(digests)})", f"data_digest={digests[0]}")
        for dataset, digests in _digests(records).items()
    ]
    if len(datasets) > 1:
        mixed.insert(0, (f"{len(datasets)} data sets ({', '.join(datasets)})", f"dataset={datasets[0]}"))
    return [f"Runs of {what}: nothing is compared across them; --where {one} picks one." for what, one in mixed]


def _digests(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """By data set and its settings, in words, the digests of those that have several."""
    found: dict[str, set[str]] = {}
    for run in records:
        data = run.config.data.effective_settings()
        asked = [data[name] for name in ("dataset", "shape", "classes", "images", "image_size") if data.get(name)]
        found.setdefault(" ".join(map(value_text, asked)), set()).add(run.data_digest[:DIGITS])
    return {images: sorted(digests) for images, digests in found.items() if len(digests) > 1}
