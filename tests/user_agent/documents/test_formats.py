"""Every format comes down to the same: text, and where it stands."""

from __future__ import annotations

import json
from email.message import EmailMessage

import pytest

from ssd2.errors import DocumentsUnreadable
from tests.user_agent.documents import made
from user_agent.documents.formats import sections
from user_agent.documents.formats.section import PASSAGE_CHARACTERS, cut

Told = list[tuple[str, int | None, int | None]]


def _read(data: bytes | str, suffix: str) -> Told:
    data = data.encode() if isinstance(data, str) else data
    return [(piece.text, piece.line, piece.page) for piece in cut(sections(data, suffix))]


def _texts(data: bytes | str, suffix: str) -> list[str]:
    return [text for text, _, _ in _read(data, suffix)]


def test_a_pdf_is_told_with_its_pages_and_no_sentence_is_cut_at_a_lines_end() -> None:
    found = _read(made.pdf("The first page goes\non in a second line.", "", "My dentist is Ada Stone."), ".pdf")
    assert found == [("The first page goes on in a second line.", None, 1), ("My dentist is Ada Stone.", None, 3)]


def test_a_word_document_is_read_in_its_order_with_its_tables() -> None:
    rows = (("Name", "Phone"), ("Ada Stone", "4711"))
    assert _texts(made.word("First.", "Second.", rows=rows), ".docx") == [
        "First.",
        "Second.",
        "Name, Phone",
        "Ada Stone, 4711",
    ]


def test_a_row_of_a_table_is_told_with_the_names_of_its_columns() -> None:
    assert _read('name;phone\nAda;4711\n"Bo\nBay";\n', ".csv") == [
        ("name: Ada, phone: 4711", 2, None),
        ("name: Bo Bay", 3, None),
    ]


def test_a_table_without_names_of_columns_loses_no_row() -> None:
    assert _read("3,4\n5,6\n", ".csv") == [("3, 4", 1, None), ("5, 6", 2, None)]


def test_an_object_of_json_is_told_with_its_names() -> None:
    data = {
        "owner": "Ada",
        "age": 7,
        "dogs": [{"name": "Bo", "gone": None}, {"name": "Cy", "old": True}],
        "codes": [4, 5],
    }
    assert _texts(json.dumps(data), ".json") == [
        "owner: Ada, age: 7, codes: 4, 5",
        "dogs: name: Bo",
        "dogs: name: Cy, old: true",
    ]


def test_of_a_web_page_only_what_can_be_seen_is_read_block_by_block() -> None:
    page = (
        "<html><head><title>Ada's page</title><style>p {}</style></head>\n<body><h1>Hello</h1>\n"
        "<p>My <b>dentist</b> is\n<a href='x'>Ada</a>.</p><!-- hidden --><script>evil()</script>\n"
        "<ul><li>one<li>two</ul>tail</body></html>"
    )
    assert _read(page, ".html") == [
        ("Ada's page", 1, None),
        ("Hello", 2, None),
        ("My dentist is Ada.", 3, None),
        ("one", 5, None),
        ("two", 5, None),
        ("tail", 2, None),
    ]


def test_a_mail_is_read_with_its_header_and_the_names_of_its_attachments() -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "ada@example.org", "bo@example.org", "Café"
    mail.set_content("We meet at Amber Arch.\nBring the key.\n")
    mail.add_alternative("<p>not read</p>", subtype="html")
    mail.add_attachment(b"secret", maintype="application", subtype="pdf", filename="../plan.pdf")
    assert _texts(mail.as_bytes(), ".eml") == [
        "From: ada@example.org, To: bo@example.org, Subject: Café, Attachments: ../plan.pdf",
        "We meet at Amber Arch.",
        "Bring the key.",
    ]


def test_a_mail_in_html_alone_is_read_as_such() -> None:
    mail = EmailMessage()
    mail["From"] = "ada@example.org"
    mail.set_content("<p>At <i>noon</i>.</p>", subtype="html")
    assert _texts(mail.as_bytes(), ".eml")[1:] == ["At noon."]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_in_a_known_encoding_is_read(encoding: str) -> None:
    assert _texts("Die Straße ist 東京.".encode(encoding), ".txt") == ["Die Straße ist 東京."]


