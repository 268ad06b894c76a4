"""Shape of the help pages: flags without a type, examples a line each, rare options in a panel of their own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

ADVANCED = "Advanced"
"""Panel of the options that few people set."""


class Command(TyperCommand):
    """A command whose help shows flags as `--json`, where Typer writes `--json <bool>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        return _without_bool(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands with the same help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        return _without_bool(super().get_params(ctx))


def _without_bool(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return params


class App(typer.Typer):
    """A command line: groups and commands whose help has this shape."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            cls=Group, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, **settings
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Add a command, as Typer does.

        Args:
            name: the function's, unless given.
            **settings: of Typer's own `command`.
        """
        return super().command(name, **{"cls": Command, **settings})


def examples(*commands: str) -> str:
    """Return the end of a help page, an example a line; Typer breaks lines only at empty ones."""
    return "\n\n".join(["Examples:" if len(commands) > 1 else "Example:", *(f"  {command}" for command in commands)])


def version_option(program: str) -> Any:
    """Return the type of a parameter that makes `--version`: it prints the version and exits."""

    def show(is_asked: bool) -> None:
        if is_asked:
            typer.echo(f"{program} {version('slingshot')}")
            raise typer.Exit

    return typer.Option("--version", callback=show, is_eager=True, help="Show the version and exit.")
