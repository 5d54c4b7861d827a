"""docs/explain.md, with what commands print: `python -m tests.support.explain_page` writes it, `--check` compares."""

import io
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from events.times import from_microseconds
from projections.deadlines import Deadlines
from projections.registry import PROJECTIONS
from projections.runner import catch_up
from services.cli import explanation, terminal
from services.queries.explanation import explain_ticket
from services.queries.point_in_time import PointInTime
from services.queries.report import build_report
from services.queries.report_table import build_rows, list_columns
from services.store.interface import Database
from sla.engine import TICK_PREFIX, Engine, Message
from sla.policy import Policy
from tests.scenarios.scenario import Fact, Given, Scenario, Tick, changed, opened, responded, stockholm
from tests.support.memory import POLICY
from tests.support.stores import address, new_store

DOCS = Path(__file__).parents[2] / "docs"
PAGE, TEXT = DOCS / "explain.md", Path(__file__).parent / "explain_page.md"

TICKET = "T-1001"
OPENED = opened("foundation", "minor", "2026-04-02 17:30", arrives="2026-04-02 17:30:01")
EASTER = Scenario(
    "opened before Easter, raised after it, and an answer that nobody had told us of",
    rule=6,
    given=(
        replace(OPENED, data={**OPENED.data, "customer": "Acme AB"}),
        changed("serious", "2026-04-07 10:00"),
        responded("2026-04-07 15:05", source="/crm", arrives="2026-04-09 11:20"),
    ),
    then=("applied", "target_changed", "warning", "warning", "warning", "breached", "breach_retracted", "fulfilled"),
    when="2026-04-10 09:00",
)
BEFORE = "2026-04-09T09:00:00+02:00"  # before the answer arrived


class LocalEngine:
    """A store, with intake and the deadline timer, and without a bus."""

    def __init__(self, database: Database, policy: Policy = POLICY) -> None:
        database.migrate(PROJECTIONS)
        self.address, self.store = address(database), database.open()
        self.store.publish_policy(policy, lambda: stockholm("2025-01-01 00:00"))
        self._engine, self._sequence = Engine(self.store), 0

    def play(self, ticket: str, scenario: Scenario) -> None:
        """Play a scenario with a ticket of its own, after all that was played before."""

        def put(item: Given) -> None:
            assert isinstance(item, Fact | Tick)
            sent = item.message(ticket) if isinstance(item, Fact) else (f"{TICK_PREFIX}{ticket}", None, b"")
            message = Message(self._sequence + 1, item.arrives, *sent)
            self.store.commit(self._engine.process([message]), {0: self._sequence})
            self._sequence += 1

        scenario.play(put, self._find_next_at)

    def _find_next_at(self) -> datetime | None:
        catch_up(self.store, Deadlines())
        with self.store.read_view() as cursor:
            at = Deadlines().find_next_after(cursor, 0)
        return None if at is None else from_microseconds(at)


def capture_stdout(work: Callable[[], None]) -> str:
    """Return what it writes to stdout, without blanks at the ends of lines."""
    with redirect_stdout(io.StringIO()) as out:
        work()
    return re.sub(r" +$", "", out.getvalue(), flags=re.MULTILINE).rstrip("\n")


def build_page() -> str:
    """Return the text, in which each {name} is what a command printed."""
    with TemporaryDirectory() as folder:
        engine = LocalEngine(new_store(Path(folder) / "sla.db"))
        engine.play(TICKET, EASTER)
        store, now = engine.store, stockholm(EASTER.when)
        present, then = PointInTime(now=now), PointInTime(known_at=datetime.fromisoformat(BEFORE), now=now)

        def print_explanation(when: PointInTime) -> str:
            explained = explain_ticket(store, TICKET, when)
            assert explained is not None
            return capture_stdout(lambda: explanation.print_explanation(explained))

        def print_report(when: PointInTime) -> str:
            found = build_report(store, when, "2026-Q2", ["level", "customer"])
            return capture_stdout(lambda: terminal.print_table(list_columns(found), build_rows(found)))

        made = {
            "now": print_explanation(present),
            "then": print_explanation(then),
            "report": print_report(present),
            "report_then": print_report(then),
        }
        store.close()
    text = TEXT.read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\}", lambda found: made[found[1]], text)


def main() -> int:
    made = build_page()
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text(encoding="utf-8") == made:
            return 0
        sys.stderr.write(f"{PAGE} is not what the commands print; run `make schemas`\n")
        return 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
