"""Checkpoints: a folder with config.json, weights and tokenizer.json, their checksums, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound
from ssd2.models.checksums import SHA256SUMS, check_checksums, replace_files, write_checksums
from ssd2.models.configs import ModelConfig
from ssd2.models.devices import chosen_device, chosen_precision
from ssd2.models.model import Model
from ssd2.models.pairs import pair_meant_by
from ssd2.models.precision import dtype_of, set_precision
from ssd2.models.pretrained import EMBED_SUM, EMBED_TIMESTEP, WEIGHT_SUFFIXES
from ssd2.models.registry import Family, family_named, family_of_folder
from ssd2.models.shard import Shard
from ssd2.models.tokenizer import TOKENIZER, Tokenizer

CONFIG, WEIGHTS, MEASURED = "config.json", "model.safetensors", "measured.json"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with its tokenizer.

    Attributes:
        model: in evaluation mode, on the device and in the precision asked for.
        tokenizer: the tokenizer it was trained with.
        sha256: fingerprint over config and weights, hexadecimal.
        parameters: how many the whole model has, also where `model` is a share of it.
    """

    model: Model
    tokenizer: Tokenizer
    sha256: str
    parameters: int

    @property
    def vocabulary_sha256(self) -> str:
        """Fingerprint of the vocabulary; see `Tokenizer.vocabulary_sha256`."""
        return self.tokenizer.vocabulary_sha256(self.model.config.stop_ids[0])


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu", shard: Shard | None = None, precision: str = "float32"
) -> Checkpoint:
    """Load a model and check that its files fit together.

    Args:
        folder: with config.json, weights and tokenizer.json.
        device: where the model shall run; "auto" for the best that there is.
        shard: which part of every large weight to load; None for the whole model.
        precision: one of `ssd2.models.precision.PRECISIONS`, or "auto" for that of the device.

    Raises:
        ModelNotFound: if the folder or one of its files is missing.
        CheckpointInvalid: if the files are damaged or do not fit together, or a weight is no finite number.
        InvalidParameter: if the model cannot be cut into so many parts or held in that precision, or torch cannot use
            the device.
    """
    config, tokenizer = load_config_and_tokenizer(folder)
    family = family_named(config.family)
    device = chosen_device(device, family) if isinstance(device, str) else device
    precision = chosen_precision(precision, device)
    dtype = dtype_of(precision)
    family.check_files(folder, config)
    with ThreadPoolExecutor(1) as beside:  # the checksums take as long as the fingerprint
        checking = beside.submit(check_checksums, folder)
        sha256 = fingerprint(folder)
        checking.result()
    model = family.load(folder, config, dtype)
    _check_finite(folder, model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if shard:
        if family.shard is None:
            raise InvalidParameter(
                f"models of the family {family.name} do not support tensor parallelism; serve the model whole",
                parameter="tensor_parallel",
            )
        family.shard(model, shard)
    set_precision(model, precision)
    model = model.to(device).eval().requires_grad_(False)
    return Checkpoint(model, tokenizer, sha256, parameters)


def load_packed(
    folder: Path, device: torch.device | str = "cpu", shard: Shard | None = None, precision: str = "float32"
) -> Checkpoint:
    """Load a model that is only to answer, with its matrices laid out for it; see `load_checkpoint`."""
    checkpoint = load_checkpoint(folder, device, shard, precision)
    pack = family_named(checkpoint.model.config.family).pack
    if pack and shard is None:  # shares of a model have layers of their own
        pack(checkpoint.model)
    return checkpoint


def _check_finite(folder: Path, model: Model) -> None:
    """Refuse what no training that went well leaves: one such number is in every answer that comes near it."""
    for name, weight in model.named_parameters():
        if weight.numel() and not all(torch.isfinite(extreme) for extreme in weight.detach().aminmax()):
            raise CheckpointInvalid(
                f"{name} of the model in {folder} contains numbers that are not finite; copy the checkpoint again, or "
                "train it again from a step before they appeared"
            )


def load_config_and_tokenizer(folder: Path) -> tuple[ModelConfig, Tokenizer]:
    """Load all of a checkpoint but its weights, and check that the two fit together.

    Raises:
        ModelNotFound: if the folder or one of the two files is missing.
        CheckpointInvalid: if they are damaged or of different models.
    """
    values = _read_values(folder)
    family = family_of_folder(folder, values)
    config = family.read_config(folder, values)
    check_checksums(folder, only=(CONFIG, TOKENIZER))
    tokenizer = family.read_tokenizer(folder, config.vocab_size)
    if tokenizer.text_vocab_size > config.vocab_size:
        raise CheckpointInvalid(
            f"the tokenizer in {folder} has {tokenizer.text_vocab_size} tokens, the model {config.vocab_size}; "
            "they are of different models"
        )
    return config, tokenizer


def family_of(folder: Path) -> Family:
    """Find the family of a checkpoint, from its config.json.

    Raises:
        ModelNotFound: if the folder or its config.json is missing.
        CheckpointInvalid: if config.json is damaged.
    """
    return family_of_folder(folder, _read_values(folder))


def _read_values(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ModelNotFound(
            f"the model folder {folder} does not exist{pair_meant_by(str(folder))}; choose the folder of a checkpoint"
        )
    file = folder / CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFound(f"there is no {CONFIG} in {file.parent}; give the folder of a checkpoint") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{file} is not JSON ({error}); copy the checkpoint again") from error
    if not isinstance(values, dict) or "model_type" not in values:
        raise CheckpointInvalid(f'{file} does not describe a model: it has no "model_type"')
    return values


def save_checkpoint(folder: Path, model: Model, tokenizer_json: str, dtype: torch.dtype = torch.float32) -> None:
    """Write a checkpoint folder.

    Args:
        folder: made if missing; files of the same names are replaced.
        model: the network.
        tokenizer_json: content of tokenizer.json.
        dtype: of the stored weights; float16 halves the file.

    Raises:
        InvalidParameter: if the model's family has no checkpoints of ours.
    """
    family = family_named(model.config.family)
    if family.write_config is None:
        raise InvalidParameter(f"checkpoints of the family {family.name} can be read but not written")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SHA256SUMS).unlink(missing_ok=True)  # of what was there before
    config = json.dumps(family.write_config(model.config), indent=2)
    (folder / CONFIG).write_text(config + "\n", encoding="utf-8")
    (folder / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    write_checksums(folder, (CONFIG, TOKENIZER, WEIGHTS))


# See docs/decisions/055-measured-settings.md.
def write_measured(folder: Path, measured: MeasuredDecoding, costs: Mapping[str, Any]) -> None:
    """Write decoding settings into a checkpoint's config.json, and what they cost into measured.json beside it.

    Args:
        folder: of the checkpoint; its other files stay as they are.
        measured: settings; those that are None stay out.
        costs: how they were measured, as JSON.

    Raises:
        InvalidParameter: if the folder cannot be written to.
    """
    settings = {name: value for name, value in asdict(measured).items() if value is not None}
    others = {name: value for name, value in _read_values(folder).items() if name not in asdict(measured)}
    contents = {CONFIG: {**others, **settings}, MEASURED: dict(costs)}
    texts = {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in contents.items()}
    try:
        replace_files(folder, texts)
    except OSError as error:
        raise InvalidParameter(
            f"cannot write to {folder}: {error}; copy the checkpoint to a folder of your own"
        ) from error


def fingerprint(folder: Path) -> str:
    """SHA-256 over config and weights, as the model card gives it and Open repeats it."""
    return _sha256(folder, [CONFIG, *_weight_files(folder)])


def weights_fingerprint(folder: Path) -> str:
    """SHA-256 over the weights: the same before and after measured settings are written to the config."""
    return _sha256(folder, _weight_files(folder))


def _weight_files(folder: Path) -> list[str]:
    weights = sorted(file.name for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    return [*weights, *(name for name in (EMBED_SUM, EMBED_TIMESTEP) if (folder / name).is_file())]


def _sha256(folder: Path, names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
