"""Runs on disk: one folder a run, named by its id.

``config.json`` (the settings and where it runs) is written first, ``epochs.jsonl`` grows by a line an epoch, and
``result.json``, the whole record, appears at the end in one piece, with a checksum. A folder without a result is an
unfinished run; ``checkpoint.pt`` in it is what that goes on from. Whoever trains a run holds its lock, a lock of the
operating system, which ends with its process; where the file system has none (Lustre without ``-o flock``, NFS without
its daemon), a lease, a file that its holder renews. A point of a sweep that has the run of another is kept as a record
too, with ``trained_as``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from maldrop_cli.config import SCHEMA
from maldrop_cli.files import atomic_write, read_up_to
from maldrop_cli.names import MaldropError, one_line
from maldrop_cli.record import EpochRow, RunRecord, from_json, rows_from_json, to_json

if TYPE_CHECKING:
    from maldrop_cli.runs.checkpoint import Checkpoint

LOCKS = ".locks"
POLL_SECONDS = 0.1
LEASE_SECONDS = 60.0  # after which a lease that is not renewed, as its holder was killed, is anyone's
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
RECORD_BYTES = 2**27  # at most; a hundred thousand epochs take a third of it
DAMAGED = "left out of means, as its final record is damaged; the command that trained it trains it again"


class Store:
    """The runs in one folder. Every method raises MaldropError, one line, when the disk does not play along."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda message: None) -> None:
        self.root = root
        self.warn = warn

    def prepare(self) -> None:
        """Create the folder, and find out now, not after an hour of training, whether it can be written."""
        with self._explained():
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            probe.write_text("maldrop")
            probe.unlink()

    @contextmanager
    def lock(
        self, run_id: str, on_wait: Callable[[], None] = lambda: None, give_up: Callable[[], bool] = lambda: False
    ) -> Iterator[bool]:
        """Hold the lock of a run: yields whether it was had. While another process holds it, wait, after one call of
        ``on_wait``, until ``give_up`` returns True."""
        with self._explained():
            (self.root / LOCKS).mkdir(parents=True, exist_ok=True)
            path = self.root / LOCKS / f"{run_id}.lock"
            held: filelock.BaseFileLock = filelock.FileLock(path, fallback_to_soft=False)
            waited = False
            while not held.is_locked:
                try:
                    held.acquire(timeout=POLL_SECONDS if waited else 0)
                except filelock.Timeout:
                    if not waited:
                        on_wait()
                    if give_up():
                        break
                    if not waited and isinstance(held, filelock.SoftFileLease) and (owner := held.owner):
                        self.warn(
                            f"{held.lock_file} is held by process {owner.pid} on {owner.hostname.partition('?')[0]}; "
                            f"should that be dead, this goes on after {LEASE_SECONDS:g} s, or at once if the file is "
                            "deleted"
                        )
                    waited = True
                except OSError as error:
                    if error.errno not in NO_LOCKS or isinstance(held, filelock.SoftFileLease):
                        raise
                    held = filelock.SoftFileLease(path.with_suffix(".lease"), lease_duration=LEASE_SECONDS)
        try:
            yield held.is_locked
        finally:
            held.release()

    def start(self, record: RunRecord, rows: Sequence[EpochRow] = ()) -> None:
        """Open the folder of a run that begins, or that goes on after ``rows`` of a checkpoint; where there are none,
        an old checkpoint goes. A result of the same run stays until :meth:`finish` replaces it."""
        folder = self.root / record.run_id
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            for half_written in folder.glob(".*"):  # by a process that was killed
                half_written.unlink()
            if not rows:
                self.checkpoint(record.run_id).unlink(missing_ok=True)
            _write(folder / "epochs.jsonl", "".join(map(_line, rows)))
            _write(folder / "config.json", _with_checksum(record))

    def append(self, run_id: str, row: EpochRow) -> None:
        """Add one epoch to a run under way."""
        with self._explained(), (self.root / run_id / "epochs.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def finish(self, record: RunRecord) -> None:
        """Write the final record; of a run that has nothing left to train the checkpoint goes."""
        with self._explained():
            _write(self.root / record.run_id / "result.json", _with_checksum(record))
            if record.finished:
                self.checkpoint(record.run_id).unlink(missing_ok=True)

    def checkpoint(self, run_id: str) -> Path:
        """Where the checkpoint of a run under way lies."""
        return self.root / run_id / "checkpoint.pt"

    def weights(self, run_id: str) -> Path:
        """The path of the checkpoint that is kept of a finished run, if one is."""
        return self.root / run_id / "weights.pt"

    def write_checkpoint(self, path: Path, content: Checkpoint) -> None:
        """Write one of the checkpoints of a run."""
        from maldrop_cli.runs import checkpoint  # imports torch, which a report does without

        with self._explained():
            checkpoint.write(path, content)

    def load(self, run_id: str) -> RunRecord | None:
        """A stored run, finished or not; None, after a warning if it is damaged, when there is nothing to read.

        Beside a damaged result the epochs count as unfinished, for that ``reason``: no checksum stands for them.
        """
        ended = (self.root / run_id / "result.json").exists()
        if record := self._read(run_id, "result.json"):
            return record
        record = self.latest_try(run_id)
        return replace(record, reason=DAMAGED) if record and ended and not record.finished else record

    def latest_try(self, run_id: str) -> RunRecord | None:
        """As :meth:`load`, but what the latest try has come to, whatever an earlier one did."""
        record = self._read(run_id, "config.json")
        if record is None or record.finished:  # a point with the run of another is stored whole
            return record
        return replace(record, epochs=self._rows(self.root / run_id))

    def _read(self, run_id: str, name: str) -> RunRecord | None:
        path = self.root / run_id / name
        try:
            stored = json.loads(_content(path))
            if stored["schema"] != SCHEMA:
                raise ValueError(f"its schema is {stored['schema']}, and this version reads {SCHEMA}")
            if stored.pop("checksum", None) not in (None, _checksum(stored)):  # runs of 0.1 have none
                raise ValueError("its checksum is wrong")
            return from_json(stored)
        except FileNotFoundError:
            return None
        except Exception as error:  # nested too deep for Python, say: a foreign file can raise nearly anything
            reason = f"{type(error).__name__}: {one_line(error)[:200]}"
            self.warn(f"{path} is left out, as it is damaged or foreign ({reason})")
            return None

    def scan(self) -> Iterator[RunRecord]:
        """Every readable run in the folder, in the order of their ids."""
        with self._explained():
            folders = sorted(path.name for path in self.root.iterdir() if (path / "config.json").is_file())
        for name in folders:
            if record := self.load(name):
                yield record

    def write_alias(self, record: RunRecord) -> None:
        """Keep a point of a sweep that was trained as another under its own id, unless it was trained itself."""
        alias = record.config.run_id(record.data_digest)
        stored = self.load(alias)
        if stored is None or stored.trained_as:
            with self._explained():
                (self.root / alias).mkdir(exist_ok=True)
                for name in ("config.json", "result.json"):
                    _write(self.root / alias / name, _with_checksum(record))

    def _rows(self, folder: Path) -> tuple[EpochRow, ...]:
        """The whole lines of ``epochs.jsonl``; a line cut short by a kill ends them."""
        rows: list[EpochRow] = []
        try:
            for line in _content(folder / "epochs.jsonl").splitlines():
                rows += rows_from_json([json.loads(line)])
        except Exception:  # as in _read
            pass
        return tuple(rows)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise MaldropError(
                f"the results folder {self.root} fails: {reason}; --out DIR names another, and finished runs are kept"
            ) from None


def _content(path: Path) -> bytes:
    """As :func:`read_up_to`; ValueError for a pipe as well, which may never be written to."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    return read_up_to(RECORD_BYTES, path)


def _line(row: EpochRow) -> str:
    return json.dumps(asdict(row)) + "\n"


def _with_checksum(record: RunRecord) -> str:
    """A record as JSON, with its schema and a checksum over all the rest."""
    content = {"schema": SCHEMA, **to_json(record)}
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1)


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _write(path: Path, content: str) -> None:
    with atomic_write(path) as file:
        file.write(content.encode())
