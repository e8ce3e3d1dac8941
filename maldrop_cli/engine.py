"""Train one run. The data lie on the device as uint8 and are shuffled and normalised there."""

from __future__ import annotations

import hashlib
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from maldrop_cli import masks
from maldrop_cli.config import RunConfig, Schedule, UsageError
from maldrop_cli.datasets import ImageData, Split
from maldrop_cli.devices import device_name, synchronize, threads
from maldrop_cli.dropout import SCHEDULES, Step
from maldrop_cli.models import (
    Classifier,
    Normalise,
    build_model,
    hidden_width,
    lacks_deterministic_gradient,
    make_optimizer,
)
from maldrop_cli.results.records import EpochRow, RunRecord, Status, environment
from maldrop_cli.results.store import Store


def stream(seed: int, purpose: str) -> int:
    """The seed of one of a run's random streams, independent of the other streams and of the variant."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:7], "big")


def check_deterministic(config: RunConfig, device: torch.device) -> None:
    """UsageError where torch has no deterministic algorithm for what ``config`` asks of ``device``."""
    if config.deterministic and device.type == "cuda" and lacks_deterministic_gradient(config.model):
        raise UsageError(
            f"--deterministic: on CUDA torch has no deterministic gradient of {config.model}'s adaptive pooling; "
            "try --device cpu"
        )


def start_record(config: RunConfig, data: ImageData, digest: str, device: torch.device) -> RunRecord:
    """The record of a run that is about to begin; ``digest`` is that of ``data``."""
    return RunRecord(
        run_id=config.run_id(digest),
        config=config,
        data_digest=digest,
        environment=environment(str(device), device_name(device), threads()),
        hidden_width=hidden_width(config.model, config.depth, data.shape),
    )


def rho_of(config: RunConfig, width: int, epoch: int, batch: int, rng: random.Random | None = None) -> int:
    """How many of ``width`` neurons the run's schedule drops; ``epoch`` and ``batch`` as in :class:`Step`."""
    step = Step(
        epoch,
        batch,
        period=config.period,
        rng=rng,
        rate=config.rate,
        rho_end=config.rho_end,
        horizon=config.horizon,
    )
    return SCHEDULES[config.schedule.value](config.rho, width, step)


def rhos_of(config: RunConfig, units: int) -> tuple[int, ...] | None:
    """rho in each epoch, or None where it changes from batch to batch."""
    if config.schedule is Schedule.RANDOMIZED:
        return None
    if config.schedule is Schedule.PERIODIC and config.period > 1 and config.rho > 0:
        return None
    return tuple(rho_of(config, units, epoch, batch=0) for epoch in range(config.epochs))


def train_one(
    record: RunRecord,
    data: ImageData,
    device: torch.device,
    on_epoch: Callable[[EpochRow], None] = lambda row: None,
    clock: Callable[[], float] = time.perf_counter,
) -> RunRecord:
    """Train the run that ``record`` describes, on ``data`` (already on ``device``), and return the finished record.

    ``on_epoch`` is called after each epoch. Initial weights and the order of the batches depend on the seed alone, so
    that the runs of one seed are paired. ``train_seconds`` covers shuffling, normalising and the training steps, with
    the device synchronised before and after, and leaves out loading the data and evaluation. A loss that is not finite
    ends the run with the status ``diverged``.
    """
    with _determinism(record.config.deterministic):
        training = Training(record.config, data, device, clock)
        rows: list[EpochRow] = []
        while len(rows) < record.config.epochs:
            rows.append(training.epoch())
            on_epoch(rows[-1])
            if rows[-1].train_loss is None or rows[-1].val_loss is None:
                which = "training" if rows[-1].train_loss is None else "validation"
                reason = f"the {which} loss was not finite in epoch {rows[-1].epoch}; a lower --lr may help"
                return replace(record, epochs=tuple(rows), status=Status.DIVERGED, reason=reason)
    return replace(record, epochs=tuple(rows), status=Status.DONE, **training.mask_report())


