"""Every format comes down to the same: text, and where it stands."""

from __future__ import annotations

import json
from email.message import EmailMessage
from pathlib import Path

import docx
import pytest

from tests.user_agent.documents import made
from user_agent.documents.extraction import Extractor
from user_agent.documents.formats import sections
from user_agent.documents.formats.section import PASSAGE_CHARACTERS, cut, sentences
from user_agent.documents.reader import passage_of
from user_agent.errors import DocumentsUnreadable

Told = list[tuple[str, int | None, int | None]]


def _read(data: bytes | str, suffix: str) -> Told:
    data = data.encode() if isinstance(data, str) else data
    return [(passage_of(piece, Path()).told, piece.line, piece.page) for piece in cut(sections(data, suffix))]


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


def test_headings_of_word_travel_with_the_text_below_them() -> None:
    document = docx.Document()
    document.add_heading("Lease", 0)
    document.add_heading("Deposit", 1)
    document.add_paragraph("It is 900 EUR.")
    document.add_heading("House", 1)
    document.add_heading("Keys", 2)
    document.add_paragraph("There are two.")
    assert _texts(made.saved(document), ".docx") == [
        "Lease: Deposit: It is 900 EUR.",
        "Lease: House: Keys: There are two.",
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
        ("Ada's page: Hello: My dentist is Ada.", 3, None),
        ("Ada's page: Hello: one", 5, None),
        ("Ada's page: Hello: two", 5, None),
        ("Ada's page: Hello: tail", 2, None),
    ]


