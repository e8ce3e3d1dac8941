"""Plots: what is in the Figure, where it comes from, and that two renderings are the same bytes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from conftest import TINY, Result
from matplotlib.collections import PolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from test_report import MALDROP, NONE, RANDOM, VANILLA, over_seeds, save, stored

from maldrop_cli.analysis.arms import group
from maldrop_cli.analysis.stats import t_interval
from maldrop_cli.config import PLOT_SUFFIXES, Dropout, MaldropError, Metric, PlotKind, RunConfig, Schedule
from maldrop_cli.plots import KINDS, draw
from maldrop_cli.plots import save as save_plot
from maldrop_cli.plots.files import METADATA, render
from maldrop_cli.plots.ratios import ratios
from maldrop_cli.plots.scale import LEAST_SPAN, REFERENCE, scale
from maldrop_cli.plots.style import LABELS, MAX_BANDS, MAX_LINES, labels, line_style
from maldrop_cli.record import RunRecord, Status
from maldrop_cli.render.timings import timing_rows
from maldrop_cli.timing.cases import Setting, Timing
from maldrop_cli.timing.clock import Samples
from maldrop_cli.timing.scaling import ScalePoint, exponents

Run = Callable[..., Result]
QUICK = (*TINY, "--epochs", "2", "--lr", "0.02", "-q")
COMPARE = [*over_seeds(90, dropout=NONE), *over_seeds(92, dropout=VANILLA), *over_seeds(88, rho=256)]
SWEEP = [
    *COMPARE[:6],
    *(
        run
        for schedule in (Schedule.STANDARD, Schedule.REVERSE)
        for rho in (1024, 0, 512)
        for run in over_seeds(90 - rho / 100, rho=rho, schedule=schedule)
    ),
]


def picture(runs: list[RunRecord], kind: PlotKind, *arguments: Any) -> Figure:
    return draw(kind, group(runs), *arguments)


def legend(figure: Figure) -> list[str]:
    [found] = figure.legends
    return [text.get_text() for text in found.get_texts()]


def corners(band: PolyCollection) -> np.ndarray:
    """x and y of a band's outline."""
    return np.asarray(band.get_paths()[0].vertices)


def bands(axes: Any) -> list[PolyCollection]:
    return [each for each in axes.collections if isinstance(each, PolyCollection)]


def bars(axes: Any) -> list[ErrorbarContainer]:
    return [each for each in axes.containers if isinstance(each, ErrorbarContainer)]


def curves(axes: Any) -> list[Any]:
    """The lines that are arms: with a marker."""
    return [line for line in axes.get_lines() if line.get_marker() in "osD^vPX*"]


# --- learning ------------------------------------------------------------------------------------------------------


def test_learning_curves_are_means_over_seeds_with_bands() -> None:
    figure = picture(COMPARE, PlotKind.LEARNING)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "validation loss (nats)",
        "validation top-1 (%)",
        "validation top-5 (%)",
    ]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert legend(figure) == ["none", "vanilla p=0.5", "maldrop rho=256"]
    top1 = figure.axes[1]
    assert len(curves(top1)) == len(bands(top1)) == 3
    none = curves(top1)[0]
    assert list(none.get_xdata()) == [1, 2]
    assert list(none.get_ydata()) == pytest.approx([80 + 1 / 3, 90 + 1 / 3])
    half = t_interval([90, 90.25, 90.75]).half
    assert corners(bands(top1)[0])[:, 1].max() == pytest.approx(90 + 1 / 3 + half)
    assert figure.get_suptitle().splitlines() == [
        "digits, cnn, 2 epochs, SGD lr 0.005, momentum 0.9, batch 64",
        "Mean over 3 seeds, bands: 95 % t-interval.",
    ]


def test_one_seed_has_no_band_and_says_so() -> None:
    figure = picture([stored(dropout=NONE), stored()], PlotKind.LEARNING)
    assert figure.get_suptitle().endswith("One seed, so without an interval.")
    for axes in figure.axes:
        for each in bands(axes):
            x, y = corners(each).T
            assert all(np.ptp(y[x == epoch]) == 0 for epoch in (1, 2))


def test_one_epoch_is_points_with_bars() -> None:
    runs = [run for dropout in (NONE, MALDROP) for run in over_seeds(90, dropout=dropout, epochs=1, horizon=1)]
    figure = picture(runs, PlotKind.LEARNING)
    for axes in figure.axes:
        assert len(bars(axes)) == len(curves(axes)) == 2
        assert not bands(axes)
        assert axes.get_xlim() == (0.5, 1.5)
    assert "bars: 95 % t-interval" in figure.get_suptitle()


