"""Models as the front end knows them: without weights, which of them a request is for, and whether it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.errors import InvalidParameter, ModelMismatch, PromptTooLong, TokenizerMismatch
from ssd2.logits.format import AllowedFormats
from ssd2.models.configs import ModelConfig
from ssd2.models.prompts import check_prompts
from ssd2.wire.codec import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, ModelCard, OpenRequest

if TYPE_CHECKING:
    from ssd2.models.tokenizer import Tokenizer  # takes a library that the front end does without

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

    @classmethod
    def of(
        cls,
        name: str,
        config: ModelConfig,
        *,
        sha256: str,
        tokenizer: Tokenizer,
        parameters: int,
        logits_formats: AllowedFormats,
    ) -> ServedModel:
        """Describe a model.

        Args:
            name: that agents know it by.
            config: its shape.
            sha256: of its files, or of what stands for them.
            tokenizer: of the model.
            parameters: how many; 0 if that is not known.
            logits_formats: that agents may have its logits in.
        """
        frame_bytes_per_position = max(f.bytes_per_position(config.vocab_size) for f in logits_formats.formats)
        card = ModelCard(
            protocol_version=PROTOCOL_VERSION,
            model=name,
            model_sha256=sha256,
            vocabulary_sha256=tokenizer.vocabulary_sha256(config.stop_ids[0]),
            vocab_size=config.vocab_size,
            block_size=config.block_size,
            max_prompt_tokens=config.max_prompt_tokens,
            max_block_size=min(
                MAX_BLOCK_SIZE,
                config.max_block_size,
                (MAX_MESSAGE_BYTES - _FRAME_OVERHEAD_BYTES) // frame_bytes_per_position,
            ),
            parameters=parameters,
            family=config.family,
            logits_formats=logits_formats,
            measured=config.measured,
        )
        return cls(name, config, card)

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
                f"block size is {request.block_size}; this core takes at most {self.card.max_block_size}",
                parameter="block_size",
                limit=self.card.max_block_size,
            )
        if request.timesteps[-1] <= self.config.trained_above * TRAINED_TIMESTEPS:
            raise InvalidParameter(
                f"the decode goes down to timestep {request.timesteps[-1]}; this model's experts begin above "
                f"{self.config.trained_above:g}T; stop there",
                parameter="steps",
            )
        prompt_tokens, answer_tokens = len(request.prompt_ids), request.max_blocks * request.block_size
        longest = self.config.max_prompt_tokens_before(answer_tokens)
        if longest < 1:
            room = self.config.max_answer_tokens_behind(1) // request.block_size * request.block_size
            raise PromptTooLong(
                f"an answer of {answer_tokens} tokens leaves no room for a prompt; ask for one of at most {room} "
                "tokens",
                parameter="max_tokens",
                limit=room,
            )
        if prompt_tokens > longest:
            raise PromptTooLong(
                f"the prompt has {prompt_tokens} tokens; with an answer of {answer_tokens} this core takes at most "
                f"{longest}; shorten the prompt, or ask for a shorter answer",
                parameter="question",
                limit=longest,
            )
        check_prompts([request.prompt_ids], self.config)

    def _check_identity(self, request: OpenRequest) -> None:
        if request.model_sha256 not in ("", self.card.model_sha256):
            raise ModelMismatch("the core's model has changed since the agent asked for its card; ask again")
        if request.vocabulary_sha256 != self.card.vocabulary_sha256:
            raise TokenizerMismatch(
                f"the user model has another vocabulary than this core's model (V {self.card.vocab_size:,}), so their "
                "logits cannot be mixed; use a user model made for this core",
                parameter="user_model",
            )
        is_cut = self.config.cuts_rows and 1 <= request.vocab_size <= self.card.vocab_size
        if not is_cut and request.vocab_size != self.card.vocab_size:
            raise TokenizerMismatch(
                f"the answer's vocabulary is to have {request.vocab_size} tokens and this core's model has "
                f"{self.card.vocab_size}; send {'at most as many' if self.config.cuts_rows else 'as many'}",
                parameter="user_model",
            )


class ServedModels:
    """The models of one server, under different names; the first one is the default."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        """Serve models.

        Args:
            models: at least one, with different names.

        Raises:
            InvalidParameter: if there is none.
        """
        if not models:
            raise InvalidParameter("there is no model to serve; name at least one")
        self._models = tuple(models)

    def find(self, name: str, family: str) -> ServedModel:
        """Return the first model that fits.

        Args:
            name: of the model, or "" for any.
            family: of the model, or "" for any.

        Raises:
            ModelMismatch: if none fits; says which there are.
        """
        for served in self._models:
            if name in ("", served.name) and family in ("", served.card.family):
                return served
        # What the agent sent is not repeated: it may be of any length.
        raise ModelMismatch(
            "this core has no model of that name and family; name one that it has, or use a user model of its family; "
            f"there are: {self}",
            parameter="model",
        )

    def __str__(self) -> str:
        """Names and families, in order."""
        return ", ".join(f"{served.name} ({served.card.family})" for served in self._models)
