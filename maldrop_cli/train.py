"""Train one run. The data lie on the device as uint8 and are shuffled and normalised there."""

from __future__ import annotations

import hashlib
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maldrop_cli import mask_metrics
from maldrop_cli.config import RunConfig
from maldrop_cli.data.load import ImageData, Split
from maldrop_cli.data.subsets import training_parts
from maldrop_cli.machine import environment, random_state, set_random_state, synchronize
from maldrop_cli.models import Classifier, Normalise, build_model, describe_head, make_optimizer
from maldrop_cli.models.torchvision import lacks_deterministic_gradient
from maldrop_cli.models.variants import rho_of
from maldrop_cli.names import UsageError
from maldrop_cli.record import PROBED, EpochRow, RunRecord, Status, rows_from_json


def stream(seed: int, purpose: str) -> int:
    """The seed of one of a run's random streams, independent of the other streams and of the variant."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:7], "big")


def check_deterministic(config: RunConfig, device: torch.device) -> None:
    """UsageError where torch has no deterministic algorithm for what ``config`` asks of ``device``."""
    if config.deterministic and device.type == "cuda" and lacks_deterministic_gradient(config.model):
        raise UsageError(
            "deterministic",
            f"on CUDA torch has no deterministic gradient of {config.model}'s adaptive pooling; try --device cpu",
        )


def start_record(config: RunConfig, data: ImageData, digest: str, device: torch.device, workers: int = 1) -> RunRecord:
    """The record of a run that is about to begin, one of ``workers`` at a time; ``digest`` is that of ``data``."""
    return RunRecord(
        run_id=config.run_id(digest),
        config=config,
        data_digest=digest,
        environment=environment(device, workers),
        hidden_width=describe_head(config, data.shape, len(data.classes)).width,
    )


def train_run(
    record: RunRecord,
    data: ImageData,
    device: torch.device,
    on_progress: Callable[[float, EpochRow | None], None] = lambda epochs, row: None,
    clock: Callable[[], float] = time.perf_counter,
    *,
    state: dict[str, Any] | None = None,
    measure: Callable[[Training], dict[str, float]] = lambda training: {},
    after_epoch: Callable[[Training], bool] = lambda training: False,
) -> RunRecord:
    """Train the run that ``record`` describes, on ``data`` (already on ``device``), and return the finished record.

    After each batch ``on_progress`` is called with the epochs trained by then, a fraction. After each epoch ``measure``
    gives the ``measured`` of its row, ``on_progress`` is called with the row, and ``after_epoch``; when that returns
    True, the run stops there, unfinished. ``state``, of :meth:`Training.state`, is what it goes
    on from: on a CPU with as many threads the numbers are those of a run that never stopped, bit for bit. Initial
    weights and the order of the batches depend on the seed alone, so that the runs of one seed are paired.
    ``train_seconds`` covers shuffling, normalising and the training steps, with the device synchronised before and
    after, and leaves out loading the data and evaluation. A loss that is not finite ends the run with the status
    ``diverged``."""
    with _determinism(record.config.deterministic):
        training = Training(record.config, data, device, clock)
        if state is not None:
            training.restore(state)
        training.on_batch = lambda epochs: on_progress(epochs, None)
        while training.done < record.config.epochs:
            row = training.epoch()
            row = replace(row, measured=measure(training))
            training.rows[-1] = row
            on_progress(row.epoch, row)
            record = replace(record, epochs=tuple(training.rows))
            if row.train_loss is None or row.val_loss is None:
                which = "training" if row.train_loss is None else "validation"
                reason = f"the {which} loss was not finite in epoch {row.epoch}; a lower --lr may help"
                return replace(record, status=Status.DIVERGED, reason=reason)
            if after_epoch(training) and training.done < record.config.epochs:
                return record
    return replace(record, epochs=tuple(training.rows), status=Status.DONE, **training.drop_counter.pass_rates())


ENOUGH_SECONDS = 0.2  # of training, to tell how long an epoch takes
LONG_SECONDS = 2.0  # beside which the slowness of a first step is small


def seconds_of_epoch(
    config: RunConfig, data: ImageData, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Training time of an epoch, in proportion to that of its first batches: one to warm up, then one, and four times
    as many until they take ``ENOUGH_SECONDS``; the first alone if it takes ``LONG_SECONDS``. ``data`` are on
    ``device``."""
    examples = len(training_parts(data.train, config)[0].labels)
    bare = replace(config, fidelity_every=0, train_images=0, tune_split=0.0)

    def trained(images: int) -> float:
        part = replace(data, train=data.train[:images], val=data.val[: config.batch_size])
        return Training(bare, part, device, clock).epoch().train_seconds

    with _determinism(config.deterministic):
        images = min(config.batch_size, examples)
        seconds = trained(images)
        while seconds < LONG_SECONDS:
            seconds = trained(images)
            if seconds >= ENOUGH_SECONDS or images == examples:
                break
            images = min(4 * images, examples)
    return seconds * examples / images


