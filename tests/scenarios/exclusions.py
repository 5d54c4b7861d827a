"""Excluded from the promise for one of the policy's reasons, and the exclusion revoked."""

from tests.scenarios.scenario import WARNED, Scenario, corrected, excluded, opened, responded, revoked

REASONS = (
    "terms_violation",
    "unauthorized_modification",
    "third_party",
    "customer_environment",
    "internet_connectivity",
    "basic_training",
    "custom_development",
    "preview_feature",
)

SCENARIOS = (
    *(
        Scenario(
            f"excluded as {reason}: nothing is promised",
            rule=14,
            given=(opened("foundation", "critical", "2025-11-03 10:00"), excluded(reason, "2025-11-03 10:30")),
            then=("applied", "cancelled"),
            also={"stage": "excluded", "reason": reason, "cancelled": {"cause": "excluded", "reason": reason}},
        )
        for reason in REASONS
    ),
    Scenario(
        "excluded: the promise does not apply, and no breach comes",
        rule=14,
        given=(opened("foundation", "critical", "2025-11-03 10:00"), excluded("third_party", "2025-11-03 11:00")),
        then=("applied", "cancelled"),
        also={
            "stage": "excluded",
            "reason": "third_party",
            "next_at": None,
            "cancelled": {"cause": "excluded", "reason": "third_party", "time": "2025-11-03 11:00"},
        },
    ),
    Scenario(
        "excluded after the breach: the breach is withdrawn",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("internet_connectivity", "2025-11-03 16:00"),
        ),
        then=("applied", *WARNED, "breached", "breach_retracted", "cancelled"),
        also={
            "stage": "excluded",
            "breached_at": None,
            "breach_retracted": {"reason": "excluded", "cause_id": "excluded-1", "number": 1},
        },
    ),
    Scenario(
        "a ticket that was excluded after the breach, and is not",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("basic_training", "2025-11-03 16:00"),
            revoked("basic_training", "2025-11-03 17:00"),
            responded("2025-11-03 17:30"),
        ),
        then=(
            "applied",
            *WARNED,
            "breached",
            "breach_retracted",
            "cancelled",
            "target_changed",
            "breached",
            "fulfilled",
        ),
        also={
            "stage": "fulfilled",
            "met": False,
            "breached_at": "2025-11-03 14:00",
            "overdue": "3:30:00",
            "target_changed": {"cause": "exclusion_revoked", "old_due_at": "2025-11-03 14:00"},
            "breached": ({"number": 1}, {"number": 2, "breached_at": "2025-11-03 14:00", "detection": "live"}),
        },
    ),
    Scenario(
        "revoked in time: as if it had never been excluded, and the time counts",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("basic_training", "2025-11-03 11:00"),
            revoked("basic_training", "2025-11-03 12:30"),
            responded("2025-11-03 13:30"),
        ),
        then=("applied", "cancelled", "target_changed", "warning", "warning", "fulfilled"),
        also={"met": True, "due_at": "2025-11-03 14:00", "fulfilled": {"elapsed_seconds": 12600}},
    ),
    Scenario(
        "excluded for two reasons, and one is revoked: still excluded",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("basic_training", "2025-11-03 11:00"),
            excluded("third_party", "2025-11-03 11:30"),
            revoked("third_party", "2025-11-03 12:30"),
        ),
        then=("applied", "cancelled"),
        also={"stage": "excluded", "reason": "basic_training"},
    ),
    Scenario(
        "an answered promise that is excluded is in no report; once revoked, it says again what it said",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 11:00"),
            excluded("customer_environment", "2025-11-03 12:00"),
            revoked("customer_environment", "2025-11-03 15:00"),
        ),
        then=("applied", "fulfilled", "cancelled", "fulfilled"),
        also={
            "stage": "fulfilled",
            "met": True,
            "fulfilled": ({"revision": 1}, {"revision": 2, "met": True, "responded_at": "2025-11-03 11:00"}),
        },
    ),
    Scenario(
        "a revocation that comes before the exclusion it is about is flagged, and the exclusion holds",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            revoked("basic_training", "2025-11-03 11:00"),
            excluded("basic_training", "2025-11-03 12:30"),
        ),
        then=("applied", "warning", "cancelled"),
        also={"stage": "excluded", "flags": ("revoked_without_exclusion",)},
    ),
    Scenario(
        "a reason that the policy does not have is a dead letter",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("too busy", "2025-11-03 11:00"),
            revoked("too busy", "2025-11-03 11:10"),
            excluded("", "2025-11-03 11:20"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "fulfilled"),
        also={"inbox": ("recorded", "invalid_data", "invalid_data", "invalid_data", "recorded")},
    ),
    Scenario(
        "an exclusion that is corrected to a reason that the policy does not have is none: kept and flagged",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            excluded("basic_training", "2025-11-03 11:00", id="x"),
            corrected("x", "2025-11-03 11:10", reason="too busy"),
            responded("2025-11-03 11:30"),
        ),
        then=("applied", "cancelled", "target_changed", "fulfilled"),
        also={
            "stage": "fulfilled",
            "flags": ("reason_not_in_policy",),
            "inbox": ("recorded",) * 4,
            "target_changed": {"cause": "corrected", "due_at": "2025-11-03 14:00"},
        },
    ),
    Scenario(
        "an exclusion of a ticket that nobody has opened yet holds once it is opened",
        rule=14,
        given=(
            excluded("preview_feature", "2025-11-03 09:00"),
            opened("foundation", "critical", "2025-11-03 10:00"),
        ),
        then=("applied", "cancelled"),
        also={"stage": "excluded", "reason": "preview_feature"},
    ),
    Scenario(
        "the time used until an exclusion, or until the answer before it, is what is announced",
        rule=14,
        given=(
            opened("foundation", "critical", "2025-11-03 10:00"),
            responded("2025-11-03 10:30"),
            excluded("basic_training", "2025-11-03 11:00"),
        ),
        then=("applied", "fulfilled", "cancelled"),
        also={"cancelled": {"elapsed_seconds": 1800}, "used": "0:30:00", "stopped": True},
    ),
)
