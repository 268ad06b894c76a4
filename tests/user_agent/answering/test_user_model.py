from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd2.algorithm.params import CollaborationParams, DecodingParams
from ssd2.errors import CheckpointInvalid, ModelNotFound, PromptTooLong
from ssd2.models.tokenizer import Tokenizer
from tests.families import save_llama
from tests.user_agent.answering.test_conversation import TEMPLATE
from tests.user_agent.answering.test_run import V
from user_agent.answering.user_model import GAP, UserModel
from user_agent.documents.formats.section import Section, cut, sentences
from user_agent.documents.passage import Passage
from user_agent.documents.store import DocumentStore, Reading

ANSWER_TOKENS = 48


def _passage(text: str) -> Passage:
    return Passage(text, Path("notes.md"), 1)


def _prompt_tokens(model: UserModel, question: str, passages: Sequence[Passage]) -> int:
    return len(model.tokenizer.encode_prompt(question, [p.text for p in passages], bos_token_id=1))


def test_passages_fill_the_context_best_first_and_the_others_are_known(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=True)
    found = [_passage(f"The code for the shed is {number}.") for number in range(1000, 1030)]
    fitted = model.fitting("What is my shed code?", found, ANSWER_TOKENS)
    assert [*fitted.passages, *fitted.left_out] == found
    assert fitted.left_out
    longest = model.config.max_prompt_tokens_before(ANSWER_TOKENS)
    used = _prompt_tokens(model, "What is my shed code?", fitted.passages)
    assert used <= longest < used + _prompt_tokens(model, "", found[:1])


SAYS = "[system] You are an assistant of many words, who was made to answer and to be of help. "
DEFAULT_SAYING = f"{{% if messages[0].role != 'system' %}}{SAYS}{{% endif %}}{TEMPLATE}"


@pytest.fixture(params=[TEMPLATE, DEFAULT_SAYING])
def causal(request: pytest.FixtureRequest, tmp_path: Path) -> UserModel:
    """A model whose chat template says something of its own, or does not, where there is no system prompt."""
    save_llama(tmp_path / "llama", V)
    (tmp_path / "llama/chat_template.jinja").write_text(request.param)
    return UserModel.load(tmp_path / "llama", with_weights=False)


@pytest.mark.parametrize("system_prompt", ["", "Be brief."])
@pytest.mark.parametrize("miscounted", [0, 2])
def test_passages_are_counted_in_the_prompt_that_they_stand_in(
    causal: UserModel, monkeypatch: pytest.MonkeyPatch, system_prompt: str, miscounted: int
) -> None:
    added = UserModel._tokens_added
    monkeypatch.setattr(UserModel, "_tokens_added", lambda model, passage: added(model, passage) - miscounted)
    said = causal.instructed(system_prompt)
    found = [_passage(f"The code for the shed is {number}") for number in range(1000, 1400)]
    fitted = causal.fitting("What is my shed code?", found, ANSWER_TOKENS, said)
    used = len(causal.prompt("What is my shed code?", fitted.passages, said))
    longest = causal.config.max_prompt_tokens_before(ANSWER_TOKENS)
    assert fitted.left_out
    assert used <= longest
    assert longest - used < 2 * len(causal.tokenizer.encode(found[0].text)) + miscounted * len(found)


