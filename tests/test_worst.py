"""The jointly worst set against all sets, its ceiling, and its ascent."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from maldrop_cli.dropout import keep_mask, scores, worst, worst_set
from maldrop_cli.dropout.scores import SCORES, LastLayer, Options, gradient, single, single_near

ROWS = 4  # examples in each small problem


def problem(number: int, rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """hidden, weight, bias, labels, rho: D up to 16, rho up to 6, C from 2 to 10, every second one after a ReLU."""
    generator = torch.Generator().manual_seed(number)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    width, classes = draw(2, 16), draw(2, 10)
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    bias = torch.randn(classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    return hidden.relu() if number % 2 else hidden, weight, bias, labels, draw(0, min(6, width))


def loss(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, keep: Tensor) -> Tensor:
    """A real forward pass under the mask, one loss an example."""
    return cross_entropy(linear(hidden * keep, weight, bias), labels, reduction="none")


PROBLEMS = range(250)  # a thousand rows


def test_joint_is_the_worst_of_all_sets_and_below_its_ceiling() -> None:
    hits = rows = 0
    for number in PROBLEMS:
        hidden, weight, bias, labels, rho = problem(number)
        found = worst_set(hidden, weight, labels, rho, bias_C=bias)
        best = keep_mask(hidden, weight, labels, rho, bias_C=bias, selector="exhaustive")
        assert ((~found.keep_ND).sum(1) == rho).all()
        after, most = (loss(hidden, weight, bias, labels, keep) for keep in (found.keep_ND, best))
        torch.testing.assert_close(found.loss_N, after)
        assert (after <= most + 1e-12).all()
        assert (found.ceiling_N >= most - 1e-12).all()
        hits += int((after >= most - 1e-9).sum())
        rows += len(labels)
    assert rows == 1000
    assert hits >= 0.995 * rows


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_exhaustive_is_a_loop_over_all_sets(granularity: str) -> None:
    for number in range(12):
        hidden, weight, bias, labels, rho = problem(number)
        mask = keep_mask(hidden, weight, labels, rho, bias_C=bias, selector="exhaustive", granularity=granularity)
        literal = []
        for members in itertools.combinations(range(hidden.shape[1]), rho):
            keep = torch.ones_like(hidden)
            keep[:, list(members)] = 0
            literal.append(loss(hidden, weight, bias, labels, keep))
        losses = torch.stack(literal)
        mine = loss(hidden, weight, bias, labels, mask)
        if granularity == "sample":
            torch.testing.assert_close(mine, losses.amax(0))
        else:
            torch.testing.assert_close(mine.sum(), losses.sum(1).amax())


def test_the_batch_set_is_never_below_the_other_selectors() -> None:
    for number in range(1000):
        hidden, weight, bias, labels, rho = problem(number, rows=6)
        totals = {}
        for selector in ("joint", "heuristic", "gradient", "single"):
            keep = keep_mask(hidden, weight, labels, rho, bias_C=bias, selector=selector, granularity="batch")
            totals[selector] = float(loss(hidden, weight, bias, labels, keep).sum())
        assert totals["joint"] >= max(totals.values()) - 1e-10, number
        if number % 10 == 0:
            found = worst_set(hidden, weight, labels, rho, bias_C=bias, granularity="batch")
            assert float(found.loss_N.sum()) == pytest.approx(totals["joint"])
            assert float(found.ceiling_N.sum()) >= totals["joint"] - 1e-10


@pytest.mark.parametrize("per_sample", [True, False])
def test_the_loss_never_falls_with_more_iterations(per_sample: bool) -> None:
    for number in range(60):
        hidden, weight, bias, labels, rho = problem(number)
        layer = LastLayer(hidden, weight, bias, labels)
        before = None
        for iterations in range(6):
            drop, rounds = worst.ascend(layer, rho, Options(0.1, per_sample, iterations=iterations))
            loss_N, _ = worst.losses_without(layer, drop)
            assert rounds <= iterations
            now = loss_N if per_sample else loss_N.sum()
            assert before is None or (now >= before).all()
            before = now


def literal_ascent(
    start: Tensor, problem: tuple[Tensor, Tensor, Tensor, Tensor, int], rows: list[int], iterations: int
) -> float:
    """Loop by loop: the summed loss of ``rows`` after an ascent from the top rho of ``start``."""
    hidden, weight, bias, labels, rho = problem
    width = hidden.shape[1]
    score, best = [float(value) for value in start], -torch.inf
    for _ in range(iterations + 1):
        dropped = sorted(range(width), key=score.__getitem__)[width - rho :]
        keep = torch.ones(width, dtype=torch.float64)
        keep[dropped] = 0
        losses = loss(hidden[rows], weight, bias, labels[rows], keep)
        if float(losses.sum()) <= best:
            break
        best = float(losses.sum())
        score = [0.0] * width
        for n in rows:
            p = linear(hidden[n] * keep, weight, bias).softmax(0)
            for j in range(width):
                score[j] += float(
                    hidden[n, j] * (weight[labels[n], j] - sum(p[k] * weight[k, j] for k in range(len(p))))
                )
    return best


def towards(problem: tuple[Tensor, Tensor, Tensor, Tensor, int], rows: list[int], probability: Tensor) -> Tensor:
    """V(p) summed over ``rows``, with a p for each."""
    hidden, weight, _, labels, _ = problem
    return sum(hidden[n] * (weight[labels[n]] - probability[n] @ weight) for n in rows)  # type: ignore[return-value]


@pytest.mark.parametrize("iterations", [0, 1, 10])
def test_joint_is_the_best_of_literal_ascents_for_each_example(iterations: int) -> None:
    for number in range(0, 60, 3):
        problem_ = problem(number)
        hidden, weight, bias, labels, rho = problem_
        softmax, identity = linear(hidden, weight, bias).softmax(1), torch.eye(len(weight), dtype=torch.float64)
        found = worst_set(hidden, weight, labels, rho, bias_C=bias, iterations=iterations)
        for n in range(ROWS):
            starts = [softmax, *(identity[k].expand(ROWS, -1) for k in range(len(weight)) if k != labels[n])]
            ends = [literal_ascent(towards(problem_, [n], p), problem_, [n], iterations) for p in starts]
            assert float(found.loss_N[n]) == pytest.approx(max(ends), abs=1e-9)
        alone = worst_set(hidden, weight, labels, rho, bias_C=bias, iterations=iterations, vertices=0)
        ends = [literal_ascent(towards(problem_, [n], softmax), problem_, [n], iterations) for n in range(ROWS)]
        assert alone.loss_N.tolist() == pytest.approx(ends, abs=1e-9)


@pytest.mark.parametrize("iterations", [0, 1, 10])
def test_joint_is_the_best_of_literal_ascents_for_a_batch(iterations: int) -> None:
    """No start is left out, and the worst few are improved."""
    rows = list(range(ROWS))
    for number in range(0, 60, 3):
        problem_ = problem(number)
        hidden, weight, bias, labels, rho = problem_
        layer, options = LastLayer(hidden, weight, bias, labels), Options(1 / max(hidden.shape[1] - 1, 1), False)
        identity = torch.eye(len(weight), dtype=torch.float64)
        starts = [SCORES[name](layer, options) for name in ("gradient", "heuristic", "single")]
        starts += [towards(problem_, rows, identity[k].expand(ROWS, -1)) for k in range(len(weight))]
        begin = sorted((literal_ascent(start, problem_, rows, 0), index) for index, start in enumerate(starts))[::-1]
        ends = [literal_ascent(starts[index], problem_, rows, iterations) for _, index in begin[: worst.MAX_ASCENTS]]
        found = worst_set(hidden, weight, labels, rho, bias_C=bias, granularity="batch", iterations=iterations)
        assert float(found.loss_N.sum()) == pytest.approx(max(ends), abs=1e-9), number
        alone = worst_set(
            hidden, weight, labels, rho, bias_C=bias, granularity="batch", iterations=iterations, vertices=0
        )
        assert float(alone.loss_N.sum()) == pytest.approx(
            literal_ascent(starts[0], problem_, rows, iterations), abs=1e-9
        )


def test_with_fewer_starts_than_classes_those_of_highest_ceiling_are_taken() -> None:
    hidden, weight, bias, labels, rho = problem(11)
    layer = LastLayer(hidden, weight, bias, labels)
    assert len(weight) > 3
    _, *starts = worst._sample_starts(layer, rho, Options(vertices=2))
    expected = worst.class_ceilings(layer, rho).scatter(1, labels.unsqueeze(1), -torch.inf).topk(2, dim=1).indices
    for rank, start in enumerate(starts):
        vertices = torch.nn.functional.one_hot(expected[:, rank], len(weight)).double()
        rows = [towards(problem(11), [n], vertices) for n in range(ROWS)]
        torch.testing.assert_close(start, torch.stack(rows))
    logits = linear(hidden, weight, bias)
    right = torch.nn.functional.one_hot(labels, len(weight)).T.double()
    batch = worst._batch_starts(layer, logits.T, right, rho, Options(0.1, False, vertices=2))
    identity = torch.eye(len(weight), dtype=torch.float64)
    every = [towards(problem(11), list(range(ROWS)), identity[k].expand(ROWS, -1)) for k in range(len(weight))]
    reach = [float(logits[:, k].sum() + every[k].topk(rho).values.sum()) for k in range(len(weight))]
    best = sorted(range(len(weight)), key=reach.__getitem__)[::-1][:2]
    torch.testing.assert_close(batch[3:], torch.stack([every[k] for k in best]))


def test_joint_of_a_batch_is_often_the_worst_set_and_never_above_it() -> None:
    """One mask for four examples: no guarantee, and docs/variants.md says how often."""
    hits = 0
    for number in range(150):
        hidden, weight, bias, labels, rho = problem(number)
        totals = [
            float(loss(hidden, weight, bias, labels, keep_mask(
                hidden, weight, labels, rho, bias_C=bias, selector=selector, granularity="batch")).sum())
            for selector in ("joint", "exhaustive")
        ]  # fmt: skip
        assert totals[0] <= totals[1] + 1e-10
        hits += totals[0] >= totals[1] - 1e-9
    assert hits >= 0.9 * 150, hits


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e200])
def test_single_near_has_the_highest_of_single(scale: float) -> None:
    """From weights that hardly matter to those whose exponentials overflow, which leaves every neuron undecided."""
    for number in range(200):
        hidden, weight, bias, labels, _ = problem(number, rows=6)
        layer, options = LastLayer(hidden, weight * scale, bias, labels), Options(per_sample=False)
        exact, logits = single(layer, options), linear(hidden, weight * scale, bias)
        lower = gradient(layer, options)
        for rho in range(1, hidden.shape[1]):
            score = single_near(layer, logits, lower, rho, options)
            dropped, expected = score.topk(rho).indices, exact.topk(rho).values
            torch.testing.assert_close(exact[dropped].sort().values, expected.sort().values)
            decided = score == lower
            torch.testing.assert_close(score[~decided], exact[~decided])


def test_the_bounds_of_single_near_leave_few_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a layer of usual size and a head that fits its batch, less than a tenth has to be worked out."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (64,), generator=generator)
    hidden = (torch.randn(10, 1024, generator=generator)[labels] + torch.randn(64, 1024, generator=generator)).relu()
    weight = 0.03 * torch.randn(10, 1024, generator=generator)
    for _ in range(20):
        probability = linear(hidden, weight).softmax(1)
        weight -= 0.002 * (probability - torch.nn.functional.one_hot(labels, 10)).T @ hidden
    layer, options = LastLayer(hidden, weight, None, labels), Options(per_sample=False)
    worked_out = []

    def spy(part: LastLayer, options: Options, logits: Tensor) -> Tensor:
        worked_out.append(part.hidden_ND.shape[1])
        return single(part, options, logits)

    monkeypatch.setattr(scores, "single", spy)
    single_near(layer, linear(hidden, weight), gradient(layer, options), 64, options)
    assert worked_out[0] < 102


def test_nothing_to_choose_and_nothing_to_drop_from() -> None:
    for granularity in ("batch", "sample"):
        empty = torch.zeros(0, 5), torch.zeros(3, 5), torch.zeros(0, dtype=torch.int64)
        assert worst_set(*empty, 2, granularity=granularity).keep_ND.shape == (0, 5)
    for number in range(6):
        hidden, weight, bias, labels, _ = problem(number)
        for rho in (0, hidden.shape[1]):
            found = worst_set(hidden, weight, labels, rho, bias_C=bias, granularity="batch")
            assert ((~found.keep_ND).sum(1) == rho).all()
            assert found.iterations == 0


def test_greedy_is_a_loop_of_forward_passes() -> None:
    for number in range(20):
        hidden, weight, bias, labels, rho = problem(number)
        for granularity in ("sample", "batch"):
            mask = keep_mask(hidden, weight, labels, rho, bias_C=bias, selector="greedy", granularity=granularity)
            rows = [slice(n, n + 1) for n in range(ROWS)] if granularity == "sample" else [slice(0, ROWS)]
            for row in rows:
                keep = torch.ones_like(hidden[row])
                for _ in range(rho):
                    tried = {}
                    for j in range(hidden.shape[1]):
                        if keep[0, j]:
                            without = keep.clone()
                            without[:, j] = 0
                            tried[j] = float(loss(hidden[row], weight, bias, labels[row], without).sum())
                    keep[:, max(tried, key=tried.__getitem__)] = 0
                mine = loss(hidden[row], weight, bias, labels[row], mask[row]).sum()
                torch.testing.assert_close(mine, loss(hidden[row], weight, bias, labels[row], keep).sum())


def test_exhaustive_refuses_naming_the_count() -> None:
    with pytest.raises(ValueError, match=r"10\^18\.1 sets of 10 among 300"):
        keep_mask(torch.zeros(2, 300), torch.zeros(3, 300), torch.tensor([0, 1]), 10, selector="exhaustive")


def test_more_classes_than_starts() -> None:
    """C = 40: the vertices of highest ceiling are tried, and the set is still the worst in nearly every row."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 10, generator=generator, dtype=torch.float64)
    weight = torch.randn(40, 10, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 40, (50,), generator=generator)
    found = worst_set(hidden, weight, labels, 3)
    best = keep_mask(hidden, weight, labels, 3, selector="exhaustive")
    most = cross_entropy(linear(hidden * best, weight), labels, reduction="none")
    assert int((found.loss_N >= most - 1e-9).sum()) >= 48
    batch = worst_set(hidden, weight, labels, 3, granularity="batch")
    assert (batch.keep_ND == batch.keep_ND[0]).all()


def test_it_runs_where_the_data_lie(device: torch.device) -> None:
    hidden, weight, bias, labels, _ = problem(8)
    found = worst_set(hidden.to(device), weight.to(device), labels.to(device), 1, bias_C=bias.to(device))
    torch.testing.assert_close(found.loss_N.cpu(), worst_set(hidden, weight, labels, 1, bias_C=bias).loss_N)
