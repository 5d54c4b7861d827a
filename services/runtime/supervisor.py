"""The supervisor of one service: it builds a new one after an error. What the service does is not in here."""

import asyncio
from collections.abc import Callable

import structlog

from services.errors import TRANSIENT_ERRORS, FatalError
from services.runtime.service import Service

log = structlog.get_logger()

RETRY_BACKOFF = (0.2, 5.0)  # seconds before a failed service starts again: the first time, and at most


class Supervisor:
    """
    Builds its service again after any error but a FatalError, with exponential backoff: an outage has more classes than
    a list of them (docs/architecture.md#decision-8). The service counts as recovered after its second heartbeat: the
    first one only says that it could begin.
    """

    def __init__(self, name: str, build: Callable[[], Service]) -> None:
        self.name, self._build = name, build
        self.service: Service | None = None
        self.built = 0  # how often
        self._last_error: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the service does not work now, None if it does."""
        if self._last_error and self.heartbeats < 2:
            return self._last_error
        return self.service.problem if self.service else "starting"

    @property
    def heartbeats(self) -> int:
        """The heartbeats of the service since it was built."""
        return self.service.heartbeats if self.service else 0

    def wake(self) -> None:
        """Wake the service, if there is one now."""
        if self.service:
            self.service.wake()

    async def run(self) -> None:
        """Run until cancelled, or until the service raises a FatalError."""
        pause = RETRY_BACKOFF[0]
        while True:
            self.service = service = self._build()
            self.built += 1
            try:
                await service.run()
            except FatalError:
                raise
            except Exception as error:
                pause = RETRY_BACKOFF[0] if self.problem is None else min(pause * 2, RETRY_BACKOFF[1])
                unexpected = None if isinstance(error, TRANSIENT_ERRORS) else error
                reason = repr(error) if unexpected else str(error) or type(error).__name__
                service.problem = self._last_error = reason
                log.warning("retrying", service=self.name, reason=reason, seconds=pause, exc_info=unexpected)
            finally:
                await service.stop()
            await asyncio.sleep(pause)
