"""Causal models as they are published: in shards, in bfloat16, with a part that sees, with code of their own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import torch
import transformers
from conftest import DEMO_TOKENIZER
from safetensors.torch import load_file, save_file

from ssd2.errors import ModelNotFound
from ssd2.models.autoregressive import AutoregressiveLM
from ssd2.models.checkpoint import Checkpoint, load_checkpoint

SIZES = {
    "vocab_size": 1846,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
GEMMA_3_SIGHT = {
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    },
    "mm_tokens_per_image": 4,
    "image_token_index": 1845,
    "boi_token_index": 1844,
    "eoi_token_index": 1843,
}
Peak = Callable[[], Callable[[], int]]
TOKEN_IDS = torch.arange(3, 43)[None]


def gemma_3(**changes: Any) -> Any:
    """A model with a part that sees, as of 4B and more: the text part is nested, and the stops are a list beside it."""
    text = {**SIZES, "sliding_window": 16, **changes}
    config = transformers.Gemma3Config(text_config=text, **GEMMA_3_SIGHT, eos_token_id=[1, 106])
    return transformers.Gemma3ForConditionalGeneration(config)


def llama_3(**changes: Any) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, eos_token_id=[2, 8, 9], **changes))


def qwen_3(**changes: Any) -> Any:
    config = transformers.Qwen3Config(**SIZES, eos_token_id=5, bos_token_id=3, tie_word_embeddings=True, **changes)
    return transformers.Qwen3ForCausalLM(config)


MAKE = {"gemma 3": gemma_3, "llama 3": llama_3, "qwen 3": qwen_3}


@pytest.fixture(params=MAKE)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """A network of random weights, each a number of bfloat16, and its folder, in shards of bfloat16."""
    torch.manual_seed(4)
    network = MAKE[request.param]().eval()
    for parameter in network.parameters():
        parameter.data = parameter.data.bfloat16().float()
    deepcopy(network).to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="20KB")
    copyfile(DEMO_TOKENIZER, tmp_path / "tokenizer.json")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    return network, tmp_path


def network_of(checkpoint: Checkpoint) -> Any:
    assert isinstance(checkpoint.model, AutoregressiveLM)
    return checkpoint.model.network


def test_a_published_model_is_read_whole(published: tuple[Any, Path]) -> None:
    network, folder = published
    with torch.no_grad():
        assert torch.equal(network_of(load_checkpoint(folder))(TOKEN_IDS).logits, network(TOKEN_IDS).logits)


def test_what_a_model_sees_with_is_not_loaded(tmp_path: Path) -> None:
    gemma_3().save_pretrained(tmp_path)
    copyfile(DEMO_TOKENIZER, tmp_path / "tokenizer.json")
    checkpoint = load_checkpoint(tmp_path)
    assert not [name for name, _ in checkpoint.model.named_parameters() if "vision" in name]
    assert checkpoint.model.config.stop_ids == (1, 106)
    assert (checkpoint.model.config.vocab_size, checkpoint.model.config.max_positions) == (1846, 256)


def test_an_output_layer_of_its_own_is_found_in_a_nested_text_part(tmp_path: Path) -> None:
    network = gemma_3().eval()
    network.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored["language_model.lm_head.weight"] = torch.randn(SIZES["vocab_size"], SIZES["hidden_size"])
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = False
    (tmp_path / "config.json").write_text(json.dumps(config))
    copyfile(DEMO_TOKENIZER, tmp_path / "tokenizer.json")
    loaded = network_of(load_checkpoint(tmp_path))
    assert torch.equal(loaded.lm_head.weight, stored["language_model.lm_head.weight"])
    assert torch.equal(loaded.model.embed_tokens.weight, network.get_input_embeddings().weight)


def test_a_missing_shard_is_an_error_that_says_so(published: tuple[Any, Path]) -> None:
    _, folder = published
    sorted(folder.glob("*.safetensors"))[1].unlink()
    with pytest.raises(ModelNotFound, match="has no weights"):
        load_checkpoint(folder)


@pytest.fixture
def peak_bytes() -> Peak:
    """Begin to measure this process's peak memory; what is returned tells its growth since."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def read(name: str) -> int:
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(name))

    def begin() -> Callable[[], int]:
        gc.collect()
        try:
            clear.write_text("5")
        except OSError as error:
            pytest.skip(f"this system does not measure peak memory anew: {error}")
        before = read("VmRSS")
        return lambda: read("VmHWM") - before

    return begin


def test_bfloat16_weights_are_never_float32_in_memory(
    tmp_path: Path, peak_bytes: Callable[[], Callable[[], int]]
) -> None:
    wide = {"hidden_size": 512, "intermediate_size": 4096, "num_hidden_layers": 3}
    config = transformers.LlamaConfig(**{**SIZES, **wide}, eos_token_id=2)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="16MB")
    copyfile(DEMO_TOKENIZER, tmp_path / "tokenizer.json")
    stored_bytes = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert stored_bytes > 40_000_000
    peak = peak_bytes()
    checkpoint = load_checkpoint(tmp_path, precision="bfloat16")
    assert {parameter.dtype for parameter in checkpoint.model.parameters()} == {torch.bfloat16}
    assert peak() < 1.5 * stored_bytes  # 1.0 was measured; 3.0 with a copy in float32


def test_loading_a_model_prints_nothing(tmp_path: Path) -> None:
    """In a process of its own: torchao, for one, warns as it is imported, and that happens once."""
    llama_3().save_pretrained(tmp_path)
    copyfile(DEMO_TOKENIZER, tmp_path / "tokenizer.json")
    load = f"from ssd2.models.checkpoint import load_checkpoint; load_checkpoint(Path({str(tmp_path)!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # this checkout's code
    done = subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path; {load}"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert (done.stdout, done.stderr) == ("", "")
