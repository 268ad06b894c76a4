"""Training recipes: TOML files, read and checked once."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from ssd2.algorithm.timesteps import EXPERT_RANGES
from ssd2.errors import InvalidParameter
from ssd2.training.records import DataParams

RECIPES = Path(__file__).parent / "recipes"
"""Recipes that can be asked for by name."""

EXPERTS = {f"{above}-{up_to}": (above, up_to) for above, up_to in EXPERT_RANGES}
"""The three ranges of timesteps of §3.1, by their names on the command line."""

_CHOICES = {
    "objective": ("diffusion", "causal"),
    "initialisation": ("opt", "mimetic"),
    "learning_rate_schedule": ("cosine", "constant"),
    "timesteps_per": ("sequence", "block"),
    "autocast": ("bf16", "none"),
    "stored_dtype": ("float32", "float16"),
}

Table = TypeVar("Table", DataParams, "TrainingParams")


@dataclass(frozen=True)
class TrainingParams:
    """Parameters of a training run.

    Attributes:
        seed: of the weights, the data and the noise.
        steps: optimiser steps in all.
        batch_size: sequences a step, over all ranks.
        learning_rate: peak of the schedule.
        learning_rate_warmup: steps of linear rise to it.
        source: name of generated training text, see `ssd2.training.batches.SOURCES`; None: [data].
        objective: "diffusion" (Algorithm 1), or "causal": next tokens, as OPT was trained before it
            became an SSD-2 (§4). The diffusion inputs stay as they began.
        initialisation: "opt", or "mimetic" for narrow models; see `ssd2.training.initialise`.
        self_conditioning_from: first step with self-conditioning (p = 0.5 from there); before it is
            the warm-up phase without (§4). Diffusion only.
        warmup_batch_size: sequences a step in that phase; `batch_size` if None.
        learning_rate_schedule: after the rise, "cosine" down to a hundredth, or "constant".
        weight_decay: of AdamW, on matrices only.
        timesteps_above, timesteps_up_to: t is drawn from (timesteps_above·T, timesteps_up_to·T]. 0 and 1
            are Algorithm 1; 0.4 and 0.6, 0.6 and 0.8, 0.8 and 1 make the three experts of §3.1. A model that is
            trained above a share of T is decoded down to it. Diffusion only.
        timesteps_per: "sequence" as in Algorithm 1, or "block": a t for each block, for a model whose context has no
            timestep. Diffusion only.
        partner_feedback: share of the steps, from `self_conditioning_from` on, in which a partner's tokens are fed
            back (see `ssd2.training.objective`); the others are Algorithm 1. Diffusion only.
        partner_right: largest share of tokens that the partner has right, in (0, 1].
        partner_stray: largest share of the other tokens that neither side would say, in [0, 1].
        partner_noised: share of these sequences whose noised simplex is of the fed-back tokens too, in [0, 1].
        feedback_share: of the finished model, see `ssd2.models.configs.SSD2Config`; None: what K leaves.
        gradient_clip: largest norm of the gradient.
        autocast: "bf16" or "none".
        checkpoint_every: steps between checkpoints.
        validation_every: steps between validations, where the data has a held-out part.
        log_every: steps between lines of metrics.
        stored_dtype: "float32" or "float16", of the finished checkpoint.
    """

    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    learning_rate_warmup: int
    source: str | None = None
    objective: str = "diffusion"
    initialisation: str = "opt"
    self_conditioning_from: int = 0
    warmup_batch_size: int | None = None
    learning_rate_schedule: str = "cosine"
    weight_decay: float = 0.01
    timesteps_above: float = 0.0
    timesteps_up_to: float = 1.0
    timesteps_per: str = "sequence"
    partner_feedback: float = 0.0
    partner_right: float = 0.6
    partner_stray: float = 0.0
    partner_noised: float = 0.0
    feedback_share: float | None = None
    gradient_clip: float = 1.0
    autocast: str = "bf16"
    checkpoint_every: int = 500
    validation_every: int = 500
    log_every: int = 50
    stored_dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "warmup_batch_size", "checkpoint_every", "validation_every", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidParameter(f"{name} of a recipe is {value}; it must be at least 1")
        if not (0 < self.learning_rate < math.inf and self.gradient_clip > 0):
            raise InvalidParameter(
                f"learning_rate of a recipe is {self.learning_rate}, gradient_clip {self.gradient_clip}; both must be "
                "above 0, learning_rate finite"
            )
        for name in ("learning_rate_warmup", "self_conditioning_from", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidParameter(f"{name} of a recipe is {getattr(self, name)}; it must be finite and at least 0")
        if not 0 <= self.timesteps_above < self.timesteps_up_to <= 1:
            raise InvalidParameter(
                f"timesteps_above is {self.timesteps_above}, timesteps_up_to {self.timesteps_up_to}; they are "
                "shares of T in [0, 1], the first below the second"
            )
        self._check_partner()
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidParameter(f"{name} is {getattr(self, name)!r}; use {' or '.join(map(repr, choices))}")

    def _check_partner(self) -> None:
        if not 0 < self.partner_right <= 1:
            raise InvalidParameter(f"partner_right is {self.partner_right}; it must be a share in (0, 1]")
        for name in ("partner_feedback", "partner_stray", "partner_noised"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidParameter(f"{name} is {getattr(self, name)}; it must be a share in [0, 1]")

    def batch_size_at(self, step: int) -> int:
        """Sequences of a step: the two phases of App. B may differ."""
        return (step < self.self_conditioning_from and self.warmup_batch_size) or self.batch_size

    def of_expert(self, timesteps: str) -> TrainingParams:
        """The same training for one of the three ranges of timesteps of §3.1.

        Raises:
            InvalidParameter: if there is no such range.
        """
        if timesteps not in EXPERTS:
            raise InvalidParameter(f"there is no expert for timesteps {timesteps!r}; use {', '.join(EXPERTS)}")
        above, up_to = EXPERTS[timesteps]
        return replace(self, timesteps_above=above, timesteps_up_to=up_to)


@dataclass(frozen=True)
class Recipe:
    """A recipe file.

    Attributes:
        model: the fields of `SSD2Config`, less those that the tokenizer decides. Without a tokenizer:
            what the config of the checkpoint that training starts from must say.
        tokenizer: path of a tokenizer.json, resolved against the recipe's folder; None: model and
            tokenizer are those of the checkpoint that training starts from.
        training: how to train.
        data: text to train on; None where `training` has a source.
        folder: what the data's patterns are resolved against.
    """

    model: dict[str, Any]
    tokenizer: Path | None
    training: TrainingParams
    data: DataParams | None
    folder: Path


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that is shipped.

    Raises:
        InvalidParameter: if it is neither.
    """
    shipped = RECIPES / f"{name}.toml"
    if shipped.is_file():
        return shipped
    if not Path(name).is_file():
        raise InvalidParameter(
            f"cannot read the recipe {name}: there is no such file, and the shipped recipes are: "
            f"{', '.join(shipped_recipes())}"
        )
    return Path(name)


