"""The policy file: YAML into a resolved policy, with the line of every problem. What a policy promises is in policy.py.

`policies/cention-support.yaml` shows the settings. Only this module of the rules reads a file, and only it needs the
packages `yaml` and `holidays`: a policy that was read once is stored resolved.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from events.cloudevents import parse_time
from sla.calendar import DAY_MINUTES, WEEKDAYS, Window, get_zone, parse_day_of_year, parse_weekdays
from sla.policy import (
    FIRST_RESPONSE,
    NO_PROMISE,
    RESOLVED_FORMAT,
    SEVERITIES,
    Policy,
    ResolvedJson,
    build_support_hours,
)
from sla.targets import LONGEST_TARGET, format_duration, parse_duration, parse_target, parse_threshold

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)

WARN_AT = (50, 75, 90)
"""Warnings in percent of the target, unless the file says otherwise."""

HORIZON = range(1999, 2103)
"""The local years whose holidays are written out: facts lie in 2000 to 2100, their deadlines a little later."""

LAST_TABLE_YEAR = 2099
"""The package `holidays` has no table of the moon for 2100 and later."""

HALF_DAY = "half_day"
"""The category of `holidays` whose days it names as if they were whole ones."""

LARGEST_FILE = 256 * 1024  # bytes
DEEPEST_NESTING = 10
REQUIRED = ("name", "version", "zone", "priorities", "levels")
OPTIONAL = (
    *("effective_from", "material", "holidays", "calendars", "warn_at", "remind_after", "closing_answer"),
    *("objectives", "exclusions"),
)
PLAIN_YAML = "a policy is plain YAML: indented with spaces, every bracket and quote closed, without anchors and tags"
STARTS, STOPS = ("opened", "customer_replied", "responded"), ("responded", "closed")

_TOKEN = re.compile(r"[a-z0-9_-]{1,32}")
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,32}")
_ABBREVIATED_ZONE = re.compile(r"[EMH]ST|[EMCP]ST[0-9][EMCP]DT|[CMWE]ET|GMT.*|Etc/GMT.*")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _parse_closing_answer(text: str) -> timedelta:
    """Parse how long after a close an answer counts; `0s` is not at all. Raises ValueError."""
    span = timedelta(0) if text == "0s" else parse_duration(text)
    if span > timedelta(hours=1):
        raise ValueError(f"{text!r} is too long; an answer counts at most 1h after the close")
    return span


class PolicyError(ValueError):
    """A policy file that cannot be used. `problems` has a line `FILE:LINE: what, and the rule` for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def load_policy_file(path: str | PathLike[str]) -> Policy:
    """Read the policy of a file. Raises PolicyError with all problems of the file."""
    return read_policy_file(path, None)[0]


def read_policy_file(path: str | PathLike[str], year: int | None) -> tuple[Policy, list[str]]:
    """
    Read the policy of a file, and what its writer may not have meant in this year and later, as lines
    `FILE:LINE: what, and what to do`; nothing without a year. Raises PolicyError with all problems of the file.
    """
    file = _PolicyFile(path, year)
    resolved = file.read()
    if resolved is None:
        raise PolicyError(file.list_problems())
    policy = replace(
        Policy.from_resolved(resolved), effective_from=file.effective_from, material=file.material, source=file.source
    )
    return policy, file.list_warnings()


class _Names(NamedTuple):
    """What the levels of a policy refer to; the objectives without the first response."""

    priorities: tuple[str, ...]
    objectives: tuple[str, ...]
    calendars: ResolvedJson


def _is_ever_open(rules: ResolvedJson, policy: ResolvedJson) -> bool:
    try:
        return build_support_hours(rules, policy).is_ever_open(HORIZON)
    except ValueError:
        return False


# --- the values of a file; each function parses a text, or its ValueError says what is wrong and what to write


def _parse_token(text: str) -> str:
    if not _TOKEN.fullmatch(text) or text == "none":
        raise ValueError(f"{text!r} is not a name; names are 1 to 32 of a-z, 0-9, _ and -, and none is reserved")
    return text


def _parse_version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ValueError(f"{text!r} is not a version; write 1 to 32 letters, digits, dots, _ or -, such as 2026-01")
    return text


def _parse_label(text: str) -> str:
    if not text.isprintable() or text != text.strip() or not 1 <= len(text) <= 128:
        raise ValueError(
            f"{text[:40]!r} is not a label; write 1 to 128 printable characters without blanks around them"
        )
    return text


def _parse_description(text: str) -> str:
    if not text.isprintable() or not 1 <= len(text) <= 500:
        raise ValueError(
            f"{text[:40]!r} is not a description; write 1 to 500 printable characters, without line breaks"
        )
    return text


def _parse_zone(text: str) -> str:
    get_zone(text)
    return text


