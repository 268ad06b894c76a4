"""Workbooks, presentations, OpenDocument and Rich Text: their text, and where it stands."""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pptx
import pytest

from tests.user_agent.documents import made
from user_agent.documents.extraction import Extractor
from user_agent.documents.formats import sections
from user_agent.documents.formats.section import cut
from user_agent.documents.reader import passage_of
from user_agent.errors import DocumentsUnreadable

BUDGET = {
    "2026": [
        ["Household budget"],
        [],
        ["what", "May", "June"],
        ["Rent", 900, 950.5],
        ["Heating", 80, None],
        [],
        ["Paid by", "Ada"],
    ],
    "Notes": [["The code is 4711."]],
}
TOLD = [
    ("Household budget", "budget{}, sheet 2026, row 1"),
    ("what: Rent, May: 900, June: 950.5", "budget{}, sheet 2026, row 4"),
    ("what: Heating, May: 80", "budget{}, sheet 2026, row 5"),
    ("Paid by, Ada", "budget{}, sheet 2026, row 7"),
    ("The code is 4711.", "budget{}, sheet Notes, row 1"),
]


def _read(data: bytes, suffix: str) -> list[tuple[str, str]]:
    passages = [passage_of(piece, Path(f"budget{suffix}")) for piece in cut(sections(data, suffix))]
    return [(passage.told, passage.place) for passage in passages]


def _texts(data: bytes, suffix: str) -> list[str]:
    return [told for told, _ in _read(data, suffix)]


@pytest.mark.parametrize(("write", "suffix"), [(made.workbook, ".xlsx"), (made.open_sheet, ".ods")])
def test_a_row_of_a_sheet_is_told_with_its_columns_and_its_place(write: Callable[..., bytes], suffix: str) -> None:
    assert _read(write(BUDGET), suffix) == [(told, place.format(suffix)) for told, place in TOLD]


@pytest.mark.parametrize(("write", "suffix"), [(made.workbook, ".xlsx"), (made.open_sheet, ".ods")])
def test_the_title_above_a_table_is_its_heading(write: Callable[..., bytes], suffix: str) -> None:
    rows = [["Costs 2026"], ["", "2025 plan", "2026 plan"], ["Rent", 900, 950], ["Water", 30, 31]]
    assert _texts(write({"A": rows}), suffix) == [
        "Costs 2026: Rent, 2025 plan: 900, 2026 plan: 950",
        "Costs 2026: Water, 2025 plan: 30, 2026 plan: 31",
    ]


def test_values_of_a_workbook_are_told_as_people_write_them() -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    values = (
        (datetime.date(2026, 3, 5), None, "2026-03-05"),
        (datetime.datetime(2026, 3, 5, 14, 30), None, "2026-03-05 14:30"),
        (datetime.time(9, 5), None, "09:05"),
        (0.19, "0%", "19%"),
        (0.195, "0.0%", "19.5%"),
        (0.1 + 0.2, None, "0.3"),
        (1.5, '#,##0.00 "€"', "1.50"),
        (1234567, "#,##0", "1234567"),
        (True, None, "TRUE"),
        ("007", None, "007"),
    )
    for row, (value, number_format, _) in enumerate(values, start=1):
        cell = sheet.cell(row, 1, value)
        cell.number_format = number_format or cell.number_format
        sheet.cell(row, 2, "x")
    file = io.BytesIO()
    book.save(file)
    assert _texts(file.getvalue(), ".xlsx") == [f"{shown}, x" for *_, shown in values]


def test_a_hidden_sheet_is_not_read() -> None:
    assert _texts(made.workbook({"A": [["seen"]], "B": [["evil"]]}, hidden="B"), ".xlsx") == ["seen"]
    styles = "<style:style style:name='h'><style:table-properties table:display='false'/></style:style>"
    row = "<table:table-row><table:table-cell><text:p>{}</text:p></table:table-cell></table:table-row>"
    body = (
        f"<office:spreadsheet><table:table table:name='A'>{row.format('seen')}</table:table>"
        f"<table:table table:name='B' table:style-name='h'>{row.format('evil')}</table:table></office:spreadsheet>"
    )
    assert _texts(made.open_document(body, styles), ".ods") == ["seen"]


@pytest.mark.parametrize(("write", "suffix"), [(made.presentation, ".pptx"), (made.open_slides, ".odp")])
def test_a_slide_is_told_with_its_title_and_number(write: Callable[..., bytes], suffix: str) -> None:
    data = write(("Budget", ["Rent is 900.", "Heat is 80."]), ("Only a picture", []), ("End", ["Bye."]))
    assert _read(data, suffix) == [
        ("Budget: Rent is 900.", f"budget{suffix}, slide 1"),
        ("Budget: Heat is 80.", f"budget{suffix}, slide 1"),
        ("Only a picture", f"budget{suffix}, slide 2"),
        ("End: Bye.", f"budget{suffix}, slide 3"),
    ]


def test_tables_and_notes_of_a_slide_are_read_and_a_hidden_slide_is_not() -> None:
    data = made.presentation(("T", ["x"]), notes="Say hello.", rows=[["a", "b"], ["c", ""]])
    assert _texts(data, ".pptx") == ["T: x", "T: a, b", "T: c", "T: Notes: Say hello."]
    made_of = pptx.Presentation(io.BytesIO(made.presentation(("T", ["evil"]), ("U", ["seen"]))))
    made_of.slides[0].element.set("show", "0")
    file = io.BytesIO()
    made_of.save(file)
    assert _texts(file.getvalue(), ".pptx") == ["U: seen"]


