"""SSD-LM: the bidirectional ancestor of SSD-2 (arXiv 2210.17432, the thesis' chapter 3).

Context and noised block go through one bidirectional RoBERTa together, so nothing of the context can
be kept from timestep to timestep. There is no self-conditioning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.algorithm.noised_simplex import x_t_of
from ssd2.algorithm.simplex_sampler import SimplexSampler
from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.errors import CheckpointInvalid, ModelNotFound, PromptTooLong
from ssd2.models.configs import SSDLMConfig
from ssd2.models.model import Model
from ssd2.models.padding import left_padded
from ssd2.models.pretrained import EMBED_SUM, EMBED_TIMESTEP, read_config, read_network, read_tokenizer_of
from ssd2.models.registry import Family


class SSDLM(Model):
    """logits_θ(w^{c:c+B} | w~_t^{c:c+B}, w^{<c}) of eq. 3.10."""

    def __init__(self, network: Any, embed_sum: nn.Linear, embed_timestep: nn.Linear, config: SSDLMConfig) -> None:
        """Put the published parts together.

        Args:
            network: transformers' RoBERTa for masked language modelling.
            embed_sum: W_diff, [D, V], not tied to the word embeddings (footnote 3).
            embed_timestep: W_time, [D, 1], with bias.
            config: its shape.
        """
        super().__init__()
        self.network, self.embed_sum, self.embed_timestep = network, embed_sum, embed_timestep
        self.config: SSDLMConfig = config

    def denoise(self, x_t: Tensor, t: Tensor, context_ids: Tensor, context_mask: Tensor) -> Tensor:
        """Logits of the block that follows a context (eq. 3.10, footnote 3).

        Args:
            x_t: noised simplex w~_t, [B, L, V].
            t: timesteps, [B].
            context_ids: w^{<c}, int64, [B, C].
            context_mask: bool, [B, C], False at the padding on the left.

        Returns:
            [B, L, V], unnormalised.
        """
        share = (t.to(torch.float32) / TRAINED_TIMESTEPS)[:, None, None]  # t/T
        block = self.embed_sum(torch.softmax(x_t, dim=-1)) + self.embed_timestep(share)
        context = self.network.get_input_embeddings()(context_ids)
        mask = torch.cat([context_mask, context_mask.new_ones(block.shape[:2])], -1)
        output = self.network(
            inputs_embeds=torch.cat([context, block], 1),
            attention_mask=mask.long(),
            position_ids=mask.cumsum(-1) * mask + self.config.pad_token_id,
        )
        logits: Tensor = output.logits[:, context_ids.shape[1] :].float()
        return logits


class BidirectionalDenoiser:
    """Answers the requests of a decode with one SSD-LM: line 3 of its Algorithm 2."""

    def __init__(self, model: SSDLM, prompts: Sequence[Sequence[int]]) -> None:
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
        self._prompt_ids, self._mask = left_padded(prompts, model.config, next(model.parameters()).device)

    @torch.inference_mode()
    def logits(self, view: BlockView) -> Tensor:
        """Return the logits of one timestep.

        Returns:
            [B, L, V], float32.

        Raises:
            PromptTooLong: if prompt, answer and block do not fit the model's positions.
        """
        context_ids = torch.cat([self._prompt_ids, view.answer_ids], -1)
        if context_ids.shape[1] + view.block_size > self._model.config.max_positions:
            raise PromptTooLong(
                f"prompt, answer and block have {context_ids.shape[1]} + {view.block_size} tokens; this "
                f"model takes {self._model.config.max_positions}; shorten the prompt or the answer"
            )
        mask = torch.cat([self._mask, torch.ones_like(view.answer_ids, dtype=torch.bool)], -1)
        x_t = x_t_of(view, self._model.config.vocab_size, context_ids.device)
        t = torch.full((len(x_t),), view.timestep, device=x_t.device)
        return self._model.denoise(x_t, t, context_ids, mask)


def _read_config(folder: Path, values: Mapping[str, Any]) -> SSDLMConfig:
    """Read the shape of an SSD-LM.

    Raises:
        ModelNotFound: if the folder has no config.json, or transformers is not installed.
        CheckpointInvalid: if its config.json is not that of a RoBERTa.
    """
    config = read_config(str(folder))
    if config.model_type != "roberta":
        raise CheckpointInvalid(
            f"the config.json in {folder} describes a {config.model_type} model; an SSD-LM is a RoBERTa"
        )
    for name in ("max_position_embeddings", "pad_token_id"):
        if not isinstance(getattr(config, name), int):
            raise CheckpointInvalid(f"the config.json in {folder} lacks {name}; download the whole checkpoint")
    return SSDLMConfig(
        vocab_size=config.vocab_size,
        max_positions=config.max_position_embeddings - config.pad_token_id - 1,  # it counts from behind the padding
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        measured=MeasuredDecoding(values.get("stop", 0.0), values.get("steps"), values.get("patience")),
    )


def _load(folder: Path, config: SSDLMConfig, dtype: torch.dtype) -> SSDLM:
    """An SSD-LM from its published layout, its parts in float32 where they are files of their own.

    Raises:
        ModelNotFound: if a file is missing.
        CheckpointInvalid: if one is damaged or does not fit the others.
    """
    network = read_network(str(folder), "AutoModelForMaskedLM", dtype)
    width = network.config.hidden_size
    embed_sum = _read_linear(folder / EMBED_SUM, nn.Linear(config.vocab_size, width, bias=False))
    return SSDLM(network, embed_sum, _read_linear(folder / EMBED_TIMESTEP, nn.Linear(1, width)), config)


def _read_linear(file: Path, layer: nn.Linear) -> nn.Linear:
    """A layer's weights from a file of its own."""
    if not file.is_file():
        raise ModelNotFound(f"there is no {file.name} in {file.parent}; download the whole checkpoint")
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
        layer.load_state_dict({name.removeprefix("module."): value.float() for name, value in weights.items()})
    except Exception as error:  # pickle raises what it likes
        raise CheckpointInvalid(f"{file} is damaged or of another model; download it again") from error
    return layer


FAMILY = Family(
    name="ssd-lm",
    claims=lambda folder, _: (folder / EMBED_SUM).is_file(),
    read_config=_read_config,
    read_tokenizer=read_tokenizer_of,
    load=_load,
    sampler=SimplexSampler,
    begin=lambda model, prompts, _: BidirectionalDenoiser(model, prompts),
)
