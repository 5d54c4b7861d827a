"""What strangers may take of an HTTP port: connections, time, bytes, guesses of a token. No route is in here."""

import asyncio
import errno
import resource
from collections import Counter
from ipaddress import IPv6Address, ip_address
from time import monotonic
from typing import Any, ClassVar, cast

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

log = structlog.get_logger()

MAX_CONNECTIONS = 1_000  # a half of them from one peer
RESERVED_FILES = 160  # for store and bus, and for connections that are accepted before the limit is applied
ACCEPTED_AT_ONCE = 32
MAX_REQUEST_BYTES = 16 * 1024  # head and body; nothing that is asked here needs a body
REQUEST_SECONDS = 10.0  # from the connection, or the answer before, to the end of a request
READER_SECONDS = 60.0  # in which who gets an answer has read some of it
MAX_GUESSES = 10  # wrong tokens of a peer
GUESS_DELAY = 0.3  # seconds until a wrong token is refused
LOCKOUT_SECONDS = 60.0  # since the last wrong token
MAX_REMEMBERED_PEERS = 1_000  # with a wrong token
LOG_INTERVAL = 60.0  # seconds between two lines about the same

OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def count_allowed_connections() -> int:
    """Return how many connections there may be: fewer where the process may open few files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files < 0 else max(16, min(MAX_CONNECTIONS, files - RESERVED_FILES))


def identify_peer(client: tuple[str, int] | None) -> str:
    """Return who has a connection: its address; of IPv6 the network of 64 bits, of which one peer has every address."""
    address = ip_address(client[0]) if client else None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64)
    return str(address)


class RareWarning:
    """A line of the log about what strangers can make happen at will: at most one a minute, with how often it has."""

    def __init__(self, event: str) -> None:
        self._event, self._times, self._next = event, 0, 0.0

    def record(self, **fields: object) -> None:
        """Count it, and log it unless it was logged a moment ago."""
        self._times += 1
        if (now := monotonic()) >= self._next:
            log.warning(self._event, times=self._times, **fields)
            self._times, self._next = 0, now + LOG_INTERVAL


class LimitedProtocol(H11Protocol):
    """
    HTTP of uvicorn, which has none of these limits. If there are too many connections, the one that has shown no
    request for the longest time is closed for a new one: who asks something at once is answered.
    """

    _too_many: ClassVar = RareWarning("too many connections")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.peer = identify_peer(self.client)
        self._stalled: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._await_request()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received <= MAX_REQUEST_BYTES:
            super().data_received(data)
        elif self.conn.their_state is h11.IDLE:
            self.send_400_response(f"The request is larger than {MAX_REQUEST_BYTES} bytes.")
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(READER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    @property
    def is_answering(self) -> bool:
        """Whether a request has come, and its answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._received, self._waits_since = 0, self.loop.time()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._end_unfinished_request)

    def _end_unfinished_request(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self.transport.close()

    def _make_room(self) -> None:
        """Close a connection if there are too many: of this peer, or else in all. It is this one if all are at work."""
        limit, everybody = count_allowed_connections(), cast("set[LimitedProtocol]", self.connections)
        same = [each for each in everybody if each.peer == self.peer]
        if len(same) <= limit // 2 and len(everybody) <= limit:
            return
        waiting = [
            each
            for each in (same if len(same) > limit // 2 else everybody)
            if each is not self and not each.is_answering
        ]
        closed = min(waiting, key=lambda each: each._waits_since, default=self)
        everybody.discard(closed)
        closed.transport.abort()
        self._too_many.record(limit=limit, peer=closed.peer)


class PeerLimit:
    """At most so many of something at once, and a half of them for one peer."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = Counter[str]()

    def acquire(self, peer: str) -> bool:
        """Count one more of a peer, unless that is one too many."""
        if self._held.total() >= self._limit or self._held[peer] >= self._limit // 2:
            return False
        self._held[peer] += 1
        return True

    def release(self, peer: str) -> None:
        self._held[peer] -= 1
        self._held += Counter()  # forgets who has none


class GuessLimit:
    """Who has sent wrong tokens, and how many: after MAX_GUESSES none of that peer is looked at for a while."""

    _wrong_tokens: ClassVar = RareWarning("wrong tokens")

    def __init__(self) -> None:
        self._guesses: dict[str, tuple[int, float]] = {}  # by peer, the latest last

    def find_lockout(self, peer: str) -> int:
        """Return the seconds for which no token of a peer is looked at, 0 if it may send one."""
        wrong, last = self._guesses.get(peer, (0, 0.0))
        left = last + LOCKOUT_SECONDS - monotonic()
        if left <= 0:
            self._guesses.pop(peer, None)
        return 0 if wrong < MAX_GUESSES or left <= 0 else int(left) + 1

    def record(self, peer: str) -> None:
        """Record a wrong token."""
        wrong, _ = self._guesses.pop(peer, (0, 0.0))
        self._guesses[peer] = wrong + 1, monotonic()
        if len(self._guesses) > MAX_REMEMBERED_PEERS:
            self._guesses.pop(next(iter(self._guesses)), None)
        self._wrong_tokens.record(peer=peer)


_no_files = RareWarning("no connection can be accepted")


def handle_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log rarely that there are no files for more connections, which asyncio tries all the time; else as it does."""
    error = context.get("exception")
    if "socket" in context and isinstance(error, OSError) and error.errno in OUT_OF_FILES:
        _no_files.record(error=str(error))
    else:
        loop.default_exception_handler(context)
