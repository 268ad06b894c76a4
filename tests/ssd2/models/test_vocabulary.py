"""Fingerprints compare the meaning of ids, whatever the tokenizers' files look like."""

from __future__ import annotations

import json
from typing import Any

from conftest import DEMO_TOKENIZER

from ssd2.models.tokenizer import Tokenizer

CONTENT: dict[str, Any] = json.loads(DEMO_TOKENIZER.read_text())
EOS_ID = 2


def made(content: dict[str, Any], **layout: Any) -> Tokenizer:
    return Tokenizer.from_json(json.dumps(content, **layout).encode(), "made")


def with_token(content: str, token_id: int, *, special: bool, by: dict[str, Any] = CONTENT) -> dict[str, Any]:
    """A tokenizer.json with one more token, or one renamed."""
    token = {**by["added_tokens"][0], "id": token_id, "content": content, "special": special}
    return {**by, "added_tokens": [*(one for one in by["added_tokens"] if one["id"] != token_id), token]}


def fingerprint(content: dict[str, Any], eos_token_id: int = EOS_ID) -> str:
    return made(content).vocabulary_sha256(eos_token_id)


def renamed(name: str, to: str) -> dict[str, Any]:
    vocab = {to if token == name else token: token_id for token, token_id in CONTENT["model"]["vocab"].items()}
    merges = [pair for pair in CONTENT["model"]["merges"] if name not in ("".join(pair), *pair)]
    return {**CONTENT, "model": {**CONTENT["model"], "vocab": vocab, "merges": merges}}


def test_a_file_written_anew_has_another_hash_and_the_same_fingerprint() -> None:
    one, other = made(CONTENT), made(CONTENT, indent=4)
    assert one.sha256 != other.sha256
    assert one.vocabulary_sha256(EOS_ID) == other.vocabulary_sha256(EOS_ID)
    assert one.difference(other) is None


def test_a_special_token_that_only_one_side_has_is_no_difference() -> None:
    assert fingerprint(with_token("<|mask|>", 1782, special=True)) == fingerprint(CONTENT)
    masks = [with_token(name, 1782, special=True) for name in ("<|mask|>", "<|MASK|>")]
    assert fingerprint(masks[0]) == fingerprint(masks[1])
    assert made(masks[0]).difference(made(CONTENT)) is None


def test_an_ordinary_token_more_is_a_difference() -> None:
    more = with_token("<tool>", 1782, special=False)
    assert fingerprint(more) != fingerprint(CONTENT)
    assert made(more).difference(made(CONTENT)) == "id 1782 is '<tool>' in one and a special token or none in the other"


def test_another_token_at_an_id_is_a_difference() -> None:
    name = max(CONTENT["model"]["vocab"], key=len)
    token_id = CONTENT["model"]["vocab"][name]
    other = renamed(name, "zyxquorv")
    assert fingerprint(other) != fingerprint(CONTENT)
    assert made(other).difference(made(CONTENT)) == f"id {token_id} is 'zyxquorv' in one and {name!r} in the other"


def test_another_eos_is_a_difference() -> None:
    more = with_token("<|end|>", 1782, special=True)
    assert fingerprint(more, eos_token_id=1782) != fingerprint(CONTENT)
    turn_ends = [with_token(name, 1782, special=True) for name in ("<|im_end|>", "<|eot_id|>")]
    assert fingerprint(turn_ends[0], 1782) != fingerprint(turn_ends[1], 1782)


def test_text_takes_no_ids_of_special_tokens_behind_it() -> None:
    """As Gemma 3 1B, whose tokenizer has a token for images behind the last row of its embeddings."""
    assert made(with_token("<image>", 1782, special=True)).text_vocab_size == 1782
    assert made(with_token("<tool>", 1782, special=False)).text_vocab_size == 1783