def test_a_mail_is_read_with_its_header_and_the_names_of_its_attachments() -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "ada@example.org", "bo@example.org", "Café"
    mail.set_content("We meet at Amber Arch.\nBring the key.\n")
    mail.add_alternative("<p>We meet at Amber Arch.<br>Bring the key.</p>", subtype="html")
    mail.add_attachment(b"secret", maintype="application", subtype="pdf", filename="../plan.pdf")
    assert _texts(mail.as_bytes(), ".eml") == [
        "From: ada@example.org, To: bo@example.org, Subject: Café, Attachments: ../plan.pdf",
        "Café: We meet at Amber Arch.",
        "Café: Bring the key.",
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
        "Heading: print(1)",
        "Heading: | a | b |",
        "Heading: 12**34",
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
    "binary": (b"\x00\x01\x02" * 100, ".md", "binary, despite"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), ".txt", "a picture, despite"),
    "unknown-encoding": ("ěščřžýáíé ůúďťň".encode("iso8859-2"), ".txt", "save it as UTF-8"),
    "half-utf-16": ("Straße".encode("utf-16")[:-1], ".txt", "utf-16"),
    "no-pdf": (b"hello", ".pdf", "not a PDF"),
    "truncated-pdf": (made.pdf("Hello.")[:-60], ".pdf", "truncated"),
    "broken-pdf": (b"%PDF-1.4\n%%EOF", ".pdf", "damaged PDF"),
    "encrypted-pdf": (made.encrypted_pdf(), ".pdf", "password"),
    "no-word": (b"hello", ".docx", "not a Word document"),
    "encrypted-word": (b"\xd0\xcf\x11\xe0" + bytes(500), ".docx", "encrypted"),
    "truncated-word": (made.word("Hello.")[:-60], ".docx", "truncated"),
    "zip-bomb": (made.zip_bomb(), ".docx", "unpack"),
    "no-json": ("{", ".json", "not valid JSON"),
    "deep-json": ("[" * 200_000, ".json", "nested"),
    "no-mail": ("hello", ".eml", "not an e-mail"),
    "empty-json": (b"\xef\xbb\xbf\n", ".json", "^is empty$"),
    "empty-pdf": (b"", ".pdf", "^is empty$"),
    "empty-docx": (b"", ".docx", "^is empty$"),
    "empty-eml": (b"\n", ".eml", "^is empty$"),
    "empty-txt": (b"", ".txt", "^is empty$"),
    "blank-txt": ("\ufeff \n".encode("utf-16"), ".txt", "^is empty$"),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_what_cannot_be_read_says_why(name: str) -> None:
    data, suffix, says = NO_TEXT[name]
    with pytest.raises(DocumentsUnreadable, match=says):
        _read(data, suffix)


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("5 * 3 is 15", "5 * 3 is 15"),
        ("Temperature > 40 degrees", "Temperature > 40 degrees"),
        ("My dentist - Dr. Meyer", "My dentist - Dr. Meyer"),
        ("**Attendees:** Ravi", "Attendees: Ravi"),
        ("a*b*c and 5*3*2", "a*b*c and 5*3*2"),
        ("snake_case_name, __init__ed", "snake_case_name, __init__ed"),
        ("see https://x.example/__init__.py/_a_.", "see https://x.example/__init__.py/_a_."),
        (r"\*not\* `a * b` &amp; &lt;b&gt;", "*not* a * b & <b>"),
        ("ssh <user>@<host> if a <b and c> d", "ssh <user>@<host> if a <b and c> d"),
        ("if a <y and\nb > c", "if a <y and b > c"),
        ("a <b>bold</b> word<br>next", "a bold word next"),
        ("[text](https://x.example/ä_b_) ![alt *x*](p.png)", "text (https://x.example/ä_b_) alt x (p.png)"),
        ("<https://x.example> [https://x.example](https://x.example)", "https://x.example https://x.example"),
        ("[Ada]: 4711", "[Ada]: 4711"),
        ("1. a\n1. b\n\n15. April", "1. a 1. b 15. April"),
        ("- a\n  - b\n    > c", "a b c"),
        ("Title\n===\n\ntext", "Title: text"),
        ("# One\n## Two #\n\ntext\n\n# Three", "One: Two: text"),
        ('a\n\n[//]: # (evil)\n[comment]: <> (evil)\n\n[//]: # "evil"\n\nb', "a b"),
        ("---\ntitle: *x*\n---\ntext", "title: *x* text"),
        ("| a | b |\n|---|---|\n| 5 * 3 | `x` | more \\| |", "| a | b | | 5 * 3 | x | more | |"),
        (">" * 60 + " deep", ">" * 10 + " deep"),
        ("-\n\n7.", "7."),
        ("<script> is a tag\n\nand text", "<script> is a tag and text"),
        ("<user>\nsays so", "<user> says so"),
        ("<dialog> is a new element.\n\nThe key", "<dialog> is a new element. The key"),
        ("<iframe> is risky.\n\nThe key", "<iframe> is risky. The key"),
        ("<video>\n\nThe key\n\n`</video>` ends it", "<video> The key </video> ends it"),
        ("<video>\n\nThe key\n\n<video src=x></video>", "<video> The key"),
        ("<!-- begins\n\na comment", "<!-- begins a comment"),
        ("Text with <object> and <audio> tags", "Text with <object> and <audio> tags"),
        ("cp <source> <target>", "cp <source> <target>"),
        ("<link> first, </b> and </dialog>", "<link> first, </b> and </dialog>"),
        ("<p>one <dialog> two <!-- three</p>\n\nfour", "one <dialog> two <!-- three four"),
        ("<p><video <b>x</b></p>\n\nkey", "<video x key"),
        ("| a <video> | b |\n|---|---|\n| c | d |", "| a <video> | b | | c | d |"),
        ("<ul>\n<li>one\n<li>two\n</ul>\n\n<a name=x>three", "one two three"),
        ("<div hidden>\n\nevil </div> one\n\ntwo", "one two"),
        ("<div hidden>\n\nevil\n\n</div>\n<p>one</p>\n\ntwo", "one two"),
        ("<div hidden>\n<!-- <div> --><script>'</div>'</script>\n\nevil\n\n</div>\n\none", "one"),
    ],
)
def test_markdown_is_read_as_a_reader_of_its_page_sees_it(line: str, seen: str) -> None:
    assert " ".join(_texts(line, ".md")) == seen


def test_headings_without_text_are_told_only_where_their_words_would_be_lost() -> None:
    text = "# Shopping\n## Milk\n## Bread\n# Wi-Fi: tea-at-four\n# Notes\n\nSee above."
    assert _texts(text, ".md") == ["Shopping: Milk, Bread", "Wi-Fi: tea-at-four", "Notes: See above."]
    assert _texts("# Only this", ".md") == ["Only this"]
    assert _texts("<title>Ada</title><h1>Ada</h1><p>x", ".html") == ["Ada: x"]
    assert _texts(f"# {'long ' * 40}\n## Shed\nx", ".md") == ["Shed: x"]


