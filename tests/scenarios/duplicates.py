"""The same message again, the same id with other content, and what cannot be a fact."""

from tests.scenarios.scenario import Scenario, again, changed, escalated, opened, responded

_OPENED = opened("foundation", "critical", "2025-11-03 10:00", id="o")
_ANSWERED = responded("2025-11-03 11:00", id="r")
_ESCALATED = escalated("2025-11-03 10:30", id="e")

SCENARIOS = (
    Scenario(
        "the same facts once more change nothing",
        rule=9,
        given=(
            _OPENED,
            again(_OPENED, "2025-11-03 10:01"),
            _ESCALATED,
            again(_ESCALATED, "2025-11-03 10:31"),
            _ANSWERED,
            again(_ANSWERED, "2025-11-03 11:00"),
        ),
        then=("applied", "escalated", "fulfilled"),
        also={"inbox": ("recorded", "duplicate") * 3, "escalation_level": 1},
    ),
    Scenario(
        "a duplicate is one after a month too",
        rule=9,
        given=(_OPENED, _ANSWERED, again(_OPENED, "2025-12-03 10:00"), again(_ANSWERED, "2025-12-03 10:00")),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "recorded", "duplicate", "duplicate")},
    ),
    Scenario(
        "the same id with another time is a conflict, and the first stays",
        rule=9,
        given=(_OPENED, _ANSWERED, responded("2025-11-03 10:30", id="r", arrives="2025-11-03 11:30")),
        then=("applied", "fulfilled"),
        also={"responded_at": "2025-11-03 11:00", "inbox": ("recorded", "recorded", "id_conflict")},
    ),
    Scenario(
        "the same id with other data or another type is a conflict",
        rule=9,
        given=(
            _OPENED,
            opened("foundation", "minor", "2025-11-03 10:00", id="o"),
            escalated("2025-11-03 10:00", id="o"),
            responded("2025-11-03 10:30"),
        ),
        then=("applied", "fulfilled"),
        also={"priority": "critical", "inbox": ("recorded", "id_conflict", "id_conflict", "recorded")},
    ),
    Scenario(
        "a default that is written out is the same content",
        rule=9,
        given=(_OPENED, _ANSWERED, responded("2025-11-03 11:00", by="agent", id="r")),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "recorded", "duplicate")},
    ),
    Scenario(
        "the same id from another source is another fact",
        rule=9,
        given=(
            _OPENED,
            escalated("2025-11-03 10:30", id="e", source="/crm"),
            escalated("2025-11-03 10:30", id="e", source="/helpdesk"),
            _ANSWERED,
        ),
        then=("applied", "escalated", "escalated", "fulfilled"),
        also={"escalation_level": 2},
    ),
    Scenario(
        "a refused fact claims no id: the corrected one may use it again",
        rule=9,
        given=(
            opened("gold", "critical", "2025-11-03 10:00", id="o"),
            opened("foundation", "urgent", "2025-11-03 10:00", id="o"),
            _OPENED,
            changed("urgent", "2025-11-03 10:30"),
            _ANSWERED,
        ),
        then=("applied", "fulfilled"),
        also={
            "due_at": "2025-11-03 14:00",
            "inbox": ("unknown_service_level", "unknown_priority", "recorded", "unknown_priority", "recorded"),
        },
    ),
)
