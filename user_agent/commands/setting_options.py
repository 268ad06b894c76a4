"""Command-line options generated from settings, so that no command describes one again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any, TypeAlias

import typer

from ssd2.cli.help import ADVANCED
from user_agent.answering.request import AnswerSettings
from user_agent.config import SETTINGS, load_config
from user_agent.fields import Setting
from user_agent.line.settings import LineSettings

ANSWER = tuple(AnswerSettings.model_fields)
LINE = tuple(LineSettings.model_fields)
"""Settings that go together, by their names."""

FALLBACK = "Unset options fall back to SLINGSHOT_* variables, then config.toml, then the defaults shown."

Given: TypeAlias = dict[str, Any]
"""Values of generated options, None where an option was not given: the arguments of `load_config`."""


def with_settings(*names: str, **defaults: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of these settings.

    The command gets the loaded configuration as `config`, or the options alone as `given`. In its help the options that
    everybody sets come first, then the command's own, then the advanced ones.

    Args:
        *names: of the settings.
        **defaults: words for the defaults that are others in this command.
    """
    settings = [_with_default(SETTINGS[name], defaults.get(name)) for name in names]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        handed = "config" if own.pop("config", None) else "given"
        own.pop("given", None)
        parameters = sorted([*own.values(), *(_parameter(one) for one in settings)], key=_rank(names))

        @wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            command(**{handed: load_config(**given) if handed == "config" else given}, **values)

        # Typer makes the options of what stands here.
        keyword_only = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in keyword_only}
        run.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\n{FALLBACK}"
        return run

    return decorate


def _with_default(setting: Setting, words: str | None) -> Setting:
    return replace(setting, face=replace(setting.face, default=words)) if words else setting


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
    values = setting.choices or (setting.kind.removesuffix("s"), *(["word"] if setting.words else []))
    metavar = "" if setting.kind == "bool" else f"<{'|'.join(values)}>"
    is_on = setting.info.default is True  # then the option is there to turn it off
    option = typer.Option(
        *([f"--{setting.face.also}"] if setting.face.also else []),
        f"{setting.option}/--no-{setting.option.removeprefix('--')}" if is_on else setting.option,
        help=setting.text,
        show_default=False,  # it is in the text, as in the other faces
        metavar=metavar,
        rich_help_panel=ADVANCED if setting.face.advanced else None,
    )
    kind: Any = {"bool": bool, "texts": list[str]}.get(setting.kind, str)
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )
