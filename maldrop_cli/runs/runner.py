"""Train runs, or reuse stored ones: locks, checkpoints, resuming, and records of what failed."""

from __future__ import annotations

import functools
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from maldrop_cli.config import DataConfig, RunConfig
from maldrop_cli.data.load import ImageData, load
from maldrop_cli.machine import use_machine
from maldrop_cli.names import MaldropError, one_line
from maldrop_cli.record import TUNE, EpochRow, RunRecord, Status, rows_from_json
from maldrop_cli.robustness.evaluate import top1_under
from maldrop_cli.robustness.plan import RobustnessPlan
from maldrop_cli.runs import checkpoint
from maldrop_cli.runs.checkpoint import Checkpoint
from maldrop_cli.runs.events import Ended, Job, Progressed, Started, Stop, Tell, Train, Trained, Waiting, Warned
from maldrop_cli.runs.store import BlockedError, Store
from maldrop_cli.train import Training, evaluate, start_record, train_run

TELL_SECONDS = 0.5  # between two messages within an epoch


@dataclass(frozen=True)
class CheckpointPolicy:
    """Which checkpoints are written. ``every``: one in the run's folder after so many epochs, and when it is stopped;
    0: only then. ``start``: one to resume from, unless a later one lies in the folder. ``save``: the path for one of
    the finished run."""

    every: int = 0
    start: Checkpoint | None = None
    save: Path | None = None


@dataclass(frozen=True)
class RunnerSpec:
    """What a runner needs, to be sent to another process. ``digest``: of the data. ``threads``: CPU threads of a run,
    None: torch's default. ``fresh``: train again what is finished. ``workers``: concurrent runs, for the records.
    ``robustness``: what is measured beside accuracy; ``keep_weights``: of finished runs, to measure more later."""

    data: DataConfig
    data_dir: Path | None
    digest: str
    device: str
    threads: int | None
    out: Path
    fresh: bool = False
    checkpoints: CheckpointPolicy = CheckpointPolicy()
    workers: int = 1
    robustness: RobustnessPlan = field(default_factory=RobustnessPlan)
    keep_weights: bool = False

    def open(self) -> Train:
        """Load the data and find the device. MaldropError where the data are not those of the command: a file was
        changed since, or another machine has others."""
        device, data = use_machine(self.device, self.threads), load(self.data, self.data_dir)
        if data.digest != self.digest:
            raise MaldropError(
                f"the images of {self.data.dataset} changed since this began, or differ on another machine"
            )
        return Runner(self, data, device).train


