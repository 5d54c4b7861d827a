"""Backups that somebody has edited: other members in the tar, other SQL in the store."""

import hashlib
import io
import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

PLANTED = (
    "CREATE TRIGGER quiet BEFORE INSERT ON stored_events WHEN new.topic LIKE 'breached%' "
    "BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER deaf BEFORE INSERT ON inbox BEGIN SELECT RAISE(ABORT, 'no'); END",
    "CREATE TABLE planted (x)",
    "CREATE VIEW seen AS SELECT * FROM stored_events",
    "CREATE UNIQUE INDEX once ON stored_events (topic)  WHERE topic LIKE 'breached%' AND originator_id > 'T-1'",
    "INSERT INTO positions VALUES ('deadlines', 999999) ON CONFLICT (name) DO UPDATE SET position = 999999",
)


def rewritten(file: Path, target: Path, **members: bytes | None) -> Path:
    """The same tar with other contents under some names; None leaves one out."""
    with tarfile.open(file) as source, tarfile.open(target, "w") as tar:
        for member in source:
            content = members.get(member.name.replace(".", "_"), source.extractfile(member).read())  # type: ignore[union-attr]
            if content is not None:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return target


def edit_store(file: Path, target: Path, *statements: str, **manifest: object) -> Path:
    """A backup whose store somebody has edited, with a manifest that says so."""
    with tarfile.open(file) as tar:
        found = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        store = target.with_suffix(".db")
        store.write_bytes(tar.extractfile("sla.db").read())  # type: ignore[union-attr]
    with closing(sqlite3.connect(store)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = store.read_bytes()
    store.unlink()
    found["parts"]["sla.db"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return rewritten(file, target, sla_db=content, manifest_json=json.dumps(found | manifest).encode())
