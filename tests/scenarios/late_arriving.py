"""A late-arriving fact: the ticket is judged again, and what no longer holds is retracted."""

from tests.scenarios.scenario import WARNED, Scenario, asleep, changed, corrected, levelled, opened, responded

SCENARIOS = (
    Scenario(
        "an answer in time that arrives after the breach withdraws it",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 13:30", arrives="2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "fulfilled"),
        also={
            "breached_at": None,
            "met": True,
            "stage": "fulfilled",
            "breach_retracted": {
                "number": 1,
                "breached_at": "2025-11-03 14:00",
                "reason": "answered_in_time",
                "cause": "answered_in_time",
                "cause_id": "responded-1",
                "time": "2025-11-03 14:00",
                "detected_at": "2025-11-03 15:00",
                "subject": "sla.breach_retracted.foundation.critical",
            },
        },
    ),
    Scenario(
        "an answer exactly at the deadline that arrives after the breach withdraws it",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 14:00", arrives="2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "fulfilled"),
        also={"breached_at": None, "met": True},
    ),
    Scenario(
        "a late answer is replaced by one in time: retracted, then revised",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 15:00"),
            responded("2025-11-03 13:00", arrives="2025-11-03 16:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "breach_retracted", "fulfilled"),
        also={"met": True, "fulfilled": {"revision": 2, "met": True, "overdue_seconds": 0}},
    ),
    Scenario(
        "a retraction carries the labels under which the breach was announced",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("minor", "2025-11-03 14:30"),
            responded("2025-11-03 13:30", arrives="2025-11-03 15:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "fulfilled"),
        also={
            "breach_retracted": {
                "priority": "critical",
                "severity": "critical",
                "subject": "sla.breach_retracted.foundation.critical",
            },
            "fulfilled": {"priority": "critical"},
        },
    ),
    Scenario(
        "a late-arriving fact that lowers the priority withdraws the breach; the new deadline breaks as number 2",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-03 15:00"),
        ),
        then=(
            "applied",
            *WARNED,
            "breached",
            "breach_retracted",
            "target_changed",
            "warning",
            "warning",
            "breached",
        ),
        also={
            "due_at": "2025-11-03 18:00",
            "breach_retracted": {"reason": "deadline_moved", "cause_id": "priority_changed-1", "number": 1},
            "breached": (
                {"number": 1, "breached_at": "2025-11-03 14:00"},
                {"number": 2, "breached_at": "2025-11-03 18:00", "severity": "error"},
            ),
        },
    ),
    Scenario(
        "a late-arriving fact that lowers the priority, and an answer before the new deadline: kept",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-03 15:00"),
            responded("2025-11-03 15:30"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed", "fulfilled"),
        also={"met": True, "breached_at": None},
    ),
    Scenario(
        "a late-arriving fact that raises the priority moves the breach: number 2 in the same transaction",
        rule=6,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 09:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed", "breached"),
        also={
            "breached_at": "2025-11-03 14:00",
            "breach_retracted": {"number": 1, "detected_at": "2025-11-04 09:00"},
            "breached": {
                "number": 2,
                "breached_at": "2025-11-03 14:00",
                "detected_at": "2025-11-04 09:00",
                "priority": "critical",
            },
        },
    ),
    Scenario(
        "a late-arriving fact that moves the breach to an instant that no tick has shown: number 2 waits for its tick",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            asleep("2025-11-03 13:50", until="2025-11-03 18:00"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-03 19:00"),
        ),
        when="2025-11-03 19:00",
        then=("applied", *WARNED, "breached", "breach_retracted", "target_changed"),
        also={
            "breached_at": None,
            "next_at": "2025-11-03 18:00",
            "breached": {"detected_at": "2025-11-03 18:00"},
        },
    ),
    Scenario(
        "a late-arriving fact upon another: what no tick has shown waits for its tick",
        rule=6,
        given=(
            opened("enterprise", "minor", "2025-11-03 10:00"),
            opened("enterprise", "critical", "2025-11-03 09:50", arrives="2025-11-04 09:00"),
            opened("professional", "minor", "2025-11-03 09:30", arrives="2025-11-04 10:00"),
        ),
        when="2025-11-04 10:00",
        then=(
            "applied",
            *WARNED,
            "breached",
            "breach_retracted",
            "target_changed",
            "breached",
            "breach_retracted",
            "target_changed",
        ),
        also={"breached_at": None, "due_at": "2025-11-03 21:30", "next_at": "2025-11-03 21:30"},
    ),
    Scenario(
        "a late-arriving fact that moves the breach of an answered ticket: retracted, breached, revised",
        rule=6,
        given=(
            opened("foundation", "serious", "2025-11-03 10:00"),
            responded("2025-11-04 09:30"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-04 10:00"),
        ),
        then=("applied", *WARNED, "breached", "fulfilled", "breach_retracted", "breached", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "overdue": "4:30:00",
            "breach_retracted": {"reason": "deadline_moved"},
            "fulfilled": {"revision": 2, "overdue_seconds": 16200, "due_at": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "a late-arriving fact that leaves the instant of the breach as it was leaves the breach",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-04 10:00"),
            opened("foundation", "serious", "2025-11-03 15:00", arrives="2025-11-04 15:00"),
        ),
        then=("applied", *WARNED, "breached", "target_changed"),
        also={
            "breached_at": "2025-11-04 14:00",
            "started_at": "2025-11-03 15:00",
            "target_changed": {"cause": "opening_replaced", "target_seconds": 28800, "due_at": "2025-11-04 14:00"},
        },
    ),
    Scenario(
        "the second breach is withdrawn as the first was",
        rule=6,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            changed("serious", "2025-11-03 11:00", arrives="2025-11-03 15:00"),
            responded("2025-11-03 17:00", arrives="2025-11-03 19:00"),
        ),
        then=(
            "applied",
            *WARNED,
            "breached",
            "breach_retracted",
            "target_changed",
            "warning",
            "warning",
            "breached",
            "breach_retracted",
            "fulfilled",
        ),
        also={"breached_at": None, "breach_retracted": ({"number": 1}, {"number": 2})},
    ),
    Scenario(
        "a raise past the budget that turns out to be undone at its instant is withdrawn",
        rule=6,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            changed("critical", "2025-11-04 12:00", id="a"),
            changed("minor", "2025-11-04 12:00", id="b", arrives="2025-11-04 12:30"),
        ),
        when="2025-11-04 12:45",
        then=("applied", "target_changed", "breached", "breach_retracted", "target_changed"),
        also={"due_at": "2025-11-05 16:00", "breached_at": None, "stage": "running"},
    ),
    Scenario(
        "an answer that was announced as met is taken back at once, though it had turned out to be late meanwhile",
        rule=6,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            responded("2025-11-03 16:00", id="r"),
            changed("critical", "2025-11-03 11:00", arrives="2025-11-03 16:10"),
            corrected("r", "2025-11-03 16:10", by="automation"),
        ),
        when="2025-11-03 17:00",
        then=("applied", "fulfilled", "target_changed", "breached"),
        also={
            "target_changed": {"cause": "corrected", "due_at": "2025-11-03 14:00", "target_seconds": 14400},
            "breached_at": "2025-11-03 14:00",
            "stage": "running",
        },
    ),
    Scenario(
        "other hours until an answer change the time that it took: a revision",
        rule=6,
        given=(
            opened("professional", "minor", "2025-11-03 09:00", id="o"),
            levelled("enterprise", "2025-11-03 20:00"),
            responded("2025-11-03 20:00"),
            corrected("o", "2025-11-03 20:10", service_level="foundation"),
        ),
        then=("applied", *WARNED, "target_changed", "fulfilled", "fulfilled"),
        also={"fulfilled": ({"elapsed_seconds": 39600}, {"elapsed_seconds": 32400, "revision": 2})},
    ),
)
