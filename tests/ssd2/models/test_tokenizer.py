"""Text to ids and back, and the layout of prompts."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import pytest
from conftest import DEMO_TOKENIZER
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound
from ssd2.models.tokenizer import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer.from_file(DEMO_TOKENIZER)
SPECIAL_IDS: set[int | None] = {TOKENIZER.special_id(token) for token in SPECIAL_TOKENS}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer without this project's special tokens, which begins every text with </s>: as OPT's."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([], trainer)
    backend.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 0)])
    path = tmp_path_factory.mktemp("plain") / "tokenizer.json"
    backend.save(str(path))
    return Tokenizer.from_file(path)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("At 9:30, Raven Mill, 12.50 euros")
@example("Grüße 😀 e\u0301 你好 \x00")
@example("<eos> <|endoftext|> </s> <pad><bos>")
@example("  two  spaces\n\nand lines\t ")
def test_any_text_round_trips(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == unicodedata.normalize("NFC", text).strip()
    assert all(0 <= token_id < TOKENIZER.vocab_size for token_id in ids)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, " ", "a", "<", ">", "eos"]), max_size=12))
def test_typed_text_never_becomes_a_special_token(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert not SPECIAL_IDS & set(TOKENIZER.encode(text))
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text.strip()


def test_documents_and_instructions_cannot_forge_the_layout_of_a_prompt() -> None:
    prompt = TOKENIZER.encode_prompt("Hi<answer><eos>", ["a note<question>", "<note><bos>"], bos_token_id=1)
    counts = {token: prompt.count(SPECIAL_TOKENS.index(token)) for token in SPECIAL_TOKENS}
    assert counts == {"<pad>": 0, "<bos>": 1, "<eos>": 0, "<note>": 2, "<question>": 1, "<answer>": 1}


def test_a_prompt_holds_notes_question_and_the_start_of_the_answer() -> None:
    bos, note, question, answer = (
        TOKENIZER.special_id(token) for token in ("<bos>", "<note>", "<question>", "<answer>")
    )
    a, b, c = (TOKENIZER.encode(text) for text in ("The bakery", "A second note.", "When?"))
    assert TOKENIZER.encode_prompt("When?", bos_token_id=1) == [bos, question, *c, answer]
    assert TOKENIZER.encode_prompt("When?", ["The bakery", "A second note."], bos_token_id=1) == [
        *[bos, note, *a, note, *b],
        *[question, *c, answer],
    ]


def test_a_tokenizer_without_special_tokens_lays_the_prompt_out_in_text(plain: Tokenizer) -> None:
    prompt = plain.encode_prompt("When?", ["One.", "Two."], bos_token_id=2)
    assert prompt[0] == 2
    assert plain.decode(prompt[1:]) == "Input: One.\nInput: Two.\nInstruction: When?\nResponse:"
    alone = plain.encode_prompt("When?", bos_token_id=2)
    assert plain.decode(alone[1:]) == "Instruction: When?\nResponse:"
    assert plain.special_id("</s>") not in plain.encode("typed </s>")


def test_special_tokens_are_left_out_of_the_text() -> None:
    ids = [1, *TOKENIZER.encode("At nine."), 2, 2, 0]
    assert TOKENIZER.decode(ids) == "At nine."
    assert TOKENIZER.decode([]) == ""


@pytest.mark.parametrize("text", ["At nine o'clock", "Zoë Müller €5 日本", "naïve"])
def test_the_texts_of_tokens_join_to_the_text_and_no_character_is_torn(text: str) -> None:
    ids = [1, *TOKENIZER.encode(text), 2]
    texts = TOKENIZER.token_texts(ids)
    assert len(texts) == len(ids)
    assert "".join(texts).strip() == TOKENIZER.decode(ids) == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(texts)
    assert texts[0] == texts[-1] == "", "special tokens add nothing"


def test_a_token_alone_keeps_its_space_and_a_special_one_has_a_name() -> None:
    assert TOKENIZER.token_name(TOKENIZER.encode("nine")[0]).startswith(" ")
    assert TOKENIZER.token_name(2) == "<eos>"


def test_bytes_that_were_no_utf8_are_an_error_and_no_traceback() -> None:
    with pytest.raises(InvalidParameter, match="UTF-8"):
        TOKENIZER.encode("M\udcfcller")


def test_the_special_tokens_of_the_demo_pair() -> None:
    assert [TOKENIZER.special_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4, 5]
    assert TOKENIZER.special_id("</s>") is None
    assert TOKENIZER.vocab_size == 1782


def test_the_fingerprint_is_that_of_the_file() -> None:
    assert TOKENIZER.sha256 == hashlib.sha256(DEMO_TOKENIZER.read_bytes()).hexdigest()


def test_a_missing_tokenizer_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no tokenizer\.json in"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe\x00"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=r"is not a tokenizer\.json"):
        Tokenizer.from_file(path)
