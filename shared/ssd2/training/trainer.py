"""The training loop: one objective over batches, with checkpoints that resume exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd2.errors import CheckpointInvalid, InvalidParameter
from ssd2.models.checkpoint import WEIGHTS, load_checkpoint, load_config_and_tokenizer, save_checkpoint
from ssd2.models.configs import SSD2Config
from ssd2.models.ssd2 import SSD2
from ssd2.models.tokenizer import BOS, EOS, PAD, TOKENIZER, Tokenizer
from ssd2.training.batches import BatchSource, GeneratedExamples, RecordedExamples
from ssd2.training.data import Example, collate
from ssd2.training.draws import Draws, draw, draw_noise, draw_partner
from ssd2.training.initialise import initialise_mimetic
from ssd2.training.metrics import Metrics, StepResult
from ssd2.training.objective import counted_tokens
from ssd2.training.parallel import Execution, ParallelModel, Part, parts
from ssd2.training.recipe import Recipe, TrainingParams
from ssd2.training.state import all_tensors, load_state, newest_state, save_state


class Trainer:
    """One model, its optimiser and the step it has come to."""

    def __init__(
        self, recipe: Recipe, out: Path, execution: Execution | None = None, *, start: Path | None = None
    ) -> None:
        """Set up a run at step 0.

        Args:
            recipe: what to train, and how.
            out: folder for checkpoints and metrics; made if missing.
            execution: how it is computed; one process on the CPU if None.
            start: checkpoint whose model and tokenizer are taken where the recipe names none.

        Raises:
            InvalidParameter: if the recipe cannot be followed, or `out` not be written to.
            CheckpointInvalid: if the model's shape is impossible, or that of `start` another than the recipe's.
        """
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidParameter(f"cannot write to {out}: {error}; choose another folder", parameter="out") from error
        self.params, self.out, self._recipe = recipe.training, out, recipe
        self._execution = execution or Execution()
        config, tokenizer, self._tokenizer_json = _config_and_tokenizer(recipe, start)
        if self.params.timesteps_per == "block" and config.context_timestep != "none":
            raise InvalidParameter(
                'timesteps_per = "block" needs a model without a timestep in its context; set context_timestep = "none"'
            )
        # A decode stops where the training does, and feeds back what the training did.
        fed_back = "projection" if self.params.partner_feedback else None
        config = config.unmeasured(self.params.timesteps_above, fed_back)
        config = replace(config, feedback_share=self.params.feedback_share)
        self._tokenizer_sha256 = tokenizer.sha256
        self._parallel = ParallelModel(self._first_model(config), self.params.objective, self._execution)
        self.optimizer = _optimizer(self.model, self.params)
        self.step = 0
        source = _source(recipe, tokenizer, config)
        self._batches = BatchSource(source, self.params.batch_size_at, self.params.seed)
        self._held_out: list[Example] | None = None

    def _first_model(self, config: SSD2Config) -> SSD2:
        """The whole model at step 0; without memory for its weights on a rank that takes its share from rank 0."""
        if self._execution.sharding == "fsdp" and not self._execution.is_first:
            with torch.device("meta"):
                return SSD2(config)
        torch.manual_seed(self.params.seed)
        model = SSD2(config)
        if self.params.initialisation == "mimetic":
            initialise_mimetic(model)
        return model

    @property
    def model(self) -> SSD2:
        """The network in training; with "fsdp" this rank's share of it."""
        return self._parallel.model

    @property
    def is_finished(self) -> bool:
        """True if all steps are done and their checkpoint is written."""
        return self.step == self.params.steps and (self.out / WEIGHTS).is_file()

    @property
    def left_out(self) -> int:
        """Examples of the data that were too long to be trained on, in this process."""
        return getattr(self._batches.source, "left_out", 0)

    def train(self, *, show_progress: bool = True, tensorboard: bool = False) -> float:
        """Train from the current step to the last, writing checkpoints on the way.

        Args:
            show_progress: a progress bar on stderr and lines of metrics on stdout, from rank 0.
            tensorboard: metrics for TensorBoard too.

        Returns:
            The loss averaged over the last steps.
        """
        with Metrics(
            self.out,
            step=self.step,
            steps=self.params.steps,
            every=self.params.log_every,
            is_first=self._execution.is_first,
            show=show_progress,
            tensorboard=tensorboard,
        ) as metrics:
            for result in self._steps():
                metrics.add(result, self.validate() if self._is_due(self.params.validation_every) else None)
        if not self._is_due(self.params.checkpoint_every):
            self.save()
        self._write_checkpoint()
        return metrics.average

    def _steps(self) -> Iterator[StepResult]:
        """The result of every step, saved after it where that is due."""
        while self.step < self.params.steps:
            started = time.perf_counter()
            result = self.train_step(self._batches.examples(self.step), since=started)
            self.step += 1
            yield result
            if self.step % self.params.checkpoint_every == 0:
                self.save()

    def train_step(self, examples: Sequence[Example], *, since: float | None = None) -> StepResult:
        """One gradient descent step of the recipe's objective over a global batch.

        Args:
            examples: the global batch.
            since: by `time.perf_counter`, when its making began; now if None.
        """
        started = time.perf_counter() if since is None else since
        rate = learning_rate(self.step, self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        draws = self._draws(examples, f"{self.step}")
        tokens = self._counted(examples)
        total = torch.zeros((), device=self._execution.device)
        own = parts(len(examples), self._execution)
        for part in own:
            with self._parallel.accumulating(is_last=part is own[-1]):
                loss = self._loss(examples, part, draws) / tokens
                # Gradients are averaged over the ranks.
                (loss * self._execution.ranks).backward()
            total += loss.detach()
        norm = self._parallel.clip_gradients(self.params.gradient_clip)
        self.optimizer.step()
        seconds = time.perf_counter() - started
        return StepResult(self._parallel.total(total), rate, norm, sum(map(len, examples)), seconds)

    @torch.no_grad()
    def validate(self) -> float | None:
        """Mean loss over the held-out examples, with the same draws every time; None if there are none."""
        if self._held_out is None:
            self._held_out = self._batches.source.held_out()
        if not self._held_out:
            return None
        self.model.eval()
        total = torch.zeros((), device=self._execution.device)
        for start in range(0, len(self._held_out), self.params.batch_size):
            examples = self._held_out[start : start + self.params.batch_size]
            draws = self._draws(examples, f"validation/{start}")
            for part in parts(len(examples), self._execution):
                total += self._loss(examples, part, draws)
        return self._parallel.total(total) / self._counted(self._held_out)

    def _draws(self, examples: Sequence[Example], key: str) -> Draws:
        blocks = max(len(example.answer_ids) for example in examples) // self.model.config.block_size
        return draw(len(examples), self.params, key, blocks=blocks)

    def _loss(self, examples: Sequence[Example], part: Part, draws: Draws) -> Tensor:
        """The loss summed over the tokens of a part."""
        device = self._execution.device
        batch = collate([examples[row] for row in part.rows], self.model.config)
        t = noise = partner = None
        feeds_back = self.step >= self.params.self_conditioning_from
        if self.params.objective == "diffusion":
            blocks = batch.answer_ids.shape[1] // self.model.config.block_size  # of this part's longest row
            t = draws.t[list(part.rows)].to(device)
            t = t if t.ndim == 1 else t[:, :blocks]
            noise = draw_noise(draws.key, part.rows, batch.answer_mask, self.model.config.vocab_size, device)
            if feeds_back and draws.has_partner:
                vocab_size = self.model.config.vocab_size
                partner = draw_partner(draws.key, part.rows, batch.answer_mask, t, self.params, vocab_size)
                partner = partner.to(device)
        with self._autocast():
            loss: Tensor = self._parallel.module(
                batch.to(device), t, noise, feeds_back and draws.self_condition, partner
            )
        return loss * part.is_counted

    def _counted(self, examples: Sequence[Example]) -> int:
        return sum(counted_tokens(self.params.objective, e.prompt_ids, e.answer_ids) for e in examples)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0

    def save(self) -> None:
        """Write what a resume needs; the old state is replaced only by a complete new one."""
        run = {**self._identity(), "batches": self._batches.state}
        save_state(self.out, self.step, run, all_tensors(self.model, self.optimizer), self._execution)

    def resume(self) -> bool:
        """Go back to the last saved state, of any number of ranks.

        Returns:
            Whether there was one.

        Raises:
            CheckpointInvalid: if the state is damaged or of another recipe.
        """
        found = newest_state(self.out)
        if found is None:
            return False
        folder, run = found
        if {name: _set(run.get(name)) for name in self._identity()} != self._identity():
            raise CheckpointInvalid(
                f"{self.out} contains a run of another recipe; choose another folder", parameter="out"
            )
        load_state(folder, all_tensors(self.model, self.optimizer))
        self._batches.restore(run["batches"])
        self.step = run["step"]
        return True

    def start_from(self, folder: Path) -> None:
        """Take the weights of a finished checkpoint as the first ones, as for finetuning.

        Raises:
            CheckpointInvalid: if its model has another shape.
        """
        config, tokenizer = load_config_and_tokenizer(folder)
        own = self.model.config
        is_same = isinstance(config, SSD2Config) and _trained_otherwise(config, own) == own
        if not is_same or tokenizer.sha256 != self._tokenizer_sha256:
            raise CheckpointInvalid(f"the model in {folder} differs from the recipe in shape or tokenizer")
        read_here = self._execution.is_first or self._execution.sharding == "ddp"
        self._parallel.load_weights(load_checkpoint(folder).model.state_dict() if read_here else {})

    def _identity(self) -> dict[str, Any]:
        """Return what must not change in a run, as JSON gives it back."""
        identity = {
            "params": asdict(self.params),
            "data": asdict(self._recipe.data) if self._recipe.data else None,
            "config": asdict(self.model.config.unmeasured(self.params.timesteps_above)),
            "tokenizer_sha256": self._tokenizer_sha256,
        }
        return {name: _set(value) for name, value in json.loads(json.dumps(identity)).items()}

    def _write_checkpoint(self) -> None:
        weights = self._parallel.whole_weights()
        if self._execution.is_first:
            with torch.device("meta"):
                whole = SSD2(self.model.config)
            whole.load_state_dict(weights, assign=True)
            save_checkpoint(self.out, whole, self._tokenizer_json, getattr(torch, self.params.stored_dtype))

    def _autocast(self) -> AbstractContextManager[object]:
        if self.params.autocast == "none":
            return nullcontext()
        return torch.autocast(torch.device(self._execution.device).type, dtype=torch.bfloat16)


def _set(value: Any) -> Any:
    """Return a part of a run's identity without fields that are None, which a run of an earlier release may lack."""
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


def learning_rate(step: int, params: TrainingParams) -> float:
    """Linear rise, then constant or a cosine down to a hundredth of the peak."""
    if step < params.learning_rate_warmup:
        return params.learning_rate * (step + 1) / params.learning_rate_warmup
    if params.learning_rate_schedule == "constant":
        return params.learning_rate
    progress = (step - params.learning_rate_warmup) / max(1, params.steps - params.learning_rate_warmup)
    return params.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, progress))) / 2)


