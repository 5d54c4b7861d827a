"""The documentation: links lead somewhere, and what it names exists."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.promises import ANNOUNCEMENT_TYPES
from events.tickets import TICKET_EVENT_TYPES
from tests.support.pages import list_anchors, read_prose

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


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


def test_each_message_has_its_row_in_the_readme() -> None:
    first_cells = "".join(re.findall(r"^\|([^|]*)\|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert [name for name in TICKET_EVENT_TYPES if f"`{name.removeprefix('ticket.')}`" not in first_cells] == []
    assert [name for name in ANNOUNCEMENT_TYPES if f"`{name}.…`" not in first_cells] == []


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
