"""Stored runs: which are chosen, how they are taken together, and what they are tested against."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, rows

from maldrop_cli.analysis.arms import Arm, group
from maldrop_cli.analysis.compare import TOP1, compare_arms, of_dropout
from maldrop_cli.analysis.settings import ARM_SETTINGS, order, varying
from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.names import Dataset, Dropout, Schedule, Selector, UsageError
from maldrop_cli.record import EpochRow, RunRecord, Status
from maldrop_cli.render.arms import id_columns, in_order, mixed_data, report_tables
from maldrop_cli.render.tables import Column, Table, latex, to_text
from maldrop_cli.runs.store import DAMAGED, Store
from maldrop_cli.runs.store import _checksum as checksum
from maldrop_cli.sweep.filters import parse_baseline, parse_by, parse_condition
from maldrop_cli.sweep.grammar import Quantity, parse_spans

Run = Callable[..., Result]
NONE, VANILLA, MALDROP, RANDOM = Dropout.NONE, Dropout.VANILLA, Dropout.MALDROP, Dropout.RANDOM
ENVIRONMENT = {"device": "cpu", "device_name": "cpu", "cpu": "X", "threads": 1, "torch": "2.99"}


HISTOGRAM = (1, 0, 0, 0, 0, 0, 9, 0, 20, 70)


def stored(
    seed: int = 0, top1: float = 90.0, digest: str = "d1", status: Status = Status.DONE, **settings: Any
) -> RunRecord:
    """A run of two epochs; the first is ten points below the last, and each takes a second."""
    config = RunConfig(**{"epochs": 2, "horizon": 2, "seed": seed} | settings)
    rows = tuple(
        EpochRow(
            epoch=epoch,
            train_loss=1 / epoch,
            val_loss=0.5 / epoch,
            val_top1=top1 - 10 * (config.epochs - epoch),
            val_top5=99.0,
            train_seconds=1.0,
            rho_mean=None,
            drop_rate=0.0,
        )
        for epoch in range(1, config.epochs + 1)
    )
    return RunRecord(
        run_id=config.run_id(digest),
        config=config,
        data_digest=digest,
        environment=ENVIRONMENT,
        hidden_width=4096,
        epochs=rows,
        status=status,
        **({"never_passed": 1, "always_passed": 50, "pass_histogram": HISTOGRAM} if config.has_rho else {}),  # type: ignore[arg-type]
    )


def over_seeds(top1: float, **settings: Any) -> list[RunRecord]:
    return [stored(seed, top1 + step, **settings) for seed, step in enumerate((0.0, 0.25, 0.75))]


SWEEP = [
    *over_seeds(90, dropout=VANILLA),
    *over_seeds(88, rho=1024),
    *over_seeds(91, rho=0),
    *over_seeds(90, dropout=NONE),
    *over_seeds(85, rho=256, schedule=Schedule.FORWARD),
    *over_seeds(89, rho=256),
]


def chosen(*conditions: str, runs: list[RunRecord] = SWEEP) -> list[RunRecord]:
    parsed = [parse_condition(each, "where") for each in conditions]
    return [run for run in runs if all(each.holds(run) for each in parsed)]


def save(runs: list[RunRecord], folder: str = "runs") -> None:
    store = Store(Path(folder))
    for run in runs:
        store.start(run)
        store.finish(run)


# --- settings ------------------------------------------------------------------------------------------------------


def test_settings_are_those_with_an_effect() -> None:
    assert "rho" not in RunConfig(dropout=NONE).flat_settings()
    assert "p" not in RunConfig().flat_settings()
    assert RunConfig().flat_settings()["dataset"] is Dataset.DIGITS
    assert set(RunConfig().flat_settings()) <= {*ARM_SETTINGS, "seed"}


def test_having_no_effect_is_no_value() -> None:
    assert varying([RunConfig(dropout=each).flat_settings() for each in (NONE, VANILLA, MALDROP)]) == ["dropout"]
    assert varying([RunConfig(lr=lr, rho=rho).flat_settings() for lr, rho in ((1.0, 2), (2.0, 2))]) == ["lr"]


def test_the_order_of_values() -> None:
    for values in (
        [Schedule.LINEAR, Schedule.FORWARD, Schedule.STANDARD, None],  # backwards, that of the registry
        [100.0, 10, 0.5, 0, "paper", None],
        ["vgg16", "resnet18", "cnn"],
        [True, False],
    ):
        assert sorted(values, key=order) == values[::-1]


# --- --where -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["rho=256"], {(MALDROP, 256)}),
        (["rho=0..256"], {(MALDROP, 0), (MALDROP, 256)}),  # all in between, not nine points
        (["rho=0..1000:256"], {(MALDROP, 0), (MALDROP, 256)}),  # a step names points
        (["rho=1..1024*2"], {(MALDROP, 256), (MALDROP, 1024)}),
        (["rho=6.25%"], {(MALDROP, 256)}),
        (["rho=0%..6.25%"], {(MALDROP, 0), (MALDROP, 256)}),
        (["rho=0,1024"], {(MALDROP, 0), (MALDROP, 1024)}),
        (["rho=-"], {(NONE, None), (VANILLA, None)}),
        (["rho=1024,-"], {(NONE, None), (VANILLA, None), (MALDROP, 1024)}),
        (["schedule=forward"], {(MALDROP, 256)}),
        (["schedule=standard", "rho=200..2000"], {(MALDROP, 256), (MALDROP, 1024)}),
        (["dropout=none,vanilla"], {(NONE, None), (VANILLA, None)}),
        (["Omega=paper"], {(MALDROP, 0), (MALDROP, 256), (MALDROP, 1024)}),
        (["omega=0.5"], set()),
        (["pass-rate=cumulative", "rho=0"], {(MALDROP, 0)}),
        (["p=0.5"], {(VANILLA, None)}),
        (["model=CNN", "deterministic=false", "p=0.4..0.6"], {(VANILLA, None)}),
        (["deterministic=true"], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_where(conditions: list[str], expected: set[tuple[Dropout, int | None]]) -> None:
    found = chosen(*conditions)
    assert {(run.config.dropout, run.config.rho if run.config.has_rho else None) for run in found} == expected


def test_where_of_what_is_no_setting() -> None:
    runs = [stored(0), stored(1, status=Status.FAILED), stored(2, digest="other")]
    assert [run.config.seed for run in chosen("seed=0..1", runs=runs)] == [0, 1]
    assert [run.config.seed for run in chosen("status=failed", runs=runs)] == [1]
    assert [run.config.seed for run in chosen("data_digest=oth", runs=runs)] == [2]


def test_a_percentage_is_of_each_run_s_neurons() -> None:
    narrow = replace(stored(rho=16), hidden_width=256)
    assert chosen("rho=6.25%", runs=[narrow, stored(rho=256), stored(rho=16)]) == [narrow, stored(rho=256)]
    channels = stored(rho=1, dropout=Dropout.SPATIAL_MALDROP)
    assert chosen("rho=0%..100%", runs=[channels]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rhoo=1", "where: no setting is called 'rhoo'; did you mean 'rho'?"),
        ("shedule=forward", "did you mean 'schedule'?"),
        ("schedule=forwards", "did you mean 'forward'?"),
        ("rho=1o24", "where rho: '1o24' stops making sense at character 2"),
        ("rho=4..2", "runs backwards"),
        ("rho=", "a number should follow"),
        ("rho", "write e.g. schedule=forward"),
        ("lr=5%", "percentage"),
        ("rho=200%", "not within the layer's width"),
        ("omega=big", "neither 'paper' nor 'classes' nor a number"),
        ("deterministic=maybe", "true, false"),
        ("model=", "a word"),
    ],
)
def test_a_wrong_condition(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        chosen(text)


def test_spans() -> None:
    spans = parse_spans("1, 2..4, 6..8:1, 5%", "x")
    assert [(low.value, high.value) for low, high in spans] == [(1, 1), (2, 4), (6, 6), (7, 7), (8, 8), (5, 5)]
    assert spans[-1][0] == Quantity(5, True)


# --- --by ----------------------------------------------------------------------------------------------------------


def test_by() -> None:
    assert parse_by("lr, Pass-Rate,lr") == ["lr", "pass_rate"]
    for text, message in (("rh", "did you mean 'rho'?"), ("seed", "over their seeds"), ("", "no setting")):
        with pytest.raises(UsageError, match=message.replace("?", r"\?")):
            parse_by(text)


def test_arms_come_in_the_order_of_the_values() -> None:
    arms = in_order(group(SWEEP), ["rho"])
    told = [(arm.config.dropout, arm.config.schedule, arm.config.rho) for arm in arms]
    assert [each[0] for each in told[:2]] == [NONE, VANILLA]
    assert [each[2] for each in told[2:]] == [0, 256, 256, 1024]
    assert [each[1] for each in told[3:5]] == [Schedule.STANDARD, Schedule.FORWARD]
    again = in_order(group(SWEEP[::-1]), ["rho"])
    assert [arm.config for arm in again] == [arm.config for arm in arms]


def test_what_differs_within_a_group_stays_apart_and_is_shown() -> None:
    columns = id_columns(in_order(group(SWEEP), ["rho"]), ["rho"])
    assert [column.heading for column in columns] == ["rho", "dropout", "schedule"]
    assert columns[0].cells == ["", "", "0", "256", "256", "1024"]
    assert columns[2].cells == ["", "", "standard", "standard", "forward", "standard"]
    alike = id_columns(group([stored(lr=0.1), stored(lr=0.2)]), [])
    assert [(column.heading, column.cells) for column in alike] == [
        ("dropout", ["maldrop", "maldrop"]),
        ("lr", ["0.1", "0.2"]),
    ]


def test_a_copy_of_a_run_counts_once_and_the_finished_one() -> None:
    unfinished = replace(stored(), status=Status.UNFINISHED, epochs=())
    for runs in ([unfinished, stored()], [stored(), unfinished], [stored(), stored()]):
        [arm] = group(runs)
        assert arm.runs == {0: stored()}


# --- --baseline ----------------------------------------------------------------------------------------------------


def differences(arms: list[Arm], baseline: str) -> list[float | None]:
    compared = compare_arms(arms, parse_baseline(baseline), 0.5)
    return [None if each is None else round(each.interval.mean, 9) for each in compared.differences[TOP1]]


def test_a_variant_as_baseline() -> None:
    arms = in_order(group(SWEEP), ["rho"])
    assert differences(arms, "vanilla") == [0.0, None, 1.0, -1.0, -5.0, -2.0]


def test_a_setting_as_baseline_is_the_arm_alike_in_all_else() -> None:
    arms = in_order(group(SWEEP), ["rho"])
    # none and vanilla know no rho, and forward has no arm with rho 0
    assert differences(arms, "rho=0") == [None, None, None, -2.0, None, -3.0]
    assert differences(arms, "rho=0,schedule=standard") == [None, None, None, -2.0, -6.0, -3.0]
    assert differences(arms, "dropout=maldrop,rho=0")[:2] == [-1.0, -1.0]


def test_each_learning_rate_has_its_own_baseline_and_reference() -> None:
    runs = [
        run
        for lr, base in ((0.1, 80.0), (0.2, 60.0))
        for run in [*over_seeds(base, dropout=NONE, lr=lr), *over_seeds(base + 3, lr=lr)]
    ]
    compared = compare_arms(group(runs), of_dropout(NONE), 0.5)
    assert [None if each is None else each.interval.mean for each in compared.differences[TOP1]] == [
        None,
        3.0,
        None,
        3.0,
    ]
    assert [arm and arm.config.lr for arm in compared.references] == [0.1, 0.1, 0.2, 0.2]
    assert compared.baseline is None
    tables = report_tables(compared, ["lr"])
    assert tables[1].title == "Against none, each arm's own, paired by seed, last epoch"
    assert tables[1].columns[0].cells == ["0.1", "0.2"]


def test_other_images_are_never_a_baseline() -> None:
    arms = group([*over_seeds(90, dropout=NONE, digest="one"), *over_seeds(91, digest="other")])
    compared = compare_arms(arms, of_dropout(NONE), 0.5)
    assert compared.differences[TOP1] == [None, None]
    assert compared.references[1] is None
    [table] = report_tables(compared, ["dropout"])
    assert any("Nothing to test" in note for note in table.notes)


def test_p_values_are_corrected_over_all_that_is_shown() -> None:
    arms = group([*over_seeds(90, dropout=NONE), *(stored(seed, top1) for seed, top1 in enumerate((91.0, 92.0, 93.5)))])
    [alone] = [each for each in compare_arms(arms, of_dropout(NONE), 0.5).differences[TOP1] if each]
    more = group([stored(seed, top1, rho=9) for seed, top1 in enumerate((90.5, 91.0, 91.0))])
    together = compare_arms([arms[1], *more], of_dropout(NONE), 0.5, pool=[*arms, *more]).differences[TOP1][0]
    assert together is not None
    assert alone.p_holm == alone.p == together.p < together.p_holm


def test_an_ambiguous_baseline_names_the_settings_that_would_decide() -> None:
    with pytest.raises(UsageError, match="maldrop fits 3 arms, which differ in rho") as error:
        compare_arms(
            [each for each in group(SWEEP) if each.config.schedule is not Schedule.FORWARD],
            parse_baseline("maldrop"),
            1,
        )
    assert "--baseline dropout=maldrop,rho=1024" in str(error.value)


def test_a_wrong_baseline() -> None:
    for text, message in (("vanila", "did you mean 'vanilla'"), ("rho=x", "a number"), ("seed=0", "no setting")):
        with pytest.raises(UsageError, match=message):
            parse_baseline(text)


# --- data that differ ----------------------------------------------------------------------------------------------


def test_data_sets_that_are_mixed_are_said() -> None:
    assert mixed_data(SWEEP) == []
    two = [stored(), stored(digest="d2", data=DataConfig(dataset=Dataset.MNIST))]
    assert mixed_data(two) == [
        "Runs of 2 data sets (digits, mnist): nothing is compared across them; --where dataset=digits picks one."
    ]
    [note] = mixed_data([stored(digest="aaaaaaaabbbb"), stored(digest="ccccccccdddd")])
    assert note.startswith("Runs of digits saw different images (data digests aaaaaaaa, cccccccc)")
    columns = id_columns(group([stored(digest="aaaaaaaabbbb"), stored(digest="ccccccccdddd")]), [])
    assert columns[-1].cells == ["aaaaaaaa", "cccccccc"]
    resized = [stored(), stored(digest="d2", data=DataConfig(image_size=16))]
    assert mixed_data(resized) == []  # asked for, and a column of its own


def test_arms_of_different_lengths() -> None:
    compared = compare_arms(group([stored(), stored(epochs=4, horizon=4)]), None, 0.5)
    [table] = report_tables(compared, [])
    assert [column.heading for column in table.columns][:4] == [
        "dropout",
        "epochs",
        "top-1 %, first epoch",
        "top-1 %, last epoch",
    ]
    assert table.columns[2].cells == ["80.00", "60.00"]
    assert table.title == "2 stored runs in 2 arms: digits, cnn, SGD lr 0.005, momentum 0.9, batch 64"


# --- LaTeX ---------------------------------------------------------------------------------------------------------

LATEX = r"""\begin{table}
\centering
\caption{50 \% of R\&D}
\begin{tabular}{lr}
\toprule
 val\_loss   &     $\Delta$ top-1 \\
