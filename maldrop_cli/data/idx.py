"""The four IDX files of MNIST and Fashion-MNIST as people have them: unpacked or not, dashes or dots in their names."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from maldrop_cli.data.dataset import Split
from maldrop_cli.names import MaldropError, one_line

NAMES = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
FOLDERS = {"MNIST", "FashionMNIST"}  # torchvision's, whose files have the same names
SIDE, CLASSES = 28, 10


def find(root: Path, folder: str) -> dict[str, Path]:
    """The files that are there, by their names in ``NAMES``, from where most of them are: ``folder``/raw, which is
    torchvision's place, ``folder``, raw, ``root`` itself. None where torchvision has those of the other data set."""
    places = [root / folder / "raw", root / folder]
    if not (FOLDERS - {folder}).intersection(root.parts):
        places += [root / "raw", root]
    return max(map(_files, places), key=len)


def _files(place: Path) -> dict[str, Path]:
    """Those of ``NAMES`` that are in ``place``."""
    spelled = {
        name: [place / f"{spelling}{end}" for end in ("", ".gz") for spelling in (name, name.replace("-idx", ".idx"))]
        for name in NAMES
    }
    found = {name: [path for path in paths if path.is_file()] for name, paths in spelled.items()}
    return {name: paths[0] for name, paths in found.items() if paths}


def what_is_there(root: Path, files: dict[str, Path]) -> str:
    """For a message about files that are missing."""
    if files:
        missing = ", ".join(name for name in NAMES if name not in files)
        return f"{', '.join(path.name for path in files.values())} found, but no {missing}"
    others = sorted(path.name for path in root.iterdir())[:4] if root.is_dir() else []
    return f"none of the four files there, but {', '.join(others)}" if others else "no files there"


def read(files: dict[str, Path]) -> tuple[Split, Split]:
    """Training and test images, uint8 (N, 1, 28, 28). ``files``: all four. MaldropError that names the damaged one, or
    those that do not belong together."""
    splits = []
    for part in (NAMES[:2], NAMES[2:]):
        images_path, labels_path = (files[name] for name in part)
        images, labels = _read(images_path, 3), _read(labels_path, 1)
        if images.shape[1:] != (SIDE, SIDE):
            raise MaldropError(f"{images_path} has images of {images.shape[1]}x{images.shape[2]}, not {SIDE}x{SIDE}")
        if len(images) != len(labels):
            raise MaldropError(f"{images_path} has {len(images):,} images, {labels_path} has {len(labels):,} labels")
        if int(labels.max()) >= CLASSES:
            raise MaldropError(f"{labels_path} has a label {int(labels.max())}: they go from 0 to {CLASSES - 1}")
        splits.append(Split(images.unsqueeze(1), labels))
    train, test = splits
    return train, test


def _read(path: Path, dimensions: int) -> Tensor:
    """The bytes of an IDX file, packed by gzip or not, in their shape; none of its sides is 0."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):  # by what it is: browsers unpack a .gz and leave its name
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise MaldropError(f"{path} can't be read: {one_line(error)}; replace it") from None
    start = 4 * (1 + dimensions)
    if not content.startswith(struct.pack(">I", 0x800 + dimensions)) or len(content) < start:
        wanted = f"IDX file of bytes in {dimensions} dimension{'s' * (dimensions > 1)}"
        raise MaldropError(
            f"{path} is no {wanted}: it begins with {content[:40]!r}, as a web page or a pointer file might; replace it"
        )
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if not (size := math.prod(shape)) or len(content) - start != size:
        promised = "x".join(map(str, shape))
        raise MaldropError(f"{path} should hold {promised} bytes, but holds {len(content) - start:,}; replace it")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)
