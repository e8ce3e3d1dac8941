"""Plots: what is in the Figure, where it comes from, and that two renderings are the same bytes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from conftest import TINY, Result
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from test_report import MALDROP, NONE, RANDOM, SWEEP, VANILLA, over_seeds, stored

from maldrop_cli.analysis.arms import group
from maldrop_cli.analysis.compare import compare_arms, default_metrics, of_dropout
from maldrop_cli.analysis.stats import t_interval
from maldrop_cli.cli.reading import read_robustness
from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.data.load import load
from maldrop_cli.names import PLOT_SUFFIXES, Dataset, Dropout, MaldropError, Metric, Perturbation, PlotKind, Schedule
from maldrop_cli.plots import KINDS, draw, examples, save
from maldrop_cli.plots.style import LABELS, MAX_LINES, METADATA, line_style
from maldrop_cli.plots.timings import MIN_SPAN, REFERENCE, ratios, scale
from maldrop_cli.record import EpochRow, RunRecord, Status
from maldrop_cli.render.arms import labels
from maldrop_cli.render.timings import timing_rows
from maldrop_cli.robustness.evaluate import generator_of
from maldrop_cli.robustness.perturbations import PERTURBATIONS
from maldrop_cli.timing.cases import Setting, Timing
from maldrop_cli.timing.clock import Samples
from maldrop_cli.timing.scaling import ScalePoint, exponents

Run = Callable[..., Result]
QUICK = (*TINY, "--epochs", "2", "--lr", "0.02", "-q")
COMPARE = [*over_seeds(90, dropout=NONE), *over_seeds(92, dropout=VANILLA), *over_seeds(88, rho=256)]
MANY = [run for rho in range(20) for run in over_seeds(90, rho=rho)]
BY_RHO = [*COMPARE[:6], *(run for run in SWEEP if run.config.has_rho)]
OF_ARMS = [kind for kind in PlotKind if kind is not PlotKind.EXAMPLES]
BROKEN = stored(rho=4096, status=Status.DIVERGED)


def perturbed(runs: list[RunRecord]) -> list[RunRecord]:
    """With a loss of 10 points for each tenth that is hidden, of neurons half of it."""

    def measured(row: EpochRow) -> EpochRow:
        hidden = {"occlude_0.2": 20, "occlude_0.5": 50, "neurons_0.4": 20}
        return replace(row, measured={f"top1_{key}": row.val_top1 - lost for key, lost in hidden.items()})

    return [replace(run, epochs=tuple(map(measured, run.epochs))) for run in runs]


def picture(runs: list[RunRecord], kind: PlotKind, measured: str = "val_top1", x: str | None = None) -> Figure:
    arms = group(runs)
    metrics = default_metrics(arms)
    comparison = compare_arms(arms, of_dropout(VANILLA), 0.5, metrics=metrics)
    return draw(kind, arms, measured, x, comparison)


def legend(figure: Figure) -> list[str]:
    found = [*figure.legends, *(each for axes in figure.axes if (each := axes.get_legend()))]
    return [text.get_text() for each in found for text in each.get_texts()]


def bands(axes: Any) -> list[np.ndarray]:
    """x and y of the outline of each."""
    return [np.asarray(each.get_paths()[0].vertices) for each in axes.collections if isinstance(each, PolyCollection)]


def curves(axes: Any) -> list[Any]:
    """The lines that are arms: with a marker."""
    return [line for line in axes.get_lines() if line.get_marker() in "osD^vPX*"]


def test_learning_curves_are_means_over_seeds_with_bands() -> None:
    figure = picture(COMPARE, PlotKind.LEARNING)
    panels = [("epoch", f"validation {measured}") for measured in ("loss (nats)", "top-1 (%)", "top-5 (%)")]
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == panels
    assert legend(figure) == ["none", "vanilla p=0.5", "maldrop rho=256"]
    top1 = figure.axes[1]
    assert np.array(curves(top1)[0].get_data()) == pytest.approx(np.array([[1, 2], [80 + 1 / 3, 90 + 1 / 3]]))
    assert bands(top1)[0][:, 1].max() == pytest.approx(90 + 1 / 3 + t_interval([90, 90.25, 90.75]).half)
    assert figure.get_suptitle().startswith("digits, cnn, 2 epochs, SGD lr 0.005, momentum 0.9, batch 64\nMean over")


@pytest.mark.parametrize(
    ("runs", "drawn", "said"),
    [
        (COMPARE, (3, 0), "Mean over 3 seeds, bands: 95 % t-interval."),
        ([replace(COMPARE[0], status=Status.FAILED), *COMPARE[1:]], (3, 0), "Mean over 2 to 3 seeds, bands: 95 % t-in"),
        ([stored(dropout=NONE), stored()], (2, 0), "One seed, so without an interval."),
        (over_seeds(90, epochs=1, horizon=1), (0, 1), "Mean over 3 seeds, bars: 95 % t-interval."),
        ([*COMPARE, BROKEN], (3, 0), "Left out, as none of their runs finished: maldrop rho=4096."),
    ],
)
def test_the_caption_says_how_intervals_are_drawn(runs: list[RunRecord], drawn: tuple[int, int], said: str) -> None:
    figure = picture(runs, PlotKind.LEARNING)
    assert figure.get_suptitle().splitlines()[-1].startswith(said)
    assert {(len(bands(axes)), len(axes.containers)) for axes in figure.axes} == {drawn}


def test_one_run_has_its_training_loss_beside() -> None:
    figure = picture([stored()], PlotKind.LEARNING)
    assert legend(figure) == ["maldrop rho=256", "its training loss"]
    assert [list(np.asarray(line.get_ydata())) for line in figure.axes[0].get_lines()] == [[0.5, 0.25], [1.0, 0.5]]
    low, high = figure.axes[0].get_ylim()
    assert low < 0.25 < 1 < high


def test_an_epoch_without_a_number_is_a_gap() -> None:
    run = stored()
    run = replace(run, epochs=(replace(run.epochs[0], val_loss=None), run.epochs[1]))
    figure = picture([run], PlotKind.LEARNING)
    [line, _] = figure.axes[0].get_lines()
    assert list(np.asarray(line.get_ydata())) == pytest.approx([np.nan, 0.25], nan_ok=True)
    x, y = bands(figure.axes[1])[0].T
    assert all(np.ptp(y[x == epoch]) == 0 for epoch in (1, 2))  # no interval of one seed
    nothing = replace(run, epochs=tuple(replace(row, val_loss=None) for row in run.epochs))
    picture([nothing], PlotKind.LEARNING).draw_without_rendering()


def test_a_wide_band_does_not_squeeze_the_curves() -> None:
    """Two seeds, one point apart: an interval of ±6 points around curves that span ten."""
    runs = [stored(0, 90.0), stored(1, 91.0), stored(0, 80.0, lr=1), stored(1, 81.0, lr=1)]
    low, high = picture(runs, PlotKind.LEARNING).axes[1].get_ylim()
    assert low == pytest.approx(70.5 - 6.353 - 0.04 * (high - low) / 1.08, abs=0.01)
    wild = [stored(0, 70.0), stored(1, 90.0)]
    assert picture(wild, PlotKind.LEARNING).axes[1].get_ylim() == pytest.approx((65 - 0.8, 85 + 0.8))


def test_too_many_lines_are_refused() -> None:
    assert len({repr(line_style(index)) for index in range(MAX_LINES)}) == MAX_LINES
    runs = perturbed([stored(rho=rho, lr=0.1 + rho) for rho in range(MAX_LINES + 1)])
    for kind in set(OF_ARMS) - {PlotKind.FOREST}:
        with pytest.raises(MaldropError, match=r"65 lines can't be told apart .* --where"):
            picture(runs, kind, Metric.VAL_TOP1, "rho")


def test_a_metric_against_rho_with_reference_bands() -> None:
    figure = picture(BY_RHO, PlotKind.METRIC)
    [axes] = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rho (neurons)", "validation top-1 (%)")
    assert legend(figure) == ["none", "vanilla p=0.5", "maldrop standard", "maldrop forward"]
    lines = curves(axes)
    assert [list(line.get_xdata()) for line in lines] == [[0, 256, 1024], [256]]
    assert list(lines[0].get_ydata()) == pytest.approx([91 + 1 / 3, 89 + 1 / 3, 88 + 1 / 3])
    assert len(axes.containers) == len(axes.patches) == 2  # bars of the lines, bands of the levels
    levels = [line for line in axes.get_lines() if line.get_linestyle() != "None" and line not in lines]
    assert [np.asarray(line.get_ydata())[0] for line in levels] == pytest.approx([90 + 1 / 3, 92 + 1 / 3])


def test_points_that_would_crowd_get_a_logarithmic_axis() -> None:
    for expected, rhos in {"linear": (0, 512, 1024), "log": (1, 4, 16, 64, 256), "symlog": (0, 1, 4, 16, 256)}.items():
        [axes] = picture([stored(rho=rho) for rho in rhos], PlotKind.METRIC).axes
        low, high = axes.get_xlim()
        assert axes.get_xscale() == expected
        assert low < rhos[0] < rhos[-1] < high


def test_another_metric_against_another_setting() -> None:
    runs = [stored(lr=lr, dropout=dropout) for lr in (0.1, 0.2) for dropout in (NONE, MALDROP)]
    figure = picture(runs, PlotKind.METRIC, Metric.VAL_LOSS, "lr")
    [axes] = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "validation loss (nats)")
    assert [list(line.get_xdata()) for line in curves(axes)] == [[0.1, 0.2]] * 2
    assert legend(figure) == ["none", "maldrop rho=256"]
    assert "lr" not in figure.get_suptitle()
    channels = [stored(rho=rho, dropout=Dropout.SPATIAL_MALDROP) for rho in (1, 2)]
    assert picture(channels, PlotKind.METRIC).axes[0].get_xlabel() == "rho (channels)"


LR = [run for lr in (0.1, 0.2) for dropout in (NONE, MALDROP) for run in over_seeds(90 - lr, lr=lr, dropout=dropout)]
CHANNELS = [run for rho in (1, 2) for run in over_seeds(80 + rho, rho=rho, dropout=Dropout.SPATIAL_MALDROP)]
WEIGHTS = [run for rho in (9, 99) for run in over_seeds(85, rho=rho, dropout=Dropout.MALDROPCONNECT)]


@pytest.mark.parametrize(
    ("runs", "axis"),
    [
        (BY_RHO, "rho (neurons)"),
        (LR, "learning rate"),
        ([stored(dropout=VANILLA, p=p) for p in (0.1, 0.2, 0.5)], "p, rate of dropping"),
        ([stored(lr=lr, rho=rho) for lr in (0.1, 0.2) for rho in (1, 2, 3)], "rho (neurons)"),
        ([stored(lr=lr, rho=rho) for lr in (0.1, 0.2) for rho in (1, 2)], "rho (neurons)"),
    ],
)
def test_what_varies_most_is_along_x(runs: list[RunRecord], axis: str) -> None:
    assert picture(runs, PlotKind.METRIC).axes[0].get_xlabel() == axis


@pytest.mark.parametrize("runs", [COMPARE, COMPARE[:6]])
def test_a_single_x_becomes_bars(runs: list[RunRecord]) -> None:
    [axes] = picture(runs, PlotKind.METRIC).axes
    bars: list[Any] = list(axes.patches)
    assert [bar.get_width() for bar in bars] == pytest.approx([arm.metric("val_top1").mean for arm in group(runs)])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == labels(group(runs))
    assert axes.get_xlim()[0] == 0
    assert axes.texts[0].get_text() == "90.33 ±0.95"


def test_neurons_channels_and_weights_never_share_an_axis() -> None:
    runs = [*BY_RHO, *CHANNELS, *WEIGHTS]
    figure = picture(runs, PlotKind.METRIC)
    assert sorted(axes.get_xlabel() for axes in figure.axes) == ["rho (channels)", "rho (neurons)", "rho (weights)"]
    assert all(len(axes.patches) == 2 for axes in figure.axes)  # the levels stand in each
    shares = [axes.get_ylabel() for axes in picture(runs, PlotKind.MASKS).axes]
    assert sorted(set(shares)) == [f"{unit}s in the tenth (%)" for unit in ("channel", "neuron", "weight")]


@pytest.mark.parametrize("kind", [PlotKind.LEARNING, PlotKind.TIME, PlotKind.MASKS, PlotKind.ROBUSTNESS])
def test_more_than_eight_arms_become_panels(kind: PlotKind) -> None:
    runs = perturbed(MANY)
    figure, one = picture(runs, kind), picture(runs[:24], kind)
    panels = len(one.axes)
    assert len(figure.axes) == 3 * panels
    assert [len(curves(axes)) for axes in figure.axes[::panels]] == [7, 7, 6]
    assert [name.partition(":")[0] for name in legend(figure)] == labels(group(runs))
    assert one.legends
    assert not figure.legends
    if kind is not PlotKind.MASKS:
        assert len({axes.get_ylim() for axes in figure.axes[::panels]}) == 1  # so that they can be compared


def test_a_variant_has_one_colour_in_all_kinds() -> None:
    runs = perturbed([*BY_RHO[6:9], *COMPARE, *over_seeds(80, dropout=RANDOM), *over_seeds(70, selector="gradient")])
    expected = {"none": "#000000", "vanilla p=0.5": "#E69F00", "random rho=256": "#D55E00"}
    for kind in (PlotKind.LEARNING, PlotKind.TIME, PlotKind.ROBUSTNESS):
        for some in (runs, runs[::-1], [*runs[3:9], *runs[12:15]]):
            figure = picture(some, kind)
            lines = zip(legend(figure), curves(figure.axes[0]), strict=True)
            found = {name.partition(":")[0]: line.get_color() for name, line in lines}
            assert expected.items() <= found.items()
            assert len(set(found.values())) == len(found)
    [axes] = picture(runs, PlotKind.METRIC).axes
    assert {line.get_color() for line in axes.get_lines() if np.ptp(np.asarray(line.get_ydata())) == 0} >= {
        "#000000",
        "#E69F00",
    }
    forest = picture(COMPARE, PlotKind.FOREST).axes[0]
    assert [line.get_color() for line in curves(forest)] == ["#000000", "#0072B2"]


def test_the_forest_shows_each_test() -> None:
    figure = picture(perturbed(COMPARE), PlotKind.FOREST)
    top1 = figure.axes[0]
    assert [axes.get_title() for axes in figure.axes] == ["top-1", "occlude 0.2", "occlude 0.5", "neurons 0.4"]
    assert [tick.get_text() for tick in top1.get_yticklabels()] == ["none", "maldrop rho=256"]
    assert [list(line.get_xdata()) for line in curves(top1)] == [[pytest.approx(-2)], [pytest.approx(-4)]]
    assert [text.get_text() for text in top1.texts] == ["?", "?"]  # equal differences: no spread
    assert figure.get_suptitle().splitlines()[1].startswith("Against vanilla p=0.5, paired by seed, epoch 2; bars")
    assert {axes.get_xlabel() for axes in figure.axes} == {"difference (points)"}
    other = [replace(run, config=replace(run.config, dropout=NONE)) for run in over_seeds(85)]
    other[0] = replace(other[0], epochs=tuple(replace(row, val_top1=row.val_top1 + 0.5) for row in other[0].epochs))
    [axes] = picture([*COMPARE[3:6], *other], PlotKind.FOREST).axes
    assert [text.get_text() for text in axes.texts] == ["-"]
    [_, _, (bar,)] = axes.containers[0]
    [segment] = bar.get_segments()
    differences = t_interval([-6.5, -7.0, -7.0])
    low, high = differences.mean - differences.half, differences.mean + differences.half
    assert list(segment[:, 0]) == pytest.approx([low, high])


def test_accuracy_against_training_time() -> None:
    def figure_of(*seconds: float) -> Figure:
        """Without dropout an epoch takes a second, with vanilla ``seconds``, seed by seed."""
        timed = [
            replace(run, epochs=tuple(replace(row, train_seconds=each) for row in run.epochs))
            for run, each in zip(over_seeds(92, dropout=VANILLA), seconds, strict=True)
        ]
        return picture([*COMPARE[:3], *timed], PlotKind.TIME)

    figure = figure_of(1.5, 1.5, 1.5)
    assert figure.axes[0].get_xlabel() == "training time (s), evaluation and loading left out"
    assert len(bands(figure.axes[0])) == 2
    assert figure.legends[0].get_title().get_text() == "at 2 s, where the first is done:"
    assert legend(figure) == ["none: 90.33", "vanilla p=0.5: 85.67"]  # a third into epoch 2: 82.33 + 10 / 3
    figure = figure_of(1.5, 2.5, 3.5)
    assert [list(line.get_xdata()) for line in curves(figure.axes[0])] == [[1, 2], [2.5, 5]]
    assert legend(figure) == ["none: 90.33", "vanilla p=0.5: –"]  # still in its first epoch
    figure = picture(COMPARE[:3], PlotKind.TIME)
    assert legend(figure) == ["none"]  # with nothing to be compared with
    assert len(figure.axes[0].get_lines()) == 1
    other = [replace(run, environment=run.environment | {"threads": 64}) for run in COMPARE[:3]]
    for runs in (COMPARE, [*other, *COMPARE[3:]]):
        assert ("times do not compare" in picture(runs, PlotKind.TIME).get_suptitle()) is (runs is not COMPARE)


def test_the_masks_are_shares_of_the_neurons() -> None:
    [axes] = picture(COMPARE, PlotKind.MASKS).axes
    [line] = curves(axes)  # none and vanilla count nothing
    assert axes.get_yscale() == "log"
    assert list(line.get_xdata()) == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert list(line.get_ydata()) == pytest.approx([1, *5 * [np.nan], 9, np.nan, 20, 70], nan_ok=True)
    two = [replace(stored(seed), pass_histogram=counts) for seed, counts in enumerate([(1, 0, 0, 3), (0, 0, 0, 8)])]
    [line] = curves(picture(two, PlotKind.MASKS).axes[0])
    expected = np.array([[12.5, 37.5, 62.5, 87.5], [12.5, np.nan, np.nan, 87.5]])
    assert np.array(line.get_data()) == pytest.approx(expected, nan_ok=True)


# --- timings -------------------------------------------------------------------------------------------------------

WORDS = ("along classes", "width 4096")
POINTS = [
    ScalePoint(selector, classes, classes**power / 1000, 0.9 * classes**power / 1000, 2 * classes**power / 1000)
    for selector, power in (("heuristic", 0.5), ("single", 1.0))
    for classes in (10, 32, 100)
]
TIMES = [
    Timing(RunConfig(), Samples("none", [0.010, 0.010, 0.012] * 4)),
    Timing(RunConfig(), Samples("vanilla", [0.020, 0.022, 0.024] * 4)),
    Timing(RunConfig(), Samples("random", [0.010, 0.011, 0.012] * 4)),
]
NAIVE = Timing(RunConfig(), Samples("single-naive", [0.5, 0.5, 0.6]), neurons=64)


def scaled(points: Sequence[ScalePoint] = POINTS) -> Figure:
    return scale(points, exponents(points), "classes", *WORDS)


def ratio_plot(timings: Sequence[Timing]) -> Figure:
    setting = Setting((1, 8, 8), 3, torch.device("cpu"))
    rows = timing_rows(timings, setting, dict.fromkeys(("device", "device_name", "threads", "torch")))
    return ratios(rows, *WORDS)


def test_times_along_an_axis_with_intervals_and_exponents() -> None:
    figure = scaled()
    [axes] = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("classes", "scoring, selecting and masking (ms)")
    x = np.array([10, 32, 100])
    assert np.array([line.get_data() for line in curves(axes)]) == pytest.approx(np.array([(x, x**0.5), (x, x)]))
    [_, _, (bar,)] = axes.containers[1]
    ends = [list(segment[:, 1]) for segment in bar.get_segments()]
    assert ends == [pytest.approx([0.9 * t, 2 * t]) for t in (10, 32, 100)]
    assert legend(figure) == ["heuristic: e = 0.50 ±0.00", "single: e = 1.00 ±0.00", "e = 1 (level lines: e = 0)"]
    bars = "Medians of interleaved samples, bars: 95 % bootstrap interval."
    assert figure.get_suptitle().splitlines() == [*WORDS, bars]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["10", "32", "100"]
    assert list(axes.xaxis.get_minorticklocs()) == list(axes.yaxis.get_minorticklocs()) == []


def test_slanted_lines_have_exponent_one_all_over_the_panel() -> None:
    [axes] = scaled().axes
    low, high = axes.get_ylim()
    slanted = np.array([line.get_data() for line in axes.get_lines() if line.get_color() == REFERENCE["color"]])
    (left, right), starts, ends = slanted[0, 0], slanted[:, 1, 0], slanted[:, 1, 1]
    assert ends / starts == pytest.approx(right / left)
    assert starts[-1] > high / 10
    assert ends[0] <= low  # it begins below the panel: what follows comes into it
    assert np.diff(np.log10(starts)) == pytest.approx(1)


def test_a_constant_with_noise_looks_like_one() -> None:
    points = [ScalePoint("single", value, seconds) for value, seconds in ((10, 1.0), (100, 1.1), (1000, 0.95))]
    figure = scaled(points)
    low, high = figure.axes[0].get_ylim()
    assert high / low >= MIN_SPAN
    assert low < 950 < 1100 < high
    assert figure.get_suptitle().endswith("no bar: too few samples.")


def test_ratios_to_no_dropout_with_hollow_per_neuron_forms() -> None:
    figure = ratio_plot(TIMES)
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["none", "vanilla", "random"]
    assert np.ravel([dot.get_data() for dot in curves(axes)]) == pytest.approx([1, 0, 2, 1, 1, 2])
    assert axes.get_ylim() == (2.5, -0.5)  # from the top, as in the table
    assert [text.get_text() for text in axes.texts] == ["1.00", "2.00", "1.00"]
    assert axes.get_xscale() == "linear"
    assert figure.get_suptitle().endswith("bars: 95 % bootstrap interval.")
    figure = ratio_plot([*TIMES, NAIVE])
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    assert [dot.get_markerfacecolor() for dot in curves(axes)] == ["black", "black", "black", "white"]
    words = " ".join(figure.get_suptitle().split())
    assert words.endswith("bootstrap interval; no bar: too few samples; hollow: the per-neuron forms.")


def test_timeit_draws_its_ratios_and_its_scale(maldrop: Run) -> None:
    quick = ("timeit", *TINY, "-q", "--selector", "heuristic", "--budget", "0.1")
    assert maldrop(*quick, "--no-harm", "--dropout", "none", "--plot", "ratios.svg").code == 0
    assert "A training step: synthetic shapes (1x8x8)" in Path("ratios.svg").read_text()
    result = maldrop(*quick, "--scale", "batch", "--plot", "scale.SVG")
    assert (result.code, result.err) == (0, "")
    for text in ("classes 3, width 256, rho 16, granularity batch; ", "heuristic: e = "):
        assert text in Path("scale.SVG").read_text()


def shown() -> Figure:
    plan = read_robustness("occlude=0.25,0.5 blur=0.1 neurons=0.5")
    return examples(load(DataConfig(dataset=Dataset.SYNTHETIC, shape=(3, 8, 9))), plan)


ALL: dict[str, Callable[[], Figure]] = {
    **{str(kind): partial(picture, perturbed(BY_RHO), kind) for kind in OF_ARMS},
    "examples": shown,
    "many": partial(picture, MANY, PlotKind.LEARNING),
    "bars": partial(picture, COMPARE, PlotKind.METRIC),
    "units": partial(picture, [*BY_RHO, *CHANNELS, *WEIGHTS], PlotKind.METRIC),
    "scale": scaled,
    "ratios": partial(ratio_plot, [*TIMES, NAIVE]),
}


def test_every_kind_and_metric_has_its_entry() -> None:
    assert (set(KINDS), set(LABELS), set(METADATA)) == (set(OF_ARMS), set(Metric), set(PLOT_SUFFIXES))


@pytest.mark.parametrize(
    ("runs", "kind", "x", "message"),
    [
        ([BROKEN], PlotKind.TIME, "rho", "nothing to plot: of 1 run none finished"),
        ([stored(), stored(1, digest="other")], PlotKind.MASKS, "rho", "saw different images"),
        (COMPARE[:6], PlotKind.METRIC, "rho", "in none of these runs rho has an effect"),
        ([stored()], PlotKind.METRIC, "omega", "omega has an effect and a number"),
        (COMPARE[:6], PlotKind.MASKS, "rho", "counts what it drops"),
        (COMPARE[:3], PlotKind.FOREST, "rho", "no arm was tested against another"),
        (COMPARE, PlotKind.ROBUSTNESS, "rho", "no run was measured with something hidden"),
    ],
)
def test_nothing_to_plot_is_one_line(runs: list[RunRecord], kind: PlotKind, x: str, message: str) -> None:
    with pytest.raises(MaldropError, match=message):
        picture(runs, kind, Metric.VAL_TOP1, x)


@pytest.mark.parametrize("suffix", PLOT_SUFFIXES)
@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_two_renderings_are_the_same_bytes(
    make: Callable[[], Figure], suffix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save(make(), tmp_path / f"first{suffix}")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)  # a user's matplotlibrc does not matter
    monkeypatch.setitem(matplotlib.rcParams, "axes.grid", False)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    save(make(), tmp_path / f"second{suffix}")
    first, second = ((tmp_path / f"{which}{suffix}").read_bytes() for which in ("first", "second"))
    assert first == second
    assert first.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_the_legend_covers_no_data_and_nothing_leaves_the_picture(make: Callable[[], Figure]) -> None:
    figure = make()
    figure.draw_without_rendering()  # lays it out
    for axes in figure.axes:
        panel = axes.get_window_extent()
        own = [each for each in [axes.get_legend()] if each]
        assert not any(each.get_window_extent().overlaps(panel) for each in [*figure.legends, *own])
        assert panel.height > (2 if figure.legends else 0.5) * figure.dpi  # and leaves room for it
    box = figure.get_tightbbox()
    assert 0 <= box.x0 < box.x1 <= figure.get_figwidth()
    assert 0 <= box.y0 < box.y1 <= figure.get_figheight()


def test_robustness_starts_at_clean_accuracy_and_has_a_panel_a_perturbation() -> None:
    figure = picture(perturbed(COMPARE), PlotKind.ROBUSTNESS)
    assert [axes.get_xlabel() for axes in figure.axes] == ["occlude", "neurons"]
    occlude, neurons = (curves(axes) for axes in figure.axes)
    assert (len(occlude), len(neurons)) == (len(group(COMPARE)),) * 2
    top1 = group(COMPARE)[0].metric("val_top1").mean
    assert list(occlude[0].get_xdata()) == [0, 0.2, 0.5]
    assert list(occlude[0].get_ydata()) == pytest.approx([top1, top1 - 20, top1 - 50])
    assert list(neurons[0].get_ydata()) == pytest.approx([top1, top1 - 20])


def test_examples_are_what_the_runs_of_seed_0_see() -> None:
    plan = read_robustness("occlude=0.5")
    data = load(DataConfig(dataset=Dataset.SYNTHETIC, shape=(3, 8, 9)))
    figure = examples(data, plan)
    assert len(figure.axes) == 2 * 8
    seen = PERTURBATIONS[Perturbation.OCCLUDE].apply(data.val.images[:64], 0.5, generator_of(Perturbation.OCCLUDE, 0))
    for number, axes in enumerate(figure.axes):
        expected = (seen if number >= 8 else data.val.images)[number % 8]
        assert np.array_equal(np.asarray(axes.get_images()[0].get_array()), expected.permute(1, 2, 0).numpy())
    with pytest.raises(MaldropError, match="only neurons are hidden"):
        examples(data, read_robustness("neurons=0.5"))


def test_labels_say_what_varies_and_no_more() -> None:
    def of(*configs: dict[str, Any], without: str = "") -> list[str]:
        return labels(group([stored(**config) for config in configs]), without)

    assert of({"rho": 1}, {"rho": 2}) == ["maldrop rho=1", "maldrop rho=2"]
    assert of({"lr": 0.1}, {"lr": 0.2}) == ["maldrop rho=256 lr=0.1", "maldrop rho=256 lr=0.2"]
    assert of({"rho": 1}, {"rho": 1, "dropout": RANDOM}, without="rho") == ["maldrop", "random"]
    assert of({}, {"schedule": Schedule.FORWARD}) == ["maldrop standard rho=256", "maldrop forward rho=256"]
    assert of({"omega": "paper"}, {"omega": 0.5}) == ["maldrop rho=256 omega=paper", "maldrop rho=256 omega=0.5"]
    assert of({"dropout": VANILLA, "p": 0.1}, {"dropout": VANILLA, "p": 0.2}, without="p") == ["vanilla", "vanilla"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MaldropError, match=r"can't write .*: No such file"):
        save(picture(COMPARE, PlotKind.TIME), tmp_path / "no" / "p.png")


# --- the commands --------------------------------------------------------------------------------------------------


def test_compare_and_sweep_draw_what_report_draws(maldrop: Run) -> None:
    assert maldrop("compare", *QUICK, "--seeds", "2", "--dropout", "none,maldrop", "--plot", "c.svg").code == 0
    maldrop("report", "maldrop-runs", "--plot", "again.svg", "--plot-kind", "forest", "--baseline", "none")
    assert Path("c.svg").read_bytes() == Path("again.svg").read_bytes()
    hidden = ("--robustness", "occlude=0.5 neurons=0.5")
    assert maldrop("sweep", *QUICK, "--rho", "0,16,64", *hidden, "--plot", "s.svg", "--out", "swept").code == 0
    for kind in OF_ARMS:
        tests = ("--baseline", "vanilla") if kind is PlotKind.FOREST else ()
        result = maldrop("report", "swept", "--plot", f"{kind}.SVG", "--plot-kind", kind, *tests)
        assert (result.code, result.err) == (0, "")
    assert Path("s.svg").read_bytes() == Path("metric.SVG").read_bytes()
    assert len({Path(f"{kind}.SVG").read_bytes() for kind in OF_ARMS}) == len(OF_ARMS)
    shows = ("--plot", "e.png", "--plot-kind", "examples")
    assert maldrop("sweep", *QUICK, "--rho", "0,16,64", *hidden, *shows, "--out", "swept").code == 0
    refused = maldrop("report", "swept", *shows)
    assert (refused.code, "examples needs the images" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("compare", "--plot", "p.gif"), 2, "ends in none of .png, .svg, .pdf"),
        (("sweep", "--plot", "plot"), 2, "ends in none of .png, .svg, .pdf"),
        (("sweep", "--plot", "p.png", "--dry-run"), 2, "a dry run measures nothing"),
        (("train", "--plot", "p.png", "--dry-run"), 2, "a dry run measures nothing"),
        (("train", "--plot", "p.gif"), 2, "ends in none of .png, .svg, .pdf"),
        (("compare", "--plot", "nowhere/p.png"), 1, "there is no folder"),
        (("timeit", "--plot", "p.gif"), 2, "ends in none of .png, .svg, .pdf"),
        (("timeit", "--scale", "rho", "--plot", "p"), 2, "ends in none of .png, .svg, .pdf"),
        (("timeit", "--scale", "rho", "--plot", "nowhere/p.png"), 1, "there is no folder"),
    ],
)
def test_a_plot_that_cannot_be_is_refused_before_any_work(
    arguments: tuple[str, ...], code: int, message: str, maldrop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for work in ("maldrop_cli.timing.timings.measure", "maldrop_cli.timing.scaling.measure"):
        monkeypatch.setattr(work, lambda *rest, **how: pytest.fail("it was timed"))
    result = maldrop(*arguments)
    assert (result.code, result.err.count("\n"), result.out) == (code, 1, "")
    assert message in result.err
    assert not Path("maldrop-runs").exists()


def test_runs_that_failed_matter_more_than_the_plot_they_leave_empty(maldrop: Run) -> None:
    result = maldrop("compare", *QUICK, "--seeds", "1", "--dropout", "none,maldrop", "--lr", "2e9", "--plot", "p.png")
    assert (result.code, Path("p.png").exists()) == (1, False)
    assert "2 of 2 runs did not finish" in result.err
    assert "0 of 1" in result.out


def test_train_draws_its_curves_and_sweep_what_it_swept(maldrop: Run) -> None:
    assert maldrop("train", *QUICK, "--plot", "t.svg").code == 0
    for text in ("its training loss", "validation top-1 (%)", ">epoch<"):
        assert text in Path("t.svg").read_text()
    assert maldrop("sweep", *QUICK[:-4], "-q", "--epochs", "1", "--lr", "0.01,0.02", "--plot", "s.svg").code == 0
    assert "learning rate" in Path("s.svg").read_text()


def test_the_help_lists_all_kinds(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = maldrop("compare", "--help").out.partition("--plot-kind")[2]
    assert all(kind in text[:600] for kind in PlotKind)