def test_of_an_open_text_headings_tables_and_frames_are_read_and_nothing_hidden() -> None:
    styles = (
        "<style:style style:name='P1' style:parent-style-name='Title'/>"
        "<style:style style:name='h'><style:text-properties text:display='none'/></style:style>"
    )
    body = (
        "<office:text><text:tracked-changes><text:p>evil</text:p></text:tracked-changes>"
        "<text:p text:style-name='P1'>Lease</text:p><text:h text:outline-level='1'>Deposit</text:h>"
        "<text:p>It<text:s text:c='2'/>is<text:tab/>900<text:line-break/>EUR"
        "<text:span text:style-name='h'>evil</text:span>"
        "<office:annotation><text:p>evil</text:p></office:annotation>.<draw:frame><draw:text-box><text:p>box</text:p>"
        "</draw:text-box></draw:frame></text:p><text:p text:style-name='h'>evil</text:p>"
        "<text:section text:display='none'><text:p>evil</text:p></text:section>"
        "<text:list><text:list-item><text:p>one</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>a</text:p><text:p>b</text:p></table:table-cell>"
        "<table:table-cell><text:p>c</text:p></table:table-cell></table:table-row></table:table></office:text>"
    )
    assert _texts(made.open_document(body, styles), ".odt") == [
        f"Lease: Deposit: {text}" for text in ("It is 900 EUR.", "box", "one", "a b, c")
    ]


def test_of_rich_text_paragraphs_and_rows_are_read_and_nothing_hidden() -> None:
    source = (
        r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}{\*\generator evil;}{\info{\title evil}}"
        r"\f0 Stra\'dfe \b 5\b0  * 3 \{x\} \u8364?\par {\v evil \'64 \u8364? {\b evil}}seen \v evil\v0  too\par "
        r"{\deleted evil}\trowd a\cell b\cell\row }"
    )
    assert _texts(source.encode(), ".rtf") == ["Straße 5 * 3 {x} €", "seen too", "a, b"]


NO_OFFICE = {
    "xlsx-text": (b"hello", ".xlsx", "not an Excel workbook"),
    "xlsx-docx": (made.word("x"), ".xlsx", "not an Excel workbook"),
    "xlsx-encrypted": (b"\xd0\xcf\x11\xe0" + bytes(500), ".xlsx", "encrypted"),
    "xlsx-truncated": (made.workbook(BUDGET)[:-60], ".xlsx", "truncated"),
    "xlsx-bomb": (made.zip_bomb(), ".xlsx", "unpack"),
    "pptx-text": (b"hello", ".pptx", "not a PowerPoint"),
    "pptx-docx": (made.word("x"), ".pptx", "not a PowerPoint"),
    "pptx-bomb": (made.zip_bomb(), ".pptx", "unpack"),
    "odt-text": (b"hello", ".odt", "not an OpenDocument text"),
    "odt-sheet": (made.open_sheet(BUDGET), ".odt", "another kind"),
    "odt-docx": (made.word("x"), ".odt", "not an OpenDocument text"),
    "odt-bomb": (made.zip_bomb(), ".odt", "unpack"),
    "odt-encrypted": (
        made.open_document("", extra={"META-INF/manifest.xml": "<x><encryption-data/></x>"}),
        ".odt",
        "password",
    ),
    "ods-text": (made.open_text("x"), ".ods", "another kind"),
    "odp-text": (made.open_text("x"), ".odp", "another kind"),
    "rtf-text": (b"hello", ".rtf", "not in Rich Text"),
}


@pytest.mark.parametrize("name", NO_OFFICE)
def test_what_is_no_document_of_its_kind_says_so(name: str) -> None:
    data, suffix, says = NO_OFFICE[name]
    with pytest.raises(DocumentsUnreadable, match=says):
        _texts(data, suffix)


def test_an_entity_of_a_file_is_not_looked_up(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("evil")
    data = made.open_text("seen ")
    declared = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{secret}">]>'
    entity = made.open_document("", extra={"content.xml": declared + _content_of(data).replace("seen ", "seen &e;")})
    assert _texts(entity, ".odt") == ["seen"]


def _content_of(data: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("content.xml").decode()


def test_repeated_cells_and_rows_of_a_sheet_take_no_room() -> None:
    row = "<table:table-row table:number-rows-repeated='{}'><table:table-cell table:number-columns-repeated='{}'>{}"
    row += "</table:table-cell></table:table-row>"
    far = row.format(1_000_000, 16_384, "") + row.format(2, 1, "<text:p>end</text:p>")
    body = f"<office:spreadsheet><table:table table:name='A'>{far}</table:table></office:spreadsheet>"
    assert _read(made.open_document(body), ".ods") == [
        ("end", "budget.ods, sheet A, row 1000001"),
        ("end", "budget.ods, sheet A, row 1000002"),
    ]


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (made.workbook(BUDGET), ".xlsx"),
        (made.open_sheet(BUDGET), ".ods"),
        (made.presentation(("T", ["The code is 4711."])), ".pptx"),
        (made.open_slides(("T", ["The code is 4711."])), ".odp"),
        (made.open_text("The code is 4711."), ".odt"),
        (made.rich_text("The code is 4711."), ".rtf"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_office_format_is_read_within_the_limits_of_the_reader(data: bytes, suffix: str) -> None:
    with Extractor() as extractor:
        assert any("4711" in piece.text for piece in extractor.extract(data, suffix))
