"""Names in the source: one meaning each, the words of the glossary, functions that begin with a verb."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.source.vocabulary import BANNED, KEPT, VERBS
from tests.support.pages import parse_module

pytestmark = pytest.mark.xdist_group("source")

ROOT = Path(__file__).parents[2]
PRODUCT = ("events", "sla", "projections", "services")
FOLDERS = (*PRODUCT, "tests", "bench", "deploy")
VERB_NAMES, VERB_DOCSTRINGS = 0.60, 0.50  # at least; the models of the field have 60 to 77 and 41 to 62 %

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Name(NamedTuple):
    """A public name: the words in it, and where it is."""

    text: str
    at: str

    @property
    def words(self) -> list[str]:
        return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", self.text.rpartition(".")[2])


@cache
def list_modules(*folders: str) -> tuple[tuple[str, ast.Module], ...]:
    """Return the path and the parsed source of each module."""
    files = (file for folder in folders for file in sorted((ROOT / folder).rglob("*.py")))
    return tuple((str(file.relative_to(ROOT)), parse_module(file)) for file in files)


def is_public(name: str) -> bool:
    return not name.startswith("_")


def assigned_names(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Yield the names that the statements of a module or a class assign to, and their lines."""
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in filter(None, targets):
            for node in ast.walk(target):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id, node.lineno


def public_names(path: str, tree: ast.Module) -> Iterator[Name]:
    """Yield the module itself, its constants, classes, functions and their parameters, as others see them."""
    yield Name(path.removesuffix(".py").removesuffix("/__init__").rpartition("/")[2], path)
    yield from _names_of(path, tree.body, "")


def _names_of(path: str, body: list[ast.stmt], owner: str) -> Iterator[Name]:
    assignments = [node for node in body if isinstance(node, ast.Assign | ast.AnnAssign)]
    for name, line in assigned_names(assignments):
        if is_public(name):
            yield Name(owner + name, f"{path}:{line}")
    for node in body:
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            yield Name(owner + node.name, f"{path}:{node.lineno}")
            yield from _names_of(path, node.body, f"{node.name}.")
        elif isinstance(node, Function) and (is_public(node.name) or node.name == "__init__"):
            yield Name(owner + node.name, f"{path}:{node.lineno}")
            for parameter in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                if is_public(parameter.arg):
                    yield Name(f"{owner}{node.name}.{parameter.arg}", f"{path}:{parameter.lineno}")


def has_banned_word(name: Name) -> bool:
    words = [word.lower() for word in name.words]
    dead_letter = ("dead", "letter")
    pairs = set(pairwise(words))
    return any(word in BANNED and not (word == "letter" and dead_letter in pairs) for word in words)


def instead_of(name: Name) -> str:
    return "; ".join(f"not {word}, but {BANNED[word]}" for word in map(str.lower, name.words) if word in BANNED)


def test_no_class_and_no_constant_is_defined_in_two_modules() -> None:
    defined = defaultdict[str, set[str]](set)
    for path, tree in list_modules(*PRODUCT):
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                defined[node.name].add(path)
        for name, _ in assigned_names([node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]):
            if name.isupper() and is_public(name) and len(name) > 1:
                defined[name].add(path)
    twice = [f"{name}: {', '.join(sorted(paths))}" for name, paths in sorted(defined.items()) if len(paths) > 1]
    assert not twice, "\n".join(twice)


def test_public_names_have_the_words_of_the_glossary() -> None:
    found = [name for path, tree in list_modules(*PRODUCT) for name in public_names(path, tree)]
    wrong = [name for name in found if has_banned_word(name) and name.text not in KEPT]
    assert not wrong, "\n".join(f"{name.at} {name.text}: {instead_of(name)}" for name in wrong)
    assert {name.text for name in found} >= set(KEPT), "an exception for a name that is gone"


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("Announcer.tell", True),
        ("SLACK", True),
        ("WholeStore", True),
        ("wait.patience", True),
        ("LetterBox", True),
        ("DeadLetter", False),
        ("dead_letters", False),
        ("DEAD_LETTER", False),
        ("holes", False),
        ("tellable", False),
    ],
)
def test_a_banned_word_is_found_in_any_spelling(text: str, banned: bool) -> None:
    assert has_banned_word(Name(text, "")) is banned


def functions(tree: ast.Module) -> Iterator[Function]:
    """Yield all functions whose name is chosen to be called: no dunders, properties, constructors or commands."""
    exempt = re.compile(r"\w*property\b|\w+\.(setter|command|callback)\b|(classmethod|staticmethod)\b")
    for node in ast.walk(tree):
        if not isinstance(node, Function) or node.name.startswith("__"):
            continue
        if not any(exempt.match(ast.unparse(each)) for each in node.decorator_list):
            yield node


def begins_with_verb(function: Function) -> bool:
    return function.name.lstrip("_").partition("_")[0] in VERBS


def docstring_begins_with_verb(docstring: str) -> bool:
    first = re.match(r"[A-Za-z]+", docstring.strip())
    return first is not None and first[0].lower() in VERBS


def test_names_of_functions_begin_with_a_verb() -> None:
    found = [(path, each) for path, tree in list_modules(*PRODUCT) for each in functions(tree)]
    others = [f"{path}:{each.lineno} {each.name}" for path, each in found if not begins_with_verb(each)]
    share = 1 - len(others) / len(found)
    assert share >= VERB_NAMES, "\n".join(others)


def test_docstrings_of_functions_begin_in_the_imperative() -> None:
    found = [(path, each, ast.get_docstring(each)) for path, tree in list_modules(*PRODUCT) for each in functions(tree)]
    documented = [(path, each, text) for path, each, text in found if text]
    others = [
        f"{path}:{each.lineno} {each.name}: {text[:50]}"
        for path, each, text in documented
        if not docstring_begins_with_verb(text)
    ]
    share = 1 - len(others) / len(documented)
    assert share >= VERB_DOCSTRINGS, "\n".join(others)


def test_every_module_opens_with_a_docstring() -> None:
    assert [path for path, tree in list_modules(*FOLDERS) if not ast.get_docstring(tree)] == []
