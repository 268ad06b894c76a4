from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core_server.engine.loaded_model import LoadedModel
from ssd2.errors import InvalidParameter
from ssd2.logits.format import AllowedFormats
from ssd2.wire.codec import MAX_MESSAGE_BYTES
from tests.conftest import tiny_model
from tests.core_server.conftest import serve_in_memory


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