def test_a_heading_ends_the_one_before_it_unless_that_stands_above_it() -> None:
    text = "# Care\n## Dentist A\n\n## Dentist B\n\nPhone 1948\n\n# Home\n## Shed\n# Car\n\nIt is red.\n\n### End"
    assert _read(text, ".md") == [
        ("Care: Dentist B: Phone 1948", 6, None),
        ("Car: It is red.", 12, None),
    ]


@pytest.mark.parametrize("suffix", [".txt", ".md"])
@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_no_other_separator_moves_the_lines_of_a_file(suffix: str, separator: str) -> None:
    assert _read(f"One{separator}two.\r\n\r\nThree.\r\rFour.\n", suffix) == [
        ("One two.", 1, None),
        ("Three.", 3, None),
        ("Four.", 5, None),
    ]


def test_a_sentence_in_a_quoted_reply_is_put_together() -> None:
    text = (
        "> > The dentist whom you asked me about works at the practice in the old\n"
        ">> town and is called Hazel Hammer, as far as I know from my neighbours\n> Thanks!\n>\n>=5 is much\n"
    )
    assert _read(text, ".txt") == [
        (
            "> > The dentist whom you asked me about works at the practice in the old"
            " town and is called Hazel Hammer, as far as I know from my neighbours",
            1,
            None,
        ),
        ("> Thanks!", 3, None),
        (">", 4, None),
        (">=5 is much", 5, None),
    ]


def test_code_in_markdown_keeps_the_marks_of_a_shell() -> None:
    lines = [f"> a command of the shell {name} that is as long as a line of a text" for name in ("one", "two")]
    assert _texts("```\n" + "\n".join(lines) + "\n```\n", ".md") == lines


def test_long_lines_that_end_with_a_number_or_an_address_are_no_wrapped_sentence() -> None:
    lines = [
        "Dr. Ann Miller, dentist at the practice in the old town, phone 1948",
        "Dr. Bob Meier, surgeon at the hospital by the lake, bob@hospital.example",
        "Eve Stone, physiotherapist in Long Street, see https://eve.example/hours",
        "The garden shed",
    ]
    assert _texts("\n".join(lines), ".txt") == lines
    assert _texts(f"{lines[0]}\nand 12 to 2", ".txt") == [f"{lines[0]} and 12 to 2"]


def test_passages_of_markdown_have_the_lines_of_the_file() -> None:
    text = (
        "---\na: b\n---\n# Head\n\n`a\nb` c\nshort\n\n> 1. quoted\n\n"
        "```\ncode\n```\n\n<div>\n\ntext\n<p>\nhtml\n</div>\n"
    )
    assert _read(text, ".md") == [
        ("a: b", 2, None),
        ("Head: a b c", 6, None),
        ("Head: short", 8, None),
        ("Head: 1. quoted", 10, None),
        ("Head: code", 13, None),
        ("Head: text", 18, None),
        ("Head: html", 19, None),
    ]


HIDDEN = {
    "attribute": "<div hidden>evil</div>",
    "display": "<div style='color: red; Display: NONE !important'>evil</div>",
    "visibility": "<div style='visibility:hidden'>evil</div>",
    "opacity": "<div style='opacity:0.0'><b style='opacity:1'>evil</b></div>",
    "font-size": "<div style='font-size:0px'>evil<b style='font-size:2em'>evil</b></div>",
    "color": "<span style='color:transparent'>evil</span>",
    "first-of-two-styles": "<div style='display:none' style=''>evil</div>",
    "template": "<template><p>evil</p></template>",
    "script": "<script>evil</script>",
    "style": "<style>evil</style>",
    "comment": "<!-- evil -->",
}
HIDDEN_IN_A_PAGE = {
    "noscript": "<noscript>evil</noscript>",
    "input": "<input type=hidden value=evil>",
    "svg-title": "<svg><title>evil</title></svg>",
    "dialog": "<dialog>evil</dialog>",
    "class": "<style>/* x */ .pre, .post { display: none }</style><p class='a pre'>evil</p>",
    "class-behind-others": "<style>@import 'x'; @media x { .y {} } .pre { display: none }</style><p class=pre>evil</p>",
}


