"""Training of the order-free relation's models from one seed: stage after stage, resumed where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ssd2.algorithm.timesteps import EXPERT_RANGES
from ssd2.demo.paths import RELATION
from ssd2.models.checkpoint import WEIGHTS
from ssd2.models.ssd2_family import export_checkpoint, join_experts
from ssd2.training.recipe import EXPERTS, read_recipe
from ssd2.training.trainer import Trainer

SEEDS_APART = 10
"""Recipes say 1 or 2: what goes on from a model draws other text and noise than the model was trained with."""


@dataclass(frozen=True)
class Stage:
    """One run of training.

    Attributes:
        recipe: file in the relation's folder of recipes, without its ending.
        start: folder of the checkpoint that it goes on from; None: from scratch.
        expert: range of timesteps of an expert; None: that of the recipe.
    """

    recipe: str
    start: str | None = None
    expert: str | None = None

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.recipe}_{self.expert}" if self.expert else self.recipe


PAIRS = (
    Stage("core"),
    Stage("user"),
    Stage("core_autoregressive"),
    Stage("user_autoregressive"),
    Stage("core_partner", "core"),
    Stage("core_control", "core"),
)
"""What the claim and its control need."""
EXPERT_STAGES = tuple(Stage("core_expert", "core", timesteps) for timesteps in EXPERTS)
CORE_EXPERTS = "core_experts"
EXPORTED = {"core_autoregressive": "core_opt", "user_autoregressive": "user_opt"}
"""Folders of the autoregressive pair as it is decoded, by those of its training."""


def train_claim(
    out: Path, seed: int, *, experts: bool = False, steps: int | None = None, on_stage: Callable[[str], None]
) -> None:
    """Train both pairs and the control of one training seed.

    Args:
        out: a folder a stage is made in it; a stage that is finished there is not trained again.
        seed: of weights, text and noise.
        experts: whether to train the experts of §3.1 too.
        steps: of every stage, to try it out; None: those of the recipes.
        on_stage: told of each stage before it begins.

    Raises:
        InvalidParameter: if the folder cannot be written to.
        CheckpointInvalid: if it holds a run of another seed or of other recipes.
    """
    for stage in (*PAIRS, *(EXPERT_STAGES if experts else ())):
        on_stage(stage.folder)
        _train(stage, out, seed, steps)
    for trained, exported in EXPORTED.items():
        if not (out / exported / WEIGHTS).is_file():
            export_checkpoint(out / trained, out / exported)
    if experts:
        _join(out, [out / stage.folder for stage in EXPERT_STAGES])


def _train(stage: Stage, out: Path, seed: int, steps: int | None) -> None:
    recipe = read_recipe(RELATION / "recipes" / f"{stage.recipe}.toml")
    params = replace(recipe.training, seed=SEEDS_APART * seed + recipe.training.seed)
    params = params.of_expert(stage.expert) if stage.expert else params
    params = replace(params, steps=steps) if steps else params
    trainer = Trainer(replace(recipe, training=params), out / stage.folder)
    if not trainer.resume() and stage.start:
        trainer.start_from(out / stage.start)
    if not trainer.is_finished:
        trainer.train()


def _join(out: Path, folders: Sequence[Path]) -> None:
    if not (out / CORE_EXPERTS / WEIGHTS).is_file():
        join_experts(folders, [above for above, _ in EXPERT_RANGES], out / CORE_EXPERTS)