def shipped_recipes() -> dict[str, str]:
    """Names of the shipped recipes, each with the first line of its file."""
    files = sorted(RECIPES.glob("*.toml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for file in files}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        InvalidParameter: if there is no such file, or a key is missing, unknown or out of range.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"cannot read the recipe {path}: {error}; use a TOML file") from error
    sorts = {"tokenizer": str, "model": dict, "training": dict, "data": dict}
    if "training" not in content or any(not isinstance(content[key], sorts.get(key, ())) for key in content):
        raise InvalidParameter(
            f'{path} must have [training], may have tokenizer = "PATH", [model] and [data], and nothing else'
        )
    training = _table(TrainingParams, content["training"], path, "training")
    data = _table(DataParams, content["data"], path, "data") if "data" in content else None
    if (training.source is None) == (data is None):
        raise InvalidParameter(f"{path} must have either [data], or a source in [training]")
    if "tokenizer" in content and "model" not in content:
        raise InvalidParameter(f"{path} has a tokenizer, so it must have a [model] too")
    tokenizer = path.parent / content["tokenizer"] if "tokenizer" in content else None
    return Recipe(content.get("model", {}), tokenizer, training, data, path.parent)


def _table(kind: type[Table], values: dict[str, Any], path: Path, name: str) -> Table:
    """One table of a recipe, its types checked."""
    sorts = get_type_hints(kind)
    for key, value in values.items():
        if key not in sorts:
            raise InvalidParameter(f"{path}: [{name}] has the unknown key {key}; remove it")
        if not _is_of(value, sorts[key]):
            expected = "list of texts" if sorts[key] == tuple[str, ...] else getattr(sorts[key], "__name__", sorts[key])
            raise InvalidParameter(f"{path}: {key} is {value!r}; it must be of type {expected}")
    arguments: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    try:
        return kind(**arguments)
    except TypeError as error:
        raise InvalidParameter(f"{path}: [{name}] is incomplete ({error}); complete it") from error


def _is_of(value: object, sort: Any) -> bool:
    if sort == tuple[str, ...]:
        return isinstance(value, list) and bool(value) and all(isinstance(entry, str) for entry in value)
    if isinstance(value, bool):  # Python's True is an int
        return False
    return isinstance(value, int | float if sort is float else sort)
