"""No format changes what a text says, whatever of it looks like markup."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.user_agent.documents import made
from user_agent.documents.formats import sections
from user_agent.documents.formats.section import cut
from user_agent.documents.visible import visible

LOOKS_LIKE_MARKUP = (
    *("5 * 3 is 15", "Temperature > 40 degrees", "My dentist - Dr. Meyer", "**Attendees:** Ravi", "a < b && c > d"),
    *("=1+1", "{\\b bold} \\par", "<b>no</b> &amp; <!-- x -->", "# no heading", "| a | b |", "100 %_x_ ~~y~~"),
    *("[x](y) ![z](w)", "\\\\server\\share", "a|b", "'quoted", '"so" he said', "3. May", "€ 1,50; 2", "\U0001f600 ok"),
    *(
        "+49 30 1234",
        "-5",
        "@here",
        "<user>@<host>",
        "{{x}} ${y}",
        "&lt;",
        "http://x.example/?a=1&b=2",
        "name(http://x)",
    ),
)
WRITERS: dict[str, Callable[[str], bytes]] = {
    ".txt": lambda text: text.encode(),
    ".html": lambda text: f"<p>{html.escape(text)}</p>".encode(),
    ".json": lambda text: json.dumps([text]).encode(),
    ".docx": made.word,
    ".odt": made.open_text,
    ".rtf": made.rich_text,
    ".xlsx": lambda text: made.workbook({"A": [[text]]}),
    ".ods": lambda text: made.open_sheet({"A": [[text]]}),
    ".pptx": lambda text: made.presentation(("", [text])),
    ".odp": lambda text: made.open_slides(("", [text])),
    ".csv": lambda text: _as_csv(text),
    ".eml": lambda text: _as_mail(text),
}

_ODD = st.sampled_from("*_`#>|-+=[](){}<>&;:!\\/\"'~$%@^,.?0")
_WORD = st.text(st.one_of(_ODD, st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])), min_size=1)
TEXT = st.lists(_WORD, min_size=1, max_size=6).map(lambda words: " ".join("".join(words).split())).filter(bool)


def _as_csv(text: str) -> bytes:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerow([text])
    return file.getvalue().encode()


def _as_mail(text: str) -> bytes:
    mail = EmailMessage()
    mail["From"] = "ada@example.org"
    mail.set_content(f"{text}\n", cte="base64")
    return mail.as_bytes()


def _words(data: bytes, suffix: str) -> list[str]:
    told = " ".join(piece.text for piece in cut(sections(data, suffix)))
    return told.removeprefix("From: ada@example.org").split() if suffix == ".eml" else told.split()


@pytest.mark.parametrize("suffix", WRITERS)
def test_text_that_looks_like_markup_is_read_as_it_is(suffix: str) -> None:
    for text in LOOKS_LIKE_MARKUP:
        assert _words(WRITERS[suffix](text), suffix) == text.split(), text


@pytest.mark.parametrize("suffix", WRITERS)
@settings(deadline=None, max_examples=40)
@given(text=TEXT)
def test_any_text_is_read_as_it_is(suffix: str, text: str) -> None:
    text = visible(text)
    if text.strip():
        assert _words(WRITERS[suffix](text), suffix) == text.split()


def test_markdown_keeps_every_letter_and_digit_of_prose() -> None:
    """Marks may go where they are markup; what is prose of words, with marks around spaces, stays."""
    for text in LOOKS_LIKE_MARKUP[:3]:
        assert _words(text.encode(), Path("x.md").suffix) == text.split()
