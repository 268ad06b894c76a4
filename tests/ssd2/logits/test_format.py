"""What a user, a provider and the card may say of the formats of logits."""

from __future__ import annotations

import pytest

from ssd2.errors import InvalidParameter
from ssd2.logits.format import ANY_FORMAT, FLOAT16, PREFERRED, UINT8, AllowedFormats, LogitsFormat


@pytest.mark.parametrize("text", ["float16", "uint8", "top-k:1", "top-k:64", "top-k:65536"])
def test_a_format_is_written_as_it_is_read(text: str) -> None:
    assert str(LogitsFormat.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "float32",
        "top-k",
        "top-k:",
        "top-k:0",
        "top-k:-1",
        "top-k:65537",
        "top-k:6 4",
        "top-k:1e3",
        "uint8:8",
        "top-k:٣",
    ],
)
def test_what_is_no_format_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"float16, uint8 or top-k:K with K from 1 to 65536"):
        LogitsFormat.parse(text)


@pytest.mark.parametrize("text", ["top-k:64", "float16,uint8,top-k:1024"])
def test_allowed_formats_are_written_as_they_are_read(text: str) -> None:
    assert str(AllowedFormats.parse(text)) == text


@pytest.mark.parametrize("text", ["", ",", "float16,", "float16;uint8", "top-k:64,top-k:16", "uint8,uint8"])
def test_what_is_no_list_of_formats_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        AllowedFormats.parse(text)


def test_no_more_than_the_largest_k_may_be_asked_for() -> None:
    allowed = AllowedFormats.parse("top-k:64,uint8")
    allowed.check(LogitsFormat("top-k", 64))
    allowed.check(LogitsFormat("top-k", 1))
    allowed.check(UINT8)
    for asked in (LogitsFormat("top-k", 65), FLOAT16):
        with pytest.raises(InvalidParameter, match="it offers top-k:64,uint8"):
            allowed.check(asked)


@pytest.mark.parametrize(
    ("allowed", "best"),
    [
        (str(ANY_FORMAT), str(PREFERRED)),
        ("float16,top-k:64", "top-k:64"),
        ("float16,uint8,top-k:16", "uint8"),
        ("float16,top-k:16", "float16"),
        ("top-k:16", "top-k:16"),
    ],
)
def test_who_does_not_choose_gets_few_bytes_if_allowed_and_else_what_is_closest(allowed: str, best: str) -> None:
    assert str(AllowedFormats.parse(allowed).best()) == best


def test_a_frame_of_the_64_largest_logits_is_500_times_smaller_than_full() -> None:
    assert 25 * FLOAT16.bytes_per_position(50_272) == 2_513_600
    assert 25 * UINT8.bytes_per_position(50_272) == 1_256_800
    assert 25 * PREFERRED.bytes_per_position(50_272) == 4_900


def test_more_entries_than_there_are_are_never_sent() -> None:
    assert LogitsFormat("top-k", 64).entries(32) == 32
    assert LogitsFormat("top-k", 64).bytes_per_position(32) == 4 + 3 * 32
    assert LogitsFormat("top-k", 64).bytes_per_position(65_537) == 4 + 5 * 64
