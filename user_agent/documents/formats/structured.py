"""JSON: the values of each object, with their names."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ssd2.errors import DocumentsUnreadable
from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.section import Section


def sections(data: bytes) -> Iterator[Section]:
    """An object's own values in one section, what is nested in it in the next ones."""
    text = decode(data)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DocumentsUnreadable(f"is no JSON: {error}") from error
    except RecursionError as error:
        raise DocumentsUnreadable("is nested too deeply to be read") from error
    return (Section(told) for told in _told(value, ""))


def _told(value: object, name: str) -> Iterator[str]:
    """Depth first; `name` is of the value in its object, and of a list's items that of the list."""
    if isinstance(value, dict):
        own = [_named(key, item) for key, item in value.items() if not isinstance(item, dict | list)]
        if any(own):
            yield f"{name}: {', '.join(filter(None, own))}" if name else ", ".join(filter(None, own))
        for key, item in value.items():
            if isinstance(item, dict | list):
                yield from _told(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _told(item, name)
    else:
        yield _named(name, value)


def _named(name: str, value: object) -> str:
    if value is None or value == "":
        return ""
    shown = value if isinstance(value, str) else json.dumps(value)
    return f"{name}: {shown}" if name else shown
