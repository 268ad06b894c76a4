"""Training recipes: TOML files, read and checked once."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ssd2.errors import InvalidParameter


@dataclass(frozen=True)
class TrainingParams:
    """How to train.

    Attributes:
        source: name of the training text, see `ssd2.training.data.SOURCES`.
        seed: of the weights, the data and the noise.
        steps: optimiser steps in all.
        batch_size: sequences a step.
        learning_rate: peak of the cosine schedule.
        learning_rate_warmup: steps of linear rise to it.
        objective: "diffusion" (Algorithm 1), or "causal": next tokens, as OPT was trained before it
            became an SSD-2 (§4). The diffusion inputs stay as they began.
        initialisation: "opt", or "mimetic" for narrow models; see `ssd2.training.initialise`.
        self_conditioning_from: first step with self-conditioning (p = 0.5 from there); before it is
            the warm-up phase without (§4). Diffusion only.
        weight_decay: of AdamW, on matrices only.
        timesteps_above, timesteps_up_to: t is drawn from (timesteps_above·T, timesteps_up_to·T]. 0 and 1
            are Algorithm 1; 0.4 and 1 the range that is decoded; 0.4 and 0.6, 0.6 and 0.8, 0.8 and 1
            make the three experts of §3.1. Diffusion only.
        gradient_clip: largest norm of the gradient.
        autocast: "bf16" or "none".
        checkpoint_every: steps between checkpoints.
        stored_dtype: "float32" or "float16", of the finished checkpoint.
    """

    source: str
    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    learning_rate_warmup: int
    objective: str = "diffusion"
    initialisation: str = "opt"
    self_conditioning_from: int = 0
    weight_decay: float = 0.01
    timesteps_above: float = 0.0
    timesteps_up_to: float = 1.0
    gradient_clip: float = 1.0
    autocast: str = "bf16"
    checkpoint_every: int = 500
    stored_dtype: str = "float32"

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.checkpoint_every) < 1:
            raise InvalidParameter("steps, batch_size and checkpoint_every of a recipe must be at least 1")
        if self.learning_rate <= 0 or self.gradient_clip <= 0:
            raise InvalidParameter("learning_rate and gradient_clip of a recipe must be above 0")
        if not 0 <= self.timesteps_above < self.timesteps_up_to <= 1:
            raise InvalidParameter(
                f"timesteps_above is {self.timesteps_above}, timesteps_up_to {self.timesteps_up_to}; they are "
                "shares of T in [0, 1], the first below the second"
            )
        if self.objective not in ("diffusion", "causal"):
            raise InvalidParameter(f"objective is {self.objective!r}; use 'diffusion' or 'causal'")
        if self.initialisation not in ("opt", "mimetic"):
            raise InvalidParameter(f"initialisation is {self.initialisation!r}; use 'opt' or 'mimetic'")
        if self.autocast not in ("bf16", "none"):
            raise InvalidParameter(f"autocast is {self.autocast!r}; use 'bf16' or 'none'")
        if self.stored_dtype not in ("float32", "float16"):
            raise InvalidParameter(f"stored_dtype is {self.stored_dtype!r}; use 'float32' or 'float16'")


@dataclass(frozen=True)
class Recipe:
    """A recipe file.

    Attributes:
        model: the fields of `SSD2Config`, less those that the tokenizer decides.
        tokenizer: path of a tokenizer.json, resolved against the recipe's folder.
        training: how to train.
    """

    model: dict[str, Any]
    tokenizer: Path
    training: TrainingParams


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        InvalidParameter: if there is no such file, or a key is missing, unknown or out of range.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"cannot read the recipe {path}: {error}") from error
    if {name: type(value) for name, value in content.items()} != {"tokenizer": str, "model": dict, "training": dict}:
        raise InvalidParameter(f'{path} must have tokenizer = "PATH", [model] and [training], and nothing else')
    return Recipe(content["model"], path.parent / content["tokenizer"], _training_params(content["training"], path))


def _training_params(values: dict[str, Any], path: Path) -> TrainingParams:
    sorts = get_type_hints(TrainingParams)
    for name, value in values.items():
        if name not in sorts:
            raise InvalidParameter(f"{path}: [training] has the unknown key {name}")
        if not isinstance(value, (int, float) if sorts[name] is float else sorts[name]):
            raise InvalidParameter(f"{path}: {name} is {value!r}; it must be of type {sorts[name].__name__}")
    try:
        return TrainingParams(**values)
    except TypeError as error:
        raise InvalidParameter(f"{path}: [training] is incomplete: {error}") from error
