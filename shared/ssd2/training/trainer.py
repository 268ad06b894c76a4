"""The training loop: one objective over batches, with checkpoints that resume exactly."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ssd2.checkpoint import load_checkpoint, save_checkpoint
from ssd2.devices import check_device
from ssd2.errors import CheckpointInvalid, InvalidParameter
from ssd2.models.ssd2 import SSD2, SSD2Config
from ssd2.noise_schedule import TRAINED_TIMESTEPS
from ssd2.tokenizer import BOS, EOS, PAD, Tokenizer
from ssd2.training.data import BatchSource
from ssd2.training.initialise import initialise_mimetic
from ssd2.training.objective import Batch, causal_loss, diffusion_loss, sample_timesteps
from ssd2.training.recipe import Recipe, TrainingParams

STATE = "training_state.pt"
SELF_CONDITIONING_PROBABILITY = 0.5
"""p of line 5 of Algorithm 1."""


class Trainer:
    """One model, its optimiser and the step it has come to."""

    def __init__(self, recipe: Recipe, out: Path, device: str = "cpu") -> None:
        check_device(device)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidParameter(f"cannot write to {out}: {error}; give another --out") from error
        self.params, self.out, self.device = recipe.training, out, device
        tokenizer = Tokenizer.from_file(recipe.tokenizer)
        self._tokenizer_sha256 = tokenizer.sha256
        self._tokenizer_json = recipe.tokenizer.read_text(encoding="utf-8")
        config = _config(recipe, tokenizer)
        torch.manual_seed(self.params.seed)
        self.model = SSD2(config)
        if self.params.initialisation == "mimetic":
            initialise_mimetic(self.model)
        self.model.to(device)
        self.optimizer = _optimizer(self.model, self.params)
        self.step = 0
        self._batches = BatchSource(
            self.params.objective,
            self.params.source,
            seed=self.params.seed,
            batch_size=self.params.batch_size,
            tokenizer=tokenizer,
            config=config,
        )

    def train(self, *, show_progress: bool = True) -> float:
        """Train from the current step to the last, writing checkpoints on the way.

        Args:
            show_progress: a progress bar with loss and tokens/s on stderr.

        Returns:
            The loss averaged over the last steps.
        """
        average = math.nan
        with tqdm(total=self.params.steps, initial=self.step, disable=not show_progress, unit="step") as bar:
            for loss, tokens, seconds in self._steps():
                average = loss if math.isnan(average) else 0.98 * average + 0.02 * loss
                bar.set_postfix(loss=f"{average:.4f}", tokens_per_s=f"{tokens / seconds:,.0f}", refresh=False)
                bar.update()
        self.save()
        save_checkpoint(self.out, self.model, self._tokenizer_json, getattr(torch, self.params.stored_dtype))
        return average

    def _steps(self) -> Iterator[tuple[float, int, float]]:
        """Loss, tokens and seconds of every step."""
        while self.step < self.params.steps:
            started = time.perf_counter()
            batch = self._batches.batch(self.step)
            loss = self.train_step(batch)
            self.step += 1
            yield loss, int(batch.answer_mask.sum()) + int(batch.prompt_mask.sum()), time.perf_counter() - started
            if self.step % self.params.checkpoint_every == 0:
                self.save()

    def train_step(self, batch: Batch) -> float:
        """One gradient descent step of the recipe's objective."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.params)
        self.model.train()
        with self._autocast():
            loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.params.gradient_clip)
        self.optimizer.step()
        return loss.item()

    def _loss(self, batch: Batch) -> Tensor:
        if self.params.objective == "causal":
            return causal_loss(self.model, batch.to(self.device))
        # All draws of a step come from (seed, step): a resumed run draws what it would have drawn.
        generator = torch.Generator().manual_seed(self.params.seed * 10_000_019 + self.step)
        t = _narrow(
            sample_timesteps(len(batch.prompt_ids), generator), self.params.timesteps_above, self.params.timesteps_up_to
        )
        noise = torch.randn(*batch.answer_ids.shape, self.model.config.vocab_size, generator=generator)
        r = torch.rand((), generator=generator).item() < SELF_CONDITIONING_PROBABILITY  # line 5
        return diffusion_loss(
            self.model,
            batch.to(self.device),
            t.to(self.device),
            noise.to(self.device),
            self_condition=r and self.step >= self.params.self_conditioning_from,
        )

    def save(self) -> None:
        """Write what a resume needs; the old state is replaced only by a complete new one."""
        state = {
            "tokenizer_sha256": self._tokenizer_sha256,
            "params": asdict(self.params),
            "config": asdict(self.model.config),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, self.out / f"{STATE}.new")
        (self.out / f"{STATE}.new").replace(self.out / STATE)

    def resume(self) -> bool:
        """Go back to the last saved state.

        Returns:
            Whether there was one.

        Raises:
            CheckpointInvalid: if the state is of another recipe.
        """
        if not (self.out / STATE).is_file():
            return False
        try:
            state = torch.load(self.out / STATE, map_location=self.device, weights_only=True)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointInvalid(f"{self.out / STATE} is damaged; delete it to start over") from error
        expected = (asdict(self.params), asdict(self.model.config), self._tokenizer_sha256)
        if (state["params"], state["config"], state["tokenizer_sha256"]) != expected:
            raise CheckpointInvalid(f"{self.out} holds a run of another recipe; give --out another folder")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return True

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished checkpoint as the first ones, as for finetuning.

        Raises:
            CheckpointInvalid: if its model has another shape.
        """
        start = load_checkpoint(folder, self.device)
        if (start.model.config, start.tokenizer.sha256) != (self.model.config, self._tokenizer_sha256):
            raise CheckpointInvalid(f"the model in {folder} has another shape or tokenizer than the recipe's")
        self.model.load_state_dict(start.model.state_dict())

    def _autocast(self) -> AbstractContextManager[object]:
        if self.params.autocast == "none":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)


def learning_rate(step: int, params: TrainingParams) -> float:
    """Linear rise, then a cosine down to a hundredth of the peak."""
    if step < params.learning_rate_warmup:
        return params.learning_rate * (step + 1) / params.learning_rate_warmup
    progress = (step - params.learning_rate_warmup) / max(1, params.steps - params.learning_rate_warmup)
    return params.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, progress))) / 2)


def _narrow(t: Tensor, above: float, up_to: float) -> Tensor:
    """Move t from (0, T] into (above·T, up_to·T], evenly."""
    low, high = round(above * TRAINED_TIMESTEPS), round(up_to * TRAINED_TIMESTEPS)
    return low + 1 + (t - 1) * (high - low) // TRAINED_TIMESTEPS


def _config(recipe: Recipe, tokenizer: Tokenizer) -> SSD2Config:
    ids = {
        f"{name}_token_id": tokenizer.special_id(token) for name, token in (("bos", BOS), ("eos", EOS), ("pad", PAD))
    }
    return SSD2Config.from_dict({"vocab_size": tokenizer.vocab_size, **ids, **recipe.model})


def _optimizer(model: SSD2, params: TrainingParams) -> torch.optim.AdamW:
    """AdamW; biases and norms are not decayed."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": params.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.learning_rate, betas=(0.9, 0.98))
