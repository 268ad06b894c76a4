"""Files of each format, made on the spot."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

import docx
import openpyxl
import pptx
from docx.oxml import parse_xml


def pdf(*pages: str, trailer: str = "") -> bytes:
    """A PDF with a line of text a page."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, text in enumerate(pages):
        drawn = "0 -14 Td ".join(f"({line}) Tj " for line in text.split("\n"))
        content = f"BT /F1 12 Tf 20 700 Td {drawn}ET"
        box = "/MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Contents {5 + 2 * number} 0 R >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        data
        + f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R {trailer}>>\n".encode()
        + f"startxref\n{len(data)}\n%%EOF\n".encode()
    )


def encrypted_pdf() -> bytes:
    """A PDF whose password is not empty."""
    key = "00" * 32
    return pdf(
        "Secret.", trailer=f"/ID [<00><00>] /Encrypt << /Filter /Standard /V 1 /R 2 /O <{key}> /U <{key}> /P -4 >> "
    )


def word(*paragraphs: str, rows: tuple[tuple[str, ...], ...] = ()) -> bytes:
    """A .docx of paragraphs, and a table behind them."""
    document = docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    if rows:
        table = document.add_table(len(rows), len(rows[0]))
        for row, cells in zip(table.rows, rows, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    return saved(document)


def word_of(*elements: str, levels: tuple[tuple[str, str, int], ...] = ()) -> bytes:
    """A .docx whose body has these elements of WordprocessingML.

    The levels are kinds, texts and starts of its lists 76, which goes on with another, and 77, which begins anew.
    """
    document = docx.Document()
    namespace = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    told = "".join(
        f"<w:lvl w:ilvl='{depth}'><w:start w:val='{start}'/><w:numFmt w:val='{kind}'/>"
        f"<w:lvlText w:val='{text}'/></w:lvl>"
        for depth, (kind, text, start) in enumerate(levels)
    )
    numbering = document.part.numbering_part.element
    numbering.insert(0, parse_xml(f"<w:abstractNum {namespace} w:abstractNumId='77'>{told}</w:abstractNum>"))
    for number, anew in ((76, ""), (77, "<w:lvlOverride w:ilvl='0'><w:startOverride w:val='4'/></w:lvlOverride>")):
        text = f"<w:num {namespace} w:numId='{number}'><w:abstractNumId w:val='77'/>{anew}</w:num>"
        numbering.append(parse_xml(text))
    for element in elements:
        document.element.body.insert(len(document.element.body) - 1, parse_xml(element))
    return saved(document)


BOMB_BYTES = 300 * 1024 * 1024


def zip_bomb() -> bytes:
    """A .docx whose text unpacks from 300 kB to 300 MB."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(word("Boom."))) as harmless,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in harmless.namelist():
            data = harmless.read(name)
            padding = BOMB_BYTES - len(data) if name == "word/document.xml" else 0
            bomb.writestr(name, data + b" " * padding)
    return file.getvalue()


def lying_zip_bomb() -> bytes:
    """The same with 3,000 bytes given as its size."""
    return zip_bomb().replace(BOMB_BYTES.to_bytes(4, "little"), (3000).to_bytes(4, "little"))


def saved(document: docx.document.Document) -> bytes:
    """The bytes of a .docx."""
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def workbook(sheets: Mapping[str, Sequence[Sequence[object]]], *, hidden: str = "") -> bytes:
    """An .xlsx of these rows."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for number, row in enumerate(rows, start=1):
            for column, value in enumerate(row, start=1):
                cell = sheet.cell(number, column)
                cell.value = value
                if isinstance(value, str):
                    cell.data_type = "s"  # "=1" too
        sheet.sheet_state = "hidden" if name == hidden else "visible"
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def presentation(*slides: tuple[str, Sequence[str]], notes: str = "", rows: Sequence[Sequence[str]] = ()) -> bytes:
    """A .pptx of titles and paragraphs; notes and a table stand on the last slide."""
    made = pptx.Presentation()
    for title, paragraphs in slides:
        slide = made.slides.add_slide(made.slide_layouts[1])
        slide.shapes.title.text_frame.text = title
        frame = slide.placeholders[1].text_frame
        for at, paragraph in enumerate(paragraphs):
            (frame.paragraphs[0] if at == 0 else frame.add_paragraph()).text = paragraph
    if notes:
        slide.notes_slide.notes_text_frame.text = notes
    if rows:
        table = slide.shapes.add_table(len(rows), len(rows[0]), 0, 0, 100, 100).table
        for row, cells in zip(table.rows, rows, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


def open_document(body: str, styles: str = "", extra: Mapping[str, str] | None = None) -> bytes:
    """An OpenDocument file whose body has these elements, and whose automatic styles are those."""
    spaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{space}:1.0"'
        for name, space in (
            *(("office", "office"), ("style", "style"), ("text", "text"), ("table", "table"), ("draw", "drawing")),
            ("presentation", "presentation"),
        )
    )
    content = (
        f"<office:document-content {spaces}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body>{body}</office:body></office:document-content>"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {"content.xml": content, **(extra or {})}.items():
            archive.writestr(name, text)
    return file.getvalue()


def open_text(*paragraphs: str) -> bytes:
    """An .odt of paragraphs."""
    return open_document(f"<office:text>{_paragraphs(paragraphs)}</office:text>")


def open_sheet(sheets: Mapping[str, Sequence[Sequence[object]]]) -> bytes:
    """An .ods of these rows."""
    tables = "".join(
        f"<table:table table:name={quoteattr(name)}>"
        + "".join(f"<table:table-row>{''.join(map(_cell, row))}</table:table-row>" for row in rows)
        + "</table:table>"
        for name, rows in sheets.items()
    )
    return open_document(f"<office:spreadsheet>{tables}</office:spreadsheet>")


def open_slides(*slides: tuple[str, Sequence[str]]) -> bytes:
    """An .odp of titles and paragraphs."""
    frame = "<draw:frame presentation:class='{}'><draw:text-box>{}</draw:text-box></draw:frame>"
    pages = "".join(
        f"<draw:page>{frame.format('title', _paragraphs([title]))}"
        f"{frame.format('outline', _paragraphs(paragraphs))}</draw:page>"
        for title, paragraphs in slides
    )
    return open_document(f"<office:presentation>{pages}</office:presentation>")


def rich_text(*paragraphs: str) -> bytes:
    """An .rtf of paragraphs."""
    return ("{\\rtf1\\ansi\\ansicpg1252\\uc1 " + "".join(f"{rich(text)}\\par\n" for text in paragraphs) + "}").encode()


def rich(text: str) -> str:
    """Text in the source of an .rtf."""
    units = memoryview(text.encode("utf-16-le")).cast("H")
    told = (chr(unit) if 31 < unit < 127 else f"\\u{unit - 65536 * (unit > 32767)}?" for unit in units)
    return "".join(f"\\{sign}" if sign in "\\{}" else sign for sign in told)


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<text:p>{escape(text)}</text:p>" for text in texts)


def _cell(value: object) -> str:
    kind = "string" if isinstance(value, str) else "float"
    inner = f"<text:p>{escape(str(value))}</text:p>" if value is not None else ""
    return f"<table:table-cell office:value-type='{kind}'>{inner}</table:table-cell>"