@pytest.mark.parametrize("hidden", [*HIDDEN.values(), *HIDDEN_IN_A_PAGE.values()], ids=[*HIDDEN, *HIDDEN_IN_A_PAGE])
def test_what_a_web_page_or_mail_hides_is_not_read(hidden: str) -> None:
    mail = EmailMessage()
    mail["From"] = "ada@example.org"
    mail.set_content(f"<p>Seen</p>{hidden}<p>too</p>", subtype="html")
    assert _texts(mail.as_bytes(), ".eml")[1:] == ["Seen", "too"]
    assert _texts(f"<p>Seen</p>{hidden}<p>too</p>", ".html") == ["Seen", "too"]


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_what_html_in_markdown_hides_is_not_read(hidden: str) -> None:
    assert _texts(f"Seen\n\n{hidden}\n\ntoo\n", ".md") == ["Seen", "too"]
    start, end = hidden.split(">", 1)[0] + ">", hidden[hidden.rindex("<") :]
    if not hidden.startswith(("<!", "<script", "<style", "<template")):
        assert _texts(f"Seen\n\n{start}\n\n- *evil*\n\n```\nevil\n```\n\n{end}\n\ntoo\n", ".md") == ["Seen", "too"]
        assert _texts(f"Seen {start}evil *evil*\n`evil`{end} too\n", ".md") == ["Seen", "too"]


def test_what_a_page_shows_despite_a_style_is_read() -> None:
    page = (
        "<style>.tab { display: none } .tab.open { display: block } @media print { .nav { display: none } }"
        "@import 'x'; .menu { display: none; &.open { display: block } } .last { display: none</style>"
        "<p class=menu>0</p><p class=last>0</p>"
        "<p class='tab open'>1</p><p class=nav>2</p><p aria-hidden=true>3</p><p style='opacity:0.5'>4</p>"
        "<div style='font-size:0'><p style='font-size:12px'>5</p></div><dialog open>6</dialog>"
        "<div style='visibility:hidden'><p style='visibility:visible'>7</p></div><svg><text>8</text></svg>"
        "<p>9<span hidden>evil</span><i>0</i></p>"
    )
    assert _texts(page, ".html") == ["0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "90"]


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def test_of_a_word_document_insertions_are_read_and_no_deletion_or_hidden_text() -> None:
    run = "<w:r>{}<w:t xml:space='preserve'>{} </w:t></w:r>"
    vanish, shown = "<w:rPr><w:vanish/></w:rPr>", "<w:rPr><w:vanish w:val='0'/></w:rPr>"
    paragraph = (
        f"<w:p {W}>{run.format('', 'one')}{run.format(vanish, 'evil')}"
        f"<w:del><w:r><w:delText>evil</w:delText></w:r></w:del><w:moveFrom>{run.format('', 'evil')}</w:moveFrom>"
        f"<w:ins>{run.format('', 'two')}</w:ins><w:fldSimple>{run.format('', 'three')}</w:fldSimple>"
        f"<w:sdt><w:sdtContent>{run.format('', 'four')}</w:sdtContent></w:sdt>"
        f"{run.format(shown, 'five')}"
        f"<w:r><w:txbxContent><w:p>{run.format('', 'box')}</w:p></w:txbxContent></w:r></w:p>"
    )
    block = f"<w:sdt {W}><w:sdtContent><w:p>{run.format('', 'six')}</w:p></w:sdtContent></w:sdt>"
    assert _texts(made.word_of(paragraph, block), ".docx") == ["one two three four five", "box", "six"]


def test_an_item_of_a_word_list_keeps_the_number_that_is_shown() -> None:
    def item(text: str, level: int, number: int = 77) -> str:
        listed = f"<w:numPr><w:ilvl w:val='{level}'/><w:numId w:val='{number}'/></w:numPr>"
        return f"<w:p {W}><w:pPr>{listed}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"

    levels = (("upperRoman", "%1)", 2), ("decimal", "%1.%2", 1), ("lowerLetter", "%3.", 26), ("bullet", "x", 1))
    items = (("a", 0), ("b", 1), ("c", 1), ("d", 2), ("e", 2), ("f", 3), ("g", 0), ("", 1), ("h", 1), ("no level", 8))
    before, after = item("before", 0, 76), (item("after", 0, 76), item("no list", 0, 78))
    document = made.word_of(before, *(item(*each) for each in items), *after, levels=levels)
    assert _texts(document, ".docx") == [
        *("II) before", "IV) a", "IV.1 b", "IV.2 c", "z. d", "aa. e", "f", "V) g", "V.1", "V.2 h", "no level"),
        *("VI) after", "no list"),
    ]


def test_an_item_of_a_word_list_may_be_one_by_its_style() -> None:
    styled = "<w:p %s><w:pPr><w:pStyle w:val='ListNumber'/></w:pPr><w:r><w:t>%s</w:t></w:r></w:p>"
    plain = f"<w:p {W}><w:r><w:t>text</w:t></w:r></w:p>"
    document = made.word_of(styled % (W, "one"), plain, styled % (W, "two"))
    assert _texts(document, ".docx") == ["1. one", "text", "2. two"]


def test_a_row_of_a_word_table_has_every_cell_and_a_merged_one_once() -> None:
    def cell(text: str, properties: str = "") -> str:
        return f"<w:tc><w:tcPr>{properties}</w:tcPr><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:tc>"

    rows = (
        cell("5") + cell("5") + cell("Ada", "<w:vMerge w:val='restart'/>"),
        cell("wide", "<w:gridSpan w:val='2'/>") + cell("", "<w:vMerge/>"),
        cell("<w:r/>") + cell("x") + f"<w:tc><w:tbl><w:tr>{cell('inner')}</w:tr></w:tbl><w:p/></w:tc>",
    )
    table = f"<w:tbl {W}>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"
    assert _texts(made.word_of(table), ".docx") == ["5, 5, Ada", "wide, Ada", "x, inner"]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('name,remark\nAda,\'tis; he said ""no""\n', 'name: Ada, remark: \'tis; he said ""no""'),
        ("name;sum\nAda;1,50\nBo;2,50\n", "name: Ada, sum: 1,50 name: Bo, sum: 2,50"),
        ("My dentist is Ada\n", "My dentist is Ada"),
        ("name,phone\nAda,\n", "name: Ada phone"),
        ("note\nAda; the baker\nBo; the cook\n", "note: Ada; the baker note: Bo; the cook"),
        ("sep=;\r\nname;sum\r\nAda;1,50\r\n", "name: Ada, sum: 1,50"),
        (f"name,note\nAda,{'long ' * 28_000}\n", f"name: Ada, note: {'long ' * 28_000}".strip()),
    ],
    ids=["quotes", "decimals", "one-line", "empty-column", "prose", "separator", "huge-cell"],
)
def test_no_value_and_no_name_of_a_table_is_lost(table: str, told: str) -> None:
    assert " ".join(_texts(table, ".csv")) == told


