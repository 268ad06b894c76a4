"""What a reader of a file sees is what the store holds, in every format, up to white space."""

from __future__ import annotations

import csv
import html
import io
import json
from email.header import Header
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.user_agent.documents import made
from user_agent.documents.formats import sections
from user_agent.documents.formats.section import cut

# Words that look like markup of one format or another, and stand in the middle of a line.
MARKED = (
    *("5 * 3 is 15", "Temperature > 40 degrees", "dentist - Dr. Meyer", "a*b*c", "5*3*2", "2 < 3", "x<y", "#hashtag"),
    *("snake_case_name", "_MARK", "1. of May", "2**8", "C++", "- 5", "* note", "+ 1", "# 3", "> 2", "| pipe |", "||"),
    *("[x]", "[ ]", "(y)", "a[0]", "!", "~~no~~", "=", "==", "--", "---", "***", "{1}", "$5", "100%", "@home", "^2"),
    *("https://x.example/__init__.py/_a_?b=*c*&d=1", "<user>@<host>", "AT&T", "R&D;", "'tis", "5'", '6"', "C:\\Users"),
    *(
        "\\",
        "/",
        ":",
        ";",
        ",",
        "key: value",
        "a;b",
        "a,b",
        "a\\tb",
        "null",
        "1.10",
        "1e5",
        "0x1F",
        "\ufffd",
        "…",
        "‚x‘",
    ),
)
FILLERS = "\u115f\u1160\u3164\uffa0"  # letters that nobody sees
LETTERS = st.characters(codec="utf-8", categories=("Lu", "Ll", "Lo", "Nd"), exclude_characters=FILLERS)
WORDS = st.one_of(st.sampled_from(MARKED), st.text(LETTERS, min_size=1, max_size=8))
LINES = st.lists(WORDS, min_size=1, max_size=6).map(lambda words: "Note " + " ".join(words) + " end")
TEXTS = st.lists(LINES, min_size=1, max_size=4)
# Tags that nothing ends, and none that HTML lets end by itself. At the start of a line they begin a block of HTML.
TAGS = (
    *(
        "<dialog>",
        "<video>",
        "<source>",
        "<iframe>",
        "<object>",
        "<audio>",
        "<template>",
        "<link>",
        "<noscript>",
        "<b>",
    ),
    *("<title>", "<div>", "<div hidden>", "<select>", "<canvas>", "</span>", "</form>", "<input>", "<user>"),
)
TAGGED = st.lists(st.sampled_from((*TAGS, "key", "is", "4711.")), max_size=4).map(" ".join)
TAGGED_LINES = st.builds("{} {}".format, st.sampled_from(TAGS), TAGGED) | st.sampled_from(TAGS)

cheap = settings(max_examples=50, deadline=None)


def _stored(data: bytes | str, suffix: str) -> list[str]:
    data = data if isinstance(data, bytes) else data.encode()
    return [piece.text for piece in cut(sections(data, suffix))]


def _same(stored: list[str], *seen: str) -> bool:
    return " ".join(stored).split() == " ".join(seen).split()


def _all_in(stored: list[str], *seen: str) -> bool:
    told = " ".join(" ".join(stored).split())
    return all(" ".join(text.split()) in told for text in seen)


@cheap
@given(TEXTS)
@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_prose_is_stored_as_it_is_written(suffix: str, lines: list[str]) -> None:
    for between in ("\n", "\n\n"):
        assert _same(_stored(between.join(lines), suffix), *lines)


@settings(max_examples=200, deadline=None)
@given(st.lists(TAGGED_LINES | LINES, min_size=1, max_size=4))
def test_tags_that_nothing_ends_are_prose_in_markdown(lines: list[str]) -> None:
    assert _same(_stored("\n\n".join(lines), ".md"), *lines)


ASCII_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


@cheap
@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1), min_size=1, max_size=4))
def test_of_escaped_markdown_the_text_is_stored(texts: list[str]) -> None:
    escaped = "\n\n".join("".join(f"\\{c}" if c in ASCII_PUNCTUATION else c for c in text.strip()) for text in texts)
    assert _same(_stored(f"Note\n\n{escaped}\n", ".md"), "Note", *texts)


