"""Listening sockets. Who answers on them is not in here."""

import errno
import socket

import structlog

from services.errors import FatalError

log = structlog.get_logger()


def listen(host: str, port: int, asked_by: str | None = None) -> socket.socket:
    """
    Return a listening socket; port 0 is any free one. If the port is taken, it is on a free one, and the log names
    that. A port that was asked for by a setting is not replaced: raises FatalError.
    """
    try:
        return _open(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise FatalError(f"nothing can listen on port {port} of {host}: {error.strerror}") from None
    if asked_by is not None:
        raise FatalError(
            f"port {port} of {host} is taken, and one that was asked for is not replaced by another; end what listens "
            f"there, or set {asked_by} to another port, or to 0 for any free one"
        )
    found = _open(host, 0)
    log.warning("port taken", wanted=port, instead=found.getsockname()[1])
    return found


def build_url(listener: socket.socket) -> str:
    """Return the HTTP address at which a listening socket is found."""
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _open(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # by its protocol asyncio knows that it may switch Nagle's algorithm off: docs/upstream-behaviour.md#x7
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except OSError:
        found.close()
        raise
    return found
