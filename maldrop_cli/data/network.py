"""Asking a download server for a sign of life before waiting for its files."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

NETWORK_SECONDS = 8.0  # to wait for that sign


def reachable(url: str) -> bool:
    """Whether the server says anything within ``NETWORK_SECONDS``; a thread, as a name look-up knows no time-out."""
    import urllib.error
    import urllib.request

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
def socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
