"""A listening socket on a port that is free. Who answers on it is not in here."""

import errno
import socket

import structlog

log = structlog.get_logger()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; any free port if the wanted one is taken, which the log then says."""
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
        log.warning("port", wanted=port, taken=True, instead=found.getsockname()[1])
    found.listen(128)
    return found
