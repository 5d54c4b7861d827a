"""The policies in docs/: each is complete, and promises what docs/writing-a-policy.md says."""

import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import pytest

from sla.policy_file import load_policy_file
from tests import scenarios
from tests.scenarios import RULES, SCENARIOS
from tests.support.commands import call
from tests.support.policy_page import SENTENCES, Sentence, read_policy_sentences

DOCS = Path(__file__).parents[2] / "docs"
OFFSETS = {"UTC": 0, "GMT": 0, "BST": 1, "EST": -5, "EDT": -4, "CET": 1, "CEST": 2}


class Row(NamedTuple):
    policy: str
    level: str
    priority: str
    opened: str
    due: str
    because: str


def rows() -> Iterator[Row]:
    """The table of the page, without its links."""
    for line in (DOCS / "writing-a-policy.md").read_text(encoding="utf-8").splitlines():
        cells = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell.strip()) for cell in line.strip("|").split("|")]
        if len(cells) == len(Row._fields) and cells[0].startswith(("always", "two", "corner")):
            yield Row(*cells)


def instant(text: str) -> datetime:
    """`Fri 2026-12-25 23:50 UTC`."""
    _, day, time, zone = text.split()
    return datetime.fromisoformat(f"{day} {time}").replace(tzinfo=timezone(timedelta(hours=OFFSETS[zone])))


@pytest.mark.parametrize("row", list(rows()), ids=str)
def test_a_policy_of_the_docs_promises_what_the_page_says(row: Row) -> None:
    level = load_policy_file(DOCS / "policies" / f"{row.policy}.yaml").get_level(row.level)
    due = instant(row.due)
    assert level.targets[row.priority].find_due(instant(row.opened)) == due
    assert f"{due:%a}" == row.due[:3] and f"{instant(row.opened):%a}" == row.opened[:3]


def test_each_of_them_is_in_the_table() -> None:
    assert {row.policy for row in rows()} == {file.stem for file in (DOCS / "policies").iterdir()}
    assert len(list(rows())) == 11


class Shape(NamedTuple):
    """A complete policy on the page, and the rows below it: level, priority, promise, start, deadline, reason."""

    name: str
    text: str
    rows: tuple[tuple[str, ...], ...]


def read_shapes() -> Iterator[Shape]:
    page = (DOCS / "writing-a-policy.md").read_text(encoding="utf-8")
    for text, after in re.findall(r"^```yaml\n(.*?)^```\n(.*?)(?=^#)", page, flags=re.M | re.S):
        lines = (line.strip("|").split("|") for line in after.splitlines() if line.startswith("|"))
        rows = tuple(tuple(cell.strip() for cell in line) for line in lines)[2:]
        yield Shape(text.splitlines()[0].removeprefix("name: "), text, rows)


SHAPES = list(read_shapes())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_of_the_page_is_a_policy_that_means_what_it_says(shape: Shape, tmp_path: Path) -> None:
    file = tmp_path / f"{shape.name}.yaml"
    file.write_text(shape.text, encoding="utf-8")
    checked = call("policy", "check", file)
    assert checked.code == 0 and checked.out.startswith(f"{file}: fine: {shape.name}"), checked
    assert "warning" not in checked.out
    policy = load_policy_file(file)
    assert shape.rows
    for level, priority, promise, start, due, _ in shape.rows:
        target = policy.find_target(level, priority, promise)
        if target is None:
            assert due == "none"
            continue
        assert target.find_due(instant(start)) == instant(due), (level, priority, promise, start)
        assert f"{instant(start):%a} {instant(due):%a}" == f"{start[:3]} {due[:3]}"


def test_the_page_has_no_yaml_that_is_not_a_policy() -> None:
    page = (DOCS / "writing-a-policy.md").read_text(encoding="utf-8")
    assert len(SHAPES) == page.count("```yaml") == page.count("```yaml\nname: ") == 10


def test_every_sentence_of_the_support_policy_has_its_row() -> None:
    sections, sentences = zip(*read_policy_sentences(), strict=True)
    assert list(sentences) == [row.says for row in SENTENCES]
    assert Counter(sections) == {1: 2, 2: 9, 3: 4, 4: 3, 5: 5, 6: 6, 7: 9, 8: 7, 9: 4, 10: 6, 11: 2}


@pytest.mark.parametrize("row", SENTENCES, ids=lambda row: row.says[:40])
def test_a_sentence_is_a_rule_that_scenarios_show_or_is_out_of_scope(row: Sentence) -> None:
    assert bool(row.shown_by) is not row.rule.startswith("Out of scope: ")
    assert set(row.shown_by) <= {scenario.name for scenario in SCENARIOS}


def test_every_scenario_is_on_the_page_under_its_rule() -> None:
    modules = {module.name for module in pkgutil.iter_modules(scenarios.__path__)} - {"scenario"}
    assert {id(rule.scenarios) for rule in RULES} == {id(getattr(scenarios, name).SCENARIOS) for name in modules}
    assert all(scenario.rule == rule.number for rule in RULES for scenario in rule.scenarios)
