"""JSON: the values of each object, with their names."""

from __future__ import annotations

import json
from collections.abc import Iterator

from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.section import Section
from user_agent.errors import DocumentsUnreadable


def sections(data: bytes) -> Iterator[Section]:
    """An object's own values in one section, what is nested in it in the next ones."""
    text = decode(data)
    try:
        # Numbers as they are written, and keys that are there twice: a reader of the file sees both.
        value = json.loads(text, object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=str)
    except ValueError as error:
        raise DocumentsUnreadable(f"is not valid JSON ({error}); correct it") from error
    except RecursionError as error:
        raise DocumentsUnreadable("is nested too deeply; flatten it") from error
    return (Section(told) for told in _told(value, ""))


class _Object(tuple[tuple[str, object], ...]):
    """The pairs of an object."""


def _told(value: object, name: str) -> Iterator[str]:
    """Depth first; `name` is made of the keys on the way to the value."""
    if isinstance(value, _Object):
        yield _named(name, ", ".join(filter(None, (_named(key, item) for key, item in value if _is_flat(item)))))
        for key, item in value:
            if not _is_flat(item):
                yield from _told(item, f"{name}: {key}" if name else key)
    elif not _is_flat(value) and isinstance(value, list):
        for item in value:
            yield from _told(item, name)
    else:
        yield _named(name, value)


def _is_flat(value: object) -> bool:
    """True if it fits one line: a value, or a list of values."""
    items = value if isinstance(value, list) else [value]
    return not any(isinstance(item, _Object | list) for item in items)


def _named(name: str, value: object) -> str:
    """Nothing for what says nothing."""
    items = value if isinstance(value, list) else [value]
    shown = ", ".join(item if isinstance(item, str) else json.dumps(item) for item in items if item is not None)
    if not shown:
        return ""
    return f"{name}: {shown}" if name else shown