\midrule
 a          & $-$0.50 $\pm$1.00 \\
 -{}-rho 1    &           -- \\
\bottomrule
\end{tabular}
\par\footnotesize Try: maldrop sweep -{}-schedule forward-smooth \ensuremath{<} 2 $\times$ none
\end{table}"""


def test_latex_is_golden() -> None:
    columns = [Column("val_loss", ["a", "--rho 1"], left=True), Column("Δ top-1", ["-0.50 ±1.00", "–"])]
    table = Table("50 % of R&D", columns, ["Try: maldrop sweep --schedule forward-smooth < 2 × none"])
    assert to_text([table], "latex") == LATEX
    assert to_text([table, table], "latex") == f"{LATEX}\n\n{LATEX}"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (r"\#$^{}~|[1]", r"\textbackslash{}\#\$\^{}\{\}\textasciitilde{}\textbar{}{[}1]"),
        ("--forward-smooth 1-2 -3 rho=-1 Δ-.5 –5", r"-{}-forward-smooth 1-2 $-$3 rho=$-$1 $\Delta$$-$.5 --5"),
    ],
)
def test_special_characters_are_escaped_everywhere(text: str, escaped: str) -> None:
    assert latex(text) == escaped
    table = to_text([Table(text, [Column(text, [text])], [text])], "latex")
    assert table.count(escaped) == 4  # title, heading, cell, note


def test_latex_without_a_row_declares_its_columns() -> None:
    table = to_text([Table("T", [Column("a", [], left=True), Column("b", [])])], "latex")
    assert r"\begin{tabular}{lr}" in table


# --- the command ---------------------------------------------------------------------------------------------------


def test_report_by(maldrop: Run) -> None:
    save(SWEEP)
    result = maldrop("report", "runs", "--by", "rho", "--csv", "r.csv", "--json", "r.json")
    assert result.code == 0, result.err
    assert result.out.startswith("18 stored runs in 6 arms: digits, cnn, 2 epochs, SGD lr 0.005")
    table = rows("r.csv")
    assert [row["rho"] for row in table] == ["", "", "0", "256", "256", "1024"]
    assert float(table[2]["val_top1_mean"]) == pytest.approx(91 + 1 / 3)
    assert {row["time_vs_none"] for row in table} == {"1.0"}
    assert {row["n_seeds"] for row in table} == {"3"}
    assert json.loads(Path("r.json").read_text())["rows"][0]["baseline"] is None


def test_report_against_a_baseline_that_is_not_among_the_rows(maldrop: Run) -> None:
    save(SWEEP)
    result = maldrop(
        "report", "runs", "--where", "schedule=standard", "--baseline", "vanilla", "--margin", "1.5", "--csv", "r.csv"
    )
    assert result.code == 0, result.err
    assert "Against vanilla p=0.5, paired by seed, epoch 2" in result.out
    assert "within ±1.5 points" in result.out
    table = rows("r.csv")
    assert [(row["rho"], float(row["diff_top1_mean"])) for row in table] == [("0", 1.0), ("256", -1.0), ("1024", -2.0)]
    assert {row["baseline"] for row in table} == {"vanilla"}
    assert {row["time_vs_none"] for row in table} == {"1.0"}


def test_report_lists_what_where_leaves(maldrop: Run) -> None:
    save(SWEEP)
    result = maldrop("report", "runs", "--where", "rho=0..256", "--where", "seed=0,1", "--long", "--csv", "r.csv")
    assert result.code == 0, result.err
    assert "6 stored runs" in result.out
    assert len(rows("r.csv")) == 12
    assert {row["data_digest"] for row in rows("r.csv")} == {"d1"}


def test_report_in_latex(maldrop: Run) -> None:
    save(SWEEP)
    result = maldrop("report", "runs", "--by", "dropout", "--format", "latex")
    assert r"\begin{tabular}{lrl" in result.out
    assert r"88.33 $\pm$0.95" in result.out


def test_mixed_images_are_said_and_kept_apart(maldrop: Run) -> None:
    save([stored(), stored(digest="d2", dropout=NONE)])
    for arguments in ((), ("--by", "dropout"), ("--baseline", "none")):
        result = maldrop("report", "runs", *arguments)
        assert result.code == 0, result.err
        assert "saw different images (data digests d1, d2)" in result.out


def alias(run: RunRecord, **change: Any) -> RunRecord:
    """Another point of a sweep that has this run."""
    return replace(run, config=replace(run.config, **change), trained_as=run.config)


ALIASES = [
    *(alias(run, schedule=Schedule.FORWARD) for run in SWEEP if run.config.has_rho and run.config.rho == 0),
    *(alias(run, schedule=Schedule.FORWARD, rho=2048) for run in SWEEP if run.config.rho == 1024),
]


def test_points_that_have_the_runs_of_others_are_shown_with_them(maldrop: Run) -> None:
    save(SWEEP)
    for run in ALIASES:
        Store(Path("runs")).write_alias(run)
    result = maldrop("report", "runs", "--where", "schedule=forward", "--baseline", "rho=0", "--csv", "r.csv")
    assert result.code == 0, result.err
    assert [(row["rho"], row["trained_as"], row["diff_top1_mean"] != "") for row in rows("r.csv")] == [
        ("0", "maldrop rho=0", False),
        ("256", "", True),
        ("2048", "maldrop rho=1024", True),
    ]
    assert "9 stored runs in 3 arms" in result.out
    assert "the runs of maldrop rho=1024" in result.out
    listed = maldrop("report", "runs", "--csv", "l.csv")  # a list of runs is one of what was trained
    assert "18 stored runs" in listed.out
    assert len(rows("l.csv")) == 18
    twice = maldrop("report", "runs", "runs", "--by", "rho", "--csv", "t.csv")
    assert "18 stored runs in 8 arms" in twice.out
    assert len(rows("t.csv")) == 8


def test_the_same_runs_are_one_test_and_none_against_themselves() -> None:
    """Holm's correction is over what was tested: a point shown twice is no second test."""
    base = over_seeds(91, rho=0)
    runs = [stored(seed, top1, rho=1024) for seed, top1 in enumerate((88.0, 88.5, 88.0))]
    other = [stored(seed, top1, rho=256) for seed, top1 in enumerate((90.0, 91.5, 91.0))]
    twins = [alias(run, rho=2048) for run in runs]

    def p_values(records: list[RunRecord], baseline: str) -> dict[int, float | None]:
        found = compare_arms(group(records), parse_baseline(baseline), 0.5)
        return {
            arm.config.rho: difference.p_holm if difference else None
            for arm, difference in zip(found.arms, found.differences[TOP1], strict=True)
        }

    alone, together = [*base, *runs, *other], [*base, *runs, *other, *twins]
    before, after = p_values(alone, "rho=0"), p_values(together, "rho=0")
    assert after == {**before, 2048: before[1024]}
    assert before[1024] is not None
    assert 0 < before[1024] < 0.05
    against_itself = p_values(together, "rho=1024")
    assert against_itself[2048] is against_itself[1024] is None
    assert against_itself[256] is not None


