"""Who we are to the broker, and how we know that it is the broker. Connecting is not in here."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from nats.aio.client import RawCredentials


@dataclass(frozen=True, repr=False, kw_only=True)
class Credentials:
    """
    Contents, not paths: `credentials` is the text of a NATS credentials file; `ca`, `cert` and `key` are in PEM.
    Without `ca`, the broker's certificate has to be from an authority that the system trusts.
    """

    user: str | None = None
    password: str | None = None
    credentials: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def build_inbox_prefix(self, url: str) -> str:
        """Return the prefix of the subjects on which answers come: each user has its own, for permissions to name."""
        parts = urlsplit(url)
        user = self.user or (parts.username if parts.password else None)  # a name that stands alone is a token: secret
        return f"_INBOX.{user}" if user else "_INBOX"

    def build_options(self, url: str) -> dict[str, Any]:
        """
        Return the options for `nats.connect`. With tls:// the TLS handshake comes first: otherwise nats-py would send
        the password unencrypted to a server that says it needs no TLS.
        """
        found: dict[str, Any] = {
            "user": self.user,
            "password": self.password,
            "inbox_prefix": self.build_inbox_prefix(url),
        }
        if self.credentials:
            found["user_credentials"] = RawCredentials(self.credentials)
        if url.startswith("tls://"):
            found |= {"tls": self._build_tls(), "tls_handshake_first": True}
        return found

    def _build_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca)
        if self.cert and self.key:
            with TemporaryDirectory() as folder:  # ssl reads files only; nobody else may read this folder
                cert, key = Path(folder, "cert"), Path(folder, "key")
                cert.write_text(self.cert, encoding="ascii")
                key.write_text(self.key, encoding="ascii")
                context.load_cert_chain(cert, key)
        return context

    def check(self, url: str) -> None:
        """Raise ValueError for what can never work, whatever the broker answers."""
        if self.password and not self.user:
            raise ValueError("SLA_NATS_PASSWORD is set, and SLA_NATS_USER is not; give both")
        if self.user and not (self.password or self.credentials):
            raise ValueError("SLA_NATS_USER is set, and SLA_NATS_PASSWORD is not; give both")
        if bool(self.cert) != bool(self.key):
            raise ValueError("SLA_NATS_CERT and SLA_NATS_KEY belong together; give both or none")
        if self.ca and not url.startswith("tls://"):
            raise ValueError("SLA_NATS_CA is set, and SLA_NATS_URL does not begin with tls://; unset one, or change it")
        try:
            self._build_tls()
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"SLA_NATS_CA, SLA_NATS_CERT or SLA_NATS_KEY is not what it should be: {error}") from None

    def explain_error(self, error: Exception) -> str:
        """Return the text of an error of the connection, and what to do where that is known."""
        text = str(error) or type(error).__name__
        if "authorization violation" in text.lower():
            who = f"user {self.user}" if self.user else "this user"
            return f"the broker refuses {who}: {text}; correct SLA_NATS_USER and SLA_NATS_PASSWORD, or the user there"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the broker's certificate is not trusted: {error.verify_message}; SLA_NATS_CA names who signed it"
        if isinstance(error, ssl.SSLError):
            return (
                f"there is no TLS with the broker: {text}; it must have handshake_first, and may ask for SLA_NATS_CERT"
            )
        if isinstance(error, OSError):
            return f"{text}; start it, or set SLA_NATS_URL"
        return text


ANONYMOUS = Credentials()