def test_an_epoch_without_a_number_is_a_gap() -> None:
    run = stored()
    run = replace(run, epochs=(replace(run.epochs[0], val_loss=None), run.epochs[1]))
    [line] = curves(picture([run], PlotKind.LEARNING).axes[0])
    assert np.isnan(line.get_ydata()[0])
    assert line.get_ydata()[1] == 0.25
    nothing = replace(run, epochs=tuple(replace(row, val_loss=None) for row in run.epochs))
    assert render(picture([nothing], PlotKind.LEARNING), ".svg")


def test_runs_that_did_not_finish_are_left_out_and_said() -> None:
    broken = [replace(run, status=Status.DIVERGED) for run in over_seeds(50, rho=4096)]
    figure = picture([*COMPARE, *broken], PlotKind.LEARNING)
    assert len(legend(figure)) == 3
    assert figure.get_suptitle().endswith("Left out, as none of their runs finished: maldrop rho=4096.")
    one = [replace(COMPARE[0], status=Status.FAILED), *COMPARE[1:]]
    assert "Mean over 2 to 3 seeds" in picture(one, PlotKind.LEARNING).get_suptitle()


def test_a_wide_band_does_not_squeeze_the_curves() -> None:
    """Two seeds, one point apart: an interval of ±6 points around curves that span ten."""
    runs = [stored(0, 90.0), stored(1, 91.0), stored(0, 80.0, lr=1), stored(1, 81.0, lr=1)]
    low, high = picture(runs, PlotKind.LEARNING).axes[1].get_ylim()
    assert low == pytest.approx(70.5 - 6.353 - 0.04 * (high - low) / 1.08, abs=0.01)
    wild = [stored(0, 70.0), stored(1, 90.0)]
    low, high = picture(wild, PlotKind.LEARNING).axes[1].get_ylim()
    assert (low, high) == pytest.approx((65 - 0.8, 85 + 0.8))


def test_many_lines_have_no_bands_and_too_many_are_refused() -> None:
    runs = [run for rho in range(MAX_BANDS + 1) for run in over_seeds(90, rho=rho)]
    figure = picture(runs, PlotKind.LEARNING)
    assert not bands(figure.axes[0])
    assert f"bands are left out of more than {MAX_BANDS} lines" in figure.get_suptitle()
    looks = [repr(line_style(index)) for index in range(MAX_LINES)]
    assert len(set(looks)) == MAX_LINES
    for kind in (PlotKind.LEARNING, PlotKind.TIME):
        with pytest.raises(MaldropError, match=r"25 lines can't be told apart .* --where"):
            picture([stored(rho=rho) for rho in range(MAX_LINES + 1)], kind)


# --- metric --------------------------------------------------------------------------------------------------------


def test_a_metric_against_rho_with_reference_bands() -> None:
    figure = picture(SWEEP, PlotKind.METRIC)
    [axes] = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rho (neurons)", "validation top-1 (%)")
    assert legend(figure) == ["none", "vanilla p=0.5", "maldrop standard", "maldrop reverse"]
    lines = curves(axes)
    assert [list(line.get_xdata()) for line in lines] == [[0, 512, 1024]] * 2
    assert list(lines[0].get_ydata()) == pytest.approx([90 + 1 / 3, 90 - 5.12 + 1 / 3, 90 - 10.24 + 1 / 3])
    assert len(bars(axes)) == 2
    levels = [line for line in axes.get_lines() if line.get_linestyle() != "None" and line not in lines]
    assert sorted({float(np.asarray(line.get_ydata())[0]) for line in levels}) == pytest.approx(
        [90 + 1 / 3, 92 + 1 / 3]
    )
    assert len(axes.patches) == 2  # the bands of the levels
    assert axes.get_xscale() == "linear"
    low, high = axes.get_xlim()
    assert low < 0
    assert high > 1024


@pytest.mark.parametrize(
    ("rhos", "scale"), [((0, 512, 1024), "linear"), ((1, 4, 16, 64, 256), "log"), ((0, 1, 4, 16, 256), "symlog")]
)
def test_points_that_would_crowd_get_a_logarithmic_axis(rhos: tuple[int, ...], scale: str) -> None:
    figure = picture([stored(rho=rho) for rho in rhos], PlotKind.METRIC)
    assert figure.axes[0].get_xscale() == scale
    low, high = figure.axes[0].get_xlim()
    assert low < rhos[0]
    assert high > rhos[-1]


