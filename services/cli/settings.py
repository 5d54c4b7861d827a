"""The settings and values a command was given: what is wrong with them is wrong usage. Nothing is connected in here."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_settings import SettingsError

from services.cli.options import UsageError
from services.runtime.settings import Settings, load_policy, parse_database_url
from services.store.interface import Database
from sla.policy import Policy
from sla.policy_file import PolicyError


@contextmanager
def refuse_wrong_usage() -> Iterator[None]:
    """Raise UsageError where a ValueError says what is wrong with a value; a policy file that is wrong stays a no."""
    try:
        yield
    except (PolicyError, OSError):  # some of them are a ValueError too, and no value is to blame
        raise
    except ValueError as error:
        raise UsageError(str(error)) from None


def read_settings() -> Settings:
    """Return the settings of the environment. Raises UsageError with the names of those that are wrong."""
    try:
        return Settings()
    except ValidationError as error:
        lines = (f"SLA_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors())
        raise UsageError("; ".join(lines)) from None
    except SettingsError as error:
        raise UsageError(str(error)) from None


def read_policy() -> Policy:
    """Return the policy of SLA_POLICY_DIR. Raises PolicyError with file, line and rule."""
    return load_policy(read_settings().policy_dir)


def require_bus_url(settings: Settings) -> str:
    """Return SLA_NATS_URL. Raises UsageError if it is not set."""
    if settings.nats_url is None:
        raise UsageError("SLA_NATS_URL is not set; give the address of NATS, like nats://127.0.0.1:4222")
    return settings.nats_url


def require_database(settings: Settings) -> Database:
    """Return the store of SLA_DATABASE_URL. Raises UsageError if that is not set, or names no store."""
    if settings.database_url is None:
        raise UsageError(
            "SLA_DATABASE_URL is not set; give the store, like sqlite:///sla.db or postgresql://sla@localhost/sla"
        )
    try:
        return parse_database_url(settings.database_url)
    except ValueError as error:
        raise UsageError(f"SLA_DATABASE_URL: {error}") from None
