"""`python -m tests.support.deadly run intake …`: the command `sla` that dies when it judges a ticket named DEADLY-…"""

import os
import signal
from datetime import datetime, timedelta

from services.cli.main import main
from sla.log import Recorded
from sla.ticket import TicketSla
from sla.versions import Versions

decide = TicketSla.decide


def decide_or_die(
    ticket: TicketSla, versions: Versions, now: datetime, historic_after: timedelta, fact_id: str | None = None
) -> list[Recorded]:
    if ticket.id.startswith("DEADLY-"):
        os.kill(os.getpid(), signal.SIGKILL)
    return decide(ticket, versions, now, historic_after, fact_id)


if __name__ == "__main__":
    TicketSla.decide = decide_or_die  # type: ignore[assignment,method-assign]
    main()
