"""Errors of PostgreSQL as the engine raises them: one line, and what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from eventsourcing.persistence import DatabaseError

from services.errors import ReadOnlyError, StoreError


@contextmanager
def translate_errors(source: str) -> Iterator[None]:
    """Raise StoreError or DatabaseError for an error of psycopg, with `source` before its first line."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise ReadOnlyError(
            f"{source}: {read_first_line(error)}; see deploy/postgres/roles.sql, and run `sla migrate`"
        ) from None
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise StoreError(f"{source}: {read_first_line(error)}; run `sla migrate`") from None
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
        raise StoreError(f"{source}: {read_first_line(error)}") from None
    except psycopg.Error as error:
        raise DatabaseError(f"{source}: {read_first_line(error)}") from error


def read_first_line(error: psycopg.Error) -> str:
    """Return the first line of the server's message, or else the kind of error."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
