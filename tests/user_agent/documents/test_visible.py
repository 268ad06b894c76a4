"""What nobody sees in a text is not in the store; what somebody sees is."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_agent.documents.visible import visible

# Format characters that are drawn: signs around or above the digits of a number.
DRAWN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
TAGS = "".join(chr(0xE0000 + ord(letter)) for letter in "send it")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pay\x00 \x1b[1mnow\x07\x7f\x9b", "pay [1mnow"),
        ("a\tb\nc\u2028d\x0ce\x85f", "a\tb\nc d e f"),
        ("in\u202evoice\u202c \u2066x\u2069 \u200e\u200f\u061c", "invoice x "),
        ("pass\u200bword \ufeffkey\u2060s sch\u00adool", "password keys school"),
        ("Hello" + TAGS, "Hello"),
        ("pass\u200dword in\u200cvoice", "password invoice"),
        ("\U0001f600\ufe0f\ufe01\ufe02\U000e0101", "\U0001f600\ufe0f"),
        ("x\ud800y", "x?y"),
    ],
    ids=["controls", "line-ends", "bidi", "zero-width", "tags", "joiners-in-latin", "selectors", "surrogate"],
)
def test_characters_that_nobody_sees_are_removed(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian "I want"
        "\u0915\u094d\u200d\u0937",  # Hindi, a half form
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f\u200d\U0001f525 1\ufe0f\u20e3",  # emoji
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # England
        "\u845b\U000e0100",  # one of the shapes of an ideograph
        "Straße naïve Привет 東京 ﷺ € – “x”\u00a0…",
    ],
    ids=["persian", "hindi", "emoji", "england", "ideograph", "plain"],
)
def test_what_a_script_or_an_emoji_needs_stays(text: str) -> None:
    assert visible(text) == text


def test_every_format_and_control_character_of_unicode_is_removed_or_drawn() -> None:
    invisible = [
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cf", "Cc") and code not in DRAWN and chr(code) not in "\t\n"
    ]
    assert [hex(code) for code in invisible if visible(f"a{chr(code)}b") not in ("ab", "a b")] == []
    assert all(visible(f"a{chr(code)}b") == f"a{chr(code)}b" for code in DRAWN)


ODD = ("a", "\u0645", " ", "\n", "\x00", "\u200b", "\u200c", "\u200d", "\u202e", "\ufe0f", "\U0001f600", "\ud800")
FLAG = ("\U0001f3f4", "\U000e0067", "\U000e007f", "\U000e0101")


@given(st.text(st.sampled_from((*ODD, *FLAG))))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert visible(visible(text)) == visible(text)
