from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core_server.engine.loaded_model import LoadedModel
from ssd2.algorithm.params import DecodingParams
from ssd2.errors import InvalidParameter, TokenizerMismatch
from ssd2.logits.format import AllowedFormats
from ssd2.models.checkpoint import load_checkpoint
from ssd2.wire.codec import MAX_MESSAGE_BYTES
from tests.conftest import tiny_model
from tests.core_server.conftest import open_request, serve_in_memory
from tests.families import save_llama


def test_a_block_is_bounded_by_the_positions_behind_the_shortest_prompt() -> None:
    assert serve_in_memory(tiny_model(max_positions=48, block_size=4)).served.card.max_block_size == 47
    assert serve_in_memory(tiny_model(max_positions=48, answer_position=30)).served.card.max_block_size == 18
    assert serve_in_memory(tiny_model(max_positions=2048)).served.card.max_block_size == 256


def test_the_longest_block_still_makes_a_message() -> None:
    card = serve_in_memory(tiny_model(vocab_size=256_000, hidden_size=2, max_positions=2048)).served.card
    assert 0.9 * MAX_MESSAGE_BYTES < 2 * card.vocab_size * card.max_block_size < MAX_MESSAGE_BYTES


def test_fewer_bytes_a_position_allow_longer_blocks() -> None:
    served = serve_in_memory(tiny_model(vocab_size=256_000, hidden_size=2, max_positions=2048))
    few = replace(served, logits_formats=AllowedFormats.parse("top-k:64"))
    assert served.served.card.max_block_size < few.served.card.max_block_size == 256


@pytest.mark.parametrize("device", ["no-such-device", "cpu0", "cuda:99"])
def test_a_device_that_cannot_be_used_is_named(core_folder: Path, device: str) -> None:
    with pytest.raises(InvalidParameter, match=f"'{device}' cannot be used"):
        LoadedModel.load(core_folder, "core", device)


def test_a_smaller_vocabulary_is_served_where_rows_can_be_cut(tmp_path: Path) -> None:
    save_llama(tmp_path, 1846)
    causal, simplex = LoadedModel("causal", load_checkpoint(tmp_path)), serve_in_memory(tiny_model())
    params = DecodingParams(block_size=1, max_tokens=4, steps=1)
    for vocab_size in (1782, 1846):
        causal.served.check_fits(open_request(causal, params, vocab_size=vocab_size))
    for vocab_size in (0, 1847):
        with pytest.raises(TokenizerMismatch, match="at most as many"):
            causal.served.check_fits(open_request(causal, params, vocab_size=vocab_size))
    with pytest.raises(TokenizerMismatch, match="; send as many"):
        simplex.served.check_fits(open_request(simplex, params, vocab_size=simplex.served.card.vocab_size - 1))
