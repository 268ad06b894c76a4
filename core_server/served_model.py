"""One model that a server serves, what it says about it, and whether an answer can be had from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ssd2.checkpoint import Checkpoint, load_checkpoint
from ssd2.devices import check_device
from ssd2.errors import InvalidParameter, ModelMismatch, PromptTooLong, TokenizerMismatch
from ssd2.logits_format import ANY_FORMAT, AllowedFormats
from ssd2.models.family import ModelConfig
from ssd2.models.prompts import check_prompts
from ssd2.models.tensor_parallel import Shard
from ssd2.noise_schedule import TRAINED_TIMESTEPS
from ssd2.wire.codec import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, ModelCard, OpenRequest

MAX_BLOCK_SIZE = 256
"""L at most, whatever the model's positions: the paper's largest is 200, and work and traffic of a
timestep grow with it."""

_FRAME_OVERHEAD_BYTES = 1024


@dataclass(frozen=True)
class ServedModel:
    """A model as the front end knows it: without its weights.

    Attributes:
        name: that agents know it by.
        config: its shape.
        card: what the core says about it.
    """

    name: str
    config: ModelConfig
    card: ModelCard

    def check_fits(self, request: OpenRequest) -> None:
        """Check what an answer asks for against the model.

        Raises:
            ModelMismatch: if the model is not the one that the agent was told of.
            TokenizerMismatch: if the agent's tokenizer or vocabulary is another one.
            InvalidParameter: if the block is longer than the core takes, a timestep below what it was trained for, or
                the format of the logits not allowed.
            PromptTooLong: if the answer does not fit behind the prompt.
            TokenOutOfRange: if the prompt holds an id outside the vocabulary.
        """
        self._check_identity(request)
        self.card.logits_formats.check(request.logits_format)
        if request.block_size > self.card.max_block_size:
            raise InvalidParameter(
                f"block size is {request.block_size}; this core takes at most {self.card.max_block_size} tokens"
            )
        if request.timesteps[-1] <= self.config.trained_above * TRAINED_TIMESTEPS:
            raise InvalidParameter(
                f"the decode goes down to timestep {request.timesteps[-1]}; this model's experts begin above "
                f"{self.config.trained_above:g}T: stop there (--stop)"
            )
        prompt_tokens, answer_tokens = len(request.prompt_ids), request.max_blocks * request.block_size
        if prompt_tokens > (longest := self.config.max_prompt_tokens_before(answer_tokens)):
            raise PromptTooLong(
                f"the prompt has {prompt_tokens} tokens; with an answer of {answer_tokens} this core takes at most "
                f"{max(longest, 0)}: shorten the prompt, or ask for a shorter answer"
            )
        check_prompts([request.prompt_ids], self.config)

    def _check_identity(self, request: OpenRequest) -> None:
        if request.model_sha256 not in ("", self.card.model_sha256):
            raise ModelMismatch("the core's model is not the one the agent was told of: it has changed; ask again")
        if request.tokenizer_sha256 != self.card.tokenizer_sha256:
            raise TokenizerMismatch(
                "the agent's tokenizer is not that of this core's model, so their logits cannot be mixed; use a "
                f"user model whose tokenizer.json has the SHA-256 {self.card.tokenizer_sha256}"
            )
        if request.vocab_size != self.card.vocab_size:
            raise TokenizerMismatch(
                f"the agent's model has a vocabulary of {request.vocab_size}, this core's one of "
                f"{self.card.vocab_size}; use a user model made for this core"
            )


@dataclass(frozen=True)
class LoadedModel:
    """A model as the engine knows it: a checkpoint under the name that agents know it by.

    Attributes:
        name: that agents know it by.
        checkpoint: with its weights, or a rank's share of them.
        logits_formats: that agents may have its logits in.
    """

    name: str
    checkpoint: Checkpoint
    logits_formats: AllowedFormats = ANY_FORMAT

    @classmethod
    def load(
        cls,
        folder: Path,
        name: str,
        device: str,
        shard: Shard | None = None,
        precision: str = "float32",
        logits_formats: AllowedFormats = ANY_FORMAT,
    ) -> LoadedModel:
        """Load a checkpoint for serving, or one rank's share of it.

        Args:
            folder: of the checkpoint.
            name: that agents know it by.
            device: where to compute.
            shard: the rank's share; None for all of it.
            precision: one of `ssd2.models.precision.PRECISIONS`.
            logits_formats: that agents may have its logits in.

        Raises:
            InvalidParameter: if the device or the precision cannot be used, or the model not be cut into so many parts.
            ModelNotFound: if there is no checkpoint.
            CheckpointInvalid: if it is damaged.
        """
        check_device(device)
        return cls(name, load_checkpoint(folder, device, shard, precision), logits_formats)

    @cached_property
    def served(self) -> ServedModel:
        """The same without its weights."""
        config = self.checkpoint.model.config
        frame_bytes_per_position = max(f.bytes_per_position(config.vocab_size) for f in self.logits_formats.formats)
        card = ModelCard(
            protocol_version=PROTOCOL_VERSION,
            model=self.name,
            model_sha256=self.checkpoint.sha256,
            tokenizer_sha256=self.checkpoint.tokenizer.sha256,
            vocab_size=config.vocab_size,
            block_size=config.block_size,
            max_prompt_tokens=config.max_prompt_tokens,
            max_block_size=min(
                MAX_BLOCK_SIZE,
                config.max_block_size,
                (MAX_MESSAGE_BYTES - _FRAME_OVERHEAD_BYTES) // frame_bytes_per_position,
            ),
            parameters=self.checkpoint.parameters,
            family=config.family,
            logits_formats=self.logits_formats,
        )
        return ServedModel(self.name, config, card)