def test_numbers_and_keys_of_json_are_told_as_they_are_written() -> None:
    text = '{"a": 1.10, "a": 12345678901234567890.5, "b": {"c": {"d": [1e5]}}}'
    assert _texts(text, ".json") == ["a: 1.10, a: 12345678901234567890.5", "b: c: d: 1e5"]


def test_every_text_of_a_mail_is_read_and_html_where_plain_is_blank() -> None:
    mail = EmailMessage()
    mail["Subject"] = "Plan"
    mail.set_content(" \n")
    mail.add_alternative("<p>In HTML.</p>", subtype="html")
    mail.add_attachment(b"secret", maintype="application", subtype="pdf", filename="plan.pdf")
    mail.add_attachment("Behind it.", disposition="inline")
    mail.add_attachment("Not read.", filename="notes.txt")
    assert _texts(mail.as_bytes(), ".eml")[1:] == ["Plan: In HTML.", "Plan: Behind it."]


def test_of_alternatives_in_a_mail_the_html_is_read_unless_it_shows_nothing() -> None:
    mail = EmailMessage()
    mail["Subject"] = "Plan"
    mail.set_content("View this mail in your browser.")
    mail.add_alternative("<p>We meet at noon.</p><img src='cid:x'>", subtype="html")
    assert _texts(mail.as_bytes(), ".eml")[1:] == ["Plan: We meet at noon."]
    mail.get_payload(1).add_related(b"x", maintype="image", subtype="png", cid="<x>")
    assert _texts(mail.as_bytes(), ".eml")[1:] == ["Plan: We meet at noon."]
    mail.get_payload(1).get_payload(0).set_content("<img src=x><p hidden>nothing</p>", subtype="html")
    assert _texts(mail.as_bytes(), ".eml")[1:] == ["Plan: View this mail in your browser."]


