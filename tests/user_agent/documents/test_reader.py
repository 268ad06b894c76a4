from __future__ import annotations

from pathlib import Path

import pytest

from user_agent.documents.files import MAX_FILE_BYTES
from user_agent.documents.formats.section import PASSAGE_CHARACTERS
from user_agent.documents.reader import read_documents, read_passages
from user_agent.errors import DocumentsUnreadable


def test_a_folder_is_read_with_its_subfolders_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("My plumber is Ada Stone.\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "home.md").write_text("# At home\n\n- The **key** is in the `drawer`.\n\n> The code is 4711.\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    passages = read_passages(tmp_path)
    assert [(p.told, p.source.name, p.line) for p in passages] == [
        ("At home: The key is in the drawer.", "home.md", 3),
        ("At home: The code is 4711.", "home.md", 5),
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
        ("scan.pdf", b"%PDF", "not a PDF"),
        ("greek.txt", "Οδός 5".encode("iso-8859-7"), "UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentsUnreadable, match=says) as caught:
        read_passages(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_or_empty_folder_is_an_error_and_not_an_answer_without_documents(tmp_path: Path) -> None:
    with pytest.raises(DocumentsUnreadable, match="does not exist"):
        read_passages(tmp_path / "missing")
    with pytest.raises(DocumentsUnreadable, match=r"no \.txt, .* or \.eml file"):
        read_passages(tmp_path)


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
    (tmp_path / ".hidden" / "secret.txt").write_text("Not for corpus.\n")
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


def test_a_broken_document_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("The key is here.\n")
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    corpus = read_documents([tmp_path])
    assert [passage.text for passage in corpus.passages] == ["The key is here."]
    *_, bad, kinds = corpus.problems()  # before it, on a machine that cannot isolate its reader, that it does not
    assert bad.startswith(f"{tmp_path / 'bad.pdf'} is truncated")
    assert kinds == "not read, because the formats are not supported: 1 .png"
    with pytest.raises(DocumentsUnreadable, match=r"bad\.pdf is truncated"):
        read_passages(tmp_path)


def test_a_file_that_is_named_is_read_even_if_it_is_hidden_or_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / ".notes.txt").write_text("The key is here.\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / ".notes.txt")
    for name in (".notes.txt", "link.txt"):
        assert [passage.text for passage in read_passages(tmp_path / name)] == ["The key is here."]


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "big.txt").open("wb") as big:
        big.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(DocumentsUnreadable, match=r"big\.txt has 20,971,521 bytes"):
        read_passages(tmp_path / "big.txt")


def test_reading_on_the_network_is_told(tmp_path: Path, refused_namespaces: None) -> None:
    (tmp_path / "a.txt").write_text("My plumber is Ada Stone.")
    assert "without isolation from the network" in next(read_documents([tmp_path]).problems())
