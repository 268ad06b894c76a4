"""Shape of the source: short functions, few files at the roots of the packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("shared/ssd2", "core_server", "user_agent")

LONGEST, MEDIAN = 60, 7
"""Lines of a function, from its `def` to its last line, docstring included."""


def functions() -> Iterator[tuple[str, int]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            if "_pb2" not in file.name:
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                        yield f"{file.relative_to(ROOT)}:{node.name}", (node.end_lineno or 0) - node.lineno + 1


def test_no_function_is_longer_than_60_lines_and_the_median_is_7() -> None:
    lengths = dict(functions())
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}
    assert median(lines for _, lines in functions()) <= MEDIAN


@pytest.mark.parametrize(("package", "most"), [("shared/ssd2", 5), ("core_server", 6), ("user_agent", 8)])
def test_few_files_lie_at_the_root_of_a_package(package: str, most: int) -> None:
    assert len(list((ROOT / package).glob("*.py"))) <= most
