"""Checkpoints: a folder with config.json, weights and tokenizer.json, their checksums, and its fingerprint.

Our own models, SSD-LM in its published layout and, as transformers stores them, causal language models.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound
from ssd2.models.checksums import SHA256SUMS, check_checksums, write_checksums
from ssd2.models.configs import AutoregressiveConfig, ExpertsConfig, SSD2Config, SSDLMConfig
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.precision import set_precision
from ssd2.models.predict import Model
from ssd2.models.pretrained import (
    EMBED_SUM,
    EMBED_TIMESTEP,
    WEIGHT_SUFFIXES,
    autoregressive_config,
    read_autoregressive,
    read_ssd_lm,
    read_tokenizer_of,
    ssd_lm_config,
)
from ssd2.models.ssd2 import SSD2
from ssd2.models.tensor_parallel import Shard, shard_model
from ssd2.models.tokenizer import TOKENIZER, Tokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"

Config = SSD2Config | SSDLMConfig | AutoregressiveConfig

_OUR_CONFIGS: dict[str, type[SSD2Config]] = {"ssd2": SSD2Config, "ssd2-experts": ExpertsConfig}
"""By the model_type in config.json."""

_LAYER = re.compile(r".*\.layers\.\d+(?=\.)")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with its tokenizer.

    Attributes:
        model: in evaluation mode, float32, on the device asked for.
        tokenizer: the tokenizer it was trained with.
        sha256: fingerprint over config and weights, hexadecimal.
        parameters: how many the whole model has, also where `model` is a share of it.
    """

    model: Model
    tokenizer: Tokenizer
    sha256: str
    parameters: int


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu", shard: Shard | None = None, precision: str = "float32"
) -> Checkpoint:
    """Load a model and check that its files fit together.

    Args:
        folder: with config.json, weights and tokenizer.json.
        device: where the model shall run.
        shard: which part of every large weight to load; None for the whole model.
        precision: one of `ssd2.models.precision.PRECISIONS`.

    Raises:
        ModelNotFound: if the folder or one of its files is missing.
        CheckpointInvalid: if the files are damaged or do not fit together, or a weight is no finite number.
        InvalidParameter: if the model cannot be cut into so many parts, or not be held in that precision.
    """
    config, tokenizer = load_config_and_tokenizer(folder)
    if isinstance(config, SSD2Config):
        _check_layers(folder / WEIGHTS, config)
    with ThreadPoolExecutor(1) as beside:  # the checksums take as long as the fingerprint
        checking = beside.submit(check_checksums, folder)
        sha256 = fingerprint(folder)
        checking.result()
    model = _read(folder, config)
    _check_finite(folder, model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if shard:
        shard_model(model, shard)
    set_precision(model, precision)
    model = model.to(device).eval().requires_grad_(False)
    return Checkpoint(model, tokenizer, sha256, parameters)


def _read(folder: Path, config: Config) -> Model:
    if isinstance(config, SSD2Config):
        return _read_ssd2(folder, config)
    return read_ssd_lm(folder, config) if isinstance(config, SSDLMConfig) else read_autoregressive(folder, config)


def _read_ssd2(folder: Path, config: SSD2Config) -> SSD2 | TimeRangeExperts:
    """A model whose weights are mapped from the file: what nobody looks at does not get into memory."""
    with torch.device("meta"):
        model = TimeRangeExperts(config) if isinstance(config, ExpertsConfig) else SSD2(config)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise _misfit(folder / WEIGHTS, str(error)) from error
    return model


def _check_layers(file: Path, config: SSD2Config) -> None:
    """Count the layers in the file's header: as many are made as config.json says, before a weight is looked at.

    Raises:
        ModelNotFound: if there is no such file.
        CheckpointInvalid: if the two do not agree.
    """
    if not file.is_file():
        raise ModelNotFound(f"no {file.name} in {file.parent}; give the folder of a checkpoint")
    try:
        with safe_open(file, "pt") as weights:
            stored = {found[0] for name in weights.keys() if (found := _LAYER.match(name))}  # noqa: SIM118  # no dict
    except (SafetensorError, OSError) as error:
        raise _misfit(file, str(error)) from error
    described = config.num_layers * (len(config.ranges) if isinstance(config, ExpertsConfig) else 1)
    if len(stored) != described:
        raise _misfit(file, f"it holds {len(stored)} layers, not {described}")


def _misfit(file: Path, reason: str) -> CheckpointInvalid:
    return CheckpointInvalid(f"{file} does not fit its config.json: {' '.join(reason.split())[:200]}")


def _check_finite(folder: Path, model: Model) -> None:
    """Refuse what no training that went well leaves: one such number is in every answer that comes near it."""
    for name, weight in model.named_parameters():
        if weight.numel() and not all(torch.isfinite(extreme) for extreme in weight.detach().aminmax()):
            raise CheckpointInvalid(
                f"{name} of the model in {folder} holds numbers that are not finite; copy the checkpoint again, or "
                "train it again from a step before they came"
            )


def load_config_and_tokenizer(folder: Path) -> tuple[Config, Tokenizer]:
    """Load all of a checkpoint but its weights, and check that the two fit together.

    Raises:
        ModelNotFound: if the folder or one of the two files is missing.
        CheckpointInvalid: if they are damaged or of different models.
    """
    if not folder.is_dir():
        raise ModelNotFound(f"there is no model folder {folder}; give the folder of a checkpoint")
    config = _read_config(folder / CONFIG)
    check_checksums(folder, only=(CONFIG, TOKENIZER))
    is_ours = isinstance(config, SSD2Config)
    tokenizer = Tokenizer.from_file(folder / TOKENIZER) if is_ours else read_tokenizer_of(folder, config.vocab_size)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointInvalid(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens, the model {config.vocab_size}; "
            "they are of different models"
        )
    return config, tokenizer


def _read_config(file: Path) -> Config:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFound(f"no {CONFIG} in {file.parent}; give the folder of a checkpoint") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{file} is not JSON: {error}") from error
    if not isinstance(values, dict) or "model_type" not in values:
        raise CheckpointInvalid(f'{file} does not describe a model: it has no "model_type"')
    if isinstance(kind := values.pop("model_type"), str) and (ours := _OUR_CONFIGS.get(kind)) is not None:
        try:
            return ours.from_dict(values)
        except CheckpointInvalid as error:
            raise CheckpointInvalid(f"{file}: {error}") from error
    is_ssd_lm = (file.parent / EMBED_SUM).is_file()
    return ssd_lm_config(file.parent) if is_ssd_lm else autoregressive_config(file.parent)


def save_checkpoint(
    folder: Path, model: SSD2 | TimeRangeExperts, tokenizer_json: str, dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint folder.

    Args:
        folder: made if missing; files of the same names are replaced.
        model: the network.
        tokenizer_json: content of tokenizer.json.
        dtype: of the stored weights; float16 halves the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SHA256SUMS).unlink(missing_ok=True)  # of what was there before
    kind = next(name for name, ours in _OUR_CONFIGS.items() if ours is type(model.config))
    config = {"model_type": kind, **asdict(model.config)}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    write_checksums(folder, (CONFIG, TOKENIZER, WEIGHTS))


def join_experts(folders: Sequence[Path], borders: Sequence[float], to: Path) -> None:
    """Make one checkpoint of models that were trained for ranges of timesteps.

    Args:
        folders: of SSD-2 checkpoints of one shape and tokenizer, the lowest range first.
        borders: shares of T where their ranges begin; each ends at the next, the last at 1.
        to: folder for the experts.

    Raises:
        ModelNotFound: if a checkpoint is missing.
        CheckpointInvalid: if the models do not fit together, or the ranges make no sense.
        InvalidParameter: if there are not as many models as ranges.
    """
    if len(folders) != len(borders):
        raise InvalidParameter(f"there are {len(folders)} models and {len(borders)} ranges; give one model a range")
    loaded = [load_checkpoint(folder) for folder in folders]
    models = [checkpoint.model for checkpoint in loaded if isinstance(checkpoint.model, SSD2)]
    configs = [replace(model.config, stop=borders[0]) for model in models]  # each was trained above a border of its own
    shapes = {(config, checkpoint.tokenizer.sha256) for config, checkpoint in zip(configs, loaded, strict=False)}
    if len(models) < len(loaded) or len(shapes) != 1:
        raise CheckpointInvalid("experts are SSD-2 models of one shape and tokenizer; finetune them from one model")
    ranges = tuple(zip(borders, [*borders[1:], 1.0], strict=True))
    experts = TimeRangeExperts(ExpertsConfig(**asdict(configs[0]), ranges=ranges))
    for expert, model in zip(experts.experts, models, strict=True):
        expert.load_state_dict(model.state_dict())
    save_checkpoint(to, experts, (folders[0] / TOKENIZER).read_text(encoding="utf-8"), _stored_dtype(folders[0]))


def _stored_dtype(folder: Path) -> torch.dtype:
    with safe_open(folder / WEIGHTS, "pt") as weights:
        dtype: torch.dtype = weights.get_tensor(next(iter(weights.keys()))).dtype
        return dtype


def fingerprint(folder: Path) -> str:
    """SHA-256 over config and weights, as the model card gives it and Open repeats it."""
    digest = hashlib.sha256()
    weights = (file.name for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    parts = (name for name in (EMBED_SUM, EMBED_TIMESTEP) if (folder / name).is_file())
    for name in (CONFIG, *sorted(weights), *parts):
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
