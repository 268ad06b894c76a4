"""Settings described once, as fields of a dataclass: options, variables, help and ranges come from there."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from types import UnionType
from typing import Any, get_args, get_type_hints

from ssd2.errors import InvalidParameter

_KEY = "setting"
_KINDS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Setting:
    """One setting, as the people who set it see it.

    Attributes:
        help: what it is, in a sentence or two.
        option: name of the command-line option without dashes, where it is not the field's.
        metavar: placeholder of the value.
        parse: makes the value of what was given, where its type alone does not.
        is_repeatable: whether `parse` is given the list of all values.
        at_least: lowest value.
        above: value that it must exceed.
        at_most: highest value.
        choices: all values there are.
        is_advanced: whether few people set it.
        default: what the default comes to, in words; None to show the value.
    """

    help: str
    option: str | None = None
    metavar: str | None = None
    parse: Callable[[Any], Any] | None = None
    is_repeatable: bool = False
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    choices: Sequence[str] | None = None
    is_advanced: bool = False
    default: str | None = None

    @property
    def range(self) -> str | None:
        """Range of the values, in words; None if any will do."""
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least:g} to {self.at_most:g}"
        if self.above is not None:
            return f"above {self.above:g}"
        return None if self.at_least is None else f"at least {self.at_least:g}"

    def holds(self, value: float) -> bool:
        """True if a number is in the range; infinity and NaN never are."""
        low = self.at_least is None or value >= self.at_least
        high = value < float("inf") and (self.at_most is None or value <= self.at_most)
        return low and high and (self.above is None or value > self.above)


def setting(help: str, **more: Any) -> dict[str, Setting]:  # noqa: A002  # its name everywhere
    """Return the metadata of a dataclass's field.

    Args:
        help: see `Setting`.
        **more: its other attributes.
    """
    return {_KEY: Setting(help, **more)}


def check_ranges(settings: Any) -> None:
    """Check the values of a dataclass against its settings.

    Raises:
        InvalidParameter: if one is outside its range, or not among the choices.
    """
    for one, about in _settings(type(settings)):
        value, name = getattr(settings, one.name), one.name.removesuffix("_s").replace("_", " ")
        if about.choices and value not in about.choices:
            raise InvalidParameter(f"{name} is {value!r}; choose {' or '.join(about.choices)}", parameter=one.name)
        if about.range and value is not None and not about.holds(value):
            unit, finite = (" s", " and finite") if one.name.endswith("_s") else ("", "")
            raise InvalidParameter(f"{name} is {value}{unit}; it must be {about.range}{finite}", parameter=one.name)


def add_options(parser: argparse.ArgumentParser, of: type) -> None:
    """Add an option for each setting, the advanced ones in a group of their own; one not given has no value."""
    advanced = parser.add_argument_group("advanced options")
    for one, about in _settings(of):
        group = advanced if about.is_advanced else parser
        more: dict[str, Any] = {"default": argparse.SUPPRESS, "dest": one.name, "help": _help(one, about)}
        if _kind(of, one) is bool:
            more["action"] = "store_true"
        else:
            more |= {"metavar": about.metavar, "choices": about.choices, "required": _is_required(one)}
            more["action"] = "append" if about.is_repeatable else "store"
        group.add_argument(_flag(one, about), **more)


def read_options(of: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the options that were given.

    Raises:
        InvalidParameter: if one does not parse.
    """
    found = {one.name: (_flag(one, about), given[one.name]) for one, about in _settings(of) if one.name in given}
    return _read(of, found)


def read_named(of: type, given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of settings that are given under other names, such as variables; None counts as not given.

    Args:
        of: the dataclass.
        given: texts, or values such as YAML has, by name.
        names: names of the fields, by the names they are given under.

    Raises:
        InvalidParameter: if one does not parse.
    """
    return _read(of, {names[name]: (name, given[name]) for name in names if given.get(name) is not None})


def _read(of: type, given: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    described = {one.name: (one, about) for one, about in _settings(of)}
    values = {}
    for field_name, (name, value) in given.items():
        one, about = described[field_name]
        values[field_name] = about.parse(value) if about.parse else _convert(_kind(of, one), value, name)
    return values


def _convert(kind: Any, value: Any, name: str) -> Any:
    if kind is bool:
        if not isinstance(value, bool):
            raise InvalidParameter(f"{name} is {value!r}; give true or false")
        return value
    try:
        return kind(str(value))  # text first: int(2.5) would be 2
    except ValueError as error:
        raise InvalidParameter(f"{name} is {value!r}; give {_KINDS[kind]}") from error


def _settings(of: type) -> Iterator[tuple[Field[Any], Setting]]:
    for one in fields(of):
        if about := one.metadata.get(_KEY):
            yield one, about


def _kind(of: type, one: Field[Any]) -> Any:
    """Return the type of a field, without its None."""
    hint = get_type_hints(of)[one.name]
    return get_args(hint)[0] if isinstance(hint, UnionType) else hint


def _is_required(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _flag(one: Field[Any], about: Setting) -> str:
    return "--" + (about.option or one.name).replace("_", "-")


def _help(one: Field[Any], about: Setting) -> str:
    """Return the help text with limits and default; a flag, and a setting without a default, name none."""
    default = about.default
    if default is None and not any(one.default is none for none in (None, MISSING, False)):
        default = f"{one.default:g}" if isinstance(one.default, float) else str(one.default)
    limits = f"Must be {about.range}." if about.at_most is not None or about.above else ""
    text = " ".join(part for part in (about.help, limits, f"Default: {default}." if default else "") if part)
    return text.replace("%", "%%")