def test_another_metric_against_another_setting() -> None:
    runs = [stored(lr=lr, dropout=dropout) for lr in (0.1, 0.2) for dropout in (NONE, MALDROP)]
    figure = picture(runs, PlotKind.METRIC, Metric.VAL_LOSS, "lr")
    [axes] = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "validation loss (nats)")
    assert [list(line.get_xdata()) for line in curves(axes)] == [[0.1, 0.2]] * 2
    assert legend(figure) == ["none", "maldrop rho=256"]
    assert "lr" not in figure.get_suptitle()


def test_rho_of_channels_is_said() -> None:
    runs = [stored(rho=rho, dropout=Dropout.SPATIAL_MALDROP) for rho in (1, 2)]
    assert picture(runs, PlotKind.METRIC).axes[0].get_xlabel() == "rho (channels)"


def test_a_setting_without_numbers_is_refused() -> None:
    with pytest.raises(MaldropError, match="in none of these runs rho has an effect"):
        picture(COMPARE[:6], PlotKind.METRIC)
    with pytest.raises(MaldropError, match="omega has an effect and a number"):
        picture([stored()], PlotKind.METRIC, Metric.VAL_TOP1, "omega")


# --- time ----------------------------------------------------------------------------------------------------------


def test_accuracy_against_training_time() -> None:
    slow = [
        replace(run, epochs=tuple(replace(row, train_seconds=1.5) for row in run.epochs))
        for run in over_seeds(92, dropout=VANILLA)
    ]
    figure = picture([*over_seeds(90, dropout=NONE), *slow], PlotKind.TIME)
    [axes] = figure.axes
    assert axes.get_xlabel() == "training time (s), evaluation and loading left out"
    assert [list(line.get_xdata()) for line in curves(axes)] == [[1, 2], [1.5, 3]]
    assert len(bands(axes)) == 2
    # none is done after two seconds; vanilla, a third of the way into its second epoch, is at 82.33 + 10 / 3
    assert legend(figure) == ["none: 90.33", "vanilla p=0.5: 85.67"]
    assert figure.legends[0].get_title().get_text() == "at 2 s, where the first is done:"


def test_one_arm_alone_has_nothing_to_be_compared_with() -> None:
    figure = picture(COMPARE[:3], PlotKind.TIME)
    assert legend(figure) == ["none"]
    assert len(figure.axes[0].get_lines()) == 1


def test_times_of_different_machines_are_marked() -> None:
    other = [replace(run, environment=run.environment | {"threads": 64}) for run in COMPARE[:3]]
    assert "these times do not compare" in picture([*other, *COMPARE[3:]], PlotKind.TIME).get_suptitle()
    assert "do not compare" not in picture(COMPARE, PlotKind.TIME).get_suptitle()


# --- timings -------------------------------------------------------------------------------------------------------

