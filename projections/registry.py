"""All projections: what `sla migrate` creates, `sla rebuild` rebuilds and `sla verify` compares."""

from projections.arrivals import Arrivals
from projections.compliance import Compliance
from projections.deadlines import Deadlines
from projections.promises import Promises
from projections.quarantine import Quarantine
from projections.runner import Projection

PROJECTIONS: tuple[type[Projection], ...] = (Deadlines, Promises, Compliance, Arrivals, Quarantine)
