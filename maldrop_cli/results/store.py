"""Runs on disk: one folder a run, named by its id.

``config.json`` (the settings and where it runs) is written first, ``epochs.jsonl`` grows by a line an epoch, and
``result.json``, the whole record, appears at the end in one piece. A folder without a result is an unfinished run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from maldrop_cli.config import SCHEMA, MaldropError
from maldrop_cli.results.records import EpochRow, RunRecord, from_json, rows_from_json, to_json

Warn = Callable[[str], None]


class Store:
    """The runs in one folder. Every method raises MaldropError, one line, when the disk does not play along."""

    def __init__(self, root: Path, warn: Warn = lambda message: None) -> None:
        self.root = root
        self.warn = warn

    def prepare(self) -> None:
        """Create the folder, and find out now, not after an hour of training, whether it can be written."""
        with self._explained():
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            probe.write_text("maldrop")
            probe.unlink()

    def start(self, record: RunRecord) -> None:
        """Open the folder of a run that begins. A result of the same run stays until :meth:`finish` replaces it."""
        folder = self.root / record.run_id
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "epochs.jsonl").write_text("", encoding="utf-8")
            _write_atomically(folder / "config.json", {"schema": SCHEMA, **to_json(record)})

    def append(self, run_id: str, row: EpochRow) -> None:
        """Add one epoch to a run under way."""
        with self._explained(), (self.root / run_id / "epochs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def finish(self, record: RunRecord) -> None:
        """Write the final record."""
        with self._explained():
            _write_atomically(self.root / record.run_id / "result.json", {"schema": SCHEMA, **to_json(record)})

    def load(self, run_id: str) -> RunRecord | None:
        """A stored run, finished or not; None, after a warning if it is damaged, when there is nothing to read."""
        folder = self.root / run_id
        for name in ("result.json", "config.json"):
            try:
                stored = json.loads((folder / name).read_text(encoding="utf-8"))
                if stored["schema"] != SCHEMA:
                    raise ValueError(f"its schema is {stored['schema']}, and this version reads {SCHEMA}")
                record = from_json(stored)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError, MaldropError) as error:
                self.warn(f"{folder / name} is left out, as it is damaged or foreign ({type(error).__name__}: {error})")
                continue
            if name == "result.json":
                return record
            return replace(record, epochs=self._rows(folder))
        return None

    def scan(self) -> Iterator[RunRecord]:
        """Every readable run in the folder, in the order of their ids."""
        with self._explained():
            folders = sorted(path.name for path in self.root.iterdir() if (path / "config.json").is_file())
        for name in folders:
            if record := self.load(name):
                yield record

    def _rows(self, folder: Path) -> tuple[EpochRow, ...]:
        """The whole lines of ``epochs.jsonl``; a line cut short by a kill ends them."""
        rows: list[EpochRow] = []
        try:
            for line in (folder / "epochs.jsonl").read_text(encoding="utf-8").splitlines():
                rows += rows_from_json([json.loads(line)])
        except (OSError, ValueError, KeyError, TypeError):
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


def _write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Write beside the target and rename: a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
