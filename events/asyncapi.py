"""The AsyncAPI document of the bus, from the code: `python -m events.asyncapi` writes it, --check compares.

FastStream's generator is not used: it writes one message without a name for each channel, and knows no CloudEvents.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from events import promises, tickets
from events.cloudevents import CONTENT_TYPE, Reason
from events.examples import find_example
from events.generate import build_schemas, write_files

DOCUMENT = Path(__file__).parents[1] / "docs" / "asyncapi.yaml"

_TICKET = {"description": "The ticket id, percent-encoded (UTF-8, upper-case hex) outside [A-Za-z0-9_-]."}
_LEVEL = {"description": "The service level, a name of the policy.", "examples": ["foundation", "enterprise"]}
_PRIORITY = {"description": "The priority, a name of the policy.", "examples": ["critical", "minor"]}

_TICK = {
    "name": "clock.due",
    "title": "clock.due",
    "summary": "A hint that a deadline may have passed. Only the subject and the time the broker stored it are read.",
    "contentType": "application/octet-stream",
    "payload": {"type": "string", "description": "Not read."},
}

_DEAD_LETTER = {
    "name": "dead_letter",
    "title": "Dead letter",
    "summary": "A message that was refused: its original bytes and all its original headers, and why.",
    "contentType": "application/octet-stream",
    "headers": {
        "type": "object",
        "required": ["Sla-Reason", "Sla-Error", "Sla-Subject", "Sla-Sequence", "Nats-Msg-Id"],
        "properties": {
            "Sla-Reason": {"type": "string", "enum": [reason.value for reason in Reason]},
            "Sla-Error": {"type": "string", "description": "The value, the rule and what to do."},
            "Sla-Subject": {"type": "string", "description": "The subject it was published on."},
            "Sla-Sequence": {"type": "string", "description": "Its sequence in the stream TICKETS."},
            "Nats-Msg-Id": {"type": "string", "description": "The sequence again, so that a crash does not double it."},
        },
    },
    "payload": {"type": "string", "format": "binary", "description": "The original body."},
}

_UNDELIVERED = {
    "name": "undelivered",
    "title": "Undelivered announcement",
    "summary": "An announcement that a target of the notifier refused, or did not take in time: as it was on SLA.",
    "contentType": CONTENT_TYPE,
    "headers": {
        "type": "object",
        "required": ["Sla-Target", "Sla-Error", "Sla-Subject"],
        "properties": {
            "Sla-Target": {"type": "string", "description": "The name of the target."},
            "Sla-Error": {"type": "string", "description": "Why the last try failed."},
            "Sla-Subject": {"type": "string", "description": "The subject of the announcement."},
        },
    },
    "payload": {"type": "string", "format": "binary", "description": "The announcement, byte for byte."},
}


def build_document() -> dict[str, Any]:
    """Build the document, AsyncAPI 3.0. The engine receives ticket events and ticks, and sends everything else."""
    inbound, outbound = list(tickets.TICKET_EVENT_TYPES), list(promises.ANNOUNCEMENT_TYPES)
    sla_events = [name.removeprefix("sla.") for name in outbound]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "SLA engine",
            "version": "1.0.0",
            "description": "Ticket and SLA events are CloudEvents 1.0 in JSON, structured; binary mode is read too.",
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            "tickets": _build_channel(
                "tickets.{event}.{ticket}",
                "TICKETS",
                "What happened to a ticket, from any system that knows. The body decides; its ticket must match.",
                {"event": {"enum": [name.removeprefix("ticket.") for name in inbound]}, "ticket": _TICKET},
                inbound,
            ),
            "ticks": _build_channel(
                "clock.due.{ticket}",
                "TICKETS",
                "Ticks of our clock. They queue behind every fact stored before them.",
                {"ticket": _TICKET},
                ["clock.due"],
            ),
            "sla": _build_channel(
                "sla.{event}.{service_level}.{priority}.{ticket}",
                "SLA",
                "What became of the promises. `sla.breached.>` is every breach that may page somebody; "
                "historic ones are on `sla.breached_historic.>`, what retracts them on "
                "`sla.breach_retracted_historic.>`.",
                {
                    "event": {"enum": [*sla_events, "breached_historic", "breach_retracted_historic"]},
                    "service_level": _LEVEL,
                    "priority": _PRIORITY,
                    "ticket": _TICKET,
                },
                outbound,
            ),
            "dead_letters": _build_channel(
                "dead_letters.{reason}",
                "DEAD_LETTERS",
                "Messages that were refused. They claim no id: a corrected one may reuse it.",
                {"reason": {"enum": [reason.value for reason in Reason]}},
                ["dead_letter"],
            ),
            "undelivered": _build_channel(
                "undelivered.{target}",
                "UNDELIVERED",
                "Announcements that could not be told to a target of the notifier.",
                {"target": {"description": "The name of the target in SLA_NOTIFY."}},
                ["undelivered"],
            ),
        },
        "operations": {
            "receive_tickets": _build_operation("receive", "tickets", "Intake records every fact."),
            "send_ticks": _build_operation("send", "ticks", "The clock publishes when a deadline comes."),
            "receive_ticks": _build_operation(
                "receive", "ticks", "Intake judges the ticket; only this breaks a promise."
            ),
            "send_sla": _build_operation(
                "send", "sla", "The announcer publishes what was decided, in order for each ticket."
            ),
            "send_dead_letters": _build_operation("send", "dead_letters", "Intake puts aside what it must refuse."),
            "receive_sla": _build_operation("receive", "sla", "The notifier tells people and their systems."),
            "send_undelivered": _build_operation("send", "undelivered", "The notifier keeps what it could not tell."),
        },
        "components": {
            "messages": {name: _build_message(name, schema["description"]) for name, schema in build_schemas().items()}
            | {"clock.due": _TICK, "dead_letter": _DEAD_LETTER, "undelivered": _UNDELIVERED},
            "schemas": {name: _build_payload(schema) for name, schema in build_schemas().items()},
        },
    }


def _build_channel(
    address: str, stream: str, description: str, parameters: dict[str, Any], messages: list[str]
) -> dict[str, Any]:
    return {
        "address": address,
        "description": f"{description} JetStream stream {stream}.",
        "parameters": parameters,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "x-stream": stream,
    }


def _build_operation(action: str, channel: str, summary: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _build_message(name: str, summary: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "summary": summary,
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "examples": [{"name": name, "payload": find_example(name)}],
    }


def _build_payload(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema in AsyncAPI's own language: JSON Schema without identifiers. The example is at the message."""
    return {name: value for name, value in schema.items() if name not in ("$schema", "$id", "examples")}


class _Plain(yaml.SafeDumper):
    """A dumper without anchors: the document is read by people too."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main(arguments: list[str]) -> int:
    text = yaml.dump(build_document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)
    return write_files({DOCUMENT: text}, "python -m events.asyncapi", arguments == ["--check"], set())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
