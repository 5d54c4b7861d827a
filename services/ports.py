"""Listening sockets. Who answers on them is not in here."""

import errno
import socket

import structlog

log = structlog.get_logger()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. If the wanted port is taken, it is on any free one, and the log says so."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            found.close()
            raise
        found.bind((host, 0))
        log.warning("port taken", wanted=port, instead=found.getsockname()[1])
    found.listen(128)
    return found
