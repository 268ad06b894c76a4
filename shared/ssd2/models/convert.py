"""From OPT weights to an SSD-2 model (§4: "we initialize these models using … OPT models"), and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd2.errors import CheckpointInvalid, InvalidParameter
from ssd2.models.checkpoint import save_checkpoint
from ssd2.models.checksums import SHA256SUMS, write_checksums
from ssd2.models.configs import SSD2Config
from ssd2.models.pretrained import read_config, read_network, read_tokenizer, transformers
from ssd2.models.ssd2 import SSD2
from ssd2.models.tokenizer import TOKENIZER

_REPRESENTABLE = {
    "do_layer_norm_before": True,
    "activation_function": "relu",
    "enable_bias": True,
    "layer_norm_elementwise_affine": True,
    "_remove_final_layer_norm": False,
    "tie_word_embeddings": True,
}
"""What an OPT config must say for `SSD2` to have its shape; opt-350m is the published one that does not."""

_RENAMED = {
    "context_embedding.weight": "embed_tokens.weight",
    "position_embedding.weight": "embed_positions.weight",
}
"""SSD-2's names that are not OPT's; both position tables start at row 2."""

_OPT_PREFIX, _SSD2_PREFIX = "model.decoder.", "transformer."

_NOT_IN_OPT = ("w_diff.", "w_pred.", "diffusion_time_embedding.", "context_time_embedding.")


def convert_opt(
    source: str, out: Path, *, block_size: int = 25, context_timestep: str = "none", seed: int = 0
) -> SSD2Config:
    """Make an SSD-2 checkpoint out of an OPT model, to be trained from there.

    Transformer, token and position embeddings are OPT's. W_diff starts as the token embeddings, so
    that a noiseless block is embedded as its tokens would be; W_pred starts at 0, and so does Emb_ctx-time
    where it is asked for, Emb_diff-time small and random.

    Args:
        source: a name on the Hugging Face hub, facebook/opt-125m say, or a local folder.
        out: checkpoint folder; made if missing, files of the same names are replaced.
        block_size: L that the model will be trained with; the paper's is 25.
        context_timestep: "none", or "quantised" for the paper's Emb_ctx-time, with which a server encodes each context
            anew for every 50 timesteps; see `SSD2Config`.
        seed: of Emb_diff-time.

    Returns:
        The config of the new model.

    Raises:
        ModelNotFound: if there is no such model, or it cannot be fetched.
        CheckpointInvalid: if it is no OPT model, one of a shape that SSD-2 does not have, or damaged.
    """
    opt_config = read_config(source)
    config = _ssd2_config(opt_config, source, block_size, context_timestep)
    tokenizer_json = read_tokenizer(source, config.vocab_size)
    weights = _ssd2_weights(read_network(source, "OPTForCausalLM").state_dict(), config, seed)
    with torch.device("meta"):
        model = SSD2(config)
    model.load_state_dict(weights, assign=True)
    save_checkpoint(out, model, tokenizer_json)
    return config


def export_opt(model: SSD2, out: Path, tokenizer_json: str, dtype: torch.dtype = torch.float32) -> None:
    """Write the causal language model that an SSD-2 holds as an OPT model; its diffusion inputs are left out.

    Args:
        model: trained with the causal objective, or fresh from `convert_opt`.
        out: folder; made if missing, files of the same names are replaced.
        tokenizer_json: content of tokenizer.json.
        dtype: of the stored weights.

    Raises:
        InvalidParameter: if the folder cannot be written to.
    """
    config = model.config
    opt_config = transformers().OPTConfig(
        **_REPRESENTABLE,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        word_embed_proj_dim=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        ffn_dim=config.ffn_size,
        max_position_embeddings=config.max_positions,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    opt = transformers().OPTForCausalLM(opt_config)
    weights = {_opt_name(name): value for name, value in model.state_dict().items() if not name.startswith(_NOT_IN_OPT)}
    opt.load_state_dict({**weights, "lm_head.weight": model.context_embedding.weight})
    try:
        (out / SHA256SUMS).unlink(missing_ok=True)  # of what was there before
        opt.to(dtype).save_pretrained(out)
        (out / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        write_checksums(out, [file.name for file in out.iterdir() if file.suffix in (".json", ".safetensors")])
    except OSError as error:
        raise InvalidParameter(f"cannot write to {out}: {error}; choose another folder", parameter="to") from error


def _ssd2_config(opt: Any, source: str, block_size: int, context_timestep: str) -> SSD2Config:
    """The config of the SSD-2 model with an OPT model's shape.

    Raises:
        CheckpointInvalid: if SSD-2 has no such shape.
    """
    if opt.model_type != "opt":
        raise CheckpointInvalid(f"{source} is a {opt.model_type} model; only OPT models can be converted")
    wanted = {**_REPRESENTABLE, "word_embed_proj_dim": opt.hidden_size}
    differing = {name: getattr(opt, name, None) for name, value in wanted.items() if getattr(opt, name, None) != value}
    if differing:
        found = ", ".join(f"{name} {value!r} where {wanted[name]!r} is needed" for name, value in differing.items())
        raise CheckpointInvalid(f"{source} has a shape that SSD-2 does not support: {found}; use facebook/opt-125m")
    return SSD2Config.from_dict(
        {
            "vocab_size": opt.vocab_size,
            "hidden_size": opt.hidden_size,
            "num_layers": opt.num_hidden_layers,
            "num_heads": opt.num_attention_heads,
            "ffn_size": opt.ffn_dim,
            "max_positions": opt.max_position_embeddings,
            "block_size": block_size,
            "bos_token_id": opt.bos_token_id,
            "eos_token_id": opt.eos_token_id,
            "pad_token_id": opt.pad_token_id,
            "context_timestep": context_timestep,
        }
    )


def _ssd2_weights(opt: dict[str, Tensor], config: SSD2Config, seed: int) -> dict[str, Tensor]:
    """SSD-2's weights by name: OPT's where OPT has them, the rest from scratch."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in SSD2(config).state_dict().items()}
    fresh = {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith(_NOT_IN_OPT)}
    taken_over = {name: opt[_opt_name(name)] for name in shapes if name not in fresh}
    fresh["w_diff.weight"] = opt[f"{_OPT_PREFIX}embed_tokens.weight"].T
    fresh["diffusion_time_embedding.weight"].normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
    return taken_over | fresh


def _opt_name(name: str) -> str:
    """OPT's name of a weight of SSD-2."""
    return _OPT_PREFIX + _RENAMED.get(name, name.removeprefix(_SSD2_PREFIX))