def _parse_day(text: str) -> str:
    """Return the date as text. Raises ValueError unless it exists and lies in the horizon."""
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise ValueError(f"{text!r} is not a date; write a day that exists as YYYY-MM-DD")
    if day.year not in HORIZON:
        raise ValueError(f"{text} is out of range; dates lie in the years {HORIZON[0]} to {HORIZON[-1]}")
    return text


def _parse_day_of_year(text: str) -> str:
    parse_day_of_year(text)
    return text


def _make_calendar_parser(declared: Collection[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in declared:
            known = f"write one of {', '.join(declared)}" if declared else "write windows, or name it in calendars"
            raise ValueError(f"{text!r} is not a calendar; {known}")
        return text

    return parse


def _make_effect_parser(zone: str) -> Callable[[str], datetime]:
    """Return a parser of a date (its first instant in this zone) or an instant with an offset, into UTC."""

    def parse(text: str) -> datetime:
        if _DATE.fullmatch(text):
            return datetime.combine(date.fromisoformat(_parse_day(text)), time(), get_zone(zone)).astimezone(UTC)
        try:
            instant = parse_time(text.replace(" ", "T", 1))
        except ValueError:
            raise ValueError(
                f"{text!r} is neither a date nor an instant; write YYYY-MM-DD, or YYYY-MM-DDTHH:MM:SS+01:00"
            ) from None
        _parse_day(instant.date().isoformat())
        return instant

    return parse


def _make_target_parser(earliest: int | None) -> Callable[[str], int | str]:
    """
    Return a parser of a target, into seconds, or as it is if it names days. `earliest` is the first opening of a day in
    minutes, None if nobody can say.
    """

    def parse(text: str) -> int | str:
        target = parse_target(text)
        if isinstance(target, timedelta):
            return target // timedelta(seconds=1)
        if target.by is not None and earliest is not None and target.by <= earliest:
            opening = f"{earliest // 60:02}:{earliest % 60:02}"
            raise ValueError(f"{text!r} is before any opening; write a time after {opening}, when the first day opens")
        return text

    return parse


def _parse_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is not a yes or no; write true or false")
    return text == "true"


def _make_choice_parser(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is not allowed; write one of {', '.join(names)}")
        return text

    return parse


def _make_key_parser(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is an unknown key; known are {', '.join(names)}")
        return text

    return parse


def _make_priority_parser(declared: tuple[str, ...]) -> Callable[[str], str]:
    return _make_choice_parser(*declared) if declared else _parse_token


def _parse_country(code: str) -> str:
    if not re.fullmatch(r"[A-Z]{2}", code) or _get_holiday_entity(code) is None:
        raise ValueError(f"{code!r} is not a country with known holidays; write a two-letter ISO code such as SE")
    return code


@cache
def _get_holiday_entity(country: str) -> Any:
    """Return what the `holidays` package has of a country, without any dates yet; None if it has nothing."""
    import holidays  # only here: it takes 80 ms, and a resolved policy does without it

    try:
        return holidays.country_holidays(country, years=())
    except NotImplementedError:
        return None


@cache
def _build_holidays(country: str, subdivision: str | None, categories: tuple[str, ...]) -> Mapping[str, str]:
    """
    Return date and name of a country's holidays in the horizon, without plain Sundays; as far as the package has them.

    Every argument is explicit: by default, the language of the names would follow the environment
    (docs/upstream-behaviour.md#c3).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of some tables that end, in words of its own: _find_ends
        return _list_holidays(country, subdivision, categories)


def _list_holidays(country: str, subdivision: str | None, categories: tuple[str, ...]) -> Mapping[str, str]:
    entity = _get_holiday_entity(country)
    options: ResolvedJson = {"include_sundays": False} if country in ("NO", "SE") else {}
    language = "en_US" if "en_US" in entity.supported_languages else entity.default_language
    calendar = type(entity)(
        years=range(HORIZON[0], 2101),
        subdiv=subdivision,
        categories=categories,
        language=language,
        observed=True,
        expand=True,
        **options,
    )
    if calendar.end_year == 2100:
        calendar.end_year = HORIZON[-1]
        with suppress(TypeError, AttributeError):  # raised where the package has tables, of the moon, that end in 2100
            for year in range(2101, HORIZON.stop):
                calendar.get(date(year, 1, 1))  # asking for a date fills its year
    return {day.isoformat(): name for day, name in sorted(calendar.items()) if day.year in HORIZON}


def _find_ends(holidays: Mapping[str, str]) -> dict[int, list[str]]:
    """Return the names of holidays that each of five years had and no later one has, by the last of these years."""
    years_of: dict[str, list[int]] = {}
    for day, names in holidays.items():
        for name in _split_names(names):
            years = years_of.setdefault(name, [])
            years += [year for year in (int(day[:4]),) if year not in years[-1:]]
    ends: dict[int, list[str]] = {}
    for name, years in years_of.items():
        if years[-5:] == list(range(years[-1] - 4, years[-1] + 1)):
            ends.setdefault(years[-1], []).append(name)
    return dict(sorted(ends.items()))


def _split_names(names: str) -> list[str]:
    """Return the names of the holidays of one day, without what the package says of them in brackets."""
    return [name.partition(" (")[0] for name in names.split("; ")]


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _describe_zone(zone: str) -> str:
    winter, summer = (datetime(2026, month, 1, tzinfo=get_zone(zone)).isoformat()[-6:] for month in (1, 7))
    if winter == summer:
        return f"{zone} is UTC{winter} all year, without summer time"
    return f"{zone} is UTC{winter} in winter and UTC{summer} in summer"


def _iterate_sundays() -> Iterator[str]:
    first, last = date(HORIZON[0], 1, 1).toordinal(), date(HORIZON.stop, 1, 1).toordinal()
    return (date.fromordinal(day).isoformat() for day in range(first, last) if day % 7 == 0)


# --- the file


_KINDS = {yaml.ScalarNode: "a single value", yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}


class _Loader(yaml.SafeLoader):
    """YAML as nodes with line numbers, refusing what only an attacker needs: aliases, tags, depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="found an anchor (&), an alias (*) or a tag (!)", problem_mark=event.start_mark
            )
        if self.depth == DEEPEST_NESTING:
            raise yaml.MarkedYAMLError(problem="nested too deeply for a policy", problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _list_texts(node: yaml.Node) -> Any:
    """Return the texts of a file as JSON, without comments and layout."""
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.MappingNode):
        return {"mapping": [[_list_texts(key), _list_texts(value)] for key, value in node.value]}
    return [_list_texts(item) for item in node.value]


class _PolicyFile:
    """
    A policy file being read: collects every problem with its line instead of stopping at the first one.

    The methods that read a part return it as it will stand in the resolved policy; where it has problems, a stand-in.
    """

    def __init__(self, path: str | PathLike[str], year: int | None) -> None:
        self._path, self._year = Path(path), year
        self._found: list[tuple[int, str]] = []
        self._warned: list[tuple[int, str]] = []
        self.effective_from: datetime | None = None
        self.material: bool | None = None
        self.source: str | None = None

    def list_problems(self) -> list[str]:
        """Return the problems found so far by line, as `FILE:LINE: what, and the rule`."""
        return self._list_lines(self._found)

    def list_warnings(self) -> list[str]:
        """Return the warnings so far, in the same form."""
        return self._list_lines(self._warned)

    def _list_lines(self, texts: Iterable[tuple[int, str]]) -> list[str]:
        return [f"{self._path}:{line}: {text}" for line, text in sorted(texts, key=itemgetter(0))]

    def read(self) -> ResolvedJson | None:
        """Return the resolved policy; None if there are problems."""
        root = self._read_root()
        if root is None:
            return None
        self.source = hashlib.sha256(json.dumps(_list_texts(root)).encode()).hexdigest()
        resolved = self._read_policy(root)
        return None if self._found else resolved

    def _add_problem(self, line: int, text: str) -> None:
        self._found.append((line, " ".join(text.split())))

    def _reject(self, node: yaml.Node, text: str) -> None:
        self._add_problem(node.start_mark.line + 1, text)

    def _warn(self, node: yaml.Node, text: str) -> None:
        self._warned.append((node.start_mark.line + 1, text))

    # --- from bytes to nodes

    def _read_root(self) -> yaml.Node | None:
        text = self._read_text()
        if text is None:
            return None
        try:
            root = yaml.compose(text, _Loader)
        except yaml.reader.ReaderError as error:
            self._add_problem(text.count("\n", 0, error.position) + 1, "has a control character; remove it")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._add_problem(mark.line + 1 if mark else 1, f"{error.context or ''} {error.problem}; {PLAIN_YAML}")
        else:
            if root is None:
                self._add_problem(1, f"the file is empty; a policy has {', '.join(REQUIRED)}")
            return root
        return None

    def _read_text(self) -> str | None:
        try:
            raw = self._path.read_bytes()
        except OSError as error:
            self._add_problem(1, f"the file cannot be read ({error.strerror}); give the path of a policy file")
            return None
        if len(raw) > LARGEST_FILE:
            self._add_problem(1, f"the file has {len(raw)} bytes; a policy has at most {LARGEST_FILE}")
            return None
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            self._add_problem(raw.count(b"\n", 0, error.start) + 1, "not UTF-8; save the file as UTF-8")
            return None

    # --- from nodes to values

    def _parse_value(self, node: yaml.Node | None, what: str, parse: Callable[[str], _T]) -> _T | None:
        """Parse a scalar from its plain text: for YAML itself 09:00 might be a number and `no` a boolean."""
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode):
            self._reject(node, f"{what} is {_KINDS[type(node)]}; write a single value")
            return None
        try:
            return parse(node.value)
        except ValueError as error:
            self._reject(node, f"{what}: {error}")
            return None

    def _parse_values(self, node: yaml.Node | None, what: str, parse: Callable[[str], _T]) -> list[_T]:
        parsed = (self._parse_value(item, what, parse) for item in self._read_items(node, what))
        return [value for value in parsed if value is not None]

    def _read_items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        if node is not None:
            self._reject(node, f"{what} is {_KINDS[type(node)]}; write a list: [a, b]")
        return []

    def _read_entries(self, node: yaml.Node | None, what: str, parse: Callable[[str], _K]) -> dict[_K, yaml.Node]:
        """Return the values of a mapping by parsed key, each key once."""
        entries: dict[_K, yaml.Node] = {}
        if node is not None and not isinstance(node, yaml.MappingNode):
            self._reject(node, f"{what} is {_KINDS[type(node)]}; write lines of key: value")
        elif node is not None:
            for key_node, value in node.value:
                key = self._parse_value(key_node, f"key of {what}", parse)
                if key in entries:
                    self._reject(key_node, f"{what} has the key {key_node.value!r} twice; keep one of them")
                elif key is not None:
                    entries[key] = value
        return entries

    def _read_fields(
        self, node: yaml.Node | None, what: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, yaml.Node]:
        """Return the values of a mapping whose keys are ours: all `required`, any `optional`, no other."""
        fields = self._read_entries(node, what, _make_key_parser(*required, *optional))
        if isinstance(node, yaml.MappingNode):
            for missing in (name for name in required if name not in fields):
                self._reject(node, f"{what} has no {missing}; add it")
        return fields

    def _read_named(self, node: yaml.Node | None, what: str) -> dict[str, yaml.Node]:
        """Return the values of a mapping whose keys are names chosen by the policy, at least one."""
        if isinstance(node, yaml.MappingNode) and not node.value:
            self._reject(node, f"{what} is empty; name at least one")
        return self._read_entries(node, what, _parse_token)

    # --- the parts of a policy

    def _read_policy(self, root: yaml.Node) -> ResolvedJson:
        fields = self._read_fields(root, "the policy", REQUIRED, OPTIONAL)
        zone = self._read_zone(fields.get("zone"), "zone")
        self.effective_from = self._parse_value(
            fields.get("effective_from"), "effective_from", _make_effect_parser(zone or "UTC")
        )
        self.material = self._parse_value(fields.get("material"), "material", _parse_flag)
        if not {"holidays", "calendars"} & fields.keys():
            self._reject(root, "the policy has no holidays; add it")
        resolved = {
            "zone": zone or "UTC",
            "holidays": self._read_holidays(fields["holidays"], "holidays") if "holidays" in fields else None,
        }
        priorities = self._read_priorities(fields.get("priorities"))
        levels = self._read_named(fields.get("levels"), "levels").items()
        optional: ResolvedJson = {}
        if "calendars" in fields:
            optional["calendars"] = self._read_calendars(fields["calendars"], resolved)
        if "remind_after" in fields:
            optional["remind_after"] = self._read_remind_after(fields["remind_after"])
        if "objectives" in fields:
            optional["objectives"] = self._read_objectives(fields["objectives"])
        if "closing_answer" in fields:
            span = self._parse_value(fields["closing_answer"], "closing_answer", _parse_closing_answer)
            optional["closing_answer"] = None if span is None else span // timedelta(seconds=1)
        if "exclusions" in fields:
            optional["exclusions"] = self._read_exclusions(fields["exclusions"])
        names = _Names(
            priorities=tuple(priorities),
            objectives=tuple(name for name in optional.get("objectives", ()) if name != FIRST_RESPONSE),
            calendars=optional.get("calendars", {}),
        )
        read = [self._read_level(name, node, names, resolved) for name, node in levels]
        return {
            "format": RESOLVED_FORMAT,
            "name": self._parse_value(fields.get("name"), "name", _parse_token),
            "version": self._parse_value(fields.get("version"), "version", _parse_version),
            "zone": zone,
            "horizon": [HORIZON[0], HORIZON[-1]],
            "holidays": resolved["holidays"] or {},
            "warn_at": self._read_warn_at(fields["warn_at"], read) if "warn_at" in fields else list(WARN_AT),
            "priorities": [{"name": name, **settings} for name, settings in priorities.items()],
            "levels": read,
            **optional,
        }

    def _read_zone(self, node: yaml.Node | None, what: str) -> str | None:
        zone = self._parse_value(node, what, _parse_zone)
        if node is not None and zone is not None and _ABBREVIATED_ZONE.fullmatch(zone):
            self._warn(node, f"{what}: {_describe_zone(zone)}; write the place that is meant, such as America/New_York")
        return zone

    def _read_objectives(self, node: yaml.Node) -> ResolvedJson:
        """Return the rules of each objective by name: what starts, stops, pauses and repeats its clock."""
        objectives: ResolvedJson = {}
        for name, rules in self._read_named(node, "objectives").items():
            what = f"objectives: {name}"
            if name == FIRST_RESPONSE:
                fields = self._read_fields(rules, what, ("pauses",))
                objectives[name] = {"pauses": self._parse_value(fields.get("pauses"), f"{what}: pauses", _parse_flag)}
                continue
            fields = self._read_fields(rules, what, ("starts", "stops"), ("pauses", "repeats"))
            starts = self._read_starts(fields.get("starts"), f"{what}: starts")
            stops = self._parse_value(fields.get("stops"), f"{what}: stops", _make_choice_parser(*STOPS))
            flags = {
                flag: bool(flag in fields and self._parse_value(fields[flag], f"{what}: {flag}", _parse_flag))
                for flag in ("pauses", "repeats")
            }
            if stops == "closed" and {*starts} - {"opened"}:
                self._reject(rules, f"{what}: stops closed: a reply or an answer waits for a response; write responded")
            if len(starts) > 1 and not flags["repeats"]:
                self._reject(rules, f"{what}: starts is {starts}, which takes several cycles; add repeats: true")
            objectives[name] = {"starts": starts, "stops": stops, **flags}
        return objectives

    def _read_starts(self, node: yaml.Node | None, what: str) -> list[str]:
        """Return what starts a clock: one word, or a list of them."""
        items = self._read_items(node, what) if isinstance(node, yaml.SequenceNode) else [node]
        found = [self._parse_value(item, what, _make_choice_parser(*STARTS)) for item in items]
        starts = [start for start in found if start is not None]
        if node is not None and (not items or len(starts) > len(set(starts))):
            self._reject(node, f"{what} is {starts}; give each of them once, and at least one")
        if node is not None and {"customer_replied", "responded"} <= set(starts):
            self._reject(
                node, f"{what}: an answer starts the clock before the customer replies; leave one of the two out"
            )
        return starts

    def _read_exclusions(self, node: yaml.Node) -> list[str]:
        reasons = self._parse_values(node, "exclusions", _parse_token)
        if len(reasons) > len(set(reasons)):
            self._reject(node, f"exclusions is {reasons}; give every reason once")
        return reasons

    def _read_warn_at(self, node: yaml.Node, levels: Sequence[ResolvedJson]) -> list[int | str]:
        """Return percents as numbers, and spans as they are written."""
        thresholds = self._parse_values(node, "warn_at", parse_threshold)
        percents = [threshold.percent for threshold in thresholds if threshold.percent is not None]
        if percents != sorted(percents) or len(set(thresholds)) < len(thresholds):
            self._reject(node, f"warn_at is {', '.join(map(str, thresholds))}; thresholds ascend, each once")
        shortest = min(_list_spans(levels), default=LONGEST_TARGET)
        for threshold in thresholds:
            if threshold.find_share(shortest) is None:
                span = format_duration(shortest)
                self._reject(
                    node, f"warn_at: {threshold} is longer than the target {span}; a warning is after the start"
                )
        return [threshold.percent or str(threshold) for threshold in thresholds]

    def _read_remind_after(self, node: yaml.Node) -> list[int]:
        spans = self._parse_values(node, "remind_after", parse_duration)
        if spans != sorted(set(spans)):
            self._reject(node, f"remind_after is {', '.join(map(format_duration, spans))}; spans ascend, each once")
        return [span // timedelta(seconds=1) for span in spans]

    def _read_priorities(self, node: yaml.Node | None) -> dict[str, dict[str, str | None]]:
        priorities: dict[str, dict[str, str | None]] = {}
        for name, settings in self._read_named(node, "priorities").items():
            what = f"priority {name}"
            fields = self._read_fields(settings, what, ("severity",), ("description",))
            severity = self._parse_value(fields.get("severity"), f"{what}: severity", _make_choice_parser(*SEVERITIES))
            priorities[name] = {"severity": severity}
            if "description" in fields:
                text = self._parse_value(fields["description"], f"{what}: description", _parse_description)
                priorities[name]["description"] = text
        return priorities

    def _read_calendars(self, node: yaml.Node, policy: ResolvedJson) -> ResolvedJson:
        nodes = self._read_named(node, "calendars")
        calendars = {name: self._read_calendar(name, it, tuple(nodes), policy) for name, it in nodes.items()}
        for name in calendars:
            if name in _list_joined(calendars, name):
                self._reject(nodes[name], f"calendar {name}: any_of contains {name} itself; leave it out")
        return calendars

    def _read_calendar(self, name: str, node: yaml.Node, names: tuple[str, ...], policy: ResolvedJson) -> ResolvedJson:
        what, found = f"calendar {name}", len(self._found)
        if isinstance(node, yaml.MappingNode) and any(key.value == "any_of" for key, _ in node.value):
            fields = self._read_fields(node, what, ("any_of",))
            joined = self._parse_values(fields.get("any_of"), f"{what}: any_of", _make_calendar_parser(names))
            if len(self._found) == found and not joined:
                self._reject(fields["any_of"], f"{what}: any_of is empty; name at least one calendar")
            return {"any_of": joined}
        fields = self._read_fields(node, what, ("hours",), ("zone", "hours_from", "exceptions", "holidays", "yearly"))
        yearly = self._read_entries(fields.get("yearly"), f"{what}: yearly", _parse_day_of_year)
        calendar = {
            **self._read_hours(fields, what),
            "holidays": "closed",
            "yearly": {day: self._read_windows(it, f"{what}: yearly {day}") for day, it in yearly.items()},
        }
        if "holidays" in fields:
            calendar["holidays"] = self._read_holidays(fields["holidays"], f"{what}: holidays")
        self._check_hours(node, calendar, what, found, policy)
        return calendar

    def _read_hours(self, fields: Mapping[str, yaml.Node], what: str) -> ResolvedJson:
        """Return the windows of a calendar, or of a level that has its own, and the zone if they have another one."""
        changes = self._read_entries(fields.get("hours_from"), f"{what}: hours_from", _parse_day)
        exceptions = self._read_entries(fields.get("exceptions"), f"{what}: exceptions", _parse_day)
        zone = self._read_zone(fields.get("zone"), f"{what}: zone")
        return {
            "hours": self._read_week(fields.get("hours"), f"{what}: hours"),
            "hours_from": {day: self._read_week(week, f"{what}: hours_from {day}") for day, week in changes.items()},
            "exceptions": {day: self._read_exception(it, f"{what}: exception {day}") for day, it in exceptions.items()},
            **({"zone": zone} if zone else {}),
        }

    def _check_hours(self, node: yaml.Node, hours: ResolvedJson, what: str, found: int, policy: ResolvedJson) -> None:
        """Reject hours without holidays, or that are never open; `found` problems were there before they were read."""
        if hours["holidays"] == "closed" and policy["holidays"] is None:
            self._reject(
                node,
                f"{what} takes the holidays of the policy, which has none; add holidays: none, or a country, to it",
            )
        elif len(self._found) == found and not _is_ever_open(hours, policy):
            self._reject(node, f"{what} is never open; give it a window on a day that is not closed")

    def _read_holidays(self, node: yaml.Node, what: str) -> dict[str, str]:
        if isinstance(node, yaml.ScalarNode):
            self._parse_value(node, what, _make_choice_parser("none"))
            return {}
        optional = ("country", "subdivision", "categories", "include_sundays", "add", "remove")
        fields = self._read_fields(node, what, (), optional)
        days = (
            dict.fromkeys(_iterate_sundays(), "Sunday")
            if self._parse_value(fields.get("include_sundays"), f"{what}: include_sundays", _parse_flag)
            else {}
        )
        national = self._read_national_holidays(fields, what)
        days |= national or {}
        for item in self._read_items(fields.get("remove"), f"{what}: remove"):
            day = self._parse_value(item, f"{what}: remove", _parse_day)
            if day is not None and days.pop(day, None) is None and national is not None:
                self._reject(item, f"{what}: remove: {day} is not a holiday; remove only what is one, and once")
        for day, name in self._read_entries(fields.get("add"), f"{what}: add", _parse_day).items():
            days[day] = self._parse_value(name, f"{what}: add: {day}", _parse_label) or ""
        return days

    def _read_national_holidays(self, fields: Mapping[str, yaml.Node], what: str) -> Mapping[str, str] | None:
        """Return the holidays of the country, none if there is no country; None if it or its settings have problems."""
        found = len(self._found)
        if "country" not in fields:
            for name in {"subdivision", "categories"} & fields.keys():
                self._reject(fields[name], f"{what}: {name} without a country; add the country")
            return {} if len(self._found) == found else None
        country = self._parse_value(fields["country"], f"{what}: country", _parse_country)
        if country is None:
            return None
        known = _get_holiday_entity(country)
        subdivision = self._parse_value(
            fields.get("subdivision"), f"{what}: subdivision", _make_choice_parser(*known.subdivisions)
        )
        allowed = _make_choice_parser(*(name for name in known.supported_categories if name != HALF_DAY))
        categories = self._parse_values(fields.get("categories"), f"{what}: categories", allowed)
        if "categories" in fields and fields["categories"].value == []:
            self._reject(fields["categories"], f"{what}: categories is empty; write [public], or holidays: none")
        if len(self._found) > found:
            return None
        holidays = _build_holidays(country, subdivision, tuple(categories or ["public"]))
        if self._year is not None:
            self._warn_of_holidays(
                fields["country"], f"{what}: {country}", (country, subdivision), holidays, self._year
            )
        return holidays

    def _warn_of_holidays(
        self, node: yaml.Node, what: str, place: tuple[str, str | None], holidays: Mapping[str, str], since: int
    ) -> None:
        """Warn of what the package does not know of a country and its subdivision, or knows and does not close."""
        country, subdivision = place
        known = _get_holiday_entity(country)
        if known.subdivisions and subdivision is None:
            names = _join(known.subdivisions)
            self._warn(node, f"{what} as a whole lacks the holidays of its parts; add a subdivision, one of {names}")
        if HALF_DAY in known.supported_categories:
            halves = _build_holidays(country, subdivision, (HALF_DAY,))
            names = _join(
                sorted({name for day in halves if int(day[:4]) >= since for name in _split_names(halves[day])})
            )
            names = names or "in parts of it, or in earlier years"
            self._warn(node, f"{what} has half days ({names}), which are not closed; write short days as exceptions")
        for year, ended in _find_ends(holidays).items():
            if since <= year < LAST_TABLE_YEAR:
                is_end_of_all = not any(day[:4] > str(year) for day in holidays)
                what_ends = (
                    f"no holiday is known after {year}" if is_end_of_all else f"not known after {year}: {_join(ended)}"
                )
                self._warn(node, f"{what}: {what_ends}; add the days, or publish a version by then")

    def _read_level(self, name: str, node: yaml.Node, names: _Names, policy: ResolvedJson) -> ResolvedJson:
        what = f"level {name}"
        required = ("hours", "targets", *(("objectives",) if names.objectives else ()))
        optional = ("zone", "hours_from", "exceptions", "holidays", "channels", "escalation")
        fields = self._read_fields(node, what, required, optional)
        escalation = self._read_fields(fields.get("escalation"), f"{what}: escalation", ("tell",))
        hours = self._read_level_hours(fields, what, names, policy)
        targets = self._read_targets(fields.get("targets"), f"{what}: targets", names, hours)
        others = self._read_objective_targets(fields, what, names, hours) if names.objectives else {}
        promised = [target for each in (targets, *others.values()) for target in each.values()]
        if promised and all(target == NO_PROMISE for target in promised):
            self._reject(fields["targets"], f"{what}: targets are none for all priorities; promise something to one")
        return {
            "name": name,
            **hours,
            "targets": targets,
            "channels": self._read_channels(fields.get("channels"), f"{what}: channels", names),
            "tell": self._parse_values(escalation.get("tell"), f"{what}: tell", _parse_label),
            **({"objectives": others} if others else {}),
        }

    def _read_level_hours(
        self, fields: Mapping[str, yaml.Node], what: str, names: _Names, policy: ResolvedJson
    ) -> ResolvedJson:
        """Return the name of a calendar, or the windows of the level."""
        node, found = fields.get("hours"), len(self._found)
        if isinstance(node, yaml.ScalarNode):
            calendar = self._parse_value(node, f"{what}: hours", _make_calendar_parser(names.calendars))
            for name in ("zone", "hours_from", "exceptions", "holidays"):
                if name in fields:
                    self._reject(fields[name], f"{what}: {name} beside the name of a calendar; write it there")
            return {"hours": calendar}
        closed = self._parse_value(fields.get("holidays"), f"{what}: holidays", _make_choice_parser("closed", "open"))
        hours = {**self._read_hours(fields, what), "holidays": closed or "closed"}
        if node is not None:
            self._check_hours(node, hours, what, found, policy)
        return hours

    def _read_week(self, node: yaml.Node | None, what: str) -> dict[str, list[str]]:
        week: dict[str, list[str]] = {}
        for days, items in self._read_entries(node, what, parse_weekdays).items():
            windows = self._read_windows(items, what)
            for day in (WEEKDAYS[day] for day in days):
                if day in week:
                    self._reject(
                        items, f"{what}: {day} is given twice; give every weekday once, with all of its windows"
                    )
                week[day] = windows
        return week

    def _read_windows(self, node: yaml.Node | None, what: str) -> list[str]:
        """Return the windows of one day, sorted; they may touch, but not overlap."""
        parsed = [(self._parse_value(item, what, Window.parse), item) for item in self._read_items(node, what)]
        windows = sorted(((window, item) for window, item in parsed if window), key=itemgetter(0))
        for (before, _), (window, item) in pairwise(windows):
            if window.start < before.end:
                self._reject(item, f"{what}: {window} overlaps {before}; make one window of the two")
        for window, item in windows:
            if window.end % DAY_MINUTES == DAY_MINUTES - 1:
                self._warn(item, f"{what}: {window} leaves out the minute before midnight; the day ends at 24:00")
        return [str(window) for window, _ in windows]

    def _read_exception(self, node: yaml.Node, what: str) -> ResolvedJson:
        fields = self._read_fields(node, what, ("name", "hours"))
        name = self._parse_value(fields.get("name"), f"{what}: name", _parse_label)
        return {"name": name, "hours": self._read_windows(fields.get("hours"), f"{what}: hours")}

    def _read_objective_targets(
        self, fields: Mapping[str, yaml.Node], what: str, names: _Names, hours: ResolvedJson
    ) -> dict[str, dict[str, Any]]:
        """Return the targets of each objective beside the first response; every level has all of them."""
        nodes = self._read_fields(fields.get("objectives"), f"{what}: objectives", names.objectives)
        return {
            name: self._read_targets(node, f"{what}: objectives: {name}", names, hours) for name, node in nodes.items()
        }

    def _read_targets(self, node: yaml.Node | None, what: str, names: _Names, hours: ResolvedJson) -> dict[str, Any]:
        targets = self._read_entries(node, what, _make_priority_parser(names.priorities))
        if isinstance(node, yaml.MappingNode):
            for missing in (name for name in names.priorities if name not in targets):
                self._reject(
                    node, f"{what}: nothing for {missing}; every priority has a target in every level, or none"
                )
        return {name: self._read_target(target, f"{what}: {name}", names, hours) for name, target in targets.items()}

    def _read_target(self, node: yaml.Node, what: str, names: _Names, hours: ResolvedJson) -> Any:
        """Return a target by the hours of its level, or with the calendar by which it counts, or none."""
        if isinstance(node, yaml.ScalarNode) and node.value == NO_PROMISE:
            return NO_PROMISE
        if not isinstance(node, yaml.MappingNode):
            return self._parse_value(node, what, _make_target_parser(_find_earliest_opening(hours, names.calendars)))
        fields = self._read_fields(node, what, ("within", "hours"))
        calendar = self._parse_value(fields.get("hours"), f"{what}: hours", _make_calendar_parser(names.calendars))
        parse = _make_target_parser(_find_earliest_opening({"hours": calendar}, names.calendars))
        return {"within": self._parse_value(fields.get("within"), f"{what}: within", parse), "hours": calendar}

    def _read_channels(self, node: yaml.Node | None, what: str, names: _Names) -> dict[str, list[str]]:
        channels = {}
        for name, allowed in self._read_entries(node, what, _parse_token).items():
            if isinstance(allowed, yaml.ScalarNode):
                self._parse_value(allowed, f"{what}: {name}", _make_choice_parser("all"))
                channels[name] = list(names.priorities)
            else:
                parse = _make_priority_parser(names.priorities)
                channels[name] = self._parse_values(allowed, f"{what}: {name}", parse)
        return channels


def _list_joined(calendars: ResolvedJson, name: str) -> set[str]:
    """Return the calendars that one is joined of, and those that these are joined of."""
    found, waiting = set[str](), [name]
    while waiting:
        new = set(calendars[waiting.pop()].get("any_of", ())) - found
        found |= new
        waiting += new
    return found


def _find_earliest_opening(hours: ResolvedJson, calendars: ResolvedJson) -> int | None:
    """
    Return when a day opens at the earliest, in minutes, of a level or a calendar; None if they are joined of several
    zones, or have problems.
    """
    name = hours["hours"]
    names = [name, *_list_joined(calendars, name)] if isinstance(name, str) and name in calendars else []
    rules = [calendars[each] for each in names if "any_of" not in calendars[each]] or [hours]
    if len({each.get("zone") for each in rules}) > 1:
        return None
    written = [each for each in rules if isinstance(each["hours"], dict)]
    weeks = [week for each in written for week in (each["hours"], *each["hours_from"].values())]
    days = [texts for week in weeks for texts in week.values()]
    days += [day["hours"] for each in rules for day in each.get("exceptions", {}).values()]
    days += [texts for each in rules for texts in each.get("yearly", {}).values()]
    return min((Window.parse(text).start for texts in days for text in texts), default=None)


def _list_spans(levels: Sequence[ResolvedJson]) -> Iterator[timedelta]:
    """Yield the targets that are spans, of every level and objective."""
    for level in levels:
        for targets in (level["targets"], *level.get("objectives", {}).values()):
            for target in targets.values():
                seconds = target["within"] if isinstance(target, dict) else target
                if isinstance(seconds, int):
                    yield timedelta(seconds=seconds)