def test_a_mail_that_names_no_encoding_is_read_as_utf8() -> None:
    assert _texts("Subject: Straße\n\nDie Straße.\n", ".eml") == ["Subject: Straße", "Straße: Die Straße."]
    assert _texts(b"Subject: x\n\nStra\xdfe.\n", ".eml") == ["Subject: x", "x: Straße."]


def test_a_part_of_a_mail_in_an_unknown_encoding_costs_no_other() -> None:
    parts = (
        "Content-Type: text/plain\n\nhello\n",
        "Content-Type: text/plain; charset=nope\n\nStraße\n",
        "Content-Type: text/plain; charset=idna\n\nx\u2026y\n",
    )
    body = "".join(f"--b\n{part}" for part in parts)
    mail = f"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n{body}--b--\n"
    assert _texts(mail, ".eml")[1:] == ["x: hello", "x: Straße", "x: x…y"]


@pytest.mark.parametrize("kind", ["calendar", "vcard", "css", "rtf", "x-amp-html"])
def test_data_for_programs_in_a_mail_is_not_read(kind: str) -> None:
    mail = EmailMessage()
    mail["Subject"] = "Plan"
    mail.set_content("We meet.")
    mail.add_attachment("BEGIN:VCALENDAR", subtype=kind, disposition="inline")
    mail.add_attachment("+ a line", subtype="x-patch", disposition="inline")
    assert _texts(mail.as_bytes(), ".eml")[1:] == ["Plan: We meet.", "Plan: + a line"]


STYLED = "<style>{}</style><p class=b>seen"
LONG = {
    "sheet-without-braces": (STYLED.format("a" * 300_000), ".html"),
    "unclosed-rule": (STYLED.format(".b{" + "a" * 300_000), ".html"),
    "at-signs": (STYLED.format("@" * 300_000), ".html"),
    "zeros": (f"<p style='font-size:{'0' * 300_000}1'>seen", ".html"),
    "unclosed-blocks": ("<div class=x>\n\n" * 6_000 + "seen", ".md"),
    "unclosed-items": ("<ul>\n\n" + "<li>\n\n" * 6_000 + "seen\n\n</ul>", ".md"),
    "nested-blocks": ("<div>\n\n" * 6_000 + "seen" + "\n\n</div>" * 6_000, ".md"),
    "comments": ("<p>seen</p>\n" + "<!-- -- >\n" * 80_000, ".md"),
    "nested-in-a-line": ("<b>seen " * 30_000, ".html"),
}


@pytest.mark.parametrize("name", LONG)
def test_no_file_takes_the_square_of_its_length_in_time(name: str) -> None:
    """The reader's own limit is the guard: with time in the square each would take it minutes."""
    data, suffix = LONG[name]
    with Extractor() as extractor:
        assert "seen" in extractor.extract(data.encode(), suffix)[0].text


def test_a_word_that_is_cut_in_a_pdf_is_put_together_and_a_hyphen_of_its_own_stays() -> None:
    assert _texts(made.pdf("An exam-\nple of Covid-\n19 in 2024-\n2025."), ".pdf") == [
        "An example of Covid-19 in 2024- 2025."
    ]


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        ("pass\u200bword\u202e", ".txt"),
        ("pass&#x200b;word&#x202e;", ".md"),
        ("<p>pass&#x200b;word&#x202e;</p>", ".html"),
        (made.word("pass\u200bword\u202e"), ".docx"),
        ("pass\u200bword\u202e", ".csv"),
        ('"pass\\u200bword\\u202e"', ".json"),
        ("Subject: pass\u200bword\u202e\n\n\u200b", ".eml"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith(".") else "",
)
def test_no_format_gives_characters_that_nobody_sees(data: bytes | str, suffix: str) -> None:
    assert [text.removeprefix("Subject: ") for text in _texts(data, suffix)] == ["password"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("My dentist is Dr. Meyer. She is kind.", ["My dentist is Dr. Meyer.", "She is kind."]),
        ("Ask J. R. Tolkien! He knows.", ["Ask J. R. Tolkien!", "He knows."]),
        ("Wir fahren am 3. Mai. Kommst du?", ["Wir fahren am 3. Mai.", "Kommst du?"]),
        ("See fruit, e.g. apples. It is so.", ["See fruit, e.g. apples.", "It is so."]),
    ],
)
def test_a_sentence_does_not_end_behind_an_abbreviation_or_an_ordinal(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts
