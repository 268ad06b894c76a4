"""Command-line options generated from settings, so that no command describes one again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeAlias

import typer

from user_agent.answering.request import AnswerSettings
from user_agent.config import SETTINGS
from user_agent.fields import Setting
from user_agent.line.settings import LineSettings

ADVANCED = "Advanced"
"""Panel of the help that stands behind the options that everybody sets."""

ANSWER = tuple(AnswerSettings.model_fields)
LINE = tuple(LineSettings.model_fields)
"""Settings that go together, by their names."""

FALLBACK = "Unset options fall back to SLINGSHOT_* variables, then config.toml, then the defaults shown."

Given: TypeAlias = dict[str, Any]
"""Values of generated options, None where an option was not given: the arguments of `load_config`."""


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of these settings; it gets their values in `given`.

    Options that everybody sets come first in its help, and the command's own before the advanced ones.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]
        parameters = [*own, *(_parameter(SETTINGS[name]) for name in names)]

        @wraps(command)
        def run(**values: Any) -> None:
            command(given={name: values.pop(name) for name in names}, **values)

        keyword_only = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in sorted(parameters, key=_rank(names))]
        run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]  # what typer goes by
        run.__annotations__ = {one.name: one.annotation for one in keyword_only}
        return run

    return decorate


def _rank(names: tuple[str, ...]) -> Callable[[inspect.Parameter], int]:
    """Order parameters: arguments, everyday settings, the command's own options, advanced ones."""

    def rank(parameter: inspect.Parameter) -> int:
        (info,) = parameter.annotation.__metadata__
        if isinstance(info, typer.models.ArgumentInfo):
            return 0
        if info.rich_help_panel == ADVANCED:
            return 3
        return 1 if parameter.name in names else 2

    return rank


def _parameter(setting: Setting) -> inspect.Parameter:
    """Make the parameter that typer makes an option of; its value is read where the configuration is loaded."""
    option = typer.Option(
        setting.option,
        help=setting.text,
        show_default=False,  # it is in the text, as in the other faces
        metavar="" if setting.kind is bool else f"<{_type_of(setting)}>",
        rich_help_panel=ADVANCED if setting.face.advanced else None,
    )
    kind = {bool: bool, tuple: list[str]}.get(setting.kind, str)
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _type_of(setting: Setting) -> str:
    return "|".join(setting.choices) or {tuple: "text", str: "text"}.get(setting.kind, setting.kind.__name__.lower())
