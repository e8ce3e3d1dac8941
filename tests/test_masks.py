"""What is said of a run's masks: pass rates, turnover, and their harm beside that of the jointly worst set."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import BASE, matching_rho, rows, train
from test_cli import QUICK, Run
from torch.nn.functional import cross_entropy, linear

from maldrop_cli import mask_metrics
from maldrop_cli.data.load import ImageData
from maldrop_cli.dropout import keep_mask, worst_set
from maldrop_cli.models import Normalise, build_model
from maldrop_cli.names import Dropout, Granularity, Selector
from maldrop_cli.record import Status
from maldrop_cli.runs.store import Store


def test_pass_rates_by_hand() -> None:
    assert mask_metrics.pass_rates(torch.tensor([0, 0, 1, 5, 9, 10]), 10) == {  # drops, of 10 examples
        "never_passed": 1,
        "always_passed": 2,
        "pass_histogram": (1, 1, 0, 0, 0, 1, 0, 0, 0, 3),  # 0, 10 %, 50 %, then 90 and twice 100 %
    }
    untrained = mask_metrics.pass_rates(torch.zeros(3, dtype=torch.int64), 0)
    assert list(untrained.values()) == [0, 3, (0,) * 9 + (3,)]


def test_turnover_by_hand() -> None:
    one, other = torch.tensor([6, 2, 0, 0]), torch.tensor([0, 0, 1, 1])
    assert mask_metrics.turnover(one, one * 3) == 0
    assert mask_metrics.turnover(one, other) == 1
    assert mask_metrics.turnover(one, torch.tensor([2, 2, 0, 0])) == pytest.approx(0.25)
    assert mask_metrics.turnover(one, torch.zeros(4)) is None
    assert mask_metrics.turnover(torch.zeros(4), one) is None


def test_typical_rho() -> None:
    assert mask_metrics.typical_rho([0, 0, 4, 0, 5]) == 5  # 4.5, rounded half up
    assert mask_metrics.typical_rho([0, 0]) == mask_metrics.typical_rho([]) == 0


def test_the_probe_is_spread_over_the_classes(tiny: ImageData) -> None:
    ordered = replace(tiny.train, labels=tiny.train.labels.sort().values)
    probe = mask_metrics.probe_images(ordered)
    assert len(probe.labels) == 120
    many = replace(tiny.train, images=tiny.train.images.repeat(3, 1, 1, 1), labels=tiny.train.labels.repeat(3))
    assert len(mask_metrics.probe_images(many).labels) == mask_metrics.PROBE_IMAGES
    assert torch.equal(mask_metrics.probe_images(many).labels, mask_metrics.probe_images(many).labels)
    assert set(probe.labels.tolist()) == {0, 1, 2}
    in_order = replace(many, labels=torch.arange(3).repeat_interleave(120))
    assert torch.bincount(mask_metrics.probe_images(in_order).labels).tolist() == pytest.approx([43, 43, 43], abs=1)


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("selector", [Selector.HEURISTIC, Selector.GRADIENT, Selector.JOINT])
def test_fidelity_is_the_loss_under_the_masks(selector: Selector, granularity: Granularity, tiny: ImageData) -> None:
    config = replace(BASE, selector=selector, granularity=granularity)
    model, normalise = build_model(config, tiny.shape, 3), Normalise(tiny.mean, tiny.std)
    probe = mask_metrics.probe_images(tiny.train)
    found = mask_metrics.fidelity(model, normalise, probe, 9, 0)
    assert found is not None
    with torch.no_grad():
        hidden = model.eval().backbone(normalise(probe.images))
    weight, bias = model.head.weight.detach(), model.head.bias.detach()

    def loss(keep: torch.Tensor) -> float:
        return float(cross_entropy(linear(hidden * keep, weight, bias), probe.labels))

    settings = {"bias_C": bias, "granularity": granularity.value}
    before = loss(torch.ones(()))
    mine = keep_mask(hidden, weight, probe.labels, 9, selector=selector.value, **settings)  # type: ignore[arg-type]
    worst = worst_set(hidden, weight, probe.labels, 9, **settings)  # type: ignore[arg-type]
    assert found.loss == pytest.approx(before)
    assert found.mask == pytest.approx(loss(mine) - before, abs=1e-6)
    assert found.joint == pytest.approx(loss(worst.keep_ND) - before, abs=1e-6)
    assert found.ceiling == pytest.approx(float(worst.ceiling_N.mean()) - before, abs=1e-6)
    assert found.mask <= found.joint + 1e-6 <= found.ceiling + 2e-6
    if selector is Selector.JOINT:
        assert found.mask == pytest.approx(found.joint, abs=1e-6)


@pytest.mark.parametrize("dropout", Dropout)
def test_looking_changes_no_number(dropout: Dropout, tiny: ImageData) -> None:
    config = replace(BASE, dropout=dropout, rho=matching_rho(dropout), epochs=3)
    blind, seen = train(config, tiny), train(replace(config, fidelity_every=2), tiny)
    for field in ("train_loss", "val_loss", "drop_rate", "turnover"):
        assert [getattr(row, field) for row in blind.epochs] == [getattr(row, field) for row in seen.epochs]
    assert blind.pass_histogram == seen.pass_histogram
    assert all(row.fidelity is None for row in blind.epochs)
    chooses = config.has_rho and dropout is not Dropout.MALDROPCONNECT
    assert [row.raised_joint is not None for row in seen.epochs] == [False, chooses, chooses]  # every second, the last
    for row in seen.epochs:
        if row.raised_mask is not None and row.raised_joint is not None and row.raised_ceiling is not None:
            assert row.raised_mask <= row.raised_joint + 1e-6
            assert row.raised_joint <= row.raised_ceiling + 1e-6
            assert row.fidelity == pytest.approx(100 * row.raised_mask / row.raised_joint)


@pytest.mark.parametrize("dropout", Dropout)
def test_every_neuron_is_accounted_for(dropout: Dropout, tiny: ImageData) -> None:
    record = train(replace(BASE, dropout=dropout, rho=matching_rho(dropout)), tiny)
    assert record.status is Status.DONE
    counts = dropout not in (Dropout.NONE, Dropout.VANILLA, Dropout.DROPCONNECT, Dropout.SPATIAL)
    assert bool(record.pass_histogram) is counts
    assert record.epochs[0].turnover is None
    if counts:
        assert sum(record.pass_histogram) == record.hidden_width * (3 if dropout is Dropout.MALDROPCONNECT else 1)
        assert record.never_passed is not None
        assert record.always_passed is not None
        assert record.never_passed <= record.pass_histogram[0]
        assert record.always_passed <= record.pass_histogram[-1]
        assert record.epochs[1].turnover is not None
        assert 0 <= record.epochs[1].turnover <= 1


def test_the_command_line(maldrop: Run) -> None:
    result = maldrop("train", *QUICK, "--fidelity", "every=1", "--csv", "t.csv", "-q")
    assert result.code == 0, result.err
    assert "mask in % of worst set" in result.out
    assert "Pass rates of 256 neurons over all of training" in result.out
    table = rows("t.csv")
    assert all(float(row["raised_mask"]) <= float(row["raised_joint"]) + 1e-6 for row in table)
    assert {row["fidelity_every"] for row in table} == {"1"}
    assert sum(map(int, table[0]["pass_histogram"].split())) == 256
    [record] = Store(Path("maldrop-runs")).scan()
    assert [str(row.raised_ceiling) for row in record.epochs] == [row["raised_ceiling"] for row in table]
    assert str(record.never_passed) == table[0]["never_passed"]

    result = maldrop("compare", *QUICK, "--fidelity", "every=2", "--seeds", "2", "--csv", "c.csv", "-q")
    assert "Masks, means over seeds at the last epoch" in result.out
    table = rows("c.csv")
    assert [bool(row["fidelity_mean"]) for row in table] == [False, False, True, True, True]
    assert [bool(row["never_passed_mean"]) for row in table] == [False, False, True, True, True]
    assert "Masks" not in maldrop("compare", *QUICK, "--seeds", "1", "-q").out
    assert "Masks" in maldrop("sweep", *QUICK, "--fidelity", "every=2", "-q").out
