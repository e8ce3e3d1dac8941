"""A zip archive from a server: torchvision's download and checksum, and an extraction that trusts no name in it."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from maldrop_cli.config import MaldropError
from maldrop_cli.data import network
from maldrop_cli.data.dataset import Progress, one_line

MAX_FILES, MAX_BYTES = 500_000, 2 * 2**30  # unpacked: four times what the largest archive here holds


def fetch(url: str, md5: str, root: Path, folder: str, name: str, progress: Progress) -> None:
    """Put ``folder``, out of the archive at ``url``, into ``root``; an archive that lies there is not downloaded again.

    MaldropError, one line, when server, checksum, disk or archive do not play along.
    """
    from torchvision.datasets.utils import check_integrity, download_url

    archive = root / url.rpartition("/")[2]
    remedy = f"For {name}: put {archive.name} into {root}, or unpack it there"
    remedy += ", or use --dataset digits, which needs no files"
    try:
        if not check_integrity(archive, md5):
            if not network.reachable(url):
                there = f"{archive} is damaged (its MD5 is not {md5})" if archive.exists() else f"no files in {root}"
                raise MaldropError(f"{there}, and {url} does not answer. {remedy}")
            with network.socket_timeout(network.NETWORK_SECONDS):
                download_url(url, root, archive.name, md5)
        extract(archive, root, folder, progress)
    except MaldropError:
        raise
    except Exception as error:  # torchvision and zipfile raise nearly anything
        raise MaldropError(f"fetching {url} into {root} failed: {one_line(error)}. {remedy}") from None


def extract(archive: Path, root: Path, folder: str, progress: Progress = lambda what, done, total: None) -> None:
    """Unpack ``archive``, all of which must lie in ``folder``, into ``root``: all of it or nothing.

    MaldropError for an archive that is damaged, too large, or holds anything but files and folders in ``folder``;
    OSError when the disk does not play along.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder}-", dir=root))
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _check(archive, members, folder)
            for done, member in enumerate(members, 1):
                opened.extract(member, temporary)
                if done % 1000 == 0 or done == len(members):
                    progress(f"unpacking {archive.name}", done, len(members))
        try:
            (temporary / folder).rename(root / folder)
        except OSError:
            if not (root / folder).is_dir():  # else another process was faster
                raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise MaldropError(f"{archive} is damaged: {one_line(error)}; delete it, and it is downloaded again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(archive: Path, members: list[zipfile.ZipInfo], folder: str) -> None:
    """Refuse an archive before anything of it is written. Sizes can't lie: zipfile writes no more than it promised."""
    for member in members:
        path = PurePosixPath(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
            raise MaldropError(f"{archive} is refused: {member.filename!r} leads out of its folder")
        if path.parts[:1] != (folder,):
            raise MaldropError(f"{archive} is refused: {member.filename!r} is not in {folder}/")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise MaldropError(f"{archive} is refused: {member.filename!r} is a link or a device")
    size = sum(member.file_size for member in members)
    if not members or len(members) > MAX_FILES or size > MAX_BYTES:
        raise MaldropError(
            f"{archive} is refused: {len(members):,} files of {size:,} bytes unpacked; "
            f"allowed are 1 to {MAX_FILES:,} of {MAX_BYTES:,}"
        )
