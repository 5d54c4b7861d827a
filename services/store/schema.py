"""The schema of the store: its tables, what an empty store begins with, and the keys of its checkpoints."""

from types import UnionType

TABLES = {
    "inbox": """CREATE TABLE IF NOT EXISTS inbox (
        sequence INTEGER PRIMARY KEY, outcome TEXT NOT NULL, type TEXT NOT NULL, reason TEXT,
        fact_key BLOB, digest BLOB, ticket TEXT)""",
    "partitions": "CREATE TABLE IF NOT EXISTS partitions (number INTEGER PRIMARY KEY, position BIGINT NOT NULL)",
    "positions": "CREATE TABLE IF NOT EXISTS positions (name TEXT PRIMARY KEY, position BIGINT NOT NULL)",
    "policies": """CREATE TABLE IF NOT EXISTS policies (
        fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, resolved BLOB NOT NULL)""",
    "policy_versions": """CREATE TABLE IF NOT EXISTS policy_versions (
        version TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, published_at BIGINT NOT NULL,
        effective_from BIGINT NOT NULL UNIQUE, material BIGINT NOT NULL, source TEXT)""",
    "verifications": """CREATE TABLE IF NOT EXISTS verifications (
        at INTEGER PRIMARY KEY, tickets BIGINT NOT NULL, differences BIGINT NOT NULL)""",
}
"""
The tables beside `stored_events`, the log, whose columns are those of the eventsourcing library. `partitions` holds the
committed sequence of each partition of TICKETS: every message up to it is stored. `positions` holds the checkpoints of
the readers of the log. Times are in microseconds since 1970, UTC.
"""

COPIED_COLUMNS: dict[str, dict[str, type | UnionType]] = {
    "stored_events": {"rowid": int, "originator_id": str, "originator_version": int, "topic": str, "state": bytes},
    "inbox": {
        "sequence": int,
        "outcome": str,
        "type": str,
        "reason": str | None,
        "fact_key": bytes | None,
        "digest": bytes | None,
        "ticket": str | None,
    },
    "partitions": {"number": int, "position": int},
    "positions": {"name": str, "position": int},
    "policies": {"fingerprint": str, "name": str, "resolved": bytes},
    "policy_versions": {
        "version": str,
        "fingerprint": str,
        "published_at": int,
        "effective_from": int,
        "material": int,
        "source": str | None,
    },
    "verifications": {"at": int, "tickets": int, "differences": int},
}
"""
What a copy of a store needs, with the types that its values have to have: SQLite takes any. Projections are not in it:
they are built again from the log.
"""

INITIAL_STATEMENTS = (
    "CREATE UNIQUE INDEX IF NOT EXISTS inbox_fact ON inbox (fact_key) WHERE fact_key IS NOT NULL",
    "INSERT INTO partitions SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM partitions)",
)
"""What an empty store begins with, beside its tables: an index, and one partition from which nothing is stored."""

ANNOUNCER_CHECKPOINT = "announcements"  # key in `positions`: up to there in the log everything is announced
ANNOUNCED_SEQUENCE = "announcements in SLA"  # the sequence of SLA that belongs to it, written in the same transaction
ANNOUNCED_SINCE = "announcements since"  # SLA was made anew, empty, when the announcer had come to this position

ACCEPTED_LOSS = "TICKETS lost up to"  # key in `positions`: messages up to there may be gone, an operator has said


def build_created_at_key(stream: str) -> str:
    """Return the key in `positions` under which the creation time of a stream is stored."""
    return f"{stream} made at"