class Training:
    """A run under way: all that changes from epoch to epoch, the random streams included."""

    def __init__(
        self, config: RunConfig, data: ImageData, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        train, self.tune = training_parts(data.train, config)
        self.config, self.data, self.device, self.clock = config, replace(data, train=train), device, clock
        torch.manual_seed(stream(config.seed, "init"))
        self.noise = torch.Generator(device).manual_seed(stream(config.seed, "selector"))
        self.model = build_model(config, data.shape, len(data.classes), self.noise).to(device)
        torch.manual_seed(stream(config.seed, "dropout"))  # from here on the global stream is nn.Dropout's alone
        self.order = torch.Generator().manual_seed(stream(config.seed, "order"))
        self.schedule_rng = random.Random(stream(config.seed, f"schedule/{config.rho}"))
        self.normalise = Normalise(data.mean, data.std).to(device)
        self.optimizer = make_optimizer(self.model, config, device)
        self.drop_counter = mask_metrics.DropCounter(mask_metrics.counted(self.model.head.regulariser))
        self.rows: list[EpochRow] = []
        self.on_batch: Callable[[float], None] = lambda epochs: None

    @property
    def done(self) -> int:
        """Epochs."""
        return len(self.rows)

    def state(self) -> dict[str, Any]:
        """All that :meth:`restore` needs: tensors, which training goes on to change, numbers and words."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "model": self.model.state_dict(),  # the regulariser's counts among it
            "optimizer": self.optimizer.state_dict(),
            "drop_counter": self.drop_counter.state(),
            "global_rng": random_state(self.device),
            "noise": self.noise.get_state(),
            "order": self.order.get_state(),
            "schedule_rng": self.schedule_rng.getstate(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, that of a run alike in all but the number of epochs, on a device of the same type."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.drop_counter.restore(state["drop_counter"])
        set_random_state(self.device, state["global_rng"])
        self.noise.set_state(state["noise"])
        self.order.set_state(state["order"])
        self.schedule_rng.setstate(state["schedule_rng"])
        # a run that is made longer was looked at after what was its last epoch
        nothing: dict[str, Any] = dict.fromkeys(PROBED)
        self.rows = [
            row if self._should_probe(row.epoch) else replace(row, **nothing) for row in rows_from_json(state["rows"])
        ]

    def epoch(self) -> EpochRow:
        """Train one more epoch, and evaluate."""
        regulariser = self.model.head.regulariser
        regulariser.begin_epoch()
        before = regulariser.drop_totals()
        self.drop_counter.begin()
        synchronize(self.device)
        begin = self.clock()
        loss, rhos = self._train()
        synchronize(self.device)
        seconds = self.clock() - begin
        val_loss, top1, top5 = evaluate(self.model, self.normalise, self.data.val, self.config.batch_size)
        dropped, offered = (now - was for now, was in zip(regulariser.drop_totals(), before, strict=True))
        epoch = self.done + 1
        row = EpochRow(
            epoch=epoch,
            train_loss=_finite(loss),
            val_loss=_finite(val_loss),
            val_top1=top1,
            val_top5=top5,
            train_seconds=seconds,
            rho_mean=sum(rhos) / len(rhos) if rhos else None,
            drop_rate=100 * dropped / max(offered, 1),
            turnover=self.drop_counter.end(),
            **self._fidelity(epoch, rhos),
        )
        self.rows.append(row)
        return row

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
            self.on_batch((number + 1) / len(batches))
        return float(total) / examples, rhos

    def _should_probe(self, epoch: int) -> bool:
        """Whether the masks are compared on the probe batch after ``epoch``: after every so many, and the last."""
        every = self.config.fidelity_every
        return bool(every) and (epoch % every == 0 or epoch == self.config.epochs)

    def _fidelity(self, epoch: int, rhos: list[int]) -> dict[str, Any]:
        """The fields of EpochRow that the probe batch gives, in the epochs in which it is looked at."""
        if not self._should_probe(epoch):
            return {}
        probe, seed = mask_metrics.probe_images(self.data.train), stream(self.config.seed, f"probe/{self.done}")
        found = mask_metrics.fidelity(self.model, self.normalise, probe, mask_metrics.typical_rho(rhos), seed)
        if found is None:
            return {}
        return dict(zip(PROBED, map(_finite, (found.loss, found.mask, found.joint, found.ceiling)), strict=True))


@torch.no_grad()
def evaluate(model: Classifier, normalise: Normalise, split: Split, batch_size: int) -> tuple[float, float, float]:
    """(mean loss in nats, top-1, top-5 in percent) with test scaling, in batches that training could hold."""
    model.eval()
    losses, hits = [], []
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        logits = model(normalise(images))
        losses.append(F.cross_entropy(logits, labels, reduction="sum"))
        best = best_hits(logits, labels)
        hits.append(torch.stack([best[:, 0].sum(), best.sum()]))
    examples = len(split.labels)
    top1, top5 = torch.stack(hits).sum(0).tolist()
    loss = float(torch.stack(losses).cpu().double().sum())  # on the CPU: not every device has float64
    return loss / examples, 100 * top1 / examples, 100 * top5 / examples


def best_hits(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Whether each of the five highest logits, or of all, is that of the label; the highest first."""
    return logits_NC.topk(min(5, logits_NC.shape[1]), dim=1).indices == labels_N.unsqueeze(1)


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
