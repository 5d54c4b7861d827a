"""A policy that has the words which the shipped one does not need."""

from pathlib import Path
from tempfile import TemporaryDirectory

from sla.policy import Policy
from sla.policy_file import load_policy_file

WORDS = """\
name: words
version: "2026-01"
zone: Europe/Stockholm
calendars:
  office: {hours: {mon-fri: ["09:00-17:00"]}, holidays: {country: SE}}
  always: {hours: {daily: ["00:00-24:00"]}, holidays: none}
warn_at: [75%, 30m before]
remind_after: [1h, 4h]
priorities:
  critical: {severity: critical}
  serious: {severity: error}
  minor: {severity: warning}
  request: {severity: warning}
levels:
  gold:
    hours: office
    targets:
      critical: {within: 1h, hours: always}
      serious: 4h
      minor: 8h
      request: none
  silver:
    hours: office
    targets:
      critical: end of day
      serious: next working day by 17:00
      minor: 2 working days
      request: 5 days
"""


def read_policy(text: str) -> Policy:
    """The policy of a file with this text."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text(text, encoding="utf-8")
        return load_policy_file(path)


POLICY = read_policy(WORDS)