def test_a_web_page_is_read_in_the_encoding_that_it_declares() -> None:
    assert _texts('<meta charset="iso-8859-1"><p>Straße</p>'.encode("latin-1"), ".html") == ["Straße"]


def test_a_paragraph_that_an_editor_wrapped_is_put_together_again() -> None:
    text = (
        "The spare key of the garden shed lies in the drawer of the kitchen\ntable, under the map.\n"
        "My plumber is Ada\nMy dentist is Bo\n\n"
        "A list of things that I must not forget when I leave the house now\n- the key\n- the map\n"
    )
    assert _read(text, ".txt") == [
        ("The spare key of the garden shed lies in the drawer of the kitchen table, under the map.", 1, None),
        ("My plumber is Ada", 3, None),
        ("My dentist is Bo", 4, None),
        ("A list of things that I must not forget when I leave the house now", 6, None),
        ("- the key", 7, None),
        ("- the map", 8, None),
    ]


def test_of_markdown_the_markup_goes_and_the_text_stays() -> None:
    text = (
        "# Heading\n\n> A **bold** [link](https://x.example) and `code`.\n\n"
        "```py\nprint(1)\n```\n---\n| a | b |\n|---|:-:|\n12**34\n"
    )
    assert _texts(text, ".md") == [
        "Heading: A bold link (https://x.example) and code.",
        "print(1)",
        "| a | b |",
        "12**34",
    ]


@pytest.mark.parametrize("suffix", [".txt", ".html", ".json", ".csv", ".eml", ".md"])
def test_no_sentence_is_cut_in_any_format_of_text(suffix: str) -> None:
    sentences = [f"This is the sentence with the number {number} of a long one." for number in range(30)]
    whole = " ".join(sentences)
    data = {
        ".html": f"<p>{whole}</p>",
        ".json": json.dumps([whole]),
        ".csv": whole,
        ".eml": f"From: a@b\n\n{whole}\n",
    }.get(suffix, whole)
    pieces = _texts(data, suffix)
    assert all(len(piece) <= PASSAGE_CHARACTERS for piece in pieces)
    assert all(piece.endswith("one.") for piece in pieces if piece.startswith("This"))
    assert sum(piece.count("This is the sentence") for piece in pieces) == 30


NO_TEXT = {
    "binary": (b"\x00\x01\x02" * 100, ".md", "binary, whatever"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), ".txt", "a picture, whatever"),
    "latin": ("Straße".encode("latin-1"), ".txt", "save it as UTF-8"),
    "half-utf-16": ("Straße".encode("utf-16")[:-1], ".txt", "utf-16"),
    "no-pdf": (b"hello", ".pdf", "no PDF"),
    "truncated-pdf": (made.pdf("Hello.")[:-60], ".pdf", "cut short"),
    "broken-pdf": (b"%PDF-1.4\n%%EOF", ".pdf", "damaged PDF"),
    "encrypted-pdf": (made.encrypted_pdf(), ".pdf", "password"),
    "no-word": (b"hello", ".docx", "no Word document"),
    "encrypted-word": (b"\xd0\xcf\x11\xe0" + bytes(500), ".docx", "encrypted"),
    "truncated-word": (made.word("Hello.")[:-60], ".docx", "cut short"),
    "zip-bomb": (made.zip_bomb(), ".docx", "unpack"),
    "no-json": ("{", ".json", "no JSON"),
    "deep-json": ("[" * 200_000, ".json", "nested"),
    "no-mail": ("hello", ".eml", "no mail"),
    "huge-cell": (f'"{"x" * 200_000}",1\n', ".csv", "line"),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_what_cannot_be_read_says_why(name: str) -> None:
    data, suffix, says = NO_TEXT[name]
    with pytest.raises(DocumentsUnreadable, match=says):
        _read(data, suffix)
