"""A run under way on disk: all that is needed to resume it as if it had never stopped.

A checkpoint is what ``torch.save`` writes, tensors, numbers and words alone, with a checksum behind it; so
``torch.load(FILE, weights_only=True)`` reads it as well. It appears in one piece, and is believed only if the checksum
fits.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from maldrop_cli.config import SCHEMA, SETTINGS, RunConfig
from maldrop_cli.files import atomic_write
from maldrop_cli.names import MaldropError, UsageError, one_line, value_text
from maldrop_cli.record import RunRecord, environment_from_json, rows_from_json
from maldrop_cli.train import Training

FORMAT = 2  # raise it whenever older checkpoints can't be resumed
_MARK = b"maldrop-sha256:"
_TRAILER_BYTES = len(_MARK) + 64


@dataclass(frozen=True)
class Checkpoint:
    """``device``: a torch device type, as other types can't continue its random streams. ``environment``: as in the
    run's record. ``training``: what :meth:`maldrop_cli.train.Training.state` gives."""

    config: RunConfig
    data_digest: str
    device: str
    environment: dict[str, Any]
    training: dict[str, Any]

    @classmethod
    def of(cls, record: RunRecord, training: Training) -> Checkpoint:
        """The checkpoint of a run under way, to be written before it trains on."""
        where = dict(record.environment)
        return cls(record.config, record.data_digest, training.device.type, where, training.state())

    @property
    def epochs(self) -> int:
        """How many are done."""
        return len(self.training["rows"])


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Put it into ``path``, in one piece. OSError if the disk is full."""
    buffer = io.BytesIO()
    config = json.loads(json.dumps(asdict(checkpoint.config)))  # plain words: pickle writes enums by their class
    torch.save({"format": FORMAT, "schema": SCHEMA, **vars(checkpoint), "config": config}, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
        file.write(_MARK + hashlib.sha256(buffer.getbuffer()).hexdigest().encode())


def read(path: Path) -> Checkpoint:
    """MaldropError, one line, when there is none, or a damaged or a foreign one."""
    try:
        if path.exists() and not path.is_file():  # /dev/zero has no end
            raise OSError("it is no file")
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TRAILER_BYTES, 0))
            trailer = file.read()
            file.seek(0)
            content = file.read() if trailer.startswith(_MARK) else b""  # a foreign file may be of any size
    except OSError as error:
        raise MaldropError(f"the checkpoint {path} can't be read: {error.strerror or error}") from None
    payload = memoryview(content)[:-_TRAILER_BYTES]
    if trailer != _MARK + hashlib.sha256(payload).hexdigest().encode():
        raise MaldropError(f"{path} is no checkpoint, or a damaged one: its checksum is wrong or missing")
    try:
        stored = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        versions = stored.pop("format"), stored.pop("schema")
        if versions != (FORMAT, SCHEMA):
            raise ValueError(f"its format is {versions}, and this version reads {(FORMAT, SCHEMA)}")
        config, epochs = RunConfig.from_dict(stored["config"]), len(rows_from_json(stored["training"]["rows"]))
        if not 0 < epochs <= config.epochs:
            raise ValueError(f"it has {epochs} of {config.epochs} epochs behind it")
        if texts := [name for name in ("data_digest", "device") if not isinstance(stored[name], str)]:
            raise TypeError(f"{texts[0]} is {stored[texts[0]]!r}")
        environment = environment_from_json(stored["environment"])
        return Checkpoint(**stored | {"config": config, "environment": environment})
    except Exception as error:  # a foreign file can raise nearly anything
        raise MaldropError(
            f"the checkpoint {path} is foreign ({type(error).__name__}: {one_line(error)[:200]})"
        ) from None


def check_settings(path: Path, checkpoint: Checkpoint, config: RunConfig) -> None:
    """UsageError, naming the first setting that differs, unless ``config`` can resume ``checkpoint``. It may have
    more epochs, but no fewer than are done."""
    there, here = checkpoint.config.flat_settings(), config.flat_settings()
    for name in dict.fromkeys([*here, *there]):
        if name != "epochs" and there.get(name) != here.get(name):
            flag = (SETTINGS[name].flag or name).replace("_", "-")
            was, wanted = value_text(there.get(name), "(none)"), value_text(here.get(name), "(none)")
            a_word = was[0].isalnum() and not isinstance(there[name], bool)
            remedy = f"; --{flag} {was} goes on from it" if a_word else ""
            raise UsageError(
                "resume", f"{path} is a checkpoint of other settings: {flag} is {was} there and {wanted} here{remedy}"
            )
    if config.epochs < checkpoint.epochs:
        raise UsageError(
            "resume",
            f"{path} has {checkpoint.epochs} epochs behind it, more than --epochs {config.epochs}; "
            f"--epochs {checkpoint.epochs} or more goes on from it",
        )


def check_data(checkpoint: Checkpoint, digest: str, device: str) -> None:
    """UsageError where the images, or the type of device, are not those of ``checkpoint``."""
    if checkpoint.data_digest != digest:
        raise UsageError(
            "resume",
            f"this is a checkpoint of other data: the images of {checkpoint.config.data.dataset} "
            f"have the digest {checkpoint.data_digest[:8]} there and {digest[:8]} here",
        )
    if checkpoint.device != device:
        raise UsageError(
            "resume",
            f"this checkpoint was made on {checkpoint.device}, {device} has other random numbers; "
            f"--device {checkpoint.device} goes on from it",
        )
