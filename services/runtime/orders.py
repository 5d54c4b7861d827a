"""What `sla up` and its parts, which are two processes, say to each other. What is in them is in app.py and part.py."""

from dataclasses import dataclass

from services.runtime.settings import Settings
from services.store.interface import Database

ENGINE, FRONT = "engine", "front"
"""What judges and announces, and what people and strangers can ask."""
STOP_TIMEOUT = 8.0
"""Seconds a process may take to finish what it has begun."""
GIVES_UP = 3
"""Exit code of a part: it has logged why it cannot work, and a new start would not help."""
READY, ANNOUNCED = b"ready\n", b"announced\n"
"""What a part writes to its stdout once it works, and reads from its stdin once its addresses are written."""


@dataclass(frozen=True)
class Orders:
    """
    What a part is told, pickled, on its stdin; when that ends, it ends. `listener` and `reports` are descriptors of
    sockets that it inherits.
    """

    part: str
    settings: Settings
    nats_url: str
    database: Database
    listener: int | None
    reports: int