def test_a_table_of_masks(maldrop: Run) -> None:
    save([replace(run, hidden_width=100) for run in SWEEP])
    result = maldrop("report", "runs", "--by", "rho", "--masks", "--where", "dropout=maldrop,none")
    assert result.code == 0, result.err
    text = result.out[result.out.index("Masks, means over seeds") :]
    assert re.search(r"rho +dropout +schedule +never passed", text)
    assert len(re.findall(r"(?m)^ +\d+  maldrop ", text)) == 4  # and none does not count what it drops
    assert "Masks, means" in maldrop("report", "runs", "--masks").out
    assert "Masks" not in maldrop("report", "runs", "--masks", "--dropout", "none").out


def test_a_damaged_record_is_said_and_left_out(maldrop: Run) -> None:
    save(SWEEP)
    folder = Path("runs") / SWEEP[0].run_id
    for name in ("config.json", "result.json"):
        (folder / name).write_text("{")
    result = maldrop("report", "runs", "--by", "rho")
    assert result.code == 0
    assert "17 stored runs" in result.out
    assert "is left out, as it is damaged or foreign" in result.err


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("run_id",), []),
        (("environment",), []),
        (("environment", "torch"), []),
        (("environment", "workers"), "two"),
        (("epochs",), []),
        (("never_passed",), [1]),
        (("trained_as",), [1]),
        (("config", "model"), ["cnn"]),
        (("config", "selector"), ["single"]),
        (("config", "lr"), "fast"),
        (("config", "omega"), [1]),
        (("config", "epochs"), True),
        (("config", "data", "images"), {}),
        (("config", "data", "shape"), [1, 2]),
        (("config", "data", "shape"), [1, 2, [3]]),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_record_with_a_value_of_another_type_is_left_out(path: tuple[str, ...], value: object, maldrop: Run) -> None:
    """Even where the checksum holds."""
    save(SWEEP)
    stored = Path("runs") / SWEEP[0].run_id
    for name in ("config.json", "result.json"):
        content = json.loads((stored / name).read_text())
        del content["checksum"]
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (stored / name).write_text(json.dumps({**content, "checksum": checksum(content)}))
    for arguments in ((), ("--by", "rho", "--masks"), ("--baseline", "none")):
        result = maldrop("report", "runs", *arguments)
        assert result.code == 0, result.err
        assert "17 stored runs" in result.out
        assert re.fullmatch(r"maldrop: runs/\w+/result\.json is left out, .*\n", result.err)


