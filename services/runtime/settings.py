"""Settings: the environment and `.env`, read once by the command line. What they mean is in who uses them."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from services.faults import check_fault
from services.store.interface import Database
from services.store.sqlite import SqliteFile
from sla.policy import Policy
from sla.policy_file import PolicyError, load_policy_file

SHIPPED_POLICIES = Path(__file__).parents[2] / "sla" / "policies"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _parse_span(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "never":
        return timedelta.max
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", value)
    if not match:
        raise ValueError(f"{value!r} is not a span of time; write a number and s, m, h or d, like 24h, or never")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _check_addresses(text: str) -> str:
    if not all(re.match(r"https?://[^/@]", url.strip()) for url in text.split(",")):
        raise ValueError("an Alertmanager has an address like http://127.0.0.1:9093; several have commas between them")
    return text


Span = Annotated[timedelta, BeforeValidator(_parse_span)]
Port = Annotated[int, Field(ge=0, le=65535)]
Fault = Annotated[str, AfterValidator(check_fault), Field(description="for tests only; services/faults.py")]


class Settings(BaseSettings):
    """Each is the variable SLA_<NAME>; SLA_<NAME>_FILE names a file that has the value, for secrets."""

    model_config = SettingsConfigDict(env_prefix="SLA_", env_file=".env", extra="ignore", frozen=True)

    nats_url: str | None = None
    nats_user: Annotated[str | None, Field(pattern=r"^[^\s*>]*[^\s*>.]$")] = None
    nats_password: str | None = None
    nats_credentials: Annotated[str | None, Field(description="the text of a NATS credentials file")] = None
    nats_ca: Annotated[str | None, Field(description="in PEM, who signed the certificate of NATS; with tls://")] = None
    nats_cert: Annotated[str | None, Field(description="in PEM, our own certificate, if NATS asks for one")] = None
    nats_key: Annotated[str | None, Field(description="in PEM, the key of nats_cert")] = None
    nats_port: Annotated[Port, Field(description="of the embedded server of `sla up`; 0 takes any free one")] = 4222
    database_url: str | None = None
    partitions: Annotated[int | None, Field(ge=1, le=256, description="of TICKETS, for `sla migrate`")] = None
    subscribers: Annotated[
        str,
        Field(
            pattern=r"^\s*([\w-]+=(sla|dead_letters)\.[^\s=]+(\s+|$))*$",
            description="USER=SUBJECT of consumers that `sla migrate` makes, with spaces between",
        ),
    ] = "subscriber=sla.breached.>"
    policy_dir: Path = SHIPPED_POLICIES
    http_host: str = "127.0.0.1"
    http_port: Port = 8080
    board_token: Annotated[str | None, Field(description="who has it may see the board and ask its API")] = None
    policy_notice: Annotated[Span, Field(description="between publication and effect of a material change")] = (
        timedelta(0)
    )
    historic_after: Span = timedelta(hours=24)
    max_ahead: Annotated[Span, Field(description="how far in the future a fact may be dated")] = timedelta(minutes=5)
    alertmanager_url: Annotated[str, AfterValidator(_check_addresses)] | None = None
    notify: Annotated[str | None, Field(description="who is told, as YAML; services/notifier/receivers.py")] = None
    notify_for: Annotated[Span, Field(description="how long a target that is away is tried")] = timedelta(hours=24)
    fault: Fault | None = None
    log_format: Annotated[str, Field(pattern="^(json|console)$")] = "json"
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"

    def find_variable(self, name: str) -> str | None:
        """Return the variable that a setting was given by, None if it has its default."""
        return f"SLA_{name.upper()}" if name in self.model_fields_set else None

    @property
    def notifies(self) -> bool:
        """Whether there is anybody to notify."""
        return bool(self.alertmanager_url or self.notify)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Prefer the environment to files, and both to `.env`."""
        init, env, dotenv = named["init_settings"], named["env_settings"], named["dotenv_settings"]
        return (init, env, _FileSource(settings_cls), dotenv)


class _FileSource(EnvSettingsSource):
    """SLA_<NAME>_FILE: the setting is the text of that file, without the white space at its ends."""

    def __call__(self) -> dict[str, Any]:
        variables = {name: f"SLA_{name.upper()}_FILE" for name in self.settings_cls.model_fields}
        return {
            name: _read_secret(variable, path)
            for name, variable in variables.items()
            if (path := os.environ.get(variable))
        }


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{variable}: {path}: {error.strerror}; it names a file that has the value") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {path} is not text in UTF-8; it names a file that has the value") from None


def load_policy(folder: Path) -> Policy:
    """Load the one policy of a folder. Raises PolicyError with file, line and rule."""
    if not folder.is_dir():
        raise PolicyError([f"{folder}: there is no such folder; SLA_POLICY_DIR names the folder of the policy file"])
    files = sorted(folder.glob("*.yaml"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise PolicyError([f"{folder}: found {names}; the folder holds exactly one policy, a file NAME.yaml"])
    return load_policy_file(files[0])


def parse_database_url(url: str) -> Database:
    """Return where the store is: `sqlite:///path` or `postgresql://…`. Raises ValueError for what is neither."""
    if url.startswith("sqlite:///") and url != "sqlite:///":
        return SqliteFile(Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgres://")):
        try:
            from services.store.postgres import PostgresDatabase  # the packages it needs are an extra
        except ImportError as error:
            raise ValueError(f"{error}; install sla-engine[postgres]") from None
        return PostgresDatabase(url)
    raise ValueError(f"{url.split('@')[-1]!r} is not a store; write sqlite:///PATH or postgresql://USER@HOST/DATABASE")
