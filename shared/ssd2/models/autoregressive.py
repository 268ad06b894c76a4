"""Causal language models of the transformers library: the paper's baseline (§3.2).

An answer is written by the same loop as with diffusion, with L = 1 and one timestep: a block is the
next token. There is no noise to look at and nothing to feed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.next_token import NextTokenSampler
from ssd2.algorithm.params import TEMPERATURE, TOP_P
from ssd2.errors import CheckpointInvalid, InvalidParameter, PromptTooLong
from ssd2.models.causal_lane import causal_lane, numbers_per_token
from ssd2.models.causal_parallel import shard_network
from ssd2.models.configs import AutoregressiveConfig
from ssd2.models.generation import read_generation
from ssd2.models.model import Model
from ssd2.models.packed_linear import pack_linear_layers
from ssd2.models.padding import left_padded
from ssd2.models.precision import footprint_of
from ssd2.models.pretrained import network_without_weights, read_config, read_network, read_tokenizer_of
from ssd2.models.prompt_cache import PromptCache
from ssd2.models.registry import Family, Footprint


class AutoregressiveLM(Model):
    """A causal language model and what a decode has to know of it."""

    def __init__(self, network: Any, config: AutoregressiveConfig) -> None:
        """Wrap a network.

        Args:
            network: any of transformers' models for causal language modelling.
            config: its shape.
        """
        super().__init__()
        self.network = network
        self.config: AutoregressiveConfig = config


class NextToken:
    """Answers the requests of a decode with one causal language model."""

    def __init__(self, model: AutoregressiveLM, prompts: Sequence[Sequence[int]]) -> None:
        """Take up a decode.

        Args:
            model: the network.
            prompts: B prompts as token ids, of any lengths.

        Raises:
            PromptTooLong: if a prompt does not fit the model's positions.
            InvalidParameter: if a prompt is empty.
            TokenOutOfRange: if a prompt holds an id outside the vocabulary.
        """
        self._model = model
        self._prompt_ids, is_prompt = left_padded(prompts, model.config, model.network.device)
        self._padding = (~is_prompt).sum(-1, keepdim=True)  # [B, 1]
        self._cache: Any = None
        self._read_ids = self._prompt_ids[:, :0]  # [B, C], the tokens that the cache holds
        self._logits: Tensor | None = None

    @torch.inference_mode()
    def logits(self, view: BlockView) -> Tensor:
        """Return the logits of the next token: a function of prompt and committed ids, whatever was asked before.

        Returns:
            [B, 1, V], float32.

        Raises:
            InvalidParameter: if more than one token is asked for at once.
            PromptTooLong: if the answer has grown past the model's positions.
        """
        if view.block_size != 1:
            raise InvalidParameter(
                f"block size is {view.block_size}; an autoregressive model writes one token at a time: use 1"
            )
        token_ids = torch.cat([self._prompt_ids, view.answer_ids], -1)
        if self._logits is None or not torch.equal(token_ids, self._read_ids):
            self._logits = self._read(token_ids)
        return self._logits

    def _read(self, token_ids: Tensor) -> Tensor:
        """Read the tokens that the cache does not hold yet."""
        if token_ids.shape[1] > self._model.config.max_prompt_tokens:
            raise PromptTooLong(
                f"prompt and answer have {token_ids.shape[1]} tokens together; this model takes at most "
                f"{self._model.config.max_prompt_tokens}; shorten the prompt or the answer"
            )
        done = self._cut_back(token_ids)
        positions = torch.arange(token_ids.shape[1], device=token_ids.device) - self._padding
        self._read_ids = token_ids[:, :0]  # if the network fails midway, nothing is known of the cache
        output = self._model.network(
            input_ids=token_ids[:, done:],
            attention_mask=(positions >= 0).long(),
            position_ids=positions[:, done:].clamp(min=0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache, self._read_ids = output.past_key_values, token_ids
        logits: Tensor = output.logits[:, -1:].float()
        return logits

    def _cut_back(self, token_ids: Tensor) -> int:
        """Cut the cache back to what the tokens share with it, less the last one, whose logits are wanted.

        Tokens differ where the answer goes on otherwise than was guessed. A cache that cannot be cut (of a sliding
        window, of a recurrent network) is dropped.

        Returns:
            How many tokens the cache holds.
        """
        held = self._read_ids
        shortest = min(held.shape[1], token_ids.shape[1] - 1)
        ours, theirs = held[:, :shortest], token_ids[:, :shortest]
        kept = shortest if torch.equal(ours, theirs) else int((ours == theirs).all(0).long().cumprod(0).sum())
        if kept < held.shape[1] or not kept:
            try:
                self._cache.crop(kept - held.shape[1])
            except (AttributeError, NotImplementedError, RuntimeError, ValueError):
                kept = 0
        if not kept or self._cache.get_seq_length() != kept:
            self._cache, kept = None, 0
        return kept


def _read_config(folder: Path, _: object) -> AutoregressiveConfig:
    """Read the shape of a causal language model.

    Raises:
        ModelNotFound: if the folder has no config.json, or transformers is not installed.
        CheckpointInvalid: if its config.json describes no model that can write.
    """
    config = read_config(str(folder))
    text_config = config.get_text_config(decoder=True)  # of a model that sees too, its part that writes
    names = ("max_position_embeddings", "pad_token_id", "vocab_size")
    values: list[Any] = [getattr(text_config, name, None) for name in names]
    positions, pad, vocab_size = values
    if not all(isinstance(value, int) for value in (positions, vocab_size)):
        raise CheckpointInvalid(
            f"the config.json in {folder} lacks max_position_embeddings or vocab_size; use a text model that has them"
        )
    generation = read_generation(folder, config)
    if not generation.stop_ids:
        raise CheckpointInvalid(
            f"the files in {folder} name no eos_token_id, so no answer would end; download the whole model again"
        )
    eos, *further = generation.stop_ids
    pad = None if pad == -1 else pad  # as some published ones have it
    return AutoregressiveConfig(
        vocab_size=vocab_size,
        max_positions=positions,
        bos_token_id=generation.bos_token_id,
        eos_token_id=eos,
        pad_token_id=eos if pad is None else pad,
        further_stop_ids=tuple(further),
        default_temperature=generation.temperature or TEMPERATURE,
        default_top_p=generation.top_p or TOP_P,
    )


def _footprint(folder: Path, config: AutoregressiveConfig) -> Footprint:
    """Count the numbers of a model; errors as in `network_without_weights`."""
    network = network_without_weights(folder, "AutoModelForCausalLM")
    return footprint_of(network, [network.base_model], numbers_per_token(network) * config.max_positions)


def _load(folder: Path, config: AutoregressiveConfig, dtype: torch.dtype) -> AutoregressiveLM:
    """A causal language model; errors as in `read_network`."""
    return AutoregressiveLM(read_network(str(folder), "AutoModelForCausalLM", dtype), config)


FAMILY = Family(
    name="autoregressive",
    claims=lambda _folder, _values: True,
    read_config=_read_config,
    read_tokenizer=read_tokenizer_of,
    load=_load,
    sampler=NextTokenSampler,
    begin=lambda model, prompts, _: NextToken(model, prompts),
    lane=causal_lane,
    shard=shard_network,
    int8_layers=lambda model: [model.network.base_model],  # without the head, which is often the embeddings too
    footprint=_footprint,
    pack=lambda model: pack_linear_layers(model.network),
    prompt_cache=PromptCache,
)
