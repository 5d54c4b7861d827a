"""Logs: one structured line for each batch or decision at the edge, on stderr."""

import logging
import sys

import structlog

from services.runtime.settings import Settings


def configure(settings: Settings) -> None:
    """Set up JSON lines, or lines for people if SLA_LOG_FORMAT is console. No colours: logs are read by programs."""
    last: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        last = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # nats-py over TLS makes it warn at the end of each connection
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
