"""One model that a server serves, what it says about it, and whether an answer can be had from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ssd2.checkpoint import Checkpoint, load_checkpoint
from ssd2.devices import check_device
from ssd2.errors import InvalidParameter, ModelMismatch, PromptTooLong, TokenizerMismatch
from ssd2.logits_format import ANY_FORMAT, AllowedFormats
from ssd2.noise_schedule import TRAINED_TIMESTEPS
from ssd2.wire.codec import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, ModelCard, OpenRequest

MAX_BLOCK_SIZE = 256
"""L at most, whatever the model's positions: the paper's largest is 200, and work and traffic of a
timestep grow with it."""

_FRAME_OVERHEAD_BYTES = 1024


@dataclass(frozen=True)
class ServedModel:
    """A loaded checkpoint under the name that agents know it by, and the formats that they may have its logits in."""

    name: str
    checkpoint: Checkpoint
    logits_formats: AllowedFormats = ANY_FORMAT

    @classmethod
    def load(cls, folder: Path, name: str, device: str, logits_formats: AllowedFormats = ANY_FORMAT) -> ServedModel:
        """Load a checkpoint for serving.

        Raises:
            InvalidParameter: if the device cannot be used.
            ModelNotFound: if there is no checkpoint.
            CheckpointInvalid: if it is damaged.
        """
        check_device(device)
        return cls(name, load_checkpoint(folder, device), logits_formats)

    @cached_property
    def card(self) -> ModelCard:
        """What the core says about itself."""
        model, config = self.checkpoint.model, self.checkpoint.model.config
        frame_bytes_per_position = max(f.bytes_per_position(config.vocab_size) for f in self.logits_formats.formats)
        return ModelCard(
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
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            family=config.family,
            logits_formats=self.logits_formats,
        )

    def check_fits(self, request: OpenRequest) -> None:
        """Check what an answer asks for against the model; the prompt itself is the denoiser's to check.

        Raises:
            ModelMismatch: if the model is not the one that the agent was told of.
            TokenizerMismatch: if the agent's tokenizer or vocabulary is another one.
            InvalidParameter: if the block is longer than the core takes, a timestep below what it was trained for, or
                the format of the logits not allowed.
            PromptTooLong: if the answer does not fit behind the prompt.
        """
        self._check_identity(request)
        self.logits_formats.check(request.logits_format)
        card, config = self.card, self.checkpoint.model.config
        if request.block_size > card.max_block_size:
            raise InvalidParameter(
                f"block size is {request.block_size}; this core takes at most {card.max_block_size} tokens"
            )
        if request.timesteps[-1] <= config.trained_above * TRAINED_TIMESTEPS:
            raise InvalidParameter(
                f"the decode goes down to timestep {request.timesteps[-1]}; this model's experts begin above "
                f"{config.trained_above:g}T: stop there (--stop)"
            )
        prompt_tokens, answer_tokens = len(request.prompt_ids), request.max_blocks * request.block_size
        if prompt_tokens > (longest := config.max_prompt_tokens_before(answer_tokens)):
            raise PromptTooLong(
                f"the prompt has {prompt_tokens} tokens; with an answer of {answer_tokens} this core takes at most "
                f"{max(longest, 0)}: shorten the prompt, or ask for a shorter answer"
            )

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