WORDS = ("along classes", "width 4096")
POINTS = [
    ScalePoint(
        selector, classes, cost * classes**exponent, 0.9 * cost * classes**exponent, 2 * cost * classes**exponent
    )
    for selector, cost, exponent in (("heuristic", 0.0001, 0.5), ("single", 0.001, 1.0))
    for classes in (10, 32, 100)
]
TIMES = [
    Timing(RunConfig(), Samples("none", [0.010, 0.010, 0.012])),
    Timing(RunConfig(), Samples("vanilla", [0.020, 0.022, 0.024])),
    Timing(RunConfig(), Samples("random", [0.010, 0.011, 0.012])),
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
    lines = curves(axes)
    assert [list(line.get_xdata()) for line in lines] == [[10, 32, 100]] * 2
    assert list(lines[1].get_ydata()) == pytest.approx([10, 32, 100])
    [_, _, (bar,)] = bars(axes)[1]
    assert [list(segment[:, 1]) for segment in bar.get_segments()] == [
        pytest.approx([0.9 * t, 2 * t]) for t in (10, 32, 100)
    ]
    assert legend(figure) == ["heuristic: e = 0.50 ±0.00", "single: e = 1.00 ±0.00", "e = 1 (level lines: e = 0)"]
    assert figure.get_suptitle().splitlines()[:2] == list(WORDS)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["10", "32", "100"]
    assert list(axes.xaxis.get_minorticklocs()) == list(axes.yaxis.get_minorticklocs()) == []


def test_slanted_lines_have_exponent_one_all_over_the_panel() -> None:
    [axes] = scaled().axes
    slanted = [line for line in axes.get_lines() if line.get_color() == REFERENCE["color"]]
    low, high = axes.get_ylim()
    for line in slanted:
        (left, right), (start, end) = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert end / start == pytest.approx(right / left)
    starts = [float(np.asarray(line.get_ydata())[0]) for line in slanted]
    assert max(starts) > high / 10
    assert min(starts) * right / left <= low  # one that begins below the panel still comes into it
    assert np.diff(np.log10(starts)) == pytest.approx(1)


def test_a_constant_with_noise_looks_like_one() -> None:
    points = [ScalePoint("single", value, seconds) for value, seconds in ((10, 1.0), (100, 1.1), (1000, 0.95))]
    figure = scaled(points)
    low, high = figure.axes[0].get_ylim()
    assert high / low >= LEAST_SPAN
    assert low < 950 < 1100 < high
    assert figure.get_suptitle().endswith("without a bar: one sample.")
    assert "one sample" not in scaled().get_suptitle()


def test_ratios_to_no_dropout() -> None:
    figure = ratio_plot(TIMES)
    [axes] = figure.axes
    dots = curves(axes)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["none", "vanilla", "random"]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([1, 2, 1])
    assert [dot.get_ydata()[0] for dot in dots] == [0, 1, 2]
    assert axes.get_ylim() == (2.5, -0.5)  # from the top, as in the table
    assert [text.get_text() for text in axes.texts] == ["1.00", "2.00", "1.00"]
    assert axes.get_xscale() == "linear"
    assert "hollow" not in figure.get_suptitle()


def test_the_per_neuron_forms_are_hollow_on_a_logarithmic_axis() -> None:
    figure = ratio_plot([*TIMES, NAIVE])
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    assert [dot.get_markerfacecolor() for dot in curves(axes)] == ["black", "black", "black", "white"]
    assert figure.get_suptitle().endswith("hollow: the per-neuron forms.")


@pytest.mark.parametrize("suffix", PLOT_SUFFIXES)
@pytest.mark.parametrize("make", [scaled, lambda: ratio_plot([*TIMES, NAIVE])], ids=["scale", "ratios"])
def test_timings_are_drawn_the_same_whatever_matplotlibrc_says(
    make: Callable[[], Figure], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = render(make(), suffix)
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    monkeypatch.setitem(matplotlib.rcParams, "axes.grid", False)
    assert render(make(), suffix) == first


def test_nothing_leaves_the_pictures_of_timings() -> None:
    for figure in (scaled(), ratio_plot([*TIMES, NAIVE])):
        render(figure, ".png")  # lays it out
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height


def test_timeit_draws_its_ratios_and_its_scale(maldrop: Run) -> None:
    quick = ("timeit", *TINY, "-q", "--selector", "heuristic", "--budget", "0.1")
    result = maldrop(*quick, "--no-harm", "--dropout", "none", "--plot", "ratios.svg")
    assert result.code == 0, result.err
    assert "A training step: synthetic shapes (1x8x8)" in Path("ratios.svg").read_text()
    result = maldrop(*quick, "--scale", "batch", "--plot", "scale.SVG")
    assert (result.code, result.err) == (0, "")
    text = Path("scale.SVG").read_text()
    assert "classes 3, width 256, rho 16, granularity batch; " in text
    assert "heuristic: e = " in text


# --- all kinds -----------------------------------------------------------------------------------------------------


def test_every_kind_and_metric_has_its_entry() -> None:
    assert set(KINDS) == set(PlotKind)
    assert set(LABELS) == set(Metric)
    assert set(METADATA) == set(PLOT_SUFFIXES)


@pytest.mark.parametrize("kind", PlotKind)
def test_nothing_to_plot_is_one_line(kind: PlotKind) -> None:
    with pytest.raises(MaldropError, match="nothing to plot: of 1 run none finished"):
        picture([replace(stored(), status=Status.UNFINISHED, epochs=())], kind)
    with pytest.raises(MaldropError, match="saw different images"):
        picture([stored(), stored(1, digest="other")], kind)


@pytest.mark.parametrize("suffix", PLOT_SUFFIXES)
@pytest.mark.parametrize("kind", PlotKind)
def test_two_renderings_are_the_same_bytes(kind: PlotKind, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = SWEEP if kind is PlotKind.METRIC else COMPARE
    first = render(picture(runs, kind), suffix)
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)  # a user's matplotlibrc does not matter
    monkeypatch.setitem(matplotlib.rcParams, "axes.grid", False)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert render(picture(runs, kind), suffix) == first
    assert first.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    assert matplotlib.rcParams["font.size"] == 30


def test_the_legend_covers_no_data() -> None:
    figure = picture([stored(rho=rho) for rho in range(20)], PlotKind.LEARNING)
    render(figure, ".png")  # lays it out
    [found] = figure.legends
    box = found.get_window_extent()
    for axes in figure.axes:
        assert not box.overlaps(axes.get_window_extent())
        assert axes.get_window_extent().height > 2 * figure.dpi  # and leaves room for it


def test_labels_say_what_varies_and_no_more() -> None:
    def of(*configs: dict[str, Any], without: str = "") -> list[str]:
        return labels(group([stored(**config) for config in configs]), without)

    assert of({"rho": 1}, {"rho": 2}) == ["maldrop rho=1", "maldrop rho=2"]
    assert of({"lr": 0.1}, {"lr": 0.2}) == ["maldrop rho=256 lr=0.1", "maldrop rho=256 lr=0.2"]
    assert of({"rho": 1}, {"rho": 1, "dropout": RANDOM}, without="rho") == ["maldrop", "random"]
    assert of({}, {"schedule": Schedule.FORWARD}) == ["maldrop standard rho=256", "maldrop forward rho=256"]
    assert of({"omega": "paper"}, {"omega": 0.5}) == ["maldrop rho=256 omega=paper", "maldrop rho=256 omega=0.5"]
    assert of({"dropout": VANILLA, "p": 0.1}, {"dropout": VANILLA, "p": 0.2}, without="p") == ["vanilla", "vanilla"]
    assert RunConfig().rho == 256


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MaldropError, match="can't write"):
        save_plot(picture(COMPARE, PlotKind.TIME), tmp_path / "no" / "p.png")


# --- the commands --------------------------------------------------------------------------------------------------


def test_report_draws_every_kind(maldrop: Run) -> None:
    save(SWEEP)
    for kind in PlotKind:
        for suffix in (*PLOT_SUFFIXES, ".PNG"):
            path = Path(f"{kind}{suffix}")
            result = maldrop("report", "runs", "--where", "rho=0..600,-", "--plot", path, "--plot-kind", kind)
            assert result.code == 0, result.err
            assert result.err == ""
            assert path.stat().st_size > 1000
    assert Path("learning.svg").read_bytes() != Path("time.svg").read_bytes()


def test_compare_and_sweep_draw_what_report_draws(maldrop: Run) -> None:
    result = maldrop("compare", *QUICK, "--seeds", "2", "--dropout", "none,maldrop", "--plot", "c.svg")
    assert result.code == 0, result.err
    maldrop("report", "maldrop-runs", "--plot", "again.svg")
    assert Path("c.svg").read_bytes() == Path("again.svg").read_bytes()
    result = maldrop("sweep", *QUICK, "--rho", "0,16,64", "--plot", "s.svg", "--out", "swept")
    assert result.code == 0, result.err
    maldrop("report", "swept", "--plot", "again.svg", "--plot-kind", "metric")
    assert Path("s.svg").read_bytes() == Path("again.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("compare", "--plot", "p.gif"), 2, "ends in none of .png, .svg, .pdf"),
        (("sweep", "--plot", "plot"), 2, "ends in none of .png, .svg, .pdf"),
        (("sweep", "--plot", "p.png", "--dry-run"), 2, "a dry run measures nothing"),
        (("compare", "--plot", "nowhere/p.png"), 1, "there is no folder"),
        (("timeit", "--plot", "p.gif"), 2, "ends in none of .png, .svg, .pdf"),
        (("timeit", "--scale", "rho", "--plot", "p"), 2, "ends in none of .png, .svg, .pdf"),
        (("timeit", "--scale", "rho", "--plot", "nowhere/p.png"), 1, "there is no folder"),
    ],
    ids=str,
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
    assert result.code == 1
    assert "2 of 2 runs did not finish" in result.err
    assert "0 of 1" in result.out
    assert not Path("p.png").exists()


def test_the_masks_are_shares_of_the_neurons() -> None:
    [axes] = picture(COMPARE, PlotKind.MASKS).axes
    [line] = curves(axes)  # none and vanilla count nothing
    assert axes.get_yscale() == "log"
    assert list(np.asarray(line.get_xdata())) == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    shares = np.asarray(line.get_ydata())
    assert list(shares[np.isfinite(shares)]) == pytest.approx([1, 9, 20, 70])
    with pytest.raises(MaldropError, match="counts what it drops"):
        picture(COMPARE[:6], PlotKind.MASKS)
