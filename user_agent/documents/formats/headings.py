"""Headings: each section gets those that it stands under, and a bare title is no section."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from user_agent.documents.formats.section import Section

TITLE = 0
"""The level of a document's title; headings have the levels from 1 on."""

MOST_CHARACTERS = 120
"""A longer path of headings loses its outer ones, so that they take no room from the text."""

_TELLING = re.compile(r"\d|:\s*\S|[.!?]$|://|\S@\S")

Leveled = tuple[Section, int | None]


def under_headings(found: Iterable[Leveled]) -> Iterator[Section]:
    """Yield the sections of a document, each with the headings above it, without the headings themselves.

    A heading below which nothing stands is told only where its words would be lost: headings beside each other are a
    list, one that holds a figure, an address or a sentence is more than a title, and a document of nothing else has no
    other text.

    Args:
        found: the sections in their order; a heading with its level, everything else with None.
    """
    items = [(section, level) for section, level in found if section.text.strip()]
    has_text = any(level is None for _, level in items)
    for bare, group in groupby(_placed(items), key=lambda item: item[1] and item[0].heading):
        sections = [section for section, _ in group]
        if bare is False:
            yield from sections
        elif len(sections) > 1 or not has_text or _TELLING.search(sections[0].text):
            yield replace(sections[0], text=", ".join(section.text for section in sections))


def path_of(headings: Sequence[str]) -> str:
    """Join headings, the outermost first; of a path that is too long the inner ones, and of one heading its start."""
    inner: list[str] = []
    for heading in reversed([" ".join(heading.split()) for heading in headings]):
        if inner and len(": ".join([heading, *inner])) > MOST_CHARACTERS:
            break
        inner = [heading[:MOST_CHARACTERS], *inner]
    return ": ".join(inner)


def _placed(items: Sequence[Leveled]) -> Iterator[tuple[Section, bool]]:
    """Yield the sections with their headings, and the headings below which nothing stands, with True."""
    above: list[tuple[int, str]] = []
    for at, (section, level) in enumerate(items):
        if level is None:
            yield replace(section, heading=path_of([text for _, text in above])), False
            continue
        text = section.text.strip().rstrip(":").rstrip()
        above = [(outer, heading) for outer, heading in above if outer < level and heading != text]
        below = items[at + 1][1] if at + 1 < len(items) else level
        if below is not None and below <= level:
            yield replace(section, text=text, heading=path_of([heading for _, heading in above])), True
        above.append((level, text))
