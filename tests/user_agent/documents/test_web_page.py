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
        ("<tr><td><h1>Top</h1><p>Text.</p></td><td>Menu</td></tr>", ["Text.", "Menu"]),
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


HIDING = (
    *("max-height:0; overflow:hidden", "overflow-y: hidden; height: 0px; padding: 0", "width:1px; overflow:clip"),
    *("position:absolute; left:-9999px", "position:fixed; top: -999em", "text-indent:-9999px", "margin-left:-5000px"),
    *("position:absolute; clip:rect(0,0,0,0)", "position:absolute; clip: rect( 1px 1px 1px 1px )"),
    *("clip-path: inset(100%)", "clip-path:inset(50%)", "clip-path:circle(0 at 50% 50%)"),
    *("color:rgba(1, 2, 3, 0)", "color: rgb(1 2 3 / 0%)", "color:hsla(1,2%,3%,0.0)", "color:#1230", "color:#12345600"),
    *("font:0/0 a", "font: bold 0px serif", "transform:scale(0)", "transform: rotate(5deg) scale(0, 0)", "scale:0"),
    *(
        "filter:opacity(0)",
        "content-visibility:hidden",
        "display/**/:/* x */none",
        "display:n\\6fne",
        "d\\isplay:none",
    ),
)
SHOWING = (
    *("max-height:0", "height:0; overflow:hidden; padding-bottom:56%", "height:20px; overflow:hidden"),
    *("left:-9999px", "position:relative; left:-20px", "text-indent:-20px", "clip:rect(0,0,0,0)"),
    *("clip-path:inset(10%)", "color:rgb(255,0,0)", "color:rgba(255,0,0,.5)", "color:#120", "color:#ff0000"),
    *(
        "font:10px a",
        "font: 700 12px/0 a",
        "transform:scale(0.5)",
        "filter:opacity(0.5)",
        "filter:blur(0)",
        "dis/**/play:none",
    ),
)


@pytest.mark.parametrize("style", HIDING)
def test_text_with_a_style_that_hides_it_is_not_read(style: str) -> None:
    assert _texts(f"<p>Seen</p><div style='{style}'>evil</div>") == ["Seen"]
    assert _texts(f"<style>.x {{ {style} }}</style><p>Seen</p><div class=x>evil</div>") == ["Seen"]


@pytest.mark.parametrize("style", SHOWING)
def test_text_with_a_style_that_is_like_a_hiding_one_is_read(style: str) -> None:
    assert _texts(f"<div style='{style}'>Seen</div>") == ["Seen"]


def test_a_popover_is_not_read() -> None:
    assert _texts("<p>Seen</p><div popover>evil</div>") == ["Seen"]


@pytest.mark.parametrize(
    "rule", ["#i", "aside", "ASIDE", ".outer aside", "#o .c", "div aside", "p, .c", "<!-- .c", ".c:hover{color:red} .c"]
)
def test_a_rule_hides_the_elements_that_it_selects_simply(rule: str) -> None:
    page = (
        f"<style>{rule} {{display:none}}</style><div class=outer id=o><b><aside id=i class=c>evil</aside></b></div>end"
    )
    assert _texts(page) == ["end"]


@pytest.mark.parametrize(
    "sheet",
    [
        "aside{display:none} .c{display:block}",
        ".c{display:none} #i{display:block}",
        "aside{display:none} .outer aside{display:block}",
        "aside{display:none} aside.c{display:block}",
        ".inner aside{display:none}",
        "aside .c{display:none}",
    ],
)
def test_a_rule_hides_nothing_that_another_shows_or_that_stands_elsewhere(sheet: str) -> None:
    page = f"<style>{sheet}</style><p class=inner></p><div class=outer><aside id=i class=c>Seen</aside></div>"
    assert _texts(page) == ["Seen"]
