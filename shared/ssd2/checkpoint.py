"""Checkpoints: a folder with config.json, weights and tokenizer.json, and its fingerprint.

Our own models and, as transformers stores them, causal language models.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ssd2.errors import CheckpointInvalid, ModelNotFound
from ssd2.models.autoregressive import AutoregressiveConfig
from ssd2.models.predict import Model
from ssd2.models.ssd2 import SSD2, SSD2Config
from ssd2.pretrained import autoregressive_config, read_autoregressive
from ssd2.tokenizer import Tokenizer

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with its tokenizer.

    Attributes:
        model: in evaluation mode, float32, on the device asked for.
        tokenizer: the tokenizer it was trained with.
        sha256: fingerprint over config and weights, hexadecimal.
    """

    model: Model
    tokenizer: Tokenizer
    sha256: str


def load_checkpoint(folder: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a model and check that its files fit together.

    Args:
        folder: with config.json, model.safetensors and tokenizer.json.
        device: where the model shall run.

    Raises:
        ModelNotFound: if the folder or one of its files is missing.
        CheckpointInvalid: if the files are damaged or do not fit together.
    """
    config, tokenizer = load_config_and_tokenizer(folder)
    model = _read_ssd2(folder, config) if isinstance(config, SSD2Config) else read_autoregressive(folder, config)
    return Checkpoint(model.to(device).eval().requires_grad_(False), tokenizer, fingerprint(folder))


def _read_ssd2(folder: Path, config: SSD2Config) -> SSD2:
    if not (folder / WEIGHTS).is_file():
        raise ModelNotFound(f"no {WEIGHTS} in {folder}; give the folder of a checkpoint")
    with torch.device("meta"):
        model = SSD2(config)
    try:
        weights = {name: value.float() for name, value in load_file(folder / WEIGHTS).items()}
        model.load_state_dict(weights, assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointInvalid(f"{folder / WEIGHTS} does not fit its config.json: {reason}") from error
    return model


def load_config_and_tokenizer(folder: Path) -> tuple[SSD2Config | AutoregressiveConfig, Tokenizer]:
    """Load all of a checkpoint but its weights, and check that the two fit together.

    Raises:
        ModelNotFound: if the folder or one of the two files is missing.
        CheckpointInvalid: if they are damaged or of different models.
    """
    if not folder.is_dir():
        raise ModelNotFound(f"there is no model folder {folder}; give the folder of a checkpoint")
    config, tokenizer = _read_config(folder / CONFIG), Tokenizer.from_file(folder / TOKENIZER)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointInvalid(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens, the model {config.vocab_size}; "
            "they are of different models"
        )
    return config, tokenizer


def _read_config(file: Path) -> SSD2Config | AutoregressiveConfig:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFound(f"no {CONFIG} in {file.parent}; give the folder of a checkpoint") from error
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"{file} is not JSON: {error}") from error
    if not isinstance(values, dict) or "model_type" not in values:
        raise CheckpointInvalid(f'{file} does not describe a model: it has no "model_type"')
    if values.pop("model_type") == "ssd2":
        return SSD2Config.from_dict(values)
    return autoregressive_config(file.parent)


def save_checkpoint(folder: Path, model: SSD2, tokenizer_json: str, dtype: torch.dtype = torch.float32) -> None:
    """Write a checkpoint folder.

    Args:
        folder: made if missing; files of the same names are replaced.
        model: the network.
        tokenizer_json: content of tokenizer.json.
        dtype: of the stored weights; float16 halves the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "ssd2", **asdict(model.config)}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)


def fingerprint(folder: Path) -> str:
    """SHA-256 over config and weights, as the model card gives it and Open repeats it."""
    digest = hashlib.sha256()
    weights = sorted(file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin"))
    for name in (CONFIG, *weights):
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
