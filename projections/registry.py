"""All projections: what `sla migrate` creates, `sla rebuild` builds again and `sla verify` compares."""

from projections.compliance import Arrivals, Compliance
from projections.deadlines import Deadlines
from projections.runner import Projection
from projections.tickets import Tickets

PROJECTIONS: tuple[type[Projection], ...] = (Deadlines, Tickets, Compliance, Arrivals)
