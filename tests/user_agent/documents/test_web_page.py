"""A web page is read as its reader sees it: rows, lines, lists, and nothing that is hidden."""

from __future__ import annotations

import html

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from user_agent.documents.formats import sections
from user_agent.documents.formats.section import cut

WORDS = st.lists(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1), min_size=1, max_size=4)
CELLS = st.lists(WORDS.map(" ".join), min_size=2, max_size=4)


def _texts(page: str) -> list[str]:
    return [piece.text for piece in cut(sections(page.encode(), ".html"))]


@settings(max_examples=30, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=4), st.sampled_from(["<td>{}</td>", "<td>{}", "<td><p>{}</p></td>"]))
def test_a_row_of_a_table_is_one_passage(rows: list[list[str]], cell: str) -> None:
    shown = "".join("<tr>" + "".join(cell.format(html.escape(text)) for text in row) + "</tr>\n" for row in rows)
    assert _texts(f"<table><caption>Team</caption>{shown}</table>end") == [
        "Team",
        *(piece for row in rows for piece in _texts(f"<p>{html.escape(', '.join(row))}</p>")),
        "end",
    ]


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("<tr><td>Hazel Hammer</td><td></td><td>19<br>48</td></tr>", ["Hazel Hammer, 19 48"]),
        ("<tr><td>Ada<td>1<tr><td>Bo<td>2", ["Ada, 1", "Bo, 2"]),
        ("<tr><td><h1>Top</h1><p>Text.</p></td><td>Menu</td></tr>", ["Top", "Text.", "Menu"]),
        ("<tr><td><p>One.</p><p>Two.</p></td></tr>", ["One.", "Two."]),
        ("<tr><td><table><tr><td>k</td><td>v</td></tr></table></td><td>Menu</td></tr>", ["k, v", "Menu"]),
    ],
    ids=["empty-cell", "open-tags", "heading", "single-cell", "nested"],
)
def test_a_table_that_only_places_parts_of_a_page_is_no_row(page: str, told: list[str]) -> None:
    assert _texts(f"<table>{page}</table>") == told


def test_a_term_is_told_with_its_descriptions() -> None:
    assert _texts("<dl><dt>Hazel</dt><dd>1948</dd><dt>Bo</dt><dt>Rob</dt><dd>2</dd><dd>3</dd></dl>end") == [
        "Hazel: 1948",
        "Bo, Rob: 2, 3",
        "end",
    ]
    assert _texts("<dl><dt>Hazel<dd>1948<dt>Bo<dd>2</dl>end") == ["Hazel: 1948", "Bo: 2", "end"]


INLINE = ("img", "input", "button", "output", "select", "math", "acronym", "nobr", "my-tag", "svg", "meter", "object")


@pytest.mark.parametrize("name", INLINE)
def test_an_element_within_a_line_cuts_no_sentence(name: str) -> None:
    end = "" if name in ("img", "input") else f"dear</{name}>"
    assert _texts(f"<p>Hello <{name}>{end} Bob, at five.</p>") == [f"Hello {'dear ' if end else ''}Bob, at five."]


def test_options_are_words_of_their_own() -> None:
    assert _texts("At <select><option>five<option>six</select> sharp.") == ["At five six sharp."]


def test_ruby_is_read_with_its_base_and_without_the_brackets_that_are_hidden() -> None:
    page = "<p>私は<ruby>東京<rp>(</rp><rt>とうきょう</rt><rp>)</rp></ruby>に</p>"
    assert _texts(page) == ["私は東京 とうきょう に"]


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("<ol start=5><li>five<li><p>six</p><p>more</p></ol>", ["5. five", "6. six", "more"]),
        ("<ol><li>a</li><li value=9>b</li><li></li></ol>end", ["1. a", "9. b", "10.", "end"]),
        ("<ol><li></li><li>b<ul><li>x</li></ul></li><li>c</li></ol>", ["1.", "2. b", "x", "3. c"]),
        ("<ol><li hidden>no</li><li>a</li></ol><ol type=a><li>b</li></ol>", ["1. a", "b"]),
    ],
)
def test_an_item_keeps_the_number_that_is_shown(page: str, told: list[str]) -> None:
    assert _texts(page) == told
