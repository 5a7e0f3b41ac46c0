"""Mutations: every single change of a module that should make a test fail.

Law: nothing in this file runs a test. mutmut's operators change expressions; three of our own remove a
statement, negate a condition and empty a loop. Annotations, texts for people, decorators and numbers that
are `Final` are left alone: a change there alters nothing, or only what a test would repeat.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any, Final

import libcst as cst
from libcst import matchers as m
from mutmut.mutation.mutators import mutation_operators, operator_string

from tests.mutants.survivors import Key

# A description is for a cell of a table.
_MOST_CHARACTERS: Final = 150

_LOG_CALL: Final = m.Call(
    func=m.Attribute(attr=m.Name("_log"))
    | m.Attribute(value=m.Name("logger") | m.Call(func=m.Attribute(value=m.Name("logger"))))
)
_NEVER_REACHED: Final = m.Call(func=m.Name("assert_never"))
_IS_FINAL: Final = m.Name("Final") | m.Subscript(value=m.Name("Final"))
_LEFT_ALONE: Final = (
    m.Annotation()
    | m.FormattedString()
    | m.Decorator()
    | m.Import()
    | m.ImportFrom()
    | m.If(test=m.Name("TYPE_CHECKING"))
    | m.FunctionDef(name=m.Name("__repr__") | m.Name("__str__"))
    | m.Assert()
    | m.AnnAssign(annotation=m.Annotation(m.Name("TypeAlias")))
    | m.AnnAssign(annotation=m.Annotation(_IS_FINAL), value=m.Integer() | m.Float() | m.BinaryOperation())
    # An alias of types.
    | m.Assign(value=m.BinaryOperation(operator=m.BitOr()) | m.Subscript())
    | _LOG_CALL
    | _NEVER_REACHED
)
_KINDS_LEFT_ALONE: Final = tuple(getattr(cst, type(each).__name__) for each in _LEFT_ALONE.options)
_NOT_REMOVED: Final = m.SimpleStatementLine(
    body=[
        m.Pass()
        | m.Import()
        | m.ImportFrom()
        | m.Global()
        | m.Nonlocal()
        | m.Assert()
        | m.AnnAssign()
        | m.Continue()
        | m.Break()
        | m.Expr(m.SimpleString() | m.ConcatenatedString() | _NEVER_REACHED | m.Ellipsis())
    ]
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: path of the module, relative to the project.
        where: the class and function that it changes, or "".
        change: the lines before and after it.
        code: the whole module after it.
    """

    module: str
    where: str
    change: str
    code: str

    @property
    def key(self) -> Key:
        """It stays the same as long as nobody edits the changed lines."""
        return Key(f"{self.module} {self.where}".strip(), self.change)


@dataclass(frozen=True, slots=True)
class _Site:
    """A node that can be changed, in one way or another. `rank` decides whether the sample has it."""

    rank: bytes
    module: str
    where: str
    source: cst.Module
    node: cst.CSTNode
    changed: tuple[cst.CSTNode, ...]


def sample(root: Path, modules: Iterable[str], count: int, seed: int) -> list[Mutant]:
    """`count` mutants of these modules, one a node at most.

    A hash of the node's text and of its function draws them: an edit redraws only what it touches.
    """
    sites = [site for module in modules for site in _sites(module, (root / module).read_text(), seed)]
    found: list[Mutant] = []
    for site in sorted(sites, key=lambda site: site.rank):
        if len(found) == count:
            break
        if mutant := _mutant(site):
            found.append(mutant)
    return found


def _sites(module: str, text: str, seed: int) -> Iterator[_Site]:
    source = cst.parse_module(text)
    seen: Counter[tuple[str, str]] = Counter()
    for where, node, changed in _changes(source, ()):
        code = source.code_for_node(node)
        seen[where, code] += 1
        identity = f"{seed} {module} {where} {code} {seen[where, code]}"
        yield _Site(hashlib.sha256(identity.encode()).digest(), module, where, source, node, changed)


def _changes(
    node: cst.CSTNode, names: tuple[str, ...]
) -> Iterator[tuple[str, cst.CSTNode, tuple[cst.CSTNode, ...]]]:
    """Every node that can be changed, with its class and function and what can be put in its place."""
    if _is_left_alone(node):
        return
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        names = (*names, node.name.value)
    changed = tuple(_changed(node))
    if changed:
        yield ".".join(names), node, changed
    for child in node.body.children if isinstance(node, cst.ClassDef) else node.children:
        yield from _changes(child, names)


def _is_left_alone(node: cst.CSTNode) -> bool:
    # Matching is slow, and most nodes are of other types.
    return isinstance(node, _KINDS_LEFT_ALONE) and m.matches(node, _LEFT_ALONE)


def _changed(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    match node:
        case cst.SimpleStatementLine() if not m.matches(node, _NOT_REMOVED):
            yield node.with_changes(body=[cst.Pass()])
        case cst.If() | cst.While() | cst.CompIf():
            condition = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
            space = cst.SimpleWhitespace(" ")
            negated = cst.UnaryOperation(cst.Not(), condition)
            spaces = {} if not isinstance(node, cst.CompIf) else {"whitespace_before_test": space}
            yield node.with_changes(test=negated, **spaces)
        case cst.For(asynchronous=None) | cst.CompFor(asynchronous=None):
            yield node.with_changes(iter=cst.Tuple([]))
    for kind, operator in mutation_operators:
        if isinstance(node, kind) and operator is not operator_string:
            yield from operator(node)


def _mutant(site: _Site) -> Mutant | None:
    """The mutant of that site, or None if no change of it is a program that differs."""
    draw = int.from_bytes(site.rank[:8])
    for turn in range(len(site.changed)):
        changed: Any = site.changed[(draw + turn) % len(site.changed)]
        code = site.source.deep_replace(site.node, changed).code
        if code == site.source.code or not _compiles(code):
            continue
        return Mutant(site.module, site.where, _describe(site.source.code, code), code)
    return None


def _compiles(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _describe(before: str, after: str) -> str:
    lines = list(unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[3:]
    return " → ".join(_joined([line[1:] for line in lines if line[0] == sign]) for sign in "-+")


def _joined(lines: list[str]) -> str:
    text = " ".join(line.strip() for line in lines)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