@cheap
@given(TEXTS)
def test_code_in_markdown_is_stored_as_it_is_written(lines: list[str]) -> None:
    block = "\n".join(lines)
    indented = "\n".join(f"    {line}" for line in lines)
    assert _same(_stored(f"Code:\n\n```py\n{block}\n```\n", ".md"), "Code:", *lines)
    assert _same(_stored(f"Code:\n\n{indented}\n", ".md"), "Code:", *lines)
    assert _same(_stored(f"See `` {lines[0]} `` there.", ".md"), "See", lines[0], "there.")


@cheap
@given(TEXTS)
def test_items_quotes_rows_and_headings_of_markdown_are_stored(lines: list[str]) -> None:
    assert _same(_stored("\n".join(f"- {line}" for line in lines), ".md"), *lines)
    assert _same(_stored("\n".join(f"> {line}" for line in lines), ".md"), *lines)
    assert _same(_stored("\n".join(f"{n}. {line}" for n, line in enumerate(lines)), ".md"), *_numbered(lines))
    cells = [line.replace("|", "\\|") for line in lines]
    table = "| head |\n|---|\n" + "\n".join(f"| {cell} | {cell} |" for cell in cells)
    assert _same(_stored(table, ".md"), "| head |", *(f"| {line} | {line} |" for line in lines))
    assert _all_in(_stored("\n".join(f"## {line}" for line in lines), ".md"), *lines)


def _numbered(lines: list[str]) -> list[str]:
    return [f"{n}. {line}" for n, line in enumerate(lines)]


@cheap
@given(TEXTS)
def test_the_text_of_a_web_page_is_stored(lines: list[str]) -> None:
    blocks = "".join(f"<p>{html.escape(line)}</p>\n<div hidden>gone</div><!-- gone -->" for line in lines)
    assert _same(_stored(f"<html><body>{blocks}</body></html>", ".html"), *lines)


@cheap
@given(TEXTS)
def test_the_text_of_a_pdf_is_stored(lines: list[str]) -> None:
    pages = [
        "\n".join(line.encode("ascii", "ignore").decode().split()) for line in lines
    ]  # a long line leaves the page
    escaped = [page.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for page in pages]
    assert _same(_stored(made.pdf(*escaped), ".pdf"), *pages)


@settings(max_examples=15, deadline=None)  # python-docx takes 30 ms to make one
@given(TEXTS, st.lists(LINES, min_size=3, max_size=3))
def test_the_text_of_a_word_document_is_stored(lines: list[str], cells: list[str]) -> None:
    rows = (tuple(cells), (cells[0],) * 3)
    told = [", ".join(row) for row in rows]
    assert _same(_stored(made.word(*lines, rows=rows), ".docx"), *lines, *told)


@cheap
@given(st.lists(st.lists(LINES, min_size=3, max_size=3), min_size=1, max_size=4), st.sampled_from(",;\t|"))
def test_every_cell_of_a_table_is_stored(rows: list[list[str]], delimiter: str) -> None:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([["name", "remark", "place"], *rows])
    told = [f"name: {a}, remark: {b}, place: {c}" for a, b, c in rows]
    assert _same(_stored(file.getvalue(), ".csv"), *told)


JSON_VALUES = st.recursive(
    LINES | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(LINES, inner, min_size=1, max_size=3),
    max_leaves=6,
)


@cheap
@given(JSON_VALUES)
def test_every_key_and_value_of_json_is_stored(value: object) -> None:
    assert _all_in(_stored(json.dumps(value), ".json"), *_told(value))


def _told(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *_told(item))]
    if isinstance(value, list):
        return [text for item in value for text in _told(item)]
    return [value if isinstance(value, str) else json.dumps(value)]


@cheap
@given(LINES, TEXTS, st.sampled_from(["plain", "html"]), st.sampled_from(["base64", "quoted-printable", "8bit"]))
def test_the_text_of_a_mail_is_stored(subject: str, lines: list[str], kind: str, encoding: str) -> None:
    mail = EmailMessage()
    body = "\n".join(lines) if kind == "plain" else "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    mail.set_content(body, subtype=kind, cte=encoding)
    header = f"Subject: {Header(subject, 'utf-8').encode()}\n".encode()
    assert _same(_stored(header + mail.as_bytes(), ".eml"), f"Subject: {subject}", *lines)
