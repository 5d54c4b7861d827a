"""JSON Schemas of whole messages, from the code: `python -m events.generate` writes the files, --check compares."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from events import promises, tickets
from events.cloudevents import MAX_NAME, TIME_SCHEMA
from events.examples import find_example

SCHEMAS = Path(__file__).parent / "schemas"

_NAME = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
_CHARACTER = r"\u0000-\u001f\u007f-\u00a0\u2028\u2029"
_TICKET = _NAME | {
    "maxLength": 128,
    "pattern": f"^[^ {_CHARACTER}]([^{_CHARACTER}]*[^ {_CHARACTER}])?$",
    "description": "The ticket id: printable (Python's str.isprintable), no space at its ends; case and form count.",
}


class _Untitled(GenerateJsonSchema):
    """A generator that omits a title which only repeats the name of its member."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def build_incoming_schema(data_type: type[tickets.TicketData]) -> dict[str, Any]:
    """Build the schema of a message that others publish. An explicit null is an absent member."""
    data = data_type.model_json_schema(schema_generator=_Untitled)
    required = data.get("required", [])
    for name, member in data["properties"].items():
        if name not in required and "anyOf" not in member:
            default = member.pop("default")
            data["properties"][name] = {"anyOf": [member, {"type": "null"}], "default": default}
    return _build_message_schema(data_type.type, data, source=_NAME, more_required=["data"] if required else [])


def build_outgoing_schema(data_type: type[promises.AnnouncementData]) -> dict[str, Any]:
    """Build the schema of a message that we publish."""
    data = data_type.model_json_schema(schema_generator=_Untitled, mode="serialization")
    return _build_message_schema(
        data_type.type, data, source={"const": promises.SLA_SOURCE}, more_required=["datacontenttype", "data"]
    )


def _build_message_schema(
    name: str, data: dict[str, Any], source: dict[str, Any], more_required: list[str]
) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:sla-engine:{name}",
        "title": name,
        "description": data.pop("description"),
        "type": "object",
        "required": ["specversion", "type", "source", "id", "subject", "time", *more_required],
        "properties": {
            "specversion": {"const": "1.0"},
            "type": {"const": name},
            "source": source,
            "id": _NAME,
            "subject": _TICKET,
            "time": TIME_SCHEMA,
            "datacontenttype": {"type": "string"},
            "data": data,
        },
        "examples": [find_example(name)],
    }


def build_schemas() -> dict[str, dict[str, Any]]:
    """Build the schema of every message, in and out, by type."""
    return {data.type: build_incoming_schema(data) for data in tickets.TICKET_EVENT_TYPES.values()} | {
        data.type: build_outgoing_schema(data) for data in promises.ANNOUNCEMENT_TYPES.values()
    }


def render_files() -> dict[Path, str]:
    """Render the files that belong into events/schemas, by path."""
    return {
        SCHEMAS / f"{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in build_schemas().items()
    }


def write_files(files: dict[Path, str], command: str, check: bool, present: set[Path]) -> int:
    """Write files and remove what else is `present`; with `check`, only name what is stale. Returns the exit code."""
    stale = [path for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]
    surplus = sorted(present - files.keys())
    if check:
        for path in [*stale, *surplus]:
            sys.stderr.write(f"{path} is stale; run `{command}` and commit the result\n")
        return 1 if stale or surplus else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], "utf-8")
    for path in surplus:
        path.unlink()
    return 0


def main(arguments: list[str]) -> int:
    return write_files(
        render_files(), "python -m events.generate", arguments == ["--check"], set(SCHEMAS.glob("*.json"))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
