"""Runs on disk: one folder a run, named by its id.

``config.json`` (the settings and where it runs) is written first, ``epochs.jsonl`` grows by a line an epoch, and
``result.json``, the whole record, appears at the end in one piece. All three have checksums, and are believed only in
the folder of their run. A folder without a result is an unfinished run; ``checkpoint.pt`` in it is what that goes on
from. Whoever trains a run holds its lock, a lock of the
operating system, which ends with its process; where the file system has none (Lustre without ``-o flock``, NFS without
its daemon), a lease, a file that its holder renews. A point of a sweep that has the run of another is kept as a record
too, with ``trained_as``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
FILES = ("config.json", "epochs.jsonl", "result.json", "checkpoint.pt", "weights.pt")  # of a run
BLOCKING = (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
DAMAGED = "left out of means, as its final record is damaged; the command that trained it trains it again"


class BlockedError(MaldropError):
    """What lies in the place of a run's files keeps that run from being stored, and no other."""


class Store:
    """The runs in one folder. Every method raises MaldropError, one line, when the disk does not play along."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda message: None) -> None:
        self.root = root
        self.warn = warn

    def prepare(self) -> None:
        """Create the folder, and find out now, not after an hour of training, whether it can be written."""
        with self._explained():
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix=".probe-", dir=self.root) as probe:
                probe.write(b"maldrop")
                probe.flush()

    @contextmanager
    def lock(
        self, run_id: str, on_wait: Callable[[], None] = lambda: None, give_up: Callable[[], bool] = lambda: False
    ) -> Iterator[bool]:
        """Hold the lock of a run: yields whether it was had. While another process holds it, wait, after one call of
        ``on_wait``, until ``give_up`` returns True."""
        with self._explained(run_id):
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
        with self._explained(record.run_id):
            folder = self._folder(record.run_id)
            if not rows:
                self.checkpoint(record.run_id).unlink(missing_ok=True)
            _write(folder / "epochs.jsonl", "".join(_line(record.run_id, row) for row in rows))
            _write(folder / "config.json", _with_checksum(record))

    def _folder(self, run_id: str) -> Path:
        """The folder of a run, made if need be; FileExistsError where anything but a file is in a file's place."""
        folder = self.root / run_id
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (folder / name).exists() and not (folder / name).is_file():
                raise FileExistsError(errno.EEXIST, "it is no file", str(folder / name))
            for half_written in folder.glob(f".{name}-*"):  # by a process that was killed
                with suppress(OSError):
                    half_written.unlink()
        return folder

    def append(self, run_id: str, row: EpochRow) -> None:
        """Add one epoch to a run under way."""
        with self._explained(), (self.root / run_id / "epochs.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(run_id, row))

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

        Beside a damaged result the epochs count as unfinished, for that ``reason``.
        """
        record, damage = self._read(run_id, "result.json")
        if record:
            return record
        record = self._latest_try(run_id, damage)
        return replace(record, reason=DAMAGED) if record and damage and not record.finished else record

    def latest_try(self, run_id: str) -> RunRecord | None:
        """As :meth:`load`, but what the latest try has come to, whatever an earlier one did."""
        return self._latest_try(run_id)

    def _latest_try(self, run_id: str, damage: str = "") -> RunRecord | None:
        """``damage``: of the result, said in place of that of the settings: one line a folder."""
        record, more = self._read(run_id, "config.json")
        if damage or more:
            self.warn(damage or more)
        if record is None or record.finished:  # a point with the run of another is stored whole
            return record
        return replace(record, epochs=self._rows(run_id))

    def _read(self, run_id: str, name: str) -> tuple[RunRecord | None, str]:
        """A record, or what is wrong with its file; neither where there is no file."""
        path = self.root / run_id / name
        try:
            stored = json.loads(_content(path))
            if stored["schema"] != SCHEMA:
                raise ValueError(f"its schema is {stored['schema']}, and this version reads {SCHEMA}")
            if "checksum" not in stored:
                raise ValueError("it has no checksum, as in runs of maldrop 0.1; its command trains it again")
            if stored.pop("checksum") != _checksum(stored):
                raise ValueError("its checksum is wrong")
            record = from_json(stored)
            trained, digest = record.trained_as or record.config, record.data_digest
            if (own := record.config.run_id(digest)) != run_id or trained.run_id(digest) != record.run_id:
                raise ValueError(f"it is the record of run {own}")
            return record, ""
        except (FileNotFoundError, NotADirectoryError):
            return None, ""
        except Exception as error:  # nested too deep for Python, say: a foreign file can raise nearly anything
            return None, f"{path} is left out, as it is damaged or foreign ({_reason(error)})"

    def scan(self) -> Iterator[RunRecord]:
        """Every readable run in the folder, in the order of their ids."""
        with self._explained():
            folders = sorted(path.name for path in self.root.iterdir() if path.name != LOCKS)
        for name in folders:
            if record := self.load(name):
                yield record

    def write_alias(self, record: RunRecord) -> None:
        """Keep a point of a sweep that was trained as another under its own id, unless it was trained itself. Where it
        can't be kept, that is a warning: the run itself is."""
        alias = record.config.run_id(record.data_digest)
        stored = self.load(alias)
        if stored is None or stored.trained_as:
            try:
                with self._explained(alias):
                    folder = self._folder(alias)
                    for name in ("config.json", "result.json"):
                        _write(folder / name, _with_checksum(record))
            except BlockedError as error:
                self.warn(str(error))

    def _rows(self, run_id: str) -> tuple[EpochRow, ...]:
        """The lines of ``epochs.jsonl`` up to one that is damaged, of another run or out of turn, which is said; a line
        cut short by a kill is none. Where no line has a checksum, an earlier version wrote them all."""
        path, rows = self.root / run_id / "epochs.jsonl", list[EpochRow]()
        try:
            lines = [line for line in _content(path).splitlines(keepends=True) if line.endswith(b"\n")]
            checked = any(b'"checksum"' in line for line in lines)
            for line in lines:
                stored = json.loads(line)
                if checked and stored.pop("checksum", None) != _checksum({"run_id": run_id, **stored}):
                    raise ValueError("its checksum is wrong")
                rows += rows_from_json([stored], first=len(rows) + 1)
        except FileNotFoundError:
            pass
        except Exception as error:  # as in _read
            self.warn(f"{path} is left out from epoch {len(rows) + 1} on, as it is damaged ({_reason(error)})")
        return tuple(rows)

    @contextmanager
    def _explained(self, run_id: str = "") -> Iterator[None]:
        """With ``run_id``, what stands in the way of that run alone is a BlockedError."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if run_id and isinstance(error, BLOCKING):
                raise BlockedError(
                    f"{error.filename or self.root / run_id} is in the way of a run: {reason}; move it elsewhere"
                ) from None
            raise MaldropError(
                f"the results folder {self.root} fails: {reason}; --out DIR names another, and finished runs are kept"
            ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {one_line(error)[:200]}"


def _content(path: Path) -> bytes:
    """As :func:`read_up_to`; ValueError for a pipe as well, which may never be written to."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    return read_up_to(RECORD_BYTES, path)


def _line(run_id: str, row: EpochRow) -> str:
    """An epoch as JSON, with a checksum that holds in the folder of its run alone."""
    content = asdict(row)
    return json.dumps({**content, "checksum": _checksum({"run_id": run_id, **content})}) + "\n"


def _with_checksum(record: RunRecord) -> str:
    """A record as JSON, with its schema and a checksum over all the rest."""
    content = {"schema": SCHEMA, **to_json(record)}
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1)


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _write(path: Path, content: str) -> None:
    with atomic_write(path) as file:
        file.write(content.encode())
