"""What comments, docstrings and documents name exists: pages, anchors, files, tests, settings, definitions."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from services.runtime.settings import Settings
from tests.support.pages import list_anchors, parse_module

pytestmark = pytest.mark.xdist_group("source")

ROOT = Path(__file__).parents[2]
FOLDERS = ("events", "sla", "projections", "services", "tests", "bench", "deploy", ".ci")
SOURCES = sorted(
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*")
    if file.is_file() and "__pycache__" not in file.parts and file.suffix not in (".pyc", ".jsonl", ".json", ".png")
)
OUR_FOLDERS = "events|sla|projections|services|tests|bench|deploy|docs"
# A path: one of our folders, then names; not a part of a longer path, of a URL or of a subject.
PATH = re.compile(rf"(?<![\w/.~<{{-])(?:{OUR_FOLDERS})(?:/[\w.*-]+)+")


@cache
def read_prose(file: Path) -> str:
    """Return the docstrings and comments of a module; of any other file, all of its text."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        return text
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = (ast.get_docstring(node) or "" for node in ast.walk(parse_module(file)) if isinstance(node, kinds))
    return "\n".join([*docstrings, *re.findall(r"(?:^|  )# .*$", text, re.MULTILINE)])


def named_pages(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the pages that a file names anywhere, each with its anchor or an empty text."""
    yield from re.findall(r"\b(docs/[\w./-]+\.md)(?:#([\w-]+))?", file.read_text(encoding="utf-8"))


def named_paths(file: Path) -> Iterator[str]:
    """Yield the paths in the repository that the prose of a file names, and test modules named without theirs."""
    prose = read_prose(file)
    yield from (match[0].rstrip(".") for match in PATH.finditer(prose))
    yield from (f"tests/*/{name}" for name in re.findall(r"(?<![\w/])test_\w+\.py\b", prose))


def test_every_page_and_anchor_that_the_source_names_is_there() -> None:
    dead = [
        f"{file.relative_to(ROOT)}: {page}#{anchor}"
        for file in SOURCES
        for page, anchor in named_pages(file)
        if not (ROOT / page).exists() or (anchor and anchor not in list_anchors(ROOT / page))
    ]
    assert not dead, "\n".join(dead)


def test_every_path_that_the_source_names_is_there() -> None:
    dead = [
        f"{file.relative_to(ROOT)}: {path}"
        for file in SOURCES
        for path in named_paths(file)
        if not list(ROOT.glob(path)) and not list(file.parent.glob(path))
    ]
    assert not dead, "\n".join(dead)


def test_the_source_names_no_document_that_is_not_here() -> None:
    outside = re.compile(r"\bTRAPS\b|(?<![Pp]olicy )\b[Ss]ection \d|\((?:rule|decision) \d")
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in SOURCES
        if file != Path(__file__)
        for match in outside.finditer(read_prose(file))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    pages = [ROOT / "README.md", ROOT / "docs" / "operations.md", ROOT / "docs" / "testing.md"]
    assert any(re.search(rf"\bSLA_{name.upper()}\b", page.read_text(encoding="utf-8")) for page in pages)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page}" not in index} == set()
