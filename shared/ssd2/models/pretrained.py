"""Models of the transformers library: config, tokenizer and weights, with our own errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ssd2.errors import CheckpointInvalid, ModelNotFound
from ssd2.models.chat import ChatTemplate
from ssd2.models.configs import check_sizes
from ssd2.models.loading_logs import quiet_torchao
from ssd2.models.tokenizer import TOKENIZER, Tokenizer

EMBED_SUM, EMBED_TIMESTEP = "embed_sum_layer.pt", "timestep_layer.pt"
"""What SSD-LM's published checkpoint holds beside the files of a RoBERTa."""

WEIGHT_SUFFIXES = (".safetensors", ".bin")
"""Suffixes of the files that transformers keeps weights in."""

_LAYER = re.compile(r"(.*?)\.(\d+)\.")
"""A weight's name up to its layer: the list and the number in it."""

_CAUSAL = "AutoModelForCausalLM"

_TEXT_PART = {
    r"^(model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(model\.)?language_model\.(model\.)?(?!lm_head\.)": "model.",
}
"""Names of weights of a model whose text part is one of several, and in that part by itself."""

MOST_PARAMETERS_PER_BYTE = 2
"""Weights in a byte of a weights file at most: two share one."""


def transformers() -> Any:
    """Import the transformers package, which takes seconds and only its own models, converting and training need."""
    try:
        import transformers
    except ImportError as error:
        raise ModelNotFound(
            "reading this model requires the transformers package; install it with: pip install 'slingshot[core]' "
            "on a server, 'slingshot[agent]' on a device"
        ) from error
    library: Any = transformers
    # What it would print of a model, our errors say; and loading takes a moment only.
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    quiet_torchao()
    return library


def read_config(source: str) -> Any:
    """The source's config.json.

    Raises:
        ModelNotFound: if there is none.
        CheckpointInvalid: if it is not the config of a model, or of one larger than there can be.
    """
    is_folder = Path(source).is_dir()
    if is_folder:
        _check_config_file(Path(source) / "config.json")
    library = transformers()
    try:
        return library.AutoConfig.from_pretrained(source, **_as_found(source))
    except Exception as error:  # wrong values make the library raise what it likes
        if is_folder or not isinstance(error, (OSError, ValueError)) or "trust_remote_code" in str(error):
            raise _no_model(source, error) from error
        raise ModelNotFound(
            f"there is no model {source!r}, as a folder or on the Hugging Face hub; check the name and the "
            f"network connection, or download the model and use its folder ({first_line(error)})"
        ) from error


