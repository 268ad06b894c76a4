"""SSD-2 and its experts as a family: their checkpoints, and what decodes and serves them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from ssd2.algorithm.simplex_sampler import SimplexSampler
from ssd2.errors import CheckpointInvalid, InvalidParameter, ModelNotFound
from ssd2.models.checkpoint import CONFIG, WEIGHTS, load_checkpoint, save_checkpoint
from ssd2.models.configs import ExpertsConfig, SSD2Config
from ssd2.models.denoiser import Denoiser
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.model import Model
from ssd2.models.precision import footprint_of
from ssd2.models.registry import Family, Footprint
from ssd2.models.ssd2 import SSD2
from ssd2.models.ssd2_lane import BatchLane
from ssd2.models.tensor_parallel import shard_model
from ssd2.models.tokenizer import TOKENIZER, Tokenizer

_CONFIGS: dict[object, type[SSD2Config]] = {kind.model_type: kind for kind in (SSD2Config, ExpertsConfig)}

_LAYER = re.compile(r".*\.layers\.\d+(?=\.)")


def _claims(_: Path, values: Mapping[str, Any]) -> bool:
    kind = values["model_type"]
    return isinstance(kind, str) and kind in _CONFIGS


def _read_config(folder: Path, values: Mapping[str, Any]) -> SSD2Config:
    shape = {name: value for name, value in values.items() if name != "model_type"}
    try:
        return _CONFIGS[values["model_type"]].from_dict(shape)
    except CheckpointInvalid as error:
        raise CheckpointInvalid(f"{folder / CONFIG}: {error}") from error


def _write_config(config: SSD2Config) -> dict[str, Any]:
    """Return the content of config.json without what is None: earlier releases refuse keys that they do not know."""
    is_set = {name: value for name, value in asdict(config).items() if value is not None}
    return {"model_type": config.model_type, **is_set}


def _without_weights(config: SSD2Config) -> SSD2 | TimeRangeExperts:
    with torch.device("meta"):
        return TimeRangeExperts(config) if isinstance(config, ExpertsConfig) else SSD2(config)


def _footprint(_: Path, config: SSD2Config) -> Footprint:
    networks = len(config.ranges) if isinstance(config, ExpertsConfig) else 1
    slot = networks * 2 * config.num_layers * config.hidden_size * config.max_positions
    model = _without_weights(config)
    return footprint_of(model, _int8_layers(model), slot)


def _load(folder: Path, config: SSD2Config, _: torch.dtype) -> SSD2 | TimeRangeExperts:
    """A model whose weights are mapped from the file: what nobody looks at does not get into memory."""
    model = _without_weights(config)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise _misfit(folder / WEIGHTS, str(error)) from error
    return model


def _check_layers(folder: Path, config: SSD2Config) -> None:
    """Count the layers in the file's header: as many are made as config.json says, before a weight is looked at.

    Raises:
        ModelNotFound: if there is no such file.
        CheckpointInvalid: if the two do not agree.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise ModelNotFound(f"there is no {file.name} in {file.parent}; give the folder of a checkpoint")
    try:
        with safe_open(file, "pt") as weights:
            stored = {found[0] for name in weights.keys() if (found := _LAYER.match(name))}  # noqa: SIM118  # no dict
    except (SafetensorError, OSError) as error:
        raise _misfit(file, str(error)) from error
    described = config.num_layers * (len(config.ranges) if isinstance(config, ExpertsConfig) else 1)
    if len(stored) != described:
        raise _misfit(file, f"it contains {len(stored)} layers, not {described}")


def _misfit(file: Path, reason: str) -> CheckpointInvalid:
    return CheckpointInvalid(f"{file} does not fit its config.json: {' '.join(reason.split())[:200]}")


def _int8_layers(model: Model) -> list[nn.Module]:
    return [module.transformer for module in model.modules() if isinstance(module, SSD2)]


def single_network(model: Model, folder: Path) -> SSD2:
    """Return a checkpoint's model, if it is one network for all timesteps.

    Raises:
        CheckpointInvalid: if it is not.
    """
    if not isinstance(model, SSD2):
        raise CheckpointInvalid(f"the model in {folder} is not an SSD-2 checkpoint")
    return model


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
        raise InvalidParameter(
            f"there are {len(folders)} models and {len(borders)} ranges; name one model for each range"
        )
    loaded = [load_checkpoint(folder) for folder in folders]
    models = [checkpoint.model for checkpoint in loaded if isinstance(checkpoint.model, SSD2)]
    configs = [model.config.unmeasured(borders[0]) for model in models]  # each was trained above a border of its own
    shapes = {(config, checkpoint.tokenizer.sha256) for config, checkpoint in zip(configs, loaded, strict=False)}
    if len(models) < len(loaded) or len(shapes) != 1:
        raise CheckpointInvalid("experts must be SSD-2 models of one shape and tokenizer; finetune them from one model")
    ranges = tuple(zip(borders, [*borders[1:], 1.0], strict=True))
    experts = TimeRangeExperts(ExpertsConfig(**asdict(configs[0]), ranges=ranges))
    for expert, model in zip(experts.experts, models, strict=True):
        expert.load_state_dict(model.state_dict())
    save_checkpoint(to, experts, (folders[0] / TOKENIZER).read_text(encoding="utf-8"), _stored_dtype(folders[0]))


def _stored_dtype(folder: Path) -> torch.dtype:
    with safe_open(folder / WEIGHTS, "pt") as weights:
        dtype: torch.dtype = weights.get_tensor(next(iter(weights.keys()))).dtype
        return dtype


FAMILY = Family(
    name="ssd-2",
    claims=_claims,
    read_config=_read_config,
    read_tokenizer=lambda folder, _: Tokenizer.from_file(folder / TOKENIZER),
    load=_load,
    sampler=SimplexSampler,
    begin=Denoiser,
    lane=BatchLane,
    check_files=_check_layers,
    write_config=_write_config,
    shard=shard_model,
    int8_layers=_int8_layers,
    footprint=_footprint,
)
