"""Help pages of `ssd2`: what everyday people need first, the laboratory apart."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from ssd2.cli import app

COMMAND = typer.main.get_command(app)


def paths(command: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, below in command.commands.items():
        yield from paths(below, (*path, name)) if isinstance(below, TyperGroup) else [(*path, name)]


def help_of(*path: str) -> str:
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    return result.stdout


def rows(page: str) -> list[str]:
    return re.findall(r"^│ \*? *([\w-]+)", page, flags=re.MULTILINE)


def test_everyday_help_has_no_laboratory() -> None:
    assert rows(help_of()) == [
        *("--version", "--help"),
        *("train", "convert", "export", "experts", "inspect", "measure", "evaluate", "lab"),
    ]
    assert rows(help_of("lab")) == ["--help", "text", "judge", "dynamics", "cad", "votes", "claim"]
    assert not {"text", "judge", "dynamics"} & set(rows(help_of("evaluate")))


def test_help_of_every_command_shows_flags_without_a_type_and_an_example() -> None:
    for path in paths(COMMAND):
        page = help_of(*path)
        assert "Example" in page, path
        assert "<bool>" not in page, path


def test_approximate_options_stand_under_advanced_with_their_cost() -> None:
    everyday, advanced = help_of("evaluate", "order-free").split("─ Advanced ─")
    approximate = {"--stop", "--patience", "--core-every", "--logits"}
    assert approximate <= set(rows(advanced))
    assert not approximate & set(rows(everyday))
    assert advanced.lower().count("approximate") == len(approximate)


@pytest.mark.parametrize("name", ["ssd2", "evaluate", "lab"])
def test_a_group_without_a_command_shows_its_help(name: str) -> None:
    path = [] if name == "ssd2" else [name]
    assert rows(CliRunner().invoke(app, path, env={"COLUMNS": "200"}).output) == rows(help_of(*path))


def test_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert re.fullmatch(r"ssd2 \d+\.\d+\.\d+\S*\n", result.stdout)