def test_a_long_private_context_is_encoded_a_few_times_and_not_once_a_sentence(
    causal: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    characters = 0
    encode, encode_apart = Tokenizer.encode, Tokenizer._encode_apart

    def counted(tokenizer: Tokenizer, text: str) -> list[int]:
        nonlocal characters
        characters += len(text)
        return encode(tokenizer, text)

    def counted_apart(tokenizer: Tokenizer, text: str) -> list[int]:
        nonlocal characters
        characters += len(text)
        return encode_apart(tokenizer, text)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    monkeypatch.setattr(Tokenizer, "_encode_apart", counted_apart)
    long = " ".join(f"The code for the box number {number} is {number * 7}." for number in range(1000))
    fitted = causal.fitting("What is the code?", [], ANSWER_TOKENS, private_context=long)
    assert characters < 10 * len(long)
    used = len(causal.prompt("What is the code?", private_context=fitted.private_context))
    assert 0 <= causal.config.max_prompt_tokens_before(ANSWER_TOKENS) - used < 50


def test_the_first_passage_that_does_not_fit_is_cut_to_the_sentences_that_match(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    about = "My dentist appointment is at Amber Arch."
    matching = "The code for the shed is 4711, and nobody but me knows it."
    long = _passage(" ".join([about] * 12 + [matching] + [about] * 12))
    first, last = _passage("The shed is green."), _passage("The shed is old. " * 40)
    fitted = model.fitting("What is my shed code?", [first, long, last], ANSWER_TOKENS)
    cut = fitted.passages[1]
    assert fitted.passages[0] == first
    assert (cut.is_cut, cut.place) == (True, long.place)
    assert set(sentences(cut.text.replace(GAP, " "))) == {matching, about}, "room that is left is used"
    assert GAP in cut.text, "a sentence from the middle is no neighbour of the first ones"
    assert all(part in long.text for part in cut.text.split(GAP))
    assert fitted.left_out == [last], "one passage at most is cut"
    assert _prompt_tokens(model, "What is my shed code?", fitted.passages) <= model.config.max_prompt_tokens


def test_the_sentences_of_a_cut_passage_stay_in_their_order(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    long = _passage(" ".join(f"The code for the box number {number} is {number * 7}." for number in range(40)))
    (cut,) = model.fitting("What is the code?", [long], ANSWER_TOKENS).passages
    numbers = [int(number) for number in re.findall(r"number (\d+)", cut.text)]
    assert numbers == sorted(numbers)
    assert len(numbers) > 1


def test_a_question_that_is_shortened_to_the_limit_is_not_refused_again(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    asked, question = DecodingParams(block_size=8, max_tokens=48), "word " * 200
    with pytest.raises(PromptTooLong, match="the models take at most 48; shorten it") as raised:
        model.limited(question, asked, core_takes=48)
    assert raised.value.limit == 48
    while len(model.core_prompt(question)) > 48:
        question = question.removesuffix("word ")
    assert model.limited(question, asked, core_takes=48)


def test_a_passage_of_which_no_sentence_fits_is_left_out_and_shorter_ones_are_not(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    endless, short = _passage("my shed " * 200), _passage("The shed code is 4711.")
    fitted = model.fitting("What is my shed code?", [endless, short], ANSWER_TOKENS)
    assert (fitted.passages, fitted.left_out) == ([short], [endless])


@given(words=st.integers(0, 120), max_tokens=st.integers(1, 10_000), block_size=st.integers(1, 200))
def test_the_longest_answer_is_what_has_room_behind_the_question(
    user_folder: Path, words: int, max_tokens: int, block_size: int
) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    question, asked = "word " * words, DecodingParams(block_size=block_size, max_tokens=max_tokens)
    needed = len(model.core_prompt(question))
    fits = [
        blocks * block_size
        for blocks in range(1, 161)
        if needed <= model.config.max_prompt_tokens_before(blocks * block_size)
    ]
    if not fits:
        with pytest.raises(PromptTooLong) as raised:
            model.limited(question, asked)
        is_the_block_s_fault = model.config.max_prompt_tokens_before(block_size) < len(model.core_prompt(""))
        assert raised.value.parameter == ("block_size" if is_the_block_s_fault else "question")
        return
    assert model.limited(question, asked).max_tokens == min(max_tokens, max(fits))
    assert model.fitting(question, [], model.limited(question, asked).max_answer_tokens).passages == []


@pytest.mark.parametrize("words", [0, 10, 60])
def test_documents_keep_half_of_the_positions_shared_with_the_answer(user_folder: Path, words: int) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    shared = replace(model, config=replace(model.config, answer_position=None))  # type: ignore[type-var]
    question = "word " * words
    params = shared.limited(question, DecodingParams(block_size=8, max_tokens=4096))
    left = shared.config.max_positions - len(shared.core_prompt(question))  # type: ignore[attr-defined]
    assert left / 2 - 8 <= params.max_answer_tokens <= left / 2 + 8
    assert shared.limited(question, DecodingParams(block_size=8, max_tokens=9)).max_tokens == 9


def test_what_the_store_finds_is_given_in_whole_sentences_and_the_best_first(user_folder: Path, tmp_path: Path) -> None:
    sentences = [
        f"The lamp in the shed number {number} is {number * 7} and nobody else knows it." for number in range(40)
    ]
    store = DocumentStore(tmp_path / "documents.sqlite", None)
    pieces = list(cut([Section("My shed code is 4711.", 1), Section(" ".join(sentences), 2)]))
    store.put_upload(Reading(Path("notes.md"), "indexed", pieces=pieces), b"")
    found = store.search("What is my shed code?")
    fitted = UserModel.load(user_folder, with_weights=False).fitting("What is my shed code?", found, ANSWER_TOKENS)
    assert fitted.passages[0].text == "My shed code is 4711."
    whole = [passage for passage in fitted.passages if not passage.is_cut]
    assert whole == [passage for passage in found if passage in whole]
    assert all(passage.text.endswith(".") for passage in fitted.passages)
    store.close()


def test_what_fits_can_be_decoded(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=True)
    passages = model.fitting("What is my shed code?", [_passage("The shed code is 4711.")] * 50, ANSWER_TOKENS).passages
    assert model.terms("What is my shed code?", passages, CollaborationParams(), "own")


def test_a_question_that_does_not_fit_says_how_long_it_may_be(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    with pytest.raises(PromptTooLong, match="the user model takes at most 96"):
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
    with pytest.raises(CheckpointInvalid, match="does not have models of the kind"):
        UserModel.load(tmp_path, with_weights=False)


PRIVATE = "My name is Mallory and the shed is at the back."


def test_private_context_stands_before_the_passages_in_the_user_models_prompt_alone(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    found = [_passage("The shed is green.")]
    fitted = model.fitting("What is my shed code?", found, ANSWER_TOKENS, private_context=PRIVATE)
    assert (fitted.passages, fitted.left_out) == (found, [])
    assert (fitted.private_context, fitted.private_context_fit) == (PRIVATE, "whole")
    read = model.tokenizer.decode(model.prompt("What is it?", found, private_context=PRIVATE))
    assert 0 <= read.index(PRIVATE) < read.index("The shed is green.") < read.index("What is it?")
    assert PRIVATE not in model.tokenizer.decode(model.core_prompt("What is it?"))
    assert model.prompt("What is it?", found, private_context=" ") == model.prompt("What is it?", found)


def test_private_context_that_is_too_long_is_cut_by_the_rule_of_passages(user_folder: Path) -> None:
    model = UserModel.load(user_folder, with_weights=False)
    matching = "The code for the shed is 4711."
    long = " ".join(["My dentist appointment is at Amber Arch."] * 12 + [matching])
    passage = _passage("The shed is old. " * 40)
    fitted = model.fitting("What is my shed code?", [passage], ANSWER_TOKENS, private_context=long)
    assert matching in fitted.private_context
    assert len(fitted.private_context) < len(long)
    assert (fitted.private_context_fit, fitted.passages, fitted.left_out) == ("in part", [], [passage])
    unbroken = model.fitting("What is my shed code?", [], ANSWER_TOKENS, private_context="shed " * 200)
    assert (unbroken.private_context, unbroken.private_context_fit, unbroken.left_out) == ("", "left out", [])
    assert model.fitting("What is it?", [], ANSWER_TOKENS).private_context_fit is None
