"""Sheets of workbooks: their tables, found among the cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from user_agent.documents.formats.section import Section
from user_agent.documents.formats.table import is_header, told_rows


@dataclass(frozen=True)
class Cell:
    """A cell as it is shown.

    Attributes:
        text: of it; empty if nothing is shown.
        is_value: it is a number, a date or a truth value.
    """

    text: str = ""
    is_value: bool = False


Row = tuple[int, Sequence[Cell]]


def sheet_sections(name: str, rows: Iterable[Row]) -> Iterator[Section]:
    """Tell a sheet row by row, each value with the name of its column.

    Empty rows part its tables. A line with only one cell above a table is its title, and becomes the heading.

    Args:
        name: of the sheet.
        rows: with their numbers, from 1.
    """
    for table in _tables(rows):
        title, rest = _title(table)
        cut = _columns(rest)
        texts = ((number, [row[at].text if at < len(row) else "" for at in cut]) for number, row in rest)
        for section in told_rows(texts, is_headed=_is_headed(rest, cut)):
            yield replace(section, heading=title, sheet=name)


def _tables(rows: Iterable[Row]) -> Iterator[list[Row]]:
    table = list[Row]()
    for number, row in rows:
        if any(cell.text.strip() for cell in row):
            table.append((number, row))
        elif table:
            yield table
            table = []
    if table:
        yield table


def _title(table: list[Row]) -> tuple[str, list[Row]]:
    """The lines with one text above a table of more columns, and the table."""
    filled = [[cell for cell in row if cell.text.strip()] for _, row in table]
    wide = next((at for at, cells in enumerate(filled) if len(cells) > 1), 0)
    if any(cells[0].is_value for cells in filled[:wide]):
        return "", table
    return ": ".join(" ".join(cells[0].text.split()).rstrip(":") for cells in filled[:wide]), table[wide:]


def _columns(table: Sequence[Row]) -> list[int]:
    """The columns in which there is something."""
    return sorted({at for _, row in table for at, cell in enumerate(row) if cell.text.strip()})


def _is_headed(table: Sequence[Row], columns: Sequence[int]) -> bool:
    """Tell whether the first row has the names of the columns: texts, above a value if digits are in them."""
    if len(table) < 2 or len(columns) < 2:
        return False
    first, second = ([row[at] if at < len(row) else Cell() for at in columns] for _, row in table[:2])
    names = [cell.text for cell in first if cell.text.strip()]
    if len(names) < max(1, len(columns) - 1) or any(cell.is_value for cell in first) or len(set(names)) < len(names):
        return False  # one column, as that of the rows' own names, may have none
    return is_header(names) or any(cell.is_value for cell in second)
