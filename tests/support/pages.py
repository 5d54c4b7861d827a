"""The source and the documentation, as tests of names and links read them."""

import ast
import re
from functools import cache
from pathlib import Path


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


@cache
def parse_module(file: Path) -> ast.Module:
    """Return the syntax tree of a module; parsed once, which takes longer than what is asked of it."""
    return ast.parse(file.read_text(encoding="utf-8"))
