"""What the processes of one `sla run` or `sla up` are built from. How they are built is in the processes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from services.bus.connection import Bus
from services.runtime.settings import Settings
from services.store.interface import Database, Lock, PartitionLeases, Store
from sla.policy import Policy


@dataclass(frozen=True)
class Setup:
    """What is there at once: settings, policy and metrics. `connect` opens a bus connection of its own for who asks."""

    settings: Settings
    policy: Policy
    registry: CollectorRegistry
    connect: Callable[[], Awaitable[Client]]
    inbox: str
    """The prefix of the NATS inboxes that the user of this process may subscribe to."""


@dataclass(frozen=True)
class Backends:
    """What is there once bus and store answer."""

    bus: Bus
    database: Database | None = None
    opened: Store | None = None

    @property
    def store(self) -> Store:
        """The store. A process that declares `needs_store` has one."""
        assert self.opened is not None
        return self.opened

    def find_lock(self, role: str) -> Lock:
        """Return the lock by which one leader of a role is elected; nobody holds it yet."""
        assert self.database is not None
        return self.database.create_lock(role)

    def find_leases(self) -> PartitionLeases:
        """Return the leases of partitions of TICKETS; this process holds none yet."""
        assert self.database is not None
        return self.database.create_leases()
