"""Timing: interleaved, synchronised, warm-up left out; and the naive forms give the same masks."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from maldrop_cli import timing
from maldrop_cli.config import Dropout, Granularity, RunConfig, Selector
from maldrop_cli.sweep.plan import subjects as plan_subjects
from maldrop_cli.timing import NAIVE_SAMPLES, WARM_UP, Subject, mask_agreement, measure, peak_mib, subjects

CPU = torch.device("cpu")
SHAPE, CLASSES = (1, 4, 4), 3
BASE = RunConfig(batch_size=8, rho=5)


class World:
    """Subjects that take a known time on a clock that only they move."""

    def __init__(self, costs: dict[str, float]) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.subjects = [
            Subject(name, self.step(name, cost), naive=name.startswith("naive")) for name, cost in costs.items()
        ]

    def step(self, name: str, cost: float):  # type: ignore[no-untyped-def]
        def step() -> None:
            self.now += cost * (100 if self.calls.count(name) < WARM_UP else 1)  # cold at first
            self.calls.append(name)

        return step


def test_samples_are_seconds_a_step_without_the_warm_up() -> None:
    world = World({"fast": 0.001, "slow": 0.5})
    samples = measure(world.subjects, CPU, 10, clock=lambda: world.now)
    assert samples["fast"] == pytest.approx([0.001] * 10)
    assert samples["slow"] == pytest.approx([0.5] * 10)


def test_subjects_are_interleaved_in_random_order() -> None:
    world = World({"a": 0.5, "b": 0.5, "c": 0.5})
    measure(world.subjects, CPU, 12, clock=lambda: world.now, rng=random.Random(1))
    rounds = [tuple(world.calls[start : start + 3]) for start in range(3 * WARM_UP, 3 * WARM_UP + 36, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 3


def test_naive_subjects_take_part_in_a_few_rounds() -> None:
    world = World({"none": 0.5, "naive": 9.0})
    samples = measure(world.subjects, CPU, 7, clock=lambda: world.now)
    assert len(samples["none"]) == 7
    assert len(samples["naive"]) == NAIVE_SAMPLES
    assert Counter(world.calls)["naive"] == NAIVE_SAMPLES


def test_the_device_is_synchronised_around_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"none": 0.5})
    monkeypatch.setattr(timing, "synchronize", lambda device: world.calls.append("sync"))
    measure(world.subjects, CPU, 1, clock=lambda: world.now)
    assert world.calls == ["sync", "none", "sync"] * (WARM_UP + 1)


def test_the_subjects() -> None:
    plan = plan_subjects(BASE, [Dropout.MALDROP, Dropout.RANDOM], [Selector.HEURISTIC, Selector.SINGLE])
    made = subjects(plan, SHAPE, CLASSES, CPU, naive=True)
    names = ["none", "vanilla", "heuristic", "heuristic-loop", "single", "single-naive", "random"]
    assert [each.name for each in made] == names
    assert [each.name for each in made if each.naive] == ["heuristic-loop", "single-naive"]
    for each in made:
        each.step()
    few = plan_subjects(BASE, [Dropout.MALDROP], [Selector.SINGLE])
    assert [each.name for each in subjects(few, SHAPE, CLASSES, CPU, naive=True)] == [*names[:2], *names[4:6]]


@pytest.mark.parametrize("dropout", Dropout)
def test_every_variant_can_be_timed(dropout: Dropout) -> None:
    [made] = subjects([replace(BASE, dropout=dropout, rho=2)], SHAPE, CLASSES, CPU, naive=False)
    made.step()


def test_a_step_trains() -> None:
    """The subject is a whole step: the loss on its one batch falls."""
    seen: list[float] = []
    real = torch.nn.functional.cross_entropy

    def watch(*args, **kwargs):  # type: ignore[no-untyped-def]
        loss = real(*args, **kwargs)
        seen.append(loss.item())
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", watch)
        none = subjects([replace(BASE, dropout=Dropout.NONE, lr=0.1)], SHAPE, CLASSES, CPU, naive=False)[0]
        for _ in range(20):
            none.step()
    assert seen[-1] < 0.5 * seen[0]


@pytest.mark.parametrize("granularity", Granularity)
def test_naive_forms_give_the_same_masks(granularity: Granularity) -> None:
    agreement = mask_agreement(
        replace(BASE, granularity=granularity), SHAPE, CLASSES, [Selector.HEURISTIC, Selector.SINGLE]
    )
    assert agreement == {"heuristic-loop": 100.0, "single-naive": 100.0}


def test_another_mask_would_be_found() -> None:
    one = torch.tensor([[0, 1], [2, 3]])
    assert timing._overlap(one, one.flip(1), 5) == 1.0
    assert timing._overlap(one, torch.tensor([[0, 2], [4, 3]]), 5) == 0.5


def test_peak_memory_counts_what_a_step_holds(device: torch.device) -> None:
    def step() -> None:
        one = torch.zeros(2**18, device=device)  # 1 MiB
        other = one + 1  # 2 MiB held
        del one
        torch.mul(other, 2, out=other)

    assert peak_mib(step, device) == pytest.approx(2, abs=0.1)
