"""OPT weights as the starting point of an SSD-2 model (§4: "we initialize these models using … OPT models")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd2.checkpoint import save_checkpoint
from ssd2.errors import CheckpointInvalid, ModelNotFound
from ssd2.models.ssd2 import SSD2, SSD2Config

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
    source: str, out: Path, *, block_size: int = 25, context_timestep: str = "quantised", seed: int = 0
) -> SSD2Config:
    """Make an SSD-2 checkpoint out of an OPT model, to be trained from there.

    Transformer, token and position embeddings are OPT's. W_diff starts as the token embeddings, so
    that a noiseless block is embedded as its tokens would be; W_pred and Emb_ctx-time start at 0,
    Emb_diff-time small and random.

    Args:
        source: a name on the Hugging Face hub, facebook/opt-125m say, or a local folder.
        out: checkpoint folder; made if missing, files of the same names are replaced.
        block_size: L that the model will be trained with; the paper's is 25.
        context_timestep: see `SSD2Config`.
        seed: of Emb_diff-time.

    Returns:
        The config of the new model.

    Raises:
        ModelNotFound: if there is no such model, or it cannot be fetched.
        CheckpointInvalid: if it is no OPT model, one of a shape that SSD-2 does not have, or damaged.
    """
    opt_config = _read_config(source)
    config = _ssd2_config(opt_config, source, block_size, context_timestep)
    tokenizer_json = _read_tokenizer(source, config.vocab_size)
    weights = _ssd2_weights(_read_weights(source), config, seed)
    with torch.device("meta"):
        model = SSD2(config)
    model.load_state_dict(weights, assign=True)
    save_checkpoint(out, model, tokenizer_json)
    return config


def _transformers() -> Any:
    """The transformers package, which only converting and training need."""
    try:
        import transformers
    except ImportError as error:
        raise ModelNotFound(
            "reading OPT models takes the transformers package; install it with: pip install 'slingshot[train]'"
        ) from error
    return transformers


def _read_config(source: str) -> Any:
    """The source's config.json.

    Raises:
        ModelNotFound: if there is none.
        CheckpointInvalid: if it is not the config of a model.
    """
    is_folder = Path(source).is_dir()
    if is_folder and not (Path(source) / "config.json").is_file():
        raise ModelNotFound(f"no config.json in {source}; give the folder of an OPT model, or its name on the hub")
    try:
        return _transformers().AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        if is_folder:
            raise CheckpointInvalid(f"the config.json in {source} describes no model: {error}") from error
        raise ModelNotFound(
            f"no model {source!r}, neither as a folder nor on the Hugging Face hub; check the name and the "
            f"network connection, or download the model and give its folder ({_first_line(error)})"
        ) from error


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
        raise CheckpointInvalid(f"{source} has a shape that SSD-2 cannot take over: {found}; facebook/opt-125m fits")
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


def _read_tokenizer(source: str, vocab_size: int) -> str:
    """Content of the source's tokenizer.json.

    Raises:
        ModelNotFound: if it has no tokenizer.
        CheckpointInvalid: if the tokenizer cannot be stored, or is another model's.
    """
    try:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"no tokenizer with {source}: {_first_line(error)}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointInvalid(f"the tokenizer of {source} has no tokenizer.json; give a model with a fast tokenizer")
    # Where its files are missing, transformers makes a tokenizer that knows no text.
    if not backend.encode("a", add_special_tokens=False).ids:
        raise ModelNotFound(f"no tokenizer with {source}; add its tokenizer.json, or vocab.json and merges.txt")
    if (known := backend.get_vocab_size(with_added_tokens=True)) > vocab_size:
        raise CheckpointInvalid(f"the tokenizer of {source} has {known} tokens, the model {vocab_size}; give its own")
    return str(backend.to_str())


def _read_weights(source: str) -> dict[str, Tensor]:
    """The weights of an OPT model by its own names, float32.

    Raises:
        ModelNotFound: if there are none.
        CheckpointInvalid: if they are damaged or incomplete.
    """
    try:
        model, report = _transformers().OPTForCausalLM.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    except OSError as error:
        raise ModelNotFound(f"no weights with {source}: {_first_line(error)}") from error
    except Exception as error:  # safetensors and pickle raise what they like
        raise CheckpointInvalid(
            f"the weights of {source} are damaged or do not fit its config.json; download it again "
            f"({_first_line(error)})"
        ) from error
    # transformers fills in what is missing with random numbers.
    if missing := sorted(report["missing_keys"]):
        raise CheckpointInvalid(f"the weights of {source} lack {', '.join(missing[:3])}; download them again")
    weights: dict[str, Tensor] = model.state_dict()
    return weights


def _ssd2_weights(opt: dict[str, Tensor], config: SSD2Config, seed: int) -> dict[str, Tensor]:
    """All of SSD-2's weights by name, from OPT's and, for what OPT does not have, from scratch."""
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
