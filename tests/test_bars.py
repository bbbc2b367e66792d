"""Bars that the package keeps: how long things are, how typed its seams are, what a class name stands for."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "sartorius"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION, PROBES = 250, 40, 20


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of these kinds in the package, with its file."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kinds):
                yield path, node


def test_files_are_short() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{name(path)}: {node.name}": node.end_lineno - node.lineno + 1
        for path, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    }
    assert {function: length for function, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_seams_are_typed() -> None:
    probes = [name(path) for path, node in nodes(ast.Name) if node.id in ("hasattr", "getattr")]
    assert len(probes) <= PROBES, Counter(probes)


def test_a_class_name_stands_for_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for path, node in nodes(ast.ClassDef):
        places.setdefault(node.name, []).append(name(path))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