def _check_config_file(file: Path) -> None:
    """Look at the sizes before transformers does, which makes lists of as many entries as there are layers."""
    if not file.is_file():
        raise ModelNotFound(
            f"there is no {file.name} in {file.parent}; give the folder of a model, or its name on the hub"
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        check_sizes(values if isinstance(values, dict) else {})
    except CheckpointInvalid as error:
        raise CheckpointInvalid(f"{file}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _no_model(str(file.parent), error) from error


def _no_model(source: str, error: Exception) -> CheckpointInvalid:
    if "trust_remote_code" in str(error):
        return CheckpointInvalid(
            f"the model in {source} consists of Python code of its own, which is never run; use a model of a kind that "
            "transformers itself has, such as Llama, Qwen or Gemma"
        )
    if "does not recognize this architecture" in str(error):
        return CheckpointInvalid(
            f"the installed transformers does not have models of the kind in {source}, and Python code of a model's "
            "own is never run; use a model of another kind, such as Llama, Qwen or Gemma"
        )
    reason = " ".join(str(error).split())[:200]
    if not isinstance(error, (OSError, ValueError)):
        reason = f"{type(error).__name__}: {reason}"  # a KeyError's text is the key alone
    return CheckpointInvalid(
        f"the config.json in {source} describes no model: {reason}; correct it, or download the model again"
    )


def read_tokenizer(source: str, vocab_size: int) -> str:
    """Content of the source's tokenizer.json.

    Raises:
        ModelNotFound: if it has no tokenizer.
        CheckpointInvalid: if the tokenizer cannot be stored, or is another model's.
    """
    library = transformers()
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(source, **_as_found(source))
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"{source} has no tokenizer: {first_line(error)}") from error
    except Exception as error:  # as in reading a config
        raise CheckpointInvalid(
            f"the tokenizer of {source} is damaged ({first_line(error)}); download it again"
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointInvalid(f"the tokenizer of {source} has no tokenizer.json; give a model with a fast tokenizer")
    # Where its files are missing, transformers makes a tokenizer that knows no text: of special tokens, or of none.
    special = set(tokenizer.all_special_ids)
    if not backend.encode("a", add_special_tokens=False).ids or special.issuperset(backend.get_vocab().values()):
        raise ModelNotFound(f"{source} has no tokenizer; add its tokenizer.json, or vocab.json and merges.txt")
    if (known := backend.get_vocab_size(with_added_tokens=True)) > vocab_size:
        raise CheckpointInvalid(
            f"the tokenizer of {source} has {known} tokens and the model {vocab_size}; use the model's own tokenizer"
        )
    return str(backend.to_str())


def local_folder(source: str) -> Path:
    """A model's folder; a model of the hub is downloaded first, or found where it was downloaded before.

    Args:
        source: a folder, or a name on the Hugging Face hub such as facebook/opt-125m.

    Raises:
        ModelNotFound: if it is neither, or cannot be downloaded.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelNotFound(
            f"there is no model folder {source}; to take a model from the hub, install 'slingshot[core]' on a "
            "server, 'slingshot[agent]' on a device"
        ) from error
    try:
        patterns = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.bin", "*.pt"]
        # In folders of their own are other forms of the same weights.
        return Path(snapshot_download(source, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:  # what the package raises is one of the two, as network errors are
        raise ModelNotFound(
            f"there is no model {source!r}, as a folder or on the Hugging Face hub; check the name and the "
            f"network connection ({first_line(error)})"
        ) from error


def read_tokenizer_of(folder: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer of a local model: its tokenizer.json or, of older ones, the files that it can be made from.

    Raises:
        ModelNotFound: if there is none.
        CheckpointInvalid: if it is damaged, or another model's.
    """
    template = ChatTemplate.of_folder(folder)
    if (folder / TOKENIZER).is_file():
        return Tokenizer.from_file(folder / TOKENIZER, template)
    return Tokenizer.from_json(read_tokenizer(str(folder), vocab_size).encode(), str(folder), template)


def read_network(source: str, kind: str, dtype: torch.dtype = torch.float32, unused: tuple[str, ...] = ()) -> Any:
    """Read a network with its weights; of a model that sees or hears too, only the part that writes.

    Args:
        source: a name on the hub or a local folder.
        kind: name of the transformers class that it is to be.
        dtype: that the weights are read in; what is stored in it is never held in another.
        unused: beginnings of the names of weights that the caller never runs, and that may be missing.

    Raises:
        ModelNotFound: if there are no weights.
        CheckpointInvalid: if they are damaged, incomplete or more than config.json describes.
    """
    config = _network_config(source, kind)
    if Path(source).is_dir():
        _check_parameters(Path(source), config, kind)
    try:
        network, report = getattr(transformers(), kind).from_pretrained(
            source,
            config=config,
            dtype=dtype,
            key_mapping=_TEXT_PART if kind == _CAUSAL else None,
            output_loading_info=True,
            **_as_found(source),
        )
    except OSError as error:
        raise ModelNotFound(f"{source} has no weights: {first_line(error)}") from error
    except Exception as error:  # safetensors and pickle raise what they like
        raise CheckpointInvalid(
            f"the weights of {source} are damaged or do not fit its config.json; download it again "
            f"({first_line(error)})"
        ) from error
    # transformers fills in what is missing with random numbers.
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(unused)):
        raise CheckpointInvalid(f"the weights of {source} lack {', '.join(missing[:3])}; download them again")
    if beyond := _beyond(network, report["unexpected_keys"]):
        raise CheckpointInvalid(
            f"the weights of {source} contain {beyond}, which its config.json leaves out, so half a model would be "
            "served; download its config.json again"
        )
    return network


def _beyond(network: Any, unexpected: Iterable[str]) -> str | None:
    """A stored layer in one of the network's lists of layers that the network did not make, if there is one."""
    made: dict[str, set[str]] = {}
    for name in network.state_dict():
        if found := _LAYER.match(name):
            made.setdefault(found[1], set()).add(found[2])
    for name in sorted(unexpected):
        if not (found := _LAYER.match(name)):
            continue
        # Older files lack the network's own prefix; layers of another part, such as one that sees, are in no list here.
        lists = [layers for known, layers in made.items() if f".{known}".endswith(f".{found[1]}")]
        if lists and not any(found[2] in layers for layers in lists):
            return f"{found[1]}.{found[2]}"
    return None


def _network_config(source: str, kind: str) -> Any:
    """Return the config of the network that is to be read."""
    config = read_config(source)
    return config.get_text_config(decoder=True) if kind == _CAUSAL else config


def _check_parameters(folder: Path, config: Any, kind: str) -> None:
    """Refuse a network that its files cannot hold: transformers would make all that is missing, in full size.

    Raises:
        CheckpointInvalid: if the config describes no network, one without layers or more weights than there are.
    """
    stored_bytes = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if getattr(config.get_text_config(decoder=True), "num_hidden_layers", None) == 0:
        raise CheckpointInvalid(f"the config.json in {folder} describes a model of 0 layers; download it again")
    parameters = sum(parameter.numel() for parameter in _without_weights(folder, config, kind).parameters())
    if stored_bytes and parameters > stored_bytes * MOST_PARAMETERS_PER_BYTE:
        raise CheckpointInvalid(
            f"the weights of {folder} are damaged or do not fit its config.json: it describes {parameters:,} weights, "
            f"but there are {stored_bytes:,} bytes; download it again"
        )


def network_without_weights(folder: Path, kind: str) -> Any:
    """Make the network of a local model on the device "meta": its shapes and nothing else.

    Raises:
        ModelNotFound: if there is no config.json.
        CheckpointInvalid: if it describes no network.
    """
    return _without_weights(folder, _network_config(str(folder), kind), kind)


def _without_weights(folder: Path, config: Any, kind: str) -> Any:
    network_kind = getattr(transformers(), kind)
    make = getattr(network_kind, "from_config", None) or network_kind._from_config  # of one that looks for its class
    try:
        with torch.device("meta"):
            return make(config)
    except Exception as error:  # as in reading it
        raise _no_model(str(folder), error) from error


def _as_found(source: str) -> dict[str, bool]:
    """A model's own Python code is never run, nor asked about; of a folder nothing is looked for elsewhere."""
    return {"trust_remote_code": False, "local_files_only": Path(source).is_dir()}


def first_line(error: Exception) -> str:
    """The first line of an error of another library, or its name."""
    return (str(error).splitlines() or [type(error).__name__])[0]
