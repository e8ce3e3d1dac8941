"""What a training step costs: the steps of all variants, interleaved, on one batch."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli.config import Dropout, Granularity, RunConfig, Selector
from maldrop_cli.devices import synchronize
from maldrop_cli.dropout import SELECTORS, Regulariser, TargetedDropout
from maldrop_cli.dropout.naive import NAIVE
from maldrop_cli.dropout.scores import LastLayer, Options, omega_value
from maldrop_cli.dropout.selectors import Select, top_rho
from maldrop_cli.models import Classifier, Shape, build_model, make_optimizer

WARM_UP = 3  # steps of each subject that are thrown away
SAMPLE_SECONDS = 0.02  # a sample holds as many steps as fit, at least one: far above a clock's resolution
MOST_STEPS = 200
NAIVE_SAMPLES = 3

Clock = Callable[[], float]
Tick = Callable[[str, int, int], None]  # what, rounds done, rounds in all


@dataclass(frozen=True)
class Subject:
    """Something to time. ``naive``: so slow that a few samples must do."""

    name: str
    step: Callable[[], None]
    naive: bool = False


def subjects(
    configs: Sequence[RunConfig], shape: Shape, classes: int, device: torch.device, *, naive: bool
) -> list[Subject]:
    """A whole training step for each config, on one random batch; with ``naive``, ``maldrop`` is followed by its naive
    form if its selector has one."""
    generator = torch.Generator().manual_seed(0)
    batch_size = configs[0].batch_size
    images = torch.randn((batch_size, *shape), generator=generator).to(device)
    labels = torch.randint(0, classes, (batch_size,), generator=generator).to(device)

    def subject(name: str, config: RunConfig, select: Select | None = None) -> Subject:
        torch.manual_seed(0)
        noise = torch.Generator(device).manual_seed(0)
        model = build_model(config, shape, classes, noise).to(device).train()
        if select is not None:
            _replace_selector(model.head.regulariser, name, select)
        optimizer = make_optimizer(model, config, device)
        return Subject(name, _step(model, optimizer, images, labels), naive=select is not None)

    made = []
    for config in configs:
        made.append(subject(subject_name(config), config))
        if naive and config.dropout is Dropout.MALDROP:
            made += [subject(form, config, top_rho(NAIVE[form][1])) for form in _naive_forms(config.selector)]
    return made


def subject_name(config: RunConfig) -> str:
    """``maldrop`` goes by the name of its selector."""
    return str(config.selector if config.dropout is Dropout.MALDROP else config.dropout)


def _replace_selector(regulariser: Regulariser, name: str, select: Select) -> None:
    """Let ``regulariser`` choose by ``select``, a naive form that no registry has under its ``name``."""
    assert isinstance(regulariser, TargetedDropout)
    regulariser.selector = name  # known to no fused kernel, which would not ask `select`
    rho, options = regulariser.rho, regulariser.options
    regulariser.select = lambda layer: select(layer, rho, options)  # type: ignore[method-assign]


def _naive_forms(selector: Selector) -> list[str]:
    return [name for name, (fast, _) in NAIVE.items() if fast == selector.value]


def _step(model: Classifier, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Callable[[], None]:
    def step() -> None:
        loss = F.cross_entropy(model(images, labels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(
    subjects: Sequence[Subject],
    device: torch.device,
    rounds: int,
    *,
    clock: Clock = time.perf_counter,
    tick: Tick = lambda what, done, total: None,
    rng: random.Random | None = None,
) -> dict[str, list[float]]:
    """Seconds a step, one sample a subject and round, in random order within each round.

    Naive subjects take part in the first ``NAIVE_SAMPLES`` rounds, without warm-up of their own. The device is
    synchronised before and after each sample.
    """
    rng = rng or random.Random(0)

    def sample(subject: Subject, steps: int) -> float:
        synchronize(device)
        begin = clock()
        for _ in range(steps):
            subject.step()
        synchronize(device)
        return (clock() - begin) / steps

    steps = {subject.name: 1 for subject in subjects}
    for subject in subjects:
        if not subject.naive:
            warm = [sample(subject, 1) for _ in range(WARM_UP)]
            steps[subject.name] = max(1, min(MOST_STEPS, round(SAMPLE_SECONDS / max(warm[-1], 1e-9))))
    samples: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for done in range(rounds):
        present = [subject for subject in subjects if not subject.naive or done < NAIVE_SAMPLES]
        for subject in rng.sample(present, len(present)):
            samples[subject.name].append(sample(subject, steps[subject.name]))
        tick("timing rounds", done + 1, rounds)
    return samples


def peak_mib(step: Callable[[], None], device: torch.device) -> float:
    """The most memory, in MiB, that one step holds beyond what was held before it."""
    if device.type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if device.type != "cpu":
        return float("nan")
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    held = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def mask_agreement(base: RunConfig, shape: Shape, classes: int, selectors: Sequence[Selector]) -> Mapping[str, float]:
    """For each naive form of ``selectors``, the share of its dropped neurons, in percent, that its fast form drops too:
    on a random batch of 8, from the same fresh network, in float64 on the CPU."""
    torch.manual_seed(0)
    model = build_model(replace(base, dropout=Dropout.NONE), shape, classes)
    labels = torch.randint(0, classes, (8,))
    with torch.no_grad():
        hidden = model.backbone(torch.randn((8, *shape))).double()
        bias = None if model.head.bias is None else model.head.bias.double()
        layer = LastLayer(hidden, model.head.weight.double(), bias, labels)
    options = Options(omega_value(base.omega, hidden.shape[1], classes), base.granularity is Granularity.SAMPLE)
    agreement = {}
    for selector in selectors:
        fast = SELECTORS[selector.value](layer, base.rho, options)
        for name in _naive_forms(selector):
            slow = top_rho(NAIVE[name][1])(layer, base.rho, options)
            agreement[name] = 100 * _overlap(fast, slow, hidden.shape[1])
    return agreement


def _overlap(one: Tensor, other: Tensor, width: int) -> float:
    """The share of the indices in ``other`` that ``one`` has too, row by row."""
    masks = [
        torch.zeros((*index.shape[:-1], width), dtype=torch.bool, device=index.device).scatter_(-1, index, True)
        for index in (one, other)
    ]
    return float((masks[0] & masks[1]).sum() / max(int(masks[1].sum()), 1))
