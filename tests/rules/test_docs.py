"""The documentation: links lead somewhere, and what it names exists."""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def read_prose(page: Path) -> str:
    """Return the page without its blocks of code, in which nothing is a link."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@cache
def list_anchors(page: Path) -> frozenset[str]:
    """Return what `#…` may name on a page: its headings, as GitHub spells them, and its `<a id="…">`."""
    text = read_prose(page)
    headings = re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    return frozenset({spell_heading(heading) for heading in headings} | set(re.findall(r'<a id="([^"]+)">', text)))


def spell_heading(heading: str) -> str:
    """Return the anchor of a heading: lower case, no punctuation, dashes for spaces."""
    plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def find_links(page: Path) -> Iterator[str]:
    """Yield the targets of links and pictures that do not leave the repository."""
    prose = re.sub(r"`[^`\n]*`", "", read_prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            yield target


def is_dead(page: Path, link: str) -> bool:
    """Whether a link names a file that is not there, or an anchor that its page does not have."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return not target.exists() or bool(anchor and anchor not in list_anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    assert [link for link in find_links(page) if is_dead(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_test_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(
        r"`((?:events|sla|projections|services|tests|bench|deploy)/[\w./-]*\w)(?:::(\w+))?`", read_prose(page)
    )
    gone = [path for path, _ in named if not (ROOT / path).exists()]
    gone += [f"{path}::{test}" for path, test in named if test and f"def {test}(" not in (ROOT / path).read_text()]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_of_the_code_is_where_a_page_says(page: Path) -> None:
    named = re.findall(r"`([A-Za-z_.]+)(?:\(.*?\))?` (?:\(\w+\), )?in `([\w/]+\.py)`", read_prose(page))
    gone = [f"{name} in {path}" for name, path in named if not all(defines(path, each) for each in name.split("."))]
    assert gone == []


def defines(path: str, name: str) -> bool:
    """Whether a module has a class, function, variable or field of this name."""
    return bool(
        re.search(rf"\b(?:class|def) {name}\b|^ *{name}(?:, \w+)*(?::| =)", (ROOT / path).read_text(), re.MULTILINE)
    )


def test_every_anchor_that_the_code_relies_on_is_there() -> None:
    upstream = list_anchors(ROOT / "docs" / "upstream-behaviour.md")
    architecture = list_anchors(ROOT / "docs" / "architecture.md")
    assert {f"rule-{number}" for number in range(1, 17)} <= architecture
    assert {f"decision-{number}" for number in range(1, 11)} <= architecture
    assert {
        f"{letter}{number}" for letter, last in (("e", 16), ("f", 19), ("n", 9)) for number in range(1, last + 1)
    } <= upstream


@pytest.mark.parametrize("container", ["services", "sla"])
def test_the_layers_of_the_architecture_page_are_those_that_are_checked(container: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each.get("containers") == [container])
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = page.partition(f"| layer of `{container}/` |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows] == [re.findall(r"\w+", row) for row in layers]


def test_each_decision_record_is_in_the_index_with_its_title_and_has_all_headings() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for record in sorted(folder.glob("0*.md")):
        title, *headings = re.findall(r"^#+ +(.*)$", record.read_text(encoding="utf-8"), re.MULTILINE)
        number, _, name = title.partition(". ")
        assert f"| {number} | [{name}]({record.name}) |" in index
        assert headings == ["Context", "Decision", "Consequences", "Reconsider when"]