class Runner:
    """Maps configs to records, on one data set and one device."""

    def __init__(self, spec: RunnerSpec, data: ImageData, device: torch.device) -> None:
        self.spec, self.data, self.device = spec, data, device
        self.store = Store(spec.out)

    @functools.cached_property
    def _data_on_device(self) -> ImageData:
        return self.data.to(self.device)

    def blank(self, config: RunConfig) -> RunRecord:
        """The record of a run that has not begun."""
        return start_record(config, self.data, self.spec.digest, self.device, self.spec.workers)

    def finished(self, config: RunConfig) -> RunRecord | None:
        """The stored record, if the run was trained and nothing is left to train or to measure, with the measurements
        that were asked for: a command shows the same whatever others measured before."""
        stored, plan = self._trained(config), self.spec.robustness
        return plan.asked(stored) if stored and plan.covered_by(stored) else None

    def _trained(self, config: RunConfig) -> RunRecord | None:
        stored = self.store.load(config.run_id(self.spec.digest))
        return stored if stored and stored.finished and not stored.trained_as else None

    def train(self, job: Job, tell: Tell, stop: Stop) -> Ended:
        """The stored run if it is finished, else a new one, resumed from its checkpoint.

        ``fresh`` trains again; a retry of the same command resumes all the same. A checkpoint to save can't be had
        without training either. While another process trains the run, this waits for it, if the job says so, else it
        ends at once with a record of no epochs. A run that raises, for want of memory say, becomes a record with the
        status ``failed`` and the reason; its checkpoint stays. So does one whose folder can't be used. MaldropError
        where the disk fails.
        """
        self.store.warn = lambda message: tell(Warned(message))
        try:
            return self._reuse_or_train(job, tell, stop)
        except BlockedError as error:
            return Ended(job, replace(self.blank(job.config), status=Status.FAILED, reason=str(error)), False)

    def _reuse_or_train(self, job: Job, tell: Tell, stop: Stop) -> Ended:
        spec, policy = self.spec, self.spec.checkpoints
        again = spec.fresh or policy.save is not None
        if not again and (stored := self.finished(job.config) or self._measured_again(job, tell)):
            return Ended(job, stored, True)
        record = self.blank(job.config)
        lock = self.store.lock(record.run_id, give_up=_now)
        if job.wait:
            lock = self.store.lock(record.run_id, lambda: tell(Waiting(job)), self._watching(job, record, tell, stop))
        with lock as locked:
            if not locked:
                return Ended(job, record, False)
            if not again and (stored := self.finished(job.config)):
                return Ended(job, stored, True)
            if policy.start:
                self._check_restorable(policy.start, "--resume")
            starts = [policy.start]
            if not spec.fresh or job.attempt:
                starts.append(self._stored_checkpoint(record.run_id, self.store.checkpoint(record.run_id)))
            start = max(filter(None, starts), key=lambda each: each.epochs, default=None)
            rows: tuple[EpochRow, ...] = ()
            if start:
                record, rows = _mark_moved(record, start), self._measured_rows(start, job.config)
                start = replace(start, training={**start.training, "rows": [asdict(row) for row in rows]})
            self.store.start(record, rows)
            tell(Started(job, len(rows)))
            return Ended(job, self._train(record, start, job, tell, stop), False)

    def _watching(self, job: Job, record: RunRecord, tell: Tell, stop: Stop) -> Stop:
        """``stop``, which tells meanwhile how far the process is that trains the run."""
        due = _Every(TELL_SECONDS)

        def watch() -> bool:
            if due() and (other := self.store.latest_try(record.run_id)):
                tell(Progressed(job, len(other.epochs)))
            return stop()

        return watch

    def _train(self, record: RunRecord, start: Checkpoint | None, job: Job, tell: Tell, stop: Stop) -> RunRecord:
        """Train the run, whose lock is held, and store everything as it comes."""
        policy, store, last, due = self.spec.checkpoints, self.store, start, _Every(TELL_SECONDS)

        def on_progress(epochs: float, row: EpochRow | None) -> None:
            if row:
                store.append(record.run_id, row)
                tell(Trained(job, row))
            elif due():
                tell(Progressed(job, epochs))

        def after_epoch(training: Training) -> bool:
            nonlocal last
            stopping, final = stop(), training.done == record.config.epochs
            due = bool(policy.every) and training.done % policy.every == 0
            if (policy.save or self.spec.keep_weights) if final else due or stopping:
                last = Checkpoint.of(record, training)
                if not final:
                    store.write_checkpoint(store.checkpoint(record.run_id), last)
            return stopping

        def measure(training: Training) -> dict[str, float]:
            due = self.spec.robustness.due(training.done, record.config.epochs)
            return self._measured(training) if due or training.done == record.config.epochs else {}

        try:
            state = start.training if start else None
            data, device = self._data_on_device, self.device
            ended = train_run(record, data, device, on_progress, state=state, measure=measure, after_epoch=after_epoch)
        except (MaldropError, OSError):  # the disk, or a listener: no fault of this run
            raise
        except Exception as error:
            return self._store_failure(record, f"{type(error).__name__}: {one_line(error)}")
        if ended.status is Status.UNFINISHED:
            return ended
        store.finish(ended)
        if ended.status is Status.DONE and last:
            if self.spec.keep_weights:
                store.write_checkpoint(store.weights(record.run_id), last)
            if policy.save:
                _save(policy.save, replace(last, config=ended.config))
        return ended

    def _measured_rows(self, start: Checkpoint, config: RunConfig) -> tuple[EpochRow, ...]:
        """Those of a checkpoint; of a shorter run, the last one was measured where this one is not."""
        rows, plan = rows_from_json(start.training["rows"]), self.spec.robustness
        return tuple(row if plan.due(row.epoch, config.epochs) else replace(row, measured={}) for row in rows)

    def _measured(self, training: Training) -> dict[str, float]:
        """EpochRow.measured of the network as it is."""
        size, plan, seed = training.config.batch_size, self.spec.robustness, training.config.seed
        model, normalise, tune = training.model, training.normalise, training.tune
        measured = top1_under(model, normalise, training.data.val, size, plan, seed)
        if tune is None:
            return measured
        loss, top1, top5 = evaluate(model, normalise, tune, size)
        of_tuning = {"val_loss": loss, "val_top1": top1, "val_top5": top5}
        of_tuning |= top1_under(model, normalise, tune, size, plan, seed)
        return measured | {f"{TUNE}{name}": value for name, value in of_tuning.items()}

    def _measured_again(self, job: Job, tell: Tell) -> RunRecord | None:
        """The record of a finished run with the robustness that it lacks, from its weights; None where they were not
        kept, or it is not finished."""
        stored = self._trained(job.config)
        if stored is None:
            return None
        weights, name = self.store.weights(stored.run_id), f"run {stored.run_id}"
        if not weights.exists():
            tell(Warned(f"{name} is trained again for --robustness, as its weights were not kept (--keep-weights)"))
            return None
        kept = self._stored_checkpoint(stored.run_id, weights)
        if kept is None:
            return None
        training = Training(job.config, self._data_on_device, self.device)
        training.restore(kept.training)
        before = stored.epochs[-1]
        last = replace(before, measured=before.measured | self._measured(training))
        record = replace(stored, epochs=(*stored.epochs[:-1], last))
        self.store.finish(record)
        tell(Warned(f"{name} is evaluated again from its weights, not trained"))
        return self.spec.robustness.asked(record)

    def record_failure(self, config: RunConfig, reason: str) -> RunRecord:
        """The record of a run whose worker died once too often. Nothing is written while another process trains it;
        nor if one has finished it, unless a fresh one was asked for."""
        record = self.blank(config)
        with self.store.lock(record.run_id, give_up=_now) as locked:
            if not self.spec.fresh and (stored := self.finished(config)):
                return stored
            if not locked:
                return replace(record, status=Status.FAILED, reason=reason)
            stored = self.store.load(record.run_id)
            if stored is None or stored.trained_as:
                self.store.start(record)
            return self._store_failure(record, reason)

    def store_remote(self, record: RunRecord) -> None:
        """Keep the record of a run whose worker, on another machine, does not share our folder."""
        if record.status is not Status.UNFINISHED and self.store.load(record.run_id) is None:
            self.store.start(record, record.epochs)
            self.store.finish(record)

    def _store_failure(self, record: RunRecord, reason: str) -> RunRecord:
        """The record of a run that failed after the epochs that are stored, stored in its turn."""
        failed = replace(self.store.latest_try(record.run_id) or record, status=Status.FAILED, reason=reason)
        self.store.finish(failed)
        return failed

    def _stored_checkpoint(self, run_id: str, path: Path) -> Checkpoint | None:
        """The checkpoint at ``path``, in the folder of a run; None, after a warning if one is there, when it can't be
        resumed."""
        try:
            if not path.exists():
                return None
            found = checkpoint.read(path)
            if found.config.run_id(found.data_digest) != run_id:
                raise MaldropError(f"the checkpoint {path} is that of another run")
            if found.device != self.device.type:
                raise MaldropError(f"the checkpoint {path} was made on {found.device}, this is {self.device.type}")
            self._check_restorable(found, str(path))
        except (MaldropError, OSError) as error:
            self.store.warn(f"{one_line(error)}: the run starts over")
            return None
        return found

    def _check_restorable(self, found: Checkpoint, name: str) -> None:
        """MaldropError where the state is not one of this network: then nothing has been touched yet."""
        try:
            Training(found.config, self._data_on_device, self.device).restore(found.training)
        except Exception as error:  # a forged state can raise nearly anything
            reason = f"{type(error).__name__}: {one_line(error)[:200]}"
            raise MaldropError(f"the checkpoint {name} can't be restored ({reason})") from None


class _Every:
    """Tells whether so many seconds have passed since it was made, or last said so."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True


def _now() -> bool:
    """Give up at once."""
    return True


def _mark_moved(record: RunRecord, start: Checkpoint) -> RunRecord:
    """``record``, marked if its first epochs were trained on another machine: their times are not to be compared."""
    moved = replace(record, environment=start.environment).machine != record.machine
    return replace(record, environment={**record.environment, "moved": True}) if moved else record


def _save(path: Path, content: Checkpoint) -> None:
    """Write the checkpoint of a finished run; MaldropError, one line, when the disk fails."""
    try:
        checkpoint.write(path, content)
    except OSError as error:
        reason = error.strerror or error
        raise MaldropError(f"the checkpoint can't be written to {path} ({reason}); the run itself is kept") from None
