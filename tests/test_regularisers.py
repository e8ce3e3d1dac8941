"""The variants beside MalDrop: each against its literal twin, and its scaling at test time."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import linear

from maldrop_cli.dropout import (
    Composition,
    DropConnect,
    DropoutLinear,
    MalDropConnect,
    NestedDropout,
    Regulariser,
    SpatialDropout,
    TargetedDropout,
    VanillaDropout,
)
from maldrop_cli.dropout.schedules import stop_probability
from maldrop_cli.dropout.scores import SCORES, LastLayer, Options, weight_scores

N, CHANNELS, AREA, C = 7, 6, 4, 5
D = CHANNELS * AREA


def batch(seed: int = 0, examples: int = N) -> LastLayer:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(examples, D, generator=generator, dtype=torch.float64).relu()
    weight = torch.randn(C, D, generator=generator, dtype=torch.float64)
    return LastLayer(hidden, weight, None, torch.randint(0, C, (examples,), generator=generator))


def layer_with(regulariser: Regulariser, inputs: LastLayer) -> DropoutLinear:
    layer = DropoutLinear(D, C, bias=False, regulariser=regulariser).double()
    layer.weight = nn.Parameter(inputs.weight_CD)
    return layer


def test_spatial_is_dropout_of_whole_maps() -> None:
    hidden, weight = torch.rand(N, D), torch.rand(C, D)
    torch.manual_seed(5)
    mine, _ = SpatialDropout(CHANNELS, 0.4)(LastLayer(hidden, weight, None, None))
    torch.manual_seed(5)
    maps = nn.Dropout2d(0.4)(hidden.view(N, CHANNELS, 2, 2))
    assert torch.equal(mine, maps.flatten(1))
    gone = mine.view(N, CHANNELS, AREA) == 0
    assert (gone.all(2) == gone.any(2)).all()
    assert 0 < gone.sum() < gone.numel()


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("selector", [name for name in SCORES if name != "random"])
def test_spatial_maldrop_drops_the_channels_of_highest_summed_score(selector: str, granularity: str) -> None:
    inputs, rho = batch(), 2
    regulariser = TargetedDropout(D, C, rho=rho, channels=CHANNELS, selector=selector, granularity=granularity)
    hidden, weight = regulariser(inputs)
    per_sample = granularity == "sample"
    score = SCORES[selector](inputs, Options(1 / (D - 1), True))
    for n in range(N):
        sums = [0.0] * CHANNELS
        for m, channel, place in itertools.product(range(N), range(CHANNELS), range(AREA)):
            if m == n or not per_sample:
                sums[channel] += float(score[m, channel * AREA + place])
        worst = sorted(range(CHANNELS), key=sums.__getitem__)[-rho:]
        keep = torch.ones(CHANNELS, AREA, dtype=torch.float64)
        keep[worst] = 0
        torch.testing.assert_close(
            linear(hidden[n], weight), linear(inputs.hidden_ND[n] * keep.flatten(), inputs.weight_CD)
        )
    assert regulariser.drop_totals() == (rho * AREA * N, D * N)
    assert (regulariser.drops.view(CHANNELS, AREA).amax(1) == regulariser.drops.view(CHANNELS, AREA).amin(1)).all()


def test_channels_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="can't be divided into 7 channels"):
        TargetedDropout(D, C, rho=1, channels=7)
    with pytest.raises(ValueError, match="no score to sum over a channel"):
        TargetedDropout(D, C, rho=1, channels=CHANNELS, selector="joint")
    with pytest.raises(ValueError, match="rho is 7"):
        TargetedDropout(D, C, rho=7, channels=CHANNELS)


def test_dropconnect_drops_weights_and_scales_up_the_rest() -> None:
    inputs, regulariser = batch(), DropConnect(0.25)
    layer = layer_with(regulariser, inputs)
    total, rounds = torch.zeros(N, C, dtype=torch.float64), 4000
    torch.manual_seed(0)
    for _ in range(rounds):
        total += layer(inputs.hidden_ND).detach()
    hidden, weight = regulariser(inputs)
    assert hidden is inputs.hidden_ND
    kept = weight != 0
    torch.testing.assert_close(weight[kept], inputs.weight_CD[kept] / 0.75)
    dropped, offered = regulariser.drop_totals()
    assert offered == (rounds + 1) * C * D
    assert dropped / offered == pytest.approx(0.25, abs=0.005)
    expected = layer.eval()(inputs.hidden_ND)  # the mean weights give the mean logits
    assert (total / rounds - expected).abs().max() < 0.15
    torch.testing.assert_close(expected, linear(inputs.hidden_ND, inputs.weight_CD))


def test_maldropconnect_scores_each_weight_the_papers_way() -> None:
    inputs, omega = batch(), 0.3
    hidden, weight, _, labels = inputs
    assert labels is not None
    literal = torch.zeros(C, D, dtype=torch.float64)
    for n, k, j in itertools.product(range(N), range(C), range(D)):
        says = hidden[n, j] * weight[k, j]
        literal[k, j] += says if k == labels[n] else -omega * says
    torch.testing.assert_close(weight_scores(inputs, omega), literal)
    torch.testing.assert_close(literal.sum(0), SCORES["heuristic"](inputs, Options(omega, False)))


def test_maldropconnect_drops_exactly_rho_weights_and_scales_them_at_test_time() -> None:
    inputs, rho = batch(), 11
    regulariser = MalDropConnect(D, C, rho=rho, omega=0.3)
    layer = layer_with(regulariser, inputs)
    drops = torch.zeros(C * D, dtype=torch.float64)
    for seed, examples in enumerate((7, 7, 1)):
        each = batch(seed, examples)._replace(weight_CD=inputs.weight_CD)
        _, weight = regulariser(each)
        gone = (weight == 0).flatten()
        assert int(gone.sum()) == rho
        score = weight_scores(each, 0.3).flatten()
        assert score[gone].min() >= score[~gone].max()
        drops[gone] += examples
    layer.eval()
    rates = (1 - drops / 15).view(C, D)
    torch.testing.assert_close(layer(inputs.hidden_ND), linear(inputs.hidden_ND, inputs.weight_CD * rates))
    regulariser.train()
    with pytest.raises(ValueError, match="needs labels"):
        regulariser(inputs._replace(labels_N=None))


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_geometric_prior_drops_a_share_p_in_the_mean(width: int, p: float) -> None:
    stop = stop_probability(width, p)
    assert 0 <= stop <= 1
    mean = sum((1 - stop) ** k for k in range(width))  # E min(b, D) = sum over k of P(b > k)
    assert mean == pytest.approx(max((1 - p) * width, 1), rel=1e-6)


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_nested_keeps_a_prefix_of_geometric_length(granularity: str) -> None:
    rounds, regulariser = 3000, NestedDropout(D, p=0.6, granularity=granularity, generator=torch.Generator())
    lengths: list[int] = []
    ones = LastLayer(torch.ones(4, D), torch.ones(1, D), None, None)
    for _ in range(rounds):
        hidden, weight = regulariser(ones)
        product = hidden * weight
        length = product.sum(1).int()
        assert (product.cumprod(1) == product).all()  # nothing passes after the first that does not
        assert granularity == "sample" or (length == length[0]).all()
        lengths += length.tolist()[: 4 if granularity == "sample" else 1]
    stop = stop_probability(D, 0.6)
    for k in (1, 2, 5, 10, D):
        share = sum(length >= k for length in lengths) / len(lengths)
        expected = (1 - stop) ** (k - 1)
        deviation = math.sqrt(expected * (1 - expected) / len(lengths))
        assert abs(share - expected) < 5 * deviation + 1e-12, k
    rates = regulariser.pass_rates()
    assert float(rates[0]) == 1
    assert (rates.diff() <= 0).all()
    assert 1 - float(rates.mean()) == pytest.approx(0.6, abs=0.03)
    regulariser.eval()
    assert torch.equal(regulariser(ones)[1], rates.unsqueeze(0))


@pytest.mark.parametrize(("p", "kept"), [(0.0, D), (1.0, 1)])
def test_nested_at_the_ends(p: float, kept: int) -> None:
    inputs = LastLayer(torch.ones(3, D), torch.ones(1, D), None, None)
    for granularity in ("batch", "sample"):
        hidden, weight = NestedDropout(D, p=p, granularity=granularity)(inputs)
        assert ((hidden * weight).sum(1) == kept).all()
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        NestedDropout(D, p=1.5)


def test_pass_rates() -> None:
    made = {name: TargetedDropout(D, C, rho=3, pass_rate=name) for name in ("cumulative", "epoch", "none")}
    inputs = [batch(seed)._replace(weight_CD=batch().weight_CD) for seed in (0, 1)]
    for regulariser in made.values():
        for each in inputs:
            regulariser.begin_epoch()
            regulariser(each)
        regulariser.eval()
    both, last = torch.zeros(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
    for each in inputs:
        last = torch.zeros(D, dtype=torch.float64)
        last[SCORES["heuristic"](each, Options(1 / (D - 1), False)).topk(3).indices] = 1
        both += last / 2
    weight = inputs[0].weight_CD
    for name, rates in (("cumulative", 1 - both), ("epoch", 1 - last), ("none", torch.ones(D))):
        torch.testing.assert_close(made[name](inputs[0])[1], weight * rates)
    with pytest.raises(ValueError, match="no pass rate is called"):
        TargetedDropout(D, C, rho=3, pass_rate="always")


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("vanilla_first", [True, False])
def test_compositions_are_one_layer_after_the_other(vanilla_first: bool, granularity: str) -> None:
    inputs, rho = batch(), 5
    vanilla, maldrop = VanillaDropout(0.3), TargetedDropout(D, C, rho=rho, granularity=granularity)
    both = Composition(*((vanilla, maldrop) if vanilla_first else (maldrop, vanilla)))
    torch.manual_seed(2)
    hidden, weight = both(inputs)

    torch.manual_seed(2)
    thinned = nn.functional.dropout(inputs.hidden_ND, 0.3)
    seen = thinned if vanilla_first else inputs.hidden_ND
    score = SCORES["heuristic"](inputs._replace(hidden_ND=seen), Options(1 / (D - 1), granularity == "sample"))
    keep = torch.ones(N, D, dtype=torch.float64)
    drop = score.topk(rho, dim=-1).indices
    if granularity == "sample":
        keep.scatter_(1, drop, 0.0)
    else:
        keep[:, drop] = 0.0
    torch.testing.assert_close(linear(hidden, weight), linear(thinned * keep, inputs.weight_CD))
    already_zero = (inputs.hidden_ND != 0) & (thinned == 0) if vanilla_first else torch.zeros(N, D, dtype=torch.bool)
    assert torch.equal(maldrop.drops, ((keep == 0) & ~already_zero).sum(0))  # what was already zero can't be dropped
    assert torch.equal(maldrop.already_zero, already_zero.sum(0))

    active = inputs.hidden_ND[0] != 0
    assert both.drop_totals() == (int((active & ((thinned * keep)[0] == 0)).sum()), int(active.sum()))
    both.eval()  # vanilla has scaled up in training, MalDrop scales at test time
    hidden, weight = both(inputs)
    torch.testing.assert_close(weight, inputs.weight_CD * maldrop.pass_rates(torch.float64))
    assert torch.equal(hidden, inputs.hidden_ND)


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("vanilla_first", [True, False])
def test_what_scales_at_test_time_is_the_mean_of_what_training_did(vanilla_first: bool, granularity: str) -> None:
    """The mean factor of each neuron over many batches of the same images."""
    generator = torch.Generator().manual_seed(4)
    hidden = torch.rand(8, 6, generator=generator, dtype=torch.float64) + 0.1
    weight = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    inputs = LastLayer(hidden, weight, None, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    vanilla = VanillaDropout(0.5)
    maldrop = TargetedDropout(6, 3, rho=2, granularity=granularity, omega="classes")
    both = Composition(*((vanilla, maldrop) if vanilla_first else (maldrop, vanilla)))
    torch.manual_seed(0)
    total, rounds = torch.zeros(6, dtype=torch.float64), 4000
    for _ in range(rounds):
        now, masked = both(inputs)
        total += (now / hidden).mean(0) * (masked != 0).all(0)
    torch.testing.assert_close(maldrop.pass_rates(torch.float64), total / rounds, atol=0.03, rtol=0)


def test_a_composition_passes_on_rho_and_epochs() -> None:
    maldrop = TargetedDropout(D, C, rho=5, pass_rate="epoch")
    both = Composition(VanillaDropout(), maldrop)
    assert (both.rho, both.units) == (5, D)
    both.rho = 2
    assert maldrop.rho == 2
    both(batch()._replace(weight_CD=torch.zeros(C, D, dtype=torch.float64)))
    both.begin_epoch()
    assert int(maldrop.examples) == 0


def test_footnote_4_an_already_zero_neuron_is_dropped_again_only_where_nothing_better_is_left() -> None:
    """Sample masks, one class against the other: neurons that vanilla dropout has set to 0 score 0."""
    hidden = torch.tensor([[1.0, 2.0, 3.0, 0.0]])  # the last is already zero
    weight: Tensor = torch.tensor([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    for rho, dropped in ((1, {2}), (2, {0, 2}), (3, {0, 2, 3})):
        regulariser = TargetedDropout(4, 2, rho=rho, granularity="sample", omega=0.0)
        regulariser(LastLayer(hidden, weight, None, torch.tensor([0])))
        assert set(regulariser.drops.nonzero().flatten().tolist()) == dropped
