"""Settings described once: options, variables, config.toml, the REST schema and the page are generated from them.

A field of a pydantic model carries a `Face` in its annotation; type, limits and default are the field's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

PREFIX = "SLINGSHOT_"

_KINDS: dict[Any, Literal["bool", "int", "float", "path"]] = {bool: "bool", int: "int", float: "float", Path: "path"}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_UNSAID = 10**6
"""Limits above it only keep numbers finite, and no help text names them."""


@dataclass(frozen=True)
class Face:
    """Words for a field.

    Attributes:
        help: an imperative or a noun phrase, without its period; range and default are added.
        note: further sentences.
        default: words for a default that its value does not tell, such as "as tuned, else 0.3".
        label: name on the page.
        option: name of the command-line option, where it is not the field's.
        also: second name of the option; "" for none.
        openai: name in OpenAI's requests; "" for a field that stands in `slingshot`, under its own name.
        advanced: True for what few people set.
    """

    help: str
    note: str = ""
    default: str = ""
    label: str = ""
    option: str = ""
    also: str = ""
    openai: str = ""
    advanced: bool = False


@dataclass(frozen=True)
class Setting:
    """A field with its face.

    Attributes:
        name: of the field, and its key in config.toml.
        info: type, limits and default.
        face: words.
    """

    name: str
    info: FieldInfo
    face: Face

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return f"{PREFIX}{self.name.upper()}"

    @property
    def option(self) -> str:
        """Name of the command-line option."""
        return f"--{self.face.option or self.name.replace('_', '-')}"

    @property
    def kind(self) -> Literal["bool", "int", "float", "path", "texts", "text"]:
        """Kind of its values; whatever is written as one text is a text."""
        members = [one for one in self._members if one is not type(None) and get_origin(one) is not Literal]
        bare = members[0] if len(members) == 1 else self.info.annotation
        if get_origin(bare) is tuple:
            return "texts"
        return _KINDS.get(get_args(bare)[0] if get_origin(bare) is Annotated else bare, "text")

    @property
    def _members(self) -> tuple[Any, ...]:
        """Types that a value may have."""
        is_union = get_origin(self.info.annotation) in (Union, UnionType)
        return get_args(self.info.annotation) if is_union else (self.info.annotation,)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values to choose from; empty where there are too many to list."""
        return get_args(self.info.annotation) if get_origin(self.info.annotation) is Literal else ()

    @property
    def words(self) -> tuple[str, ...]:
        """Words that stand for themselves where else a number does."""
        return (
            ()
            if self.choices
            else tuple(word for one in self._members if get_origin(one) is Literal for word in get_args(one))
        )

    @property
    def limits(self) -> dict[str, float]:
        """Limits by pydantic's names for them: ge, gt, le, lt."""
        inner = [
            one for member in self._members for info in get_args(member)[1:] for one in getattr(info, "metadata", ())
        ]
        metadata = [*self.info.metadata, *inner]
        found = {name: getattr(one, name, None) for one in metadata for name in _LIMITS if hasattr(one, name)}
        return {name: limit for name, limit in found.items() if limit is not None}

    @property
    def wanted(self) -> str:
        """The values that it takes, to be read after "give"; empty for texts, whose types have their own messages."""
        if self.choices:
            return _either(self.choices)
        return _either([number, *self.words]) if (number := self._number) else ""

    @property
    def _number(self) -> str:
        """The numbers that it takes; empty if it takes none."""
        if self.kind not in ("int", "float"):
            return ""
        limits = {name: f"{limit:,g}" for name, limit in self.limits.items() if limit <= _UNSAID}
        number = "a number" if self.kind == "float" else "a whole number"
        if limits.keys() == {"ge", "le"}:
            return f"{number} from {limits['ge']} to {limits['le']}"
        return " ".join(
            (number, " and ".join(f"{word} {limits[name]}" for name, word in _LIMITS.items() if name in limits))
        )

    @property
    def range(self) -> str:
        """The values that a number takes, where that is worth a word: not if it only has a smallest one."""
        limits = {name: limit for name, limit in self.limits.items() if limit <= _UNSAID}
        if limits.keys() == {"ge"}:
            return ""
        numbers = self._number.partition("number ")[2].removeprefix("from ")
        return _either([numbers, *self.words]) if numbers else ""

    @property
    def default(self) -> str:
        """The default in words; empty where there is nothing to say."""
        if self.face.default:
            return self.face.default
        value = self.info.get_default(call_default_factory=True, validated_data={})
        if isinstance(value, bool):
            return "on" if value else "off"
        return "" if value in (None, "", ()) else as_text(value)

    @property
    def text(self) -> str:
        """Help, range, notes and default: the sentences that every face shows."""
        first = f"{self.face.help} ({self.range})." if self.range else f"{self.face.help}."
        default = f"Default: {self.default}." if self.default else ""
        return " ".join(part for part in (first, self.face.note, default) if part)


def settings_of(model: type[BaseModel]) -> dict[str, Setting]:
    """Return the fields of a model that have a face, by name, in their order."""
    found = {}
    for name, info in model.model_fields.items():
        face = next((one for one in info.metadata if isinstance(one, Face)), None)
        if face:
            found[name] = Setting(name, info, face)
    return found


def _either(choices: Sequence[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def as_text(value: object) -> str:
    """Write a value as people type it."""
    if isinstance(value, tuple | list):
        return ", ".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
