"""A Llama network in one GGUF file, as the folder that transformers reads: config, weights and tokenizer.

Only what this layout needs is read here; the format itself and its quantised blocks are the package `gguf`'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssd2.errors import CheckpointInvalid

_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_A_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_KIND = ("llama", "smollm")
"""Network, and how the tokenizer cuts text before it merges: digits one by one, then as GPT-2's."""

_CONTROL = 3
"""The type of a token that text never becomes."""


def convert_gguf(file: Path, folder: Path) -> None:
    """Write a GGUF file's model as safetensors in bfloat16, with its config, tokenizer and chat template.

    Args:
        file: of a Llama network with a byte-level tokenizer.
        folder: that is there; files of the same names are replaced.

    Raises:
        CheckpointInvalid: if the file is damaged or of another layout.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(file)
        values = {name: field.contents() for name, field in reader.fields.items()}
        if (kind := (values["general.architecture"], values["tokenizer.ggml.pre"])) != _KIND:
            raise CheckpointInvalid(
                f"{file.name} is of the kind {kind}, and only {_KIND} can be read; use another file"
            )
        config = _config(values, is_tied=all(tensor.name != "output.weight" for tensor in reader.tensors))
        _write_weights(reader.tensors, config, folder)
        for name, content in (
            ("config.json", config),
            ("generation_config.json", {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}),
            ("tokenizer_config.json", _tokenizer_config(values)),
        ):
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "tokenizer.json").write_text(_tokenizer_json(values), encoding="utf-8")
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise CheckpointInvalid(f"{file.name} is damaged or no GGUF file ({error}); download it again") from error


def _config(values: dict[str, Any], *, is_tied: bool) -> dict[str, Any]:
    heads, hidden = values["llama.attention.head_count"], values["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "vocab_size": len(values["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": values["llama.feed_forward_length"],
        "num_hidden_layers": values["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": values["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "max_position_embeddings": values["llama.context_length"],
        "rope_theta": values["llama.rope.freq_base"],
        "rms_norm_eps": values["llama.attention.layer_norm_rms_epsilon"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": is_tied,
        "bos_token_id": values["tokenizer.ggml.bos_token_id"],
        "eos_token_id": values["tokenizer.ggml.eos_token_id"],
        "pad_token_id": values["tokenizer.ggml.padding_token_id"],
    }


def _write_weights(tensors: Any, config: dict[str, Any], folder: Path) -> None:
    import gguf
    import torch
    from safetensors.torch import save_file

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for tensor in tensors:
        value = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        part = tensor.name.split(".")[-2]
        if part in heads:
            value = _halves(value, heads[part])
        weights[_name(tensor.name)] = value.to(torch.bfloat16).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _name(name: str) -> str:
    """Return a weight's name in transformers."""
    if name in _WHOLE:
        return _WHOLE[name]
    _, layer, part, kind = name.split(".")  # blk.0.attn_q.weight
    return f"model.layers.{layer}.{_IN_A_LAYER[part]}.{kind}"


def _halves(weight: Any, heads: int) -> Any:
    """Order a head's rows as transformers rotates them: the first halves of all pairs, then the second ones."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)  # [heads, pair, half, D]
    return pairs.transpose(1, 2).reshape(rows, columns)


def _tokenizer_json(values: dict[str, Any]) -> str:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = values["tokenizer.ggml.tokens"]
    merges = [(left, right) for left, right in (merge.split(" ") for merge in values["tokenizer.ggml.merges"])]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = values["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return str(tokenizer.to_str(pretty=True))


def _tokenizer_config(values: dict[str, Any]) -> dict[str, Any]:
    tokens = values["tokenizer.ggml.tokens"]
    numbers = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return {
        **{f"{ours}_token": tokens[values[f"tokenizer.ggml.{theirs}_token_id"]] for ours, theirs in numbers.items()},
        "add_bos_token": values["tokenizer.ggml.add_bos_token"],
        "model_max_length": values["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "chat_template": values["tokenizer.chat_template"],
    }
