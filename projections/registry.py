"""All projections: what `sla migrate` creates, `sla rebuild` rebuilds and `sla verify` compares."""

from projections.arrivals import Arrivals
from projections.compliance import Compliance
from projections.deadlines import Deadlines
from projections.quarantine import Quarantine
from projections.runner import Projection
from projections.tickets import Tickets

PROJECTIONS: tuple[type[Projection], ...] = (Deadlines, Tickets, Compliance, Arrivals, Quarantine)
