"""The families of errors, by what to do: wait and retry, begin again, or give up. The message says what is wrong.

A `BadFactError` (events/cloudevents.py) is never retried: the message is at fault, and becomes a dead letter.
"""

import sqlite3
from collections.abc import Mapping

import nats.errors
from eventsourcing.persistence import PersistenceError

from projections.runner import NotMigratedError


class BusError(Exception):
    """The bus cannot be used as it is; the text says what to do. Transient: waiting can help."""


class PublishRefusedError(BusError):
    """
    The broker has refused a message, or a batch of them as a whole, and has not stored it. `duplicates` are the places
    of the messages before it whose ids were taken already, with the sequences that have them.
    """

    duplicates: Mapping[int, int] = {}


class StoreError(Exception):
    """The store cannot be used as it is; the text says what to do. Transient: it may be migrated meanwhile."""


class FencedError(StoreError):
    """Another process has moved the checkpoint of this partition: the lease was lost, and this process begins again."""


class NotLeaderError(StoreError):
    """Another process leads this role now: the lock was lost, and this process begins again as a standby."""


class ReadOnlyError(StoreError):
    """The store may be read and not written by this user."""


class SuspicionError(Exception):
    """
    So many messages in a row met a fault of the engine that they are not to blame; the text says what to do. Transient:
    the process stays, tries again, and is not ready.
    """


class FatalError(Exception):
    """The process cannot go on, and waiting does not help; the text says what to do. It ends with 1."""


BUS_ERRORS = (BusError, nats.errors.Error)
STORE_ERRORS = (StoreError, NotMigratedError, PersistenceError, sqlite3.Error)

TRANSIENT_ERRORS = (*BUS_ERRORS, *STORE_ERRORS, SuspicionError, OSError)
"""Waiting can help: the work is retried, and no message is blamed for it."""

ENVIRONMENT_ERRORS = (FatalError, *TRANSIENT_ERRORS)
"""What is wrong is around the work, never in a message or a question: bus, store, machine or configuration."""
