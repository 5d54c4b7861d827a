"""Stores for tests, of the kind that TEST_STORE names: a file of SQLite, or a new database of PostgreSQL."""

import os
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from services.runtime.settings import parse_database_url
from services.store.interface import Database
from services.store.sqlite import SqliteFile

ON_POSTGRES = os.environ.get("TEST_STORE") == "postgres"


@cache
def new_store(path: Path) -> Database:
    """Where there is nothing yet: the file, or a database on the server of TEST_POSTGRES_DSN, one for each file."""
    if not ON_POSTGRES:
        return SqliteFile(path)
    from tests.support.postgres import new_database

    return parse_database_url(new_database(os.environ["TEST_POSTGRES_DSN"]))


def address(store: Database) -> str:
    """SLA_DATABASE_URL of a store."""
    if isinstance(store, SqliteFile):
        return f"sqlite:///{store.path}"
    url: str = store.url  # type: ignore[attr-defined]
    return url


def path_of(store: Database) -> Path:
    """The file of a store in SQLite, for tests that are about the file."""
    assert isinstance(store, SqliteFile)
    return store.path


def rows(store: Database, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What a store holds, read beside the engine."""
    if isinstance(store, SqliteFile):
        with closing(sqlite3.connect(f"file:{quote(str(store.path))}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(statement, parameters).fetchall()
    return _on_postgres(store, statement, parameters)


def _on_postgres(store: Any, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    from services.store.postgres import translate

    with closing(store.connect()) as connection:
        found: list[tuple[Any, ...]] = connection.execute(translate(statement), parameters).fetchall()
        return found


def change(store: Any, *statements: str) -> None:
    """Somebody edits the store with the sqlite3 command, or with psql."""
    if isinstance(store, SqliteFile):
        with closing(sqlite3.connect(store.path)) as connection, connection:
            for statement in statements:
                assert connection.execute(statement).rowcount > 0, statement
        return
    from services.store.postgres import translate

    with closing(store.connect()) as connection:
        for statement in (*_LIKE_SQLITE, *statements):
            done = connection.execute(
                re.sub(r"X'([0-9a-f]*)'", r"'\\x\1'::bytea", translate(statement).replace("%%", "%"))
            )
            assert done.rowcount != 0, statement


_LIKE_SQLITE = (
    "CREATE OR REPLACE FUNCTION replace(bytea, text, text) RETURNS bytea LANGUAGE sql AS "
    "'SELECT convert_to(replace(convert_from($1, ''UTF8''), $2, $3), ''UTF8'')'",
    "CREATE OR REPLACE FUNCTION instr(bytea, text) RETURNS boolean LANGUAGE sql AS "
    "'SELECT strpos(convert_from($1, ''UTF8''), $2) > 0'",
)


def copied(store: Database, path: Path) -> Database:
    """A store with the same in it."""
    if isinstance(store, SqliteFile):
        path.write_bytes(store.path.read_bytes())
        return SqliteFile(path)
    from tests.support.postgres import new_database

    return parse_database_url(
        new_database(os.environ["TEST_POSTGRES_DSN"], template=address(store).partition("?")[0].rpartition("/")[2])
    )


def tables(store: Database) -> set[str]:
    """The names of all tables."""
    if isinstance(store, SqliteFile):
        return {name for (name,) in rows(store, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {name for (name,) in rows(store, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def position(store: Database, name: str) -> int:
    """How far a reader of the log has come, or intake with all its partitions."""
    if name == "intake":
        return int(rows(store, "SELECT min(position) FROM partitions")[0][0])
    found = rows(store, "SELECT position FROM positions WHERE name = ?", name)
    return int(found[0][0]) if found else 0


class Alone:
    """The leases of an intake that has no other beside it."""

    def acquire_fair_share(self, count: int) -> frozenset[int]:
        return frozenset(range(count))

    def acquire_all(self, count: int) -> bool:
        return True

    def release(self) -> None:
        pass
