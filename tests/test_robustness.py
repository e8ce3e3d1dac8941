"""Perturbations against loops over images, and what a network keeps of its accuracy under them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BASE, TINY, Result, matching_rho, rows, run_job, runner, train
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from test_cli import QUICK
from torch import Generator, Tensor

from maldrop_cli.analysis.arms import Arm
from maldrop_cli.analysis.compare import compare_arms, of_dropout
from maldrop_cli.analysis.stats import Outcome
from maldrop_cli.cli.reading import read_robustness
from maldrop_cli.config import RunConfig
from maldrop_cli.data.load import ImageData
from maldrop_cli.data.subsets import training_parts
from maldrop_cli.dropout import worst_set
from maldrop_cli.dropout.scores import LastLayer
from maldrop_cli.models import Normalise, build_model
from maldrop_cli.names import Dropout, Granularity, Metric, Perturbation, UsageError
from maldrop_cli.record import EpochRow, RunRecord, Status
from maldrop_cli.render.arms import arm_rows, verdict_table
from maldrop_cli.robustness.evaluate import top1_under
from maldrop_cli.robustness.perturbations import PERTURBATIONS
from maldrop_cli.robustness.plan import COUNTED, STANDARD, RobustnessPlan, parse_metric
from maldrop_cli.runs.events import Event, Started, Warned
from maldrop_cli.sweep.filters import parse_baseline
from maldrop_cli.train import evaluate, seconds_of_epoch

Run = Callable[..., Result]
IMAGES = torch.randint(0, 256, (7, 3, 10, 12), generator=Generator().manual_seed(1)).byte()


def generator() -> Generator:
    return Generator().manual_seed(5)


def last_layer(dtype: torch.dtype = torch.float64) -> LastLayer:
    drawn = generator()
    hidden, weight = torch.rand(6, 20, generator=drawn, dtype=dtype), torch.randn(4, 20, generator=drawn, dtype=dtype)
    return LastLayer(hidden, weight, torch.randn(4, generator=drawn, dtype=dtype), torch.arange(6) % 4)


# --- each against a loop ---------------------------------------------------------------------------------------------


def occluded_by_hand(severity: float, places: list[tuple[float, float]]) -> Tensor:
    images = IMAGES.clone()
    for image, (down, right) in zip(images, places, strict=True):
        height, width = (math.floor(severity * size + 0.5) for size in image.shape[-2:])
        top, left = math.floor(down * (10 - height + 1)), math.floor(right * (12 - width + 1))
        for row in range(min(top, 10 - height), min(top, 10 - height) + height):
            for column in range(min(left, 12 - width), min(left, 12 - width) + width):
                image[:, row, column] = 0
    return images


@pytest.mark.parametrize("severity", [0.0, 0.04, 0.25, 0.5, 0.99, 1.0])
def test_occlusion_is_that_of_a_loop(severity: float) -> None:
    places = torch.rand(7, 2, generator=generator()).tolist()
    random = PERTURBATIONS[Perturbation.OCCLUDE].apply(IMAGES, severity, generator())
    assert torch.equal(random, occluded_by_hand(severity, places))
    centre = PERTURBATIONS[Perturbation.OCCLUDE_CENTRE].apply(IMAGES, severity, generator())
    assert torch.equal(centre, occluded_by_hand(severity, [(0.5, 0.5)] * 7))


@pytest.mark.parametrize("severity", [0.0, 0.1, 0.5])
def test_noise_is_that_of_a_loop(severity: float) -> None:
    drawn = torch.randn(IMAGES.shape, generator=generator())
    noisy = PERTURBATIONS[Perturbation.NOISE].apply(IMAGES, severity, generator())
    for place in np.ndindex(*IMAGES.shape):
        value = round(min(max(float(IMAGES[place]) + 255 * severity * float(drawn[place]), 0.0), 255.0))
        assert abs(int(noisy[place]) - value) <= 1  # half a grey level, rounded either way
    assert noisy.dtype == torch.uint8


def test_blur_is_a_weighted_mean_of_the_neighbours() -> None:
    severity, image = 0.1, IMAGES[0, 0].double()
    deviation = severity * 10
    blurred = PERTURBATIONS[Perturbation.BLUR].apply(IMAGES, severity, generator())[0, 0]
    reach = math.ceil(3 * deviation)
    weights = [math.exp(-((step / deviation) ** 2) / 2) for step in range(-reach, reach + 1)]
    for row, column in ((4, 5), (5, 7), (6, 6)):  # inside, where no border is mirrored
        total = sum(
            weights[down] * weights[right] * float(image[row + down - reach, column + right - reach])
            for down in range(2 * reach + 1)
            for right in range(2 * reach + 1)
        )
        assert abs(int(blurred[row, column]) - total / sum(weights) ** 2) <= 1
    assert torch.equal(PERTURBATIONS[Perturbation.BLUR].apply(IMAGES, 0.0, generator()), IMAGES)


@pytest.mark.parametrize("severity", [0.0, 0.5, 0.9, 1.0])
def test_neurons_go_at_random_exactly_as_many_as_asked(severity: float) -> None:
    layer = last_layer()
    hidden = PERTURBATIONS[Perturbation.NEURONS].apply(layer, severity, generator())
    order = torch.rand(6, 20, generator=generator())
    for row in range(6):
        gone = sorted(range(20), key=lambda neuron: -float(order[row, neuron]))[: math.floor(20 * severity + 0.5)]
        expected = [0.0 if neuron in gone else float(layer.hidden_ND[row, neuron]) for neuron in range(20)]
        assert hidden[row].tolist() == expected


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_the_worst_neurons_are_those_of_each_image_alone(count: int) -> None:
    layer = last_layer()
    first_order = PERTURBATIONS[Perturbation.WORST_NEURONS].apply(layer, count, generator())
    joint = PERTURBATIONS[Perturbation.WORST_NEURONS_JOINT].apply(layer, count, generator())
    assert layer.labels_N is not None
    assert layer.bias_C is not None
    for row in range(6):
        hidden, label = layer.hidden_ND[row], int(layer.labels_N[row])
        probability = (layer.weight_CD @ hidden + layer.bias_C).softmax(0)
        helps = [
            float(hidden[j] * (layer.weight_CD[label, j] - probability @ layer.weight_CD[:, j])) for j in range(20)
        ]
        gone = sorted(range(20), key=helps.__getitem__)[20 - count :]
        assert (first_order[row] == 0).nonzero().flatten().tolist() == sorted(gone)
        alone = worst_set(hidden[None], layer.weight_CD, layer.labels_N[row : row + 1], count, bias_C=layer.bias_C)
        assert torch.equal(joint[row] == 0, ~alone.keep_ND[0])


@given(st.sampled_from([Perturbation.OCCLUDE, Perturbation.NEURONS]), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_severity_hides_more(name: Perturbation, one: float, other: float) -> None:
    small, large = sorted((one, other))
    subject = last_layer() if PERTURBATIONS[name].hidden else IMAGES.clamp(min=1)
    hidden = [(PERTURBATIONS[name].apply(subject, each, generator()) == 0).sum() for each in (small, large)]
    assert hidden[0] <= hidden[1]


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", Dropout)
def test_nothing_hidden_is_clean_accuracy_bit_for_bit(dropout: Dropout, tiny: ImageData, device: torch.device) -> None:
    config = replace(BASE, dropout=dropout, rho=matching_rho(dropout))
    model = build_model(config, tiny.shape, 3, Generator(device)).to(device)
    normalise, val = Normalise(tiny.mean, tiny.std).to(device), tiny.val.to(device)
    plan = RobustnessPlan(tuple((name, 0.0) for name in Perturbation))
    clean = evaluate(model, normalise, val, 17)[1]
    assert set(top1_under(model, normalise, val, 17, plan, seed=3).values()) == {clean}


def test_all_arms_of_a_seed_see_the_same(tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[Dropout, list[Tensor]] = {}
    real = PERTURBATIONS[Perturbation.OCCLUDE]
    for dropout in (Dropout.NONE, Dropout.VANILLA, Dropout.RANDOM):
        own = seen.setdefault(dropout, [])

        def watch(images: Tensor, severity: float, drawn: Generator, own: list[Tensor] = own) -> Tensor:
            own.append(real.apply(images, severity, drawn))
            return own[-1]

        monkeypatch.setitem(PERTURBATIONS, Perturbation.OCCLUDE, replace(real, apply=watch))
        plan = read_robustness("occlude=0.25,0.5 every=1")
        run_job(runner(tiny, tmp_path, robustness=plan), replace(BASE, dropout=dropout))
    assert len(seen[Dropout.NONE]) == 2 * 2 * 2  # epochs, severities, batches of 30 images
    for own in seen.values():
        assert all(map(torch.equal, own, seen[Dropout.NONE]))
    assert all(map(torch.equal, seen[Dropout.NONE][:4], seen[Dropout.NONE][4:]))  # every epoch alike


def test_measuring_changes_no_number_and_no_id(tiny: ImageData, tmp_path: Path) -> None:
    plan = read_robustness("standard every=1")
    measured = run_job(runner(tiny, tmp_path, robustness=plan), BASE).record
    plain = train(BASE, tiny)
    for name in ("train_loss", "val_loss", "val_top1", "drop_rate"):
        assert [getattr(row, name) for row in measured.epochs] == [getattr(row, name) for row in plain.epochs]
    assert measured.run_id == BASE.run_id("d")
    assert [list(row.measured) for row in measured.epochs] == [plan.keys] * 2


def test_more_is_measured_from_kept_weights_else_by_training_again(tiny: ImageData, tmp_path: Path) -> None:
    less, more = read_robustness("occlude=0.5"), read_robustness("occlude=0.5 neurons=0.5")
    whole = run_job(runner(tiny, tmp_path / "whole", robustness=more), BASE).record
    for keep in (True, False):
        out = tmp_path / str(keep)
        first = run_job(runner(tiny, out, robustness=less, keep_weights=keep), BASE).record
        events: list[Event] = []
        end = run_job(runner(tiny, out, robustness=more), BASE, events.append)
        assert end.record.epochs[-1].measured == whole.epochs[-1].measured
        assert any(isinstance(event, Started) for event in events) is not keep
        [said] = [event.message for event in events if isinstance(event, Warned)]
        assert ("from its weights" in said) is keep
        assert end.reused is keep
        if keep:
            assert end.record.epochs[0] == first.epochs[0]
        assert run_job(runner(tiny, out, robustness=less), BASE).reused


def test_a_longer_run_has_the_measurements_of_one_that_was_meant_to_be_long(tiny: ImageData, tmp_path: Path) -> None:
    from maldrop_cli.runs import checkpoint
    from maldrop_cli.runs.runner import CheckpointPolicy

    plan, save = read_robustness("occlude=0.5"), tmp_path / "short.pt"
    policy = CheckpointPolicy(save=save)
    run_job(runner(tiny, tmp_path / "a", robustness=plan, checkpoints=policy), BASE)
    longer = replace(BASE, epochs=3)
    resumed = CheckpointPolicy(start=checkpoint.read(save))
    record = run_job(runner(tiny, tmp_path / "b", robustness=plan, checkpoints=resumed), longer).record
    whole = run_job(runner(tiny, tmp_path / "c", robustness=plan), longer).record
    assert [row.measured for row in record.epochs] == [row.measured for row in whole.epochs]
    assert [bool(row.measured) for row in record.epochs] == [False, False, True]


def test_a_metric_by_name() -> None:
    measured = {
        "top1_occlude_0.25": 80.0, "top1_occlude_0.5": 60.0, "top1_occlude-centre_0.5": 10.0,
        "tune_val_top1": 70.0, "tune_val_loss": 0.5, "tune_top1_occlude_0.5": 20.0,
    }  # fmt: skip
    expected = {
        "val_loss": 1.0, "top1_occlude_0.5": 60.0, "top1_occlude": 70.0, "top1_robustness": 50.0, "top1_blur": None,
        "tune_val_loss": 0.5, "tune_top1_occlude": 20.0, "tune_top1_robustness": 20.0, "tune_val_top5": None,
    }  # fmt: skip
    row = replace(train_row(), measured=measured)
    assert {name: row.value(name) for name in expected} == expected


def train_row() -> EpochRow:
    return EpochRow(
        epoch=1, train_loss=1.0, val_loss=1.0, val_top1=50.0, val_top5=90.0, train_seconds=1.0, rho_mean=None,
        drop_rate=0.0,
    )  # fmt: skip


# --- fewer images, and some to tune on -------------------------------------------------------------------------------


def test_parts_are_stratified_and_the_same_for_all_arms(tiny: ImageData) -> None:
    config = replace(BASE, train_images=30, tune_split=0.25, seed=2)
    train_part, tune = training_parts(tiny.train, config)
    assert tune is not None
    assert torch.bincount(train_part.labels).tolist() == torch.bincount(tune.labels).tolist() == [10, 10, 10]
    again, _ = training_parts(tiny.train, replace(config, dropout=Dropout.NONE, lr=0.5))
    assert torch.equal(again.images, train_part.images)
    other, same = training_parts(tiny.train, replace(config, seed=3))
    assert same is not None
    assert not torch.equal(other.images, train_part.images)
    assert torch.equal(same.images, tune.images)
    keys = {image.numpy().tobytes() for image in tune.images}
    assert not keys & {image.numpy().tobytes() for image in train_part.images}
    everything, nothing = training_parts(tiny.train, BASE)
    assert (everything is tiny.train, nothing) == (True, None)


@pytest.mark.parametrize(
    "change",
    [{"train_images": 2}, {"train_images": 121}, {"tune_split": 0.01}, {"train_images": 90, "tune_split": 0.5}],
)
def test_parts_that_leave_a_class_out_are_refused(change: dict[str, float], tiny: ImageData) -> None:
    with pytest.raises(UsageError, match=r"is not from 3 to"):
        training_parts(tiny.train, replace(BASE, **change))  # type: ignore[arg-type]


def test_a_run_on_parts_measures_the_tuning_images(tiny: ImageData, tmp_path: Path) -> None:
    config = replace(BASE, train_images=60, tune_split=0.25)
    assert len({config.run_id("d"), replace(config, train_images=0).run_id("d"), BASE.run_id("d")}) == 3
    row = run_job(runner(tiny, tmp_path, robustness=read_robustness("neurons=0.5")), config).record.epochs[-1]
    assert set(row.measured) == {
        "top1_neurons_0.5", "tune_val_loss", "tune_val_top1", "tune_val_top5", "tune_top1_neurons_0.5",
    }  # fmt: skip


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_grammar_of_robustness() -> None:
    plan = read_robustness("occlude=0.25,0.5 neurons=0.5..0.9/3 every=2 occlude=0.5")
    assert plan.keys == ["top1_occlude_0.25", "top1_occlude_0.5", *(f"top1_neurons_0.{tenth}" for tenth in (5, 7, 9))]
    assert [plan.due(epoch, 5) for epoch in range(1, 6)] == [False, True, False, True, True]
    assert read_robustness("off") == RobustnessPlan()
    assert read_robustness("standard").keys == read_robustness(STANDARD).keys
    assert {name for name, _ in read_robustness(STANDARD).severities} >= {Perturbation.OCCLUDE, COUNTED[0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oclude=0.5", "did you mean 'occlude'?"),
        ("occlude=1.5", "occlude=1.5 is not a share from 0 to 1"),
        ("blur=0.5", "is not a share from 0 to 0.3"),
        ("neurons=-0.1", "not a share"),
        ("worst-neurons=0.5", "not a whole number of neurons"),
        ("worst-neurons=257", "worst-neurons=257, and the layer has 256 neurons"),
        ("occlude", "a number should follow"),
        ("occlude=x", "--robustness occlude: 'x' stops making sense at character 1"),
        ("every=0", "no perturbation is called 'every'"),
    ],
)
def test_a_wrong_robustness_is_one_line_and_exit_2(text: str, message: str, maldrop: Run) -> None:
    for command in ("train", "compare", "sweep"):
        result = maldrop(command, *TINY, "--robustness", text)
        assert (result.code, result.err.count("\n"), result.out) == (2, 1, ""), result.err
        assert message in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train-images", "2"), "--train-images: 2 of 120 training images is not from 3 to 120"),
        (("--train-images", "1000"), "--train-images: 1000 of 120 training images"),
        (("--tune-split", "0.01"), "--tune-split: 1 of 120 training images"),
        (("--tune-split", "1"), "--tune-split: 1.0 is not a number from 0 to 0.9"),
    ],
)
def test_wrong_parts_are_one_line_and_exit_2(arguments: tuple[str, ...], message: str, maldrop: Run) -> None:
    result = maldrop("train", *QUICK, *arguments)
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert message in result.err


def test_columns_of_a_run(maldrop: Run) -> None:
    result = maldrop("train", *QUICK, "--robustness", "occlude=0.5 neurons=0.9", "--csv", "t.csv", "-q")
    assert result.code == 0, result.err
    table = rows("t.csv")
    assert [row["top1_occlude_0.5"] == "" for row in table] == [True, False]
    assert 0 <= float(table[-1]["top1_neurons_0.9"]) <= 100
    assert "occlude 0.5" in result.out
    assert Granularity.BATCH in table[0]["granularity"]


# --- statistics ------------------------------------------------------------------------------------------------------


def arm(config: RunConfig, **of_seeds: Sequence[float]) -> Arm:
    """``val_top1`` and measurements, ``_`` for the dot and ``__`` for the dash, by seed."""
    names = {name.replace("__", "-").replace("0_", "0."): values for name, values in of_seeds.items()}
    runs = {}
    for seed in range(len(next(iter(names.values())))):
        values = {name: each[seed] for name, each in names.items()}
        row = replace(train_row(), val_top1=values.pop("val_top1", 90.0), val_loss=values.pop("val_loss", 1.0))
        rows = (replace(row, measured=values),)
        own = replace(config, seed=seed, epochs=1)
        runs[seed] = RunRecord(run_id=own.run_id("d"), config=own, epochs=rows, status=Status.DONE)
    return Arm(replace(config, epochs=1), runs)


VANILLA = replace(BASE, dropout=Dropout.VANILLA)
GOOD, BAD = (70.0, 71.0, 72.5), (60.0, 61.5, 62.0)


def test_several_metrics_are_one_family_to_holm() -> None:
    arms = [arm(VANILLA, val_top1=GOOD, top1_occlude_0_5=BAD), arm(BASE, val_top1=BAD, top1_occlude_0_5=GOOD)]
    metrics = ["val_top1", "top1_occlude_0.5"]
    both = compare_arms(arms, of_dropout(Dropout.VANILLA), 0.5, metrics=metrics)
    [clean, hidden] = [both.differences[metric][1] for metric in metrics]
    assert clean
    assert hidden
    assert (clean.outcome, hidden.outcome) == (Outcome.WORSE, Outcome.BETTER)
    alone = compare_arms(arms, of_dropout(Dropout.VANILLA), 0.5).differences["val_top1"][1]
    assert alone
    assert clean.p_holm == pytest.approx(min(2 * alone.p_holm, 1))
    assert hidden.p == ttest_1samp(np.subtract(GOOD, BAD), 0).pvalue
    table = verdict_table(both)
    assert "corrected over all 2 rows together" in table.notes[1]
    assert [column.heading for column in table.columns][:2] == ["measurement", "dropout"]
    assert table.columns[0].cells == ["top-1", "occlude 0.5"]
    [_, row] = arm_rows(both)
    assert (row["verdict"], row["top1_occlude_0.5_verdict"]) == ("worse", "better")
    assert row["top1_occlude_0.5_diff_mean"] == pytest.approx(np.mean(np.subtract(GOOD, BAD)))
    assert (row["against"], row["top1_occlude_0.5_mean"]) == ("vanilla p=0.5", np.mean(GOOD))


def test_less_loss_is_better_and_its_margin_a_tenth() -> None:
    losses = ((1.0, 1.1, 1.2), (0.5, 0.65, 0.7))
    arms = [arm(VANILLA, val_loss=losses[0]), arm(BASE, val_loss=losses[1])]
    found = compare_arms(arms, of_dropout(Dropout.VANILLA), 0.5, metrics=["val_loss"])
    assert found.differences["val_loss"][1]
    assert found.differences["val_loss"][1].outcome is Outcome.BETTER
    assert "loss difference, nats" in verdict_table(found).columns[1].heading
    assert "of losses ±0.05 nats" in verdict_table(found).notes[1]
    near = [arm(VANILLA, val_loss=(1.0, 1.1, 1.2)), arm(BASE, val_loss=(1.06, 1.17, 1.27))]
    found = compare_arms(near, of_dropout(Dropout.VANILLA), 0.5, metrics=["val_loss"])
    [difference] = filter(None, found.differences["val_loss"])
    assert difference.outcome is not Outcome.EQUIVALENT  # 0.06 nats: within 0.5, not within 0.05


def test_the_best_baseline_is_chosen_on_the_tuning_images_by_each_metric() -> None:
    tuned = replace(BASE, tune_split=0.1)
    low, high = (replace(tuned, dropout=Dropout.VANILLA, p=p) for p in (0.3, 0.8))
    arms = [
        arm(low, val_top1=BAD, top1_occlude_0_5=GOOD, tune_val_top1=GOOD, tune_top1_occlude_0_5=BAD),
        arm(high, val_top1=GOOD, top1_occlude_0_5=BAD, tune_val_top1=BAD, tune_top1_occlude_0_5=GOOD),
        arm(tuned, val_top1=(65.0, 64.0, 66.0), top1_occlude_0_5=GOOD, tune_val_top1=BAD, tune_top1_occlude_0_5=BAD),
    ]
    metrics = ["val_top1", "top1_occlude_0.5"]
    found = compare_arms(arms, parse_baseline("best:vanilla"), 0.5, metrics=metrics)
    assert [base and base.config.p for base in found.baselines["val_top1"]] == [None, 0.3, 0.3]
    assert [base and base.config.p for base in found.baselines["top1_occlude_0.5"]] == [0.8, None, 0.8]
    table = verdict_table(found)
    assert table.title == "Against best:vanilla by the tuning images, paired by seed, last epoch"
    [against] = [column.cells for column in table.columns if column.heading == "against"]
    assert against == ["vanilla p=0.3", "vanilla p=0.3", "vanilla p=0.8", "vanilla p=0.8"]
    untuned = [arm(VANILLA, val_top1=GOOD), arm(BASE, val_top1=BAD)]
    with pytest.raises(UsageError, match="try --tune-split"):
        compare_arms(untuned, parse_baseline("best:vanilla"), 0.5)


# --- metrics, arms and baselines on the command line -----------------------------------------------------------------


def test_a_metric_is_named_as_its_column() -> None:
    for text in (*Metric, "top1_occlude_0.5", "top1_worst-neurons_64", "top1_blur", "top1_robustness"):
        assert parse_metric(text) == text
    assert parse_metric("top1_occlude_.50") == "top1_occlude_0.5"


ARMS = ("--arm", "mine: maldrop selector=joint rho=8", "--arm", "vanilla p=0.25", "--arm", "none")


def test_arms_of_ones_own(maldrop: Run) -> None:
    result = maldrop("compare", *QUICK, *ARMS, "--seeds", "2", "--baseline", "mine", "--csv", "c.csv", "-q")
    assert result.code == 0, result.err
    table = rows("c.csv")
    assert [(row["dropout"], row["arm"], row["rho"]) for row in table] == [
        ("maldrop", "mine", "8"), ("vanilla", "", ""), ("none", "", "")
    ]  # fmt: skip
    assert [row["against"] for row in table] == ["", "mine", "mine"]
    assert "Against mine, paired by seed" in result.out
    both = maldrop("compare", *QUICK, *ARMS[:2], "--dropout", "none,maldrop", "--seeds", "1", "--csv", "d.csv", "-q")
    assert both.code == 0, both.err
    assert [(row["dropout"], row["selector"]) for row in rows("d.csv")] == [
        ("none", ""), ("maldrop", "heuristic"), ("maldrop", "joint")
    ]  # fmt: skip


def test_arms_in_a_file(maldrop: Run) -> None:
    flags = ("compare", *QUICK, *ARMS, "--seeds", "1", "-q")
    maldrop(*flags, "--csv", "flags.csv", "--save-config", "arms.toml")
    assert maldrop("compare", "--config", "arms.toml", "-q", "--csv", "file.csv").code == 0
    assert [row["arm"] for row in rows("file.csv")] == [row["arm"] for row in rows("flags.csv")] == ["mine", "", ""]


def test_every_combination_is_an_arm(maldrop: Run) -> None:
    values = ("--dropout", "vanilla,maldrop", "--p", "0.3,0.5", "--rho", "8,16", "--selector", "gradient,joint")
    found = maldrop("compare", *QUICK, *values, "--seeds", "1", "--baseline", "best:vanilla", "--tune-split", "0.2",
                    "--csv", "c.csv", "-q")  # fmt: skip
    assert found.code == 0, found.err
    assert [(row["p"], row["selector"], row["rho"]) for row in rows("c.csv")] == [
        ("0.3", "", ""), ("0.5", "", ""),
        *(("", selector, rho) for selector in ("gradient", "joint") for rho in ("8", "16")),
    ]  # fmt: skip
    assert "tuning top-1 %" in found.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arm", "maldrop rate"), "'rate' in 'maldrop rate' is no SETTING=VALUE"),
        (("--arm", "vanilla rho=8"), "no setting of vanilla is called 'rho'"),
        (("--arm", "maldorp"), "did you mean 'maldrop'?"),
        (("--arm", "maldrop rho=8,16"), "names 2 values"),
        (("--arm", ": maldrop"), "no name before its colon"),
        (("--baseline", "best:vanilla"), "try --tune-split 0.1"),
        (("--baseline", "worst:vanilla"), "only best: can stand before a colon"),
        (("--baseline", "maldrop"), "maldrop fits 2 arms, which differ in selector"),
        (("--metric", "top1_oclude"), "did you mean 'top1_occlude'?"),
        (("--metric", "top1_occlude_x"), "no number for its severity"),
        (("--train-images", "1.5"), "1.5 is not a whole number"),
    ],
)
def test_wrong_arms_are_refused_before_any_work(arguments: tuple[str, ...], message: str, maldrop: Run) -> None:
    result = maldrop("compare", *QUICK, *arguments)
    assert (result.code, result.err.count("\n"), result.out) == (2, 1, ""), result.err
    assert message in result.err
    assert not Path("maldrop-runs").exists()


def test_a_sweep_over_numbers_of_images_is_judged_by_the_tuning_images(maldrop: Run) -> None:
    axis = ("--train-images", "12,48", "--tune-split", "0.25", "--plot", "p.svg", "--x", "train_images")
    result = maldrop("sweep", *QUICK, *axis, "--csv", "s.csv", "-q")
    assert result.code == 0, result.err
    table = [row for row in rows("s.csv") if row["dropout"] == "maldrop"]
    assert [row["train_images"] for row in table] == ["12", "48"]
    means = [float(row["tune_val_top1_mean"]) for row in table]
    if means[0] != means[1]:
        assert "best, worst: by top-1 on the tuning images." in result.out
        [line] = [line for line in result.out.splitlines() if line.endswith("best")]
        assert f" {max(means):.2f}" in line
    assert "train-images" in Path("p.svg").read_text()


def test_the_estimate_is_of_the_images_that_are_trained_on(tiny: ImageData) -> None:
    config = replace(BASE, train_images=30, tune_split=0.25)
    assert seconds_of_epoch(config, tiny, torch.device("cpu")) > 0
