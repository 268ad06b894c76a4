"""Shape of the help pages: flags without a type, examples a line each, rare options in a panel of their own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, ClassVar

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
    """A group of commands with the same help.

    Attributes:
        default: command that runs if the first word names no command; "" for none.
    """

    default: ClassVar[str] = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the group's name."""
        return super().parse_args(ctx, self.with_default(args))

    def with_default(self, args: list[str]) -> list[str]:
        """Return the words with the default command in front, if they name no command."""
        is_named = not args or args[0] in (*self.commands, "--help")
        return args if is_named or not self.default else [self.default, *args]

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
        shape: dict[str, Any] = {"cls": Group, "no_args_is_help": True}
        super().__init__(add_completion=False, pretty_exceptions_enable=False, **{**shape, **settings})

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
