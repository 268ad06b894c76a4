from __future__ import annotations

from pathlib import Path

import pytest

from ssd2.errors import CheckpointInvalid, ModelNotFound, PromptTooLong
from ssd2.params import CollaborationParams
from user_agent.documents.formats.section import Section, cut
from user_agent.documents.passage import Passage
from user_agent.documents.store import DocumentStore, Reading
from user_agent.user_model import UserModel

ANSWER_TOKENS = 48


def _passage(text: str) -> Passage:
    return Passage(text, Path("notes.md"), 1)


def test_passages_fill_the_context_best_first_and_none_is_cut(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=True)
    long = _passage("My dentist appointment is at Amber Arch. " * 30)
    short = [_passage(f"The code for the shed is {number}.") for number in range(1000, 1030)]
    chosen = model.fitting("What is my shed code?", [short[0], long, *short[1:]], ANSWER_TOKENS)
    assert chosen[:2] == short[:2]
    assert long not in chosen
    prompt = model.tokenizer.encode_prompt("What is my shed code?", [p.text for p in chosen], bos_token_id=1)
    added = model.tokenizer.encode_prompt("", [short[0].text], bos_token_id=1)
    assert len(prompt) <= model.config.max_prompt_tokens_before(ANSWER_TOKENS) < len(prompt) + len(added)


def test_what_the_store_finds_is_shown_whole_and_the_best_first(user_folder: Path, tmp_path: Path) -> None:
    sentences = [
        f"The code for the shed number {number} is {number * 7} and nobody else knows it." for number in range(40)
    ]
    store = DocumentStore(tmp_path / "documents.sqlite", None)
    pieces = list(cut([Section("My shed code is 4711.", 1), Section(" ".join(sentences), 2)]))
    store.put_upload(Reading(Path("notes.md"), "indexed", pieces=pieces), b"")
    found = store.search("What is my shed code?")
    chosen = UserModel.load(user_folder, with_weights=False).fitting("What is my shed code?", found, ANSWER_TOKENS)
    assert chosen[0].text == "My shed code is 4711."
    assert chosen == [passage for passage in found if passage in chosen]
    assert all(passage.text.endswith(".") for passage in chosen)
    store.close()


def test_what_fits_can_be_decoded(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=True)
    passages = model.fitting("What is my shed code?", [_passage("The shed code is 4711.")] * 50, ANSWER_TOKENS)
    assert model.terms("What is my shed code?", passages, CollaborationParams(), "own")


def test_a_question_that_does_not_fit_says_how_long_it_may_be(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    with pytest.raises(PromptTooLong, match="the user model takes 96"):
        model.fitting("word " * 200, [], ANSWER_TOKENS)


def test_without_weights_only_tokenizer_and_config_are_read(user_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((user_folder / name).read_bytes())
    model = UserModel.load(tmp_path, with_weights=False)
    assert model.core_prompt("Hello.")
    with pytest.raises(ModelNotFound):
        model.terms("Hello.", [], CollaborationParams(), "own")
    with pytest.raises(ModelNotFound, match=r"model\.safetensors"):
        UserModel.load(tmp_path, with_weights=True)


def test_a_missing_folder_and_a_foreign_config_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        UserModel.load(tmp_path / "nowhere", with_weights=False)
    (tmp_path / "config.json").write_text('{"model_type": "toaster"}')
    with pytest.raises(CheckpointInvalid, match="describes no model"):
        UserModel.load(tmp_path, with_weights=False)
