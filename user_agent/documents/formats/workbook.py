"""Excel's .xlsx: the rows of its sheets, as values; hidden sheets are not read."""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from user_agent.documents.formats.archive import check_archive
from user_agent.documents.formats.cells import Cell, Row, sheet_sections
from user_agent.documents.formats.section import Section
from user_agent.errors import DocumentsUnreadable

_QUOTED = re.compile(r"\"[^\"]*\"|\\\\.|_.|\*.|\[[^\]]*\]")
_PERCENT = re.compile(r"0(?:\.(0+))?\s*%")
_FIXED = re.compile(r"(?:#,##)?0\.(0+)")


def sections(data: bytes) -> Iterator[Section]:
    """The rows of the visible sheets, in their order. Of a formula its last result is read."""
    check_archive(data, "an Excel workbook", ".xlsx")
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    except (KeyError, ValueError, OSError, InvalidFileException, zipfile.BadZipFile) as error:
        raise DocumentsUnreadable(f"is not an Excel workbook ({error}); save it as .xlsx again") from error
    for sheet in book.worksheets:
        if sheet.sheet_state == "visible":
            sheet.reset_dimensions()  # what a file says of its size may be wrong
            yield from sheet_sections(sheet.title, _rows(sheet))


def _rows(sheet: Any) -> Iterator[Row]:
    """Yield the rows with their numbers."""
    for number, row in enumerate(sheet.iter_rows(), start=1):
        yield number, [_cell(cell) for cell in row]


def _cell(cell: Any) -> Cell:
    value = cell.value
    if value is None:
        return Cell()
    return Cell(shown(value, cell.number_format or ""), not isinstance(value, str))


def shown(value: object, number_format: str) -> str:
    """Return a value as a person writes it: dates in ISO 8601, percentages as such, and no binary fractions."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ", "minutes").removesuffix(" 00:00")
    if isinstance(value, datetime.time):
        return value.isoformat("seconds").removesuffix(":00")
    if isinstance(value, datetime.timedelta):
        hours, rest = divmod(round(value.total_seconds()), 3600)
        return f"{hours}:{rest // 60:02}" + (f":{rest % 60:02}" if rest % 60 else "")
    if isinstance(value, int | float):
        return _number(value, _QUOTED.sub("", number_format.split(";")[0]))
    return str(value)


def _number(value: float, number_format: str) -> str:
    if percent := _PERCENT.search(number_format):
        return f"{value * 100:.{len(percent[1] or '')}f}%"
    with suppress(OverflowError, ValueError):
        if (fixed := _FIXED.fullmatch(number_format.strip())) and round(value, len(fixed[1])) == value:
            return f"{value:.{len(fixed[1])}f}"  # 1.50 stays 1.50
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.15g}"
    return str(value)