class Training:
    """A run under way: all that changes from epoch to epoch, the random streams included."""

    def __init__(
        self, config: RunConfig, data: ImageData, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.config, self.data, self.device, self.clock = config, data, device, clock
        torch.manual_seed(stream(config.seed, "init"))
        noise = torch.Generator(device).manual_seed(stream(config.seed, "selector"))
        self.model = build_model(config, data.shape, len(data.classes), noise).to(device)
        torch.manual_seed(stream(config.seed, "dropout"))  # from here on the global stream is nn.Dropout's alone
        self.order = torch.Generator().manual_seed(stream(config.seed, "order"))
        self.schedule_rng = random.Random(stream(config.seed, f"schedule/{config.rho}"))
        self.normalise = Normalise(data.mean, data.std).to(device)
        self.optimizer = make_optimizer(self.model, config, device)
        self.tally = masks.Tally(masks.counted(self.model.head.regulariser))
        self.done = 0  # epochs

    def epoch(self) -> EpochRow:
        """Train one more epoch, and evaluate."""
        regulariser = self.model.head.regulariser
        regulariser.begin_epoch()
        before = regulariser.drop_totals()
        self.tally.begin()
        synchronize(self.device)
        begin = self.clock()
        loss, rhos = self._train()
        synchronize(self.device)
        seconds = self.clock() - begin
        val_loss, top1, top5 = evaluate(self.model, self.normalise, self.data.val, self.config.batch_size)
        dropped, offered = (now - was for now, was in zip(regulariser.drop_totals(), before, strict=True))
        self.done += 1
        return EpochRow(
            epoch=self.done,
            train_loss=_finite(loss),
            val_loss=_finite(val_loss),
            val_top1=top1,
            val_top5=top5,
            train_seconds=seconds,
            rho_mean=sum(rhos) / len(rhos) if rhos else None,
            drop_rate=100 * dropped / max(offered, 1),
            turnover=self.tally.end(),
            **self._fidelity(rhos),
        )

    def mask_report(self) -> dict[str, Any]:
        """The fields of RunRecord about the pass rates over all of training; none where nothing is counted."""
        rates = self.tally.pass_rates()
        if rates is None:
            return {}
        return {"never_passed": rates.never, "always_passed": rates.always, "pass_histogram": rates.histogram}

    def _train(self) -> tuple[float, list[int]]:
        """One pass over the training images: (mean loss, rho of each batch if it applies)."""
        config, train, regulariser = self.config, self.data.train, self.model.head.regulariser
        self.model.train()
        examples = len(train.labels)
        batches = torch.randperm(examples, generator=self.order).to(train.labels.device).split(config.batch_size)
        total = torch.zeros((), device=train.labels.device)
        rhos = []
        for number, index in enumerate(batches, start=self.done * len(batches)):
            images, labels = self.normalise(train.images[index]), train.labels[index]
            if config.has_rho:
                regulariser.rho = rho_of(config, regulariser.units, self.done, number, self.schedule_rng)
                rhos.append(regulariser.rho)
            loss = F.cross_entropy(self.model(images, labels), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(labels)
        return float(total) / examples, rhos

    def _fidelity(self, rhos: list[int]) -> dict[str, Any]:
        """The fields of EpochRow that the probe batch gives, in the epochs in which it is looked at: every so many, and
        the last."""
        every = self.config.fidelity_every
        if not every or (self.done % every and self.done != self.config.epochs):
            return {}
        probe, seed = masks.probe_images(self.data.train), stream(self.config.seed, "probe")
        found = masks.fidelity(self.model, self.normalise, probe, masks.typical_rho(rhos), seed)
        if found is None:
            return {}
        return {
            "probe_loss": _finite(found.loss),
            "raised_mask": _finite(found.mask),
            "raised_joint": _finite(found.joint),
            "raised_ceiling": _finite(found.ceiling),
        }


def train_or_reuse(
    config: RunConfig,
    data: ImageData,
    digest: str,
    device: torch.device,
    store: Store,
    *,
    fresh: bool,
    on_epoch: Callable[[EpochRow], None] = lambda row: None,
) -> tuple[RunRecord, bool]:
    """The stored run of ``config`` if it is finished and not ``fresh``, else a new one: (record, whether reused).

    A run that raises in torch, for want of memory say, becomes a record with the status ``failed`` and the reason.
    """
    stored = None if fresh else store.load(config.run_id(digest))
    if stored is not None and stored.finished:
        return stored, True
    record = start_record(config, data, digest, device)
    store.start(record)
    rows: list[EpochRow] = []

    def keep(row: EpochRow) -> None:
        rows.append(row)
        store.append(record.run_id, row)
        on_epoch(row)

    try:
        record = train_one(record, data, device, keep)
    except (RuntimeError, ValueError, MemoryError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        record = replace(record, epochs=tuple(rows), status=Status.FAILED, reason=reason)
    store.finish(record)
    return record, False


@torch.no_grad()
def evaluate(model: Classifier, normalise: Normalise, split: Split, batch_size: int) -> tuple[float, float, float]:
    """(mean loss in nats, top-1, top-5 in percent) with test scaling, in batches that training could hold."""
    model.eval()
    losses, hits = [], []
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        logits = model(normalise(images))
        losses.append(F.cross_entropy(logits, labels, reduction="sum"))
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)
        hits.append(torch.stack([best[:, 0].sum(), best.sum()]))
    examples = len(split.labels)
    top1, top5 = torch.stack(hits).sum(0).tolist()
    loss = float(torch.stack(losses).cpu().double().sum())  # on the CPU: not every device has float64
    return loss / examples, 100 * top1 / examples, 100 * top5 / examples


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Torch's deterministic algorithms while a run asks for them."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
