"""One model's part in a decode: its context cached, its own predictions remembered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd2.errors import PromptTooLong
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.prompts import left_padded
from ssd2.models.ssd2 import SSD2, ContextCache, context_timestep
from ssd2.sampler import LogitsRequest


class Denoiser:
    """Answers the requests of a decode with one SSD-2 model, or with its experts.

    Lines 3 to 7 of Algorithm 2. Keys and values of the context are computed once a block, or once
    for each value of the quantised context timestep; a model without one only adds what is new.
    Each expert has its own.
    """

    def __init__(
        self, model: SSD2 | TimeRangeExperts, prompts: Sequence[Sequence[int]], self_conditioning: str
    ) -> None:
        """Take up a decode.

        Args:
            model: the network, or one for each range of timesteps.
            prompts: B prompts as token ids, of any lengths.
            self_conditioning: one of `ssd2.params.SELF_CONDITIONING`.

        Raises:
            PromptTooLong: if a prompt does not fit the model's positions.
            InvalidParameter: if a prompt is empty.
            TokenOutOfRange: if a prompt holds an id outside the vocabulary.
        """
        self._model, self._self_conditioning = model, self_conditioning
        self._prompt_ids, self._prompt_mask = left_padded(prompts, model.config, next(model.parameters()).device)
        self._caches: dict[SSD2, tuple[tuple[int, int], ContextCache]] = {}
        self._own_logits: Tensor | None = None

    @torch.inference_mode()
    def logits(self, request: LogitsRequest) -> Tensor:
        """Logits for one timestep; requests come in the order of the decode.

        Returns:
            [B, L, V], float32.

        Raises:
            PromptTooLong: if the answer has grown past the model's positions.
            InvalidParameter: if there is no expert for the timestep.
        """
        rows = len(request.x_t)
        t = torch.full((rows,), request.timestep, device=request.x_t.device)
        model = self._model.at(request.timestep)
        cache = self._context(model, request, t)
        self_cond = None if request.step == 0 else self._fed_back(request)
        self._own_logits = model.denoise(request.x_t, self_cond, t, cache)
        return self._own_logits

    def _fed_back(self, request: LogitsRequest) -> Tensor | None:
        choices = {"own": self._own_logits, "projection": request.x0_hat, "mixed": request.mixed_logits}
        return choices[self._self_conditioning]

    def _context(self, model: SSD2, request: LogitsRequest, t: Tensor) -> ContextCache:
        has_timestep = model.config.context_timestep == "quantised"
        wanted = (request.block, int(context_timestep(t)[0]) if has_timestep else 0)
        cached_for, cache = self._caches.get(model, (None, None))
        if cache is None or wanted != cached_for:
            cache = self._encode(model, request.answer_ids, request.x_t.shape[1], t, None if has_timestep else cache)
            self._caches[model] = (wanted, cache)
        return cache

    def _encode(
        self, model: SSD2, answer_ids: Tensor, block_size: int, t: Tensor, cache: ContextCache | None
    ) -> ContextCache:
        """Encode the prompt and the committed answer, less what the cache already holds."""
        self._check_room(answer_ids.shape[1] + block_size)
        token_ids = torch.cat([self._prompt_ids, answer_ids], -1)
        mask = torch.cat([self._prompt_mask, torch.ones_like(answer_ids, dtype=torch.bool)], -1)
        positions = model.prompt_positions(self._prompt_mask)
        following = torch.arange(1, answer_ids.shape[1] + 1, device=answer_ids.device)
        positions = torch.cat([positions, positions[:, -1:] + following], -1)
        done = cache.mask.shape[1] if cache else 0
        return model.encode_context(token_ids[:, done:], positions[:, done:], mask[:, done:], t, cache)

    def _check_room(self, answer_tokens: int) -> None:
        prompt_tokens = self._prompt_ids.shape[1]
        if prompt_tokens > (longest := self._model.config.max_prompt_tokens_before(answer_tokens)):
            raise PromptTooLong(
                f"prompt and answer have come to {prompt_tokens} + {answer_tokens} tokens; with such an answer this "
                f"model takes prompts of {max(longest, 0)}: shorten the prompt or the answer"
            )