def _trained_otherwise(config: SSD2Config, like: SSD2Config) -> SSD2Config:
    """Return the config with what training changes, and not the network's shape, taken from another."""
    return replace(config, feedback_share=like.feedback_share, **asdict(like.measured))


def _config_and_tokenizer(recipe: Recipe, start: Path | None) -> tuple[SSD2Config, Tokenizer, str]:
    """The model's config, its tokenizer and the content of its tokenizer.json."""
    if recipe.tokenizer is None:
        return _of_checkpoint(recipe, start)
    tokenizer = Tokenizer.from_file(recipe.tokenizer)
    ids = {
        f"{name}_token_id": tokenizer.special_id(token) for name, token in (("bos", BOS), ("eos", EOS), ("pad", PAD))
    }
    config = SSD2Config.from_dict({"vocab_size": tokenizer.vocab_size, **ids, **recipe.model})
    return config, tokenizer, recipe.tokenizer.read_text(encoding="utf-8")


def _of_checkpoint(recipe: Recipe, start: Path | None) -> tuple[SSD2Config, Tokenizer, str]:
    if start is None:
        raise InvalidParameter(
            "the recipe names no tokenizer, so it needs a checkpoint to start from; choose one, also to resume",
            parameter="start",
        )
    config, tokenizer = load_config_and_tokenizer(start)
    if type(config) is not SSD2Config:  # nor experts of it
        raise CheckpointInvalid(f"the model in {start} is not a single SSD-2 model; use another one", parameter="start")
    for name, value in recipe.model.items():
        if getattr(config, name, None) != value:
            found = getattr(config, name, "no such key")
            raise CheckpointInvalid(f"the recipe is for {name} {value!r}; the model in {start} has {found!r}")
    return config, tokenizer, (start / TOKENIZER).read_text(encoding="utf-8")


def _source(recipe: Recipe, tokenizer: Tokenizer, config: SSD2Config) -> GeneratedExamples | RecordedExamples:
    params = recipe.training
    if recipe.data is not None:
        return RecordedExamples(recipe.data, recipe.folder, tokenizer, config)
    return GeneratedExamples(
        params.objective, params.source or "", seed=params.seed, tokenizer=tokenizer, config=config
    )


def _optimizer(model: SSD2, params: TrainingParams) -> torch.optim.AdamW:
    """AdamW; biases and norms are not decayed. Its moments are there from the start, so that a state holds all."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": params.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=params.learning_rate, betas=(0.9, 0.98))
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer
