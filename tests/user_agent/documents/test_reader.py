from __future__ import annotations

from pathlib import Path

import pytest

from ssd2.errors import DocumentsUnreadable
from user_agent.documents.formats.section import PASSAGE_CHARACTERS
from user_agent.documents.passage import Passage
from user_agent.documents.reader import read_passages
from user_agent.documents.search import search


def _passages(*texts: str) -> list[Passage]:
    return [Passage(text, Path("notes.md"), number) for number, text in enumerate(texts, start=1)]


def test_a_folder_is_read_with_its_subfolders_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("My plumber is Ada Stone.\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "home.md").write_text("# At home\n\n- The **key** is in the `drawer`.\n\n> The code is 4711.\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    passages = read_passages(tmp_path)
    assert [(p.text, p.source.name, p.line) for p in passages] == [
        ("The key is in the drawer.", "home.md", 3),
        ("The code is 4711.", "home.md", 5),
        ("My plumber is Ada Stone.", "b.txt", 1),
    ]


def test_a_long_paragraph_is_cut_between_sentences_only(tmp_path: Path) -> None:
    sentences = [f"This is sentence number {number} of a long paragraph." for number in range(40)]
    (tmp_path / "long.txt").write_text(" ".join(sentences))
    passages = read_passages(tmp_path / "long.txt")
    assert " ".join(p.text for p in passages) == " ".join(sentences)
    assert all(p.text.endswith(".") and len(p.text) <= PASSAGE_CHARACTERS for p in passages)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("scan.pdf", b"%PDF", "no PDF"),
        ("latin.txt", "Straße".encode("latin-1"), "UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentsUnreadable, match=says) as caught:
        read_passages(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_or_empty_folder_is_an_error_and_not_an_answer_without_documents(tmp_path: Path) -> None:
    with pytest.raises(DocumentsUnreadable, match="there is no"):
        read_passages(tmp_path / "missing")
    with pytest.raises(DocumentsUnreadable, match=r"no \.txt, .* or \.eml file"):
        read_passages(tmp_path)


def test_the_passage_with_the_rare_words_comes_first() -> None:
    passages = _passages("My book is red.", "My dentist appointment is at Amber Arch.", "My dentist is Ada Stone.")
    found = search(passages, "When is my dentist appointment?")
    assert found[0] == passages[1]


def test_passages_that_share_but_common_words_are_left_out() -> None:
    common = [f"My {thing} is in the {place}." for thing, place in zip("abcdefgh", "ijklmnop", strict=True)]
    passages = _passages(*common, "My dentist appointment is at Amber Arch.")
    assert search(passages, "Where is my dentist appointment?") == [passages[-1]]


def test_words_are_compared_by_stem_and_without_accents() -> None:
    passages = _passages("The appointments are on Monday.", "Café Noir is shut.")
    assert search(passages, "appointment") == [passages[0]]
    assert search(passages, "cafe") == [passages[1]]


@pytest.mark.parametrize("question", ['"', "NEAR(", "a* OR b", "text:secret", "-", "", "'; DROP TABLE passage; --"])
def test_no_question_is_read_as_query_syntax(question: str) -> None:
    assert search(_passages("Nothing of the kind."), question) == []


def test_no_match_gives_no_passage() -> None:
    assert search(_passages("My plumber is Ada Stone."), "weather tomorrow") == []


def test_nothing_but_markdown_markup_is_taken_away(tmp_path: Path) -> None:
    """A note that is changed in silence is a wrong answer later."""
    (tmp_path / "plain.txt").write_text("# 3 is my number\n- 12. March is the dentist\nThe code is 12**34\n")
    (tmp_path / "marked.md").write_text("#todo call Ada\n12. March is the dentist\nThe code is 12**34\n")
    texts = [passage.text for passage in read_passages(tmp_path)]
    assert texts == [
        "#todo call Ada",
        "12. March is the dentist",
        "The code is 12**34",
        "# 3 is my number",
        "- 12. March is the dentist",
        "The code is 12**34",
    ]


def test_odd_things_in_a_folder_do_not_make_it_unusable(tmp_path: Path) -> None:
    (tmp_path / "home.md").write_text("The key is here.\n")
    (tmp_path / "folder.md").mkdir()
    (tmp_path / ".#home.md").symlink_to("nobody@nowhere:1")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "secret.txt").write_text("Not for reading.\n")
    assert [passage.text for passage in read_passages(tmp_path)] == ["The key is here."]


def test_a_paragraph_without_a_full_stop_is_cut_between_words(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(400)]
    (tmp_path / "long.txt").write_text(" ".join(words))
    passages = read_passages(tmp_path / "long.txt")
    assert " ".join(passage.text for passage in passages).split() == words
    assert max(len(passage.text) for passage in passages) <= PASSAGE_CHARACTERS


def test_a_name_that_no_file_can_have_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DocumentsUnreadable):
        read_passages(tmp_path / ("x" * 300))
