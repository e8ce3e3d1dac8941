"""Downloads: a server that does not answer is given up soon; an archive is unpacked whole or not at all."""

import contextlib
import socket
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

from maldrop_cli.data.dataset import NotCachedError, Source
from maldrop_cli.names import MaldropError, one_line

NETWORK_SECONDS = 8.0  # time for a server to answer


def reachable(url: str) -> bool:
    """Whether the server answers within ``NETWORK_SECONDS``; in a thread, as a name look-up knows no time-out."""
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(urllib.error.HTTPError):  # an error page is an answer
                urllib.request.urlopen(url, timeout=NETWORK_SECONDS).close()
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(NETWORK_SECONDS)
    return answered.is_set()


@contextlib.contextmanager
def fetching(source: Source, url: str, remedy: str) -> Iterator[None]:
    """Within, sockets time out, and every error becomes a MaldropError, one line that ends with ``remedy``."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        yield
    except NotCachedError:
        raise
    except Exception as error:  # torchvision and zipfile raise nearly anything
        problem = f"{source.config.dataset} can't be read from {source.root} or fetched from {url}: {one_line(error)}"
        raise MaldropError(f"{problem}; {remedy}, or use --dataset digits, which needs no files") from None
    finally:
        socket.setdefaulttimeout(before)


def fetch_archive(source: Source, url: str, md5: str, folder: str) -> Path:
    """``folder``, out of the zip archive at ``url``, put into ``source.root``, all of it or nothing. An archive that is
    there with this MD5 is not downloaded again. MaldropError, one line, if server, checksum, disk or archive fail."""
    from torchvision.datasets.utils import check_integrity, download_url

    root, archive = source.root, source.root / url.rpartition("/")[2]
    if source.cached:
        raise NotCachedError(f"no files in {root}", "unpacked" if archive.is_file() else "here")
    with fetching(source, url, f"put {archive.name} into {root}, or unpack it there"):
        if not check_integrity(archive, md5):
            if not reachable(url):
                found = f"{archive} is damaged (its MD5 is not {md5})" if archive.exists() else "no files there"
                raise ConnectionError(f"{found}, and the server does not answer")
            download_url(url, root, archive.name, md5)
        with tempfile.TemporaryDirectory(prefix=f".{folder}-", dir=root, ignore_cleanup_errors=True) as temporary:
            with zipfile.ZipFile(archive) as opened:
                members = opened.infolist()
                for done, member in enumerate(members, 1):
                    opened.extract(member, temporary)
                    if done % 1000 == 0 or done == len(members):
                        source.progress(f"unpacking {archive.name}", done, len(members))
            try:
                (Path(temporary) / folder).rename(root / folder)
            except OSError:
                if not (root / folder).is_dir():  # else another process was faster
                    raise
    return root / folder
