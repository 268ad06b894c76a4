"""Texts of errors: what they may name, and that each face's remedies exist."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.core
import typer.main

from core_server import remedies as of_core
from core_server.__main__ import _parser as core_parser
from core_server.access.commands import _parser as access_parser
from ssd2.cli import app as ssd2_app
from ssd2.cli import remedies as of_ssd2
from ssd2.errors import ANY, PARAMETERS_SENT_BY_CORES, Remedies, SlingshotError, all_kinds
from ssd2.lab import errors as judge_errors
from tests.end_to_end.conftest import ROOT
from user_agent import errors as device_errors
from user_agent.answering.request import AnswerSettings
from user_agent.commands import remedies as of_device
from user_agent.commands.app import app as device_app

OF_A_TERMINAL = re.compile(r"(?<![\w-])--[a-z]|\b(?:user-agent|core-server|ssd2) [a-z]|\bSLINGSHOT_|\bXDG_[A-Z]")
"""An option, a command or a variable: what only a reader in a terminal can use."""

TERMINALS = (
    *("user_agent/commands/", "user_agent/config.py", "user_agent/tuning/report.py"),
    *("core_server/__main__.py", "core_server/config.py", "core_server/remedies.py", "core_server/access/commands.py"),
    "core_server/models.py",
    *("shared/ssd2/cli/", "shared/ssd2/lab/judge_report.py", "shared/ssd2/lab/text_report.py"),
)
"""Modules whose texts are read in a terminal only, or in a report that shows its command."""

OWNERS = (judge_errors.__name__, device_errors.__name__)
IDIOMS = re.compile(
    r"not to be had|was asked for|(?<!there )\b(?:is|are) no |\balone\b|in the clear|\banew\b|"
    r"give (?:it|one|another|its|both|at)\b"
)
"""Kinds of wording that the style guide's tables replace."""

ERRORS = {kind for kind in all_kinds() if kind.__module__ in (SlingshotError.__module__, *OWNERS)}
NAMES = {kind.__name__ for kind in ERRORS}
FILES = [
    file
    for package in ("user_agent", "core_server", "shared/ssd2")
    for file in sorted((ROOT / package).rglob("*.py"))
    if not str(file.relative_to(ROOT)).startswith(TERMINALS)
]


def texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield each string of a tree with its line, the parts of an f-string joined; docstrings are left out."""
    skipped: set[int] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
            skipped.add(id(one.value))
        elif isinstance(one, ast.JoinedStr):
            skipped |= {id(part) for part in ast.walk(one)}
            yield one.lineno, "".join(part.value if isinstance(part, ast.Constant) else "…" for part in one.values)
        elif isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in skipped:
            yield one.lineno, one.value


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_text_outside_the_command_lines_names_an_option_a_command_or_a_variable(file: Path) -> None:
    for line, text in texts(ast.parse(file.read_text())):
        if " " in text:  # else an argument or a prefix
            assert not OF_A_TERMINAL.search(text), f"{file.name}, line {line}: {text}"


def raised(file: Path) -> Iterator[ast.Call]:
    """Yield the calls that make an error."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in NAMES:
            yield node


def test_no_error_uses_a_wording_that_the_style_guide_replaces() -> None:
    for package in ("user_agent", "core_server", "shared/ssd2"):
        for file in (ROOT / package).rglob("*.py"):
            for call in raised(file):
                for line, text in texts(call):
                    assert not IDIOMS.search(text), f"{file.relative_to(ROOT)}, line {line}: {text}"


def test_every_limit_comes_with_its_parameter() -> None:
    for file in FILES:
        for call in raised(file):
            given = {keyword.arg for keyword in call.keywords}
            assert "limit" not in given or "parameter" in given, f"{file.name}, line {call.lineno}"


def test_a_core_names_only_parameters_that_a_device_believes() -> None:
    sent = {kind.__name__ for kind in all_kinds() if kind.is_public}
    files = (*(ROOT / "core_server/catalogue").glob("*.py"), *(ROOT / "core_server/frontend").glob("[!s]*.py"))
    for file in (*files, ROOT / "core_server/frontend/service.py", ROOT / "shared/ssd2/wire/codec.py"):
        for call in raised(file):
            named = [keyword.value.value for keyword in call.keywords if keyword.arg == "parameter"]  # type: ignore[attr-defined]
            if ast.unparse(call.func).rpartition(".")[2] in sent:
                assert set(named) <= PARAMETERS_SENT_BY_CORES, f"{file.name}, line {call.lineno}"


def _options(command: typer.core.TyperGroup | typer.core.TyperCommand) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for child in getattr(command, "commands", {}).values():
        yield from _options(child)


def _of_parser(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _of_parser(child)


FACES = {
    "user-agent": (of_device.REMEDIES, {*_options(typer.main.get_command(device_app))}),  # type: ignore[arg-type]
    "core-server": (of_core.REMEDIES, {*_of_parser(core_parser()), *_of_parser(access_parser())}),
    "ssd2": (of_ssd2.REMEDIES, {*_options(typer.main.get_command(ssd2_app)), "--nproc-per-node"}),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("face", FACES)
def test_every_remedy_names_options_that_exist_and_belongs_to_an_error(face: str) -> None:
    remedies: Remedies = FACES[face][0]
    codes = {kind.code for kind in (SlingshotError, *all_kinds())} | {ANY}
    for (code, parameter), remedy in remedies.items():
        assert code in codes
        assert parameter is not None or code != ANY
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", remedy)) <= FACES[face][1], remedy


@pytest.mark.parametrize("face", FACES)
def test_every_remedy_is_of_a_parameter_that_some_error_names(face: str) -> None:
    named = {
        keyword.value.value
        for package in ("user_agent", "core_server", "shared/ssd2")
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "parameter" and isinstance(keyword.value, ast.Constant)
    } | {"core", "ca", "client_certificate", *AnswerSettings.model_fields}  # these options are generated
    assert {parameter for _, parameter in FACES[face][0]} - {None} <= named