def test_a_damaged_result_is_said_where_the_mean_stands(maldrop: Run) -> None:
    save(SWEEP)
    for run in SWEEP:
        Store(Path("runs")).start(replace(run, status=Status.UNFINISHED), run.epochs)
    (Path("runs") / SWEEP[1].run_id / "result.json").write_text("{")
    for arguments in (("--by", "rho"), ("--baseline", "none"), ()):
        result = maldrop("report", "runs", *arguments, "--csv", "r.csv")
        assert "vanilla p=0.5, seed 1: unfinished (left out of means, as its final record is damaged" in result.out
    assert [row["reason"] for row in rows("r.csv") if row["status"] != "done"] == [DAMAGED]


def test_a_record_counts_in_the_folder_of_its_run_alone(maldrop: Run) -> None:
    """A copy beside it, another run's result, and a result of which the settings are lost."""
    save(SWEEP)
    first, second, third = (Path("runs") / run.run_id for run in SWEEP[:3])
    shutil.copytree(first, f"{first}.bak")
    shutil.copy(first / "result.json", second)
    Store(Path("runs")).start(replace(SWEEP[1], epochs=(), status=Status.UNFINISHED))
    (third / "config.json").unlink()
    result = maldrop("report", "runs", "--csv", "r.csv")
    found = {row["run_id"]: row["status"] for row in rows("r.csv")}
    assert len(found) == len(rows("r.csv")) == len(SWEEP)
    assert (found[first.name], found[second.name], found[third.name]) == ("done", "unfinished", "done")
    lines = [line.partition(" is left out")[0] for line in result.err.splitlines()]
    assert lines == [f"maldrop: {folder}/result.json" for folder in sorted([f"{first}.bak", str(second)])]
    assert f"it is the record of run {first.name}" in result.err


