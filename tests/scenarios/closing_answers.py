"""An answer and a close with one button: two events in any order; and what is written to a closed ticket."""

from tests.scenarios.scenario import WARNED, Scenario, build_fact, changed, closed, opened, reopened, responded

SCENARIOS = (
    Scenario(
        "an answer at most a minute after the close is the response: the clock ran on to it",
        rule=15,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 10:30"),
            responded("2025-11-03 10:30:00.120000"),
        ),
        then=("applied", "cancelled", "fulfilled"),
        also={
            "met": True,
            "stage": "fulfilled",
            "flags": (),
            "fulfilled": {"elapsed_seconds": 1800.12, "cause": "responded"},
        },
    ),
    Scenario(
        "a minute is enough, and the deadline may pass in it",
        rule=15,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 13:59:30"),
            responded("2025-11-03 14:00:30"),
        ),
        then=("applied", *WARNED, "cancelled", "breached", "fulfilled"),
        also={"met": False, "overdue": "0:00:30", "breached_at": "2025-11-03 14:00"},
    ),
    Scenario(
        "an answer more than a minute after the close does not count, and is flagged",
        rule=15,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 10:30"),
            responded("2025-11-03 10:31:00.000001"),
        ),
        then=("applied", "cancelled"),
        also={"stage": "cancelled", "flags": ("answered_while_closed",)},
    ),
    Scenario(
        "a change between the close and its answer alters nothing",
        rule=15,
        given=(
            opened("foundation", "minor", "2025-11-03 10:00"),
            closed("2025-11-03 16:00"),
            changed("critical", "2025-11-03 16:00:10"),
            responded("2025-11-03 16:00:30"),
        ),
        then=("applied", "cancelled", "fulfilled"),
        also={"met": True, "due_at": "2025-11-05 16:00", "priority": "critical"},
    ),
    Scenario(
        "a second close gives no second minute",
        rule=15,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 10:30", id="a"),
            closed("2025-11-03 10:31", id="b"),
            responded("2025-11-03 10:31:30"),
        ),
        then=("applied", "cancelled"),
        also={"flags": ("answered_while_closed",)},
    ),
    Scenario(
        "a reply of the customer to a closed ticket is flagged, and so is its answer where none is promised",
        rule=15,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:10"),
            closed("2025-11-03 10:30"),
            build_fact("customer_replied", {}, "2025-11-03 12:00"),
            responded("2025-11-03 13:00"),
        ),
        then=("applied", "fulfilled"),
        also={"flags": ("replied_while_closed", "answered_while_closed"), "responded_at": "2025-11-03 10:10"},
    ),
    Scenario(
        "an answer to a reopened ticket is an answer",
        rule=15,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            closed("2025-11-03 10:30"),
            reopened("2025-11-03 12:00"),
            responded("2025-11-03 12:30"),
        ),
        then=("applied", "cancelled", "target_changed", "fulfilled"),
        also={"flags": (), "fulfilled": {"elapsed_seconds": 3600}},
    ),
)
