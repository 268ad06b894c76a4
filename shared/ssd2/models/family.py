"""What every family of models has in common, as a decode sees it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ssd2.sampler import LogitsRequest


class ModelConfig(Protocol):
    """A model's shape, as far as a decode, a server and an agent have to know it."""

    @property
    def family(self) -> str:
        """Its kind: "ssd-2", "ssd-lm" or "autoregressive"."""
        ...

    @property
    def vocab_size(self) -> int:
        """V."""
        ...

    @property
    def block_size(self) -> int:
        """L it was trained with; 1 if it writes token by token."""
        ...

    @property
    def default_steps(self) -> int:
        """Timesteps a block is decoded with, unless others are asked for; 1 without diffusion."""
        ...

    @property
    def default_stop(self) -> float:
        """Share of T that a decode stops at, unless asked otherwise."""
        ...

    @property
    def trained_above(self) -> float:
        """Share of T above which there is a network for every timestep; what one was trained on is not recorded."""
        ...

    @property
    def bos_token_id(self) -> int:
        """Begins every prompt."""
        ...

    @property
    def eos_token_id(self) -> int:
        """Ends an answer."""
        ...

    @property
    def pad_token_id(self) -> int:
        """Fills the left of shorter prompts in a batch; never attended to."""
        ...

    @property
    def simplex_value(self) -> float:
        """K, in logit units."""
        ...

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt that leaves room for one block of answer."""
        ...

    @property
    def max_block_size(self) -> int:
        """The longest block that leaves room for a prompt."""
        ...

    def max_prompt_tokens_before(self, answer_tokens: int) -> int:
        """The longest prompt that leaves room for an answer of this many tokens; below 1 if none does."""
        ...


class Predictor(Protocol):
    """One model's part in one decode."""

    def logits(self, request: LogitsRequest) -> Tensor:
        """Logits for one timestep, [B, L, V], float32; requests come in the order of the decode."""
        ...