def test_each_folder_counts_once(maldrop: Run) -> None:
    save(SWEEP)
    Path("link").symlink_to("runs")
    save([stored(seed=9)], "other")
    result = maldrop("report", "runs", "./runs", Path("runs").resolve(), "link", "other", "--csv", "r.csv")
    assert "19 stored runs" in result.out
    assert len(rows("r.csv")) == 19


def test_nothing_left_says_what_there_is(maldrop: Run) -> None:
    save(SWEEP)
    for arguments, message in (
        (("--where", "rho=7"), "none of 18 stored runs has rho=7; there is rho=-, 0, 256, 1024"),
        (("--dropout", "random"), "has dropout=random; there is dropout=none, vanilla, maldrop"),
        (("--where", "rho=0", "--where", "dropout=none"), "has rho=0 and dropout=none together"),
        (("--baseline", "random"), "--baseline: none of 18 stored runs has random"),
        (("--baseline", "rho=7"), "--baseline: none of 18 stored runs has rho=7"),
    ):
        result = maldrop("report", "runs", *arguments)
        assert (result.code, result.err.count("\n"), result.out) == (1, 1, ""), arguments
        assert message in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--where", "rhoo=1"), "did you mean 'rho'?"),
        (("--by", "shedule"), "did you mean 'schedule'?"),
        (("--by", "rho", "--long"), "--long"),
        (("--baseline", "vanila"), "did you mean 'vanilla'?"),
        (("--baseline", "vanilla", "--margin", "0"), "--margin: 0.0 is not a number above 0"),
        (("--format", "latx"), "did you mean 'latex'?"),
        (("--plot", "p.jpg"), "--plot: p.jpg ends in none of .png, .svg, .pdf"),
        (("--plot", "p.png", "--plot-kind", "learn"), "did you mean 'learning'?"),
        (("--plot", "p.png", "--metric", "top1"), "did you mean 'val_top1'?"),
        (("--plot", "p.png", "--x", "roh"), "did you mean 'rho'?"),
        (("--plot", "p.png", "--x", "dropout"), "no setting that is a number"),
        (("--plot-kind", "time"), "--plot-kind: there is no plot without --plot FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_flag_is_one_line_and_exit_2(arguments: tuple[str, ...], message: str, maldrop: Run) -> None:
    save(SWEEP[:1])
    result = maldrop("report", "runs", *arguments)
    assert (result.code, result.err.count("\n"), result.out) == (2, 1, "")
    assert message in result.err


def test_selectors_are_arms_of_their_own() -> None:
    arms = in_order(group([stored(selector=Selector.JOINT), stored(selector=Selector.SINGLE)]), ["selector"])
    assert [arm.config.selector for arm in arms] == [Selector.SINGLE, Selector.JOINT]
    with pytest.raises(UsageError, match="did you mean 'joint'"):
        parse_condition("selector=joints", "where")
