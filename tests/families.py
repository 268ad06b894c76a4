"""A tiny random model of each family, in one place: what tests go through that hold for all of them.

A new family gets its line here, and `test_guesses.py` fails until it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch

from ssd2.models.checkpoint import save_checkpoint
from ssd2.models.convert import export_opt
from tests.conftest import DEMO_TOKENIZER, demo_shaped_model, experts_of, save_ssd_lm


def _save_ssd2(folder: Path, seed: int) -> None:
    save_checkpoint(folder, demo_shaped_model(seed), DEMO_TOKENIZER.read_text())


def _save_experts(folder: Path, seed: int) -> None:
    experts = experts_of(*(demo_shaped_model(seed + number) for number in range(3)))
    save_checkpoint(folder, experts, DEMO_TOKENIZER.read_text())


def _save_autoregressive(folder: Path, seed: int) -> None:
    export_opt(demo_shaped_model(seed), folder, DEMO_TOKENIZER.read_text())


SAVE: dict[str, Callable[[Path, int], None]] = {
    "ssd-2": _save_ssd2,
    "experts": _save_experts,
    "ssd-lm": save_ssd_lm,
    "autoregressive": _save_autoregressive,
}
"""Write a checkpoint folder with a model of the seed's weights; all read the demo tokenizer's ids."""


def save_llama(folder: Path, vocab_size: int) -> Any:
    """Write a causal model of one small layer that is as sure of its tokens as a trained one, and return its network.

    Args:
        folder: of the checkpoint.
        vocab_size: V; of its ids the demo tokenizer knows the first ones.
    """
    from transformers import LlamaConfig, LlamaForCausalLM  # takes seconds; few tests need it

    torch.manual_seed(5)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **shape, **ids)).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter)
    network.save_pretrained(folder)
    copyfile(DEMO_TOKENIZER, folder / "tokenizer.json")
    return network
