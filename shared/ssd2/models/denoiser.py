"""One model's part in a decode: its contexts kept, its own predictions remembered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd2.algorithm.sampler import LogitsRequest
from ssd2.errors import PromptTooLong
from ssd2.models.context_pool import Context, ContextPool
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.prompts import check_prompts
from ssd2.models.ssd2 import SSD2


# See docs/decisions/004-self-conditioning.md.
class Denoiser:
    """Answers the requests of a decode with one SSD-2 model, or with its experts.

    Lines 3 to 7 of Algorithm 2. Each expert keeps contexts of its own.
    """

    def __init__(
        self, model: SSD2 | TimeRangeExperts, prompts: Sequence[Sequence[int]], self_conditioning: str
    ) -> None:
        """Take up a decode.

        Args:
            model: the network, or one for each range of timesteps.
            prompts: B prompts as token ids, of any lengths.
            self_conditioning: one of `ssd2.algorithm.params.SELF_CONDITIONING`.

        Raises:
            PromptTooLong: if a prompt does not fit the model's positions.
            InvalidParameter: if a prompt is empty.
            TokenOutOfRange: if a prompt holds an id outside the vocabulary.
        """
        check_prompts(prompts, model.config)
        self._model, self._self_conditioning = model, self_conditioning
        self._prompts = [tuple(prompt) for prompt in prompts]
        self._pools: dict[SSD2, ContextPool] = {}
        self._own: list[tuple[int, int, Tensor]] = []  # block, step and logits of the last predictions, V-sized

    @torch.inference_mode()
    def logits(self, request: LogitsRequest) -> Tensor:
        """Return the logits of one timestep.

        A timestep may be asked for again, with the same answer or another; those before it not, as own predictions
        are too large to be kept.

        Returns:
            [B, L, V], float32.

        Raises:
            PromptTooLong: if the answer has grown past the model's positions.
            InvalidParameter: if there is no expert for the timestep.
            ValueError: if the model's own prediction before the timestep is not known.
        """
        model, block_size = self._model.at(request.timestep), request.x_t.shape[1]
        answers = request.answer_ids.tolist()
        tokens = max(len(prompt) for prompt in self._prompts) + request.answer_ids.shape[1] + block_size
        self._check_room(tokens)
        if model not in self._pools:
            self._pools[model] = ContextPool(model, len(self._prompts), tokens)
        pool = self._pools[model]
        pool.make_room(tokens)
        pool.hold({slot: self._context(slot, answer, request.timestep) for slot, answer in enumerate(answers)})
        self_cond = None if request.step == 0 else self._self_cond(request)
        fed_back = None if self_cond is None else model.feed_back(self_cond)
        t = torch.full((len(answers),), request.timestep, device=request.x_t.device)
        logits = pool.denoise(range(len(answers)), request.x_t, fed_back, t)
        if self._self_conditioning == "own":
            self._own = [*self._earlier(request)[-1:], (request.block, request.step, logits)]
        return logits

    def _self_cond(self, request: LogitsRequest) -> Tensor | None:
        if self._self_conditioning == "own":
            if not (earlier := self._earlier(request)):
                raise ValueError(
                    f"timestep {request.step} of block {request.block} is asked for before the one before it"
                )
            return earlier[-1][-1]
        return request.x0_hat if self._self_conditioning == "projection" else request.mixed_logits

    def _earlier(self, request: LogitsRequest) -> list[tuple[int, int, Tensor]]:
        """Own predictions at earlier timesteps of the same block; none where another answer led to it."""
        return [own for own in self._own if own[0] == request.block and own[1] < request.step]

    def _context(self, row: int, answer_ids: list[int], timestep: int) -> Context:
        prompt, config = self._prompts[row], self._model.config
        first_position, quantised = config.first_position(len(prompt)), config.quantised(timestep)
        return Context((*prompt, *answer_ids), first_position, quantised, len(prompt), scope="this decode")

    def _check_room(self, tokens: int) -> None:
        longest, config = max(len(prompt) for prompt in self._prompts), self._model.config
        answer_tokens = tokens - longest
        if longest > (allowed := config.max_prompt_tokens_before(answer_tokens)):
            raise PromptTooLong(
                f"prompt and answer have come to {longest} + {answer_tokens} tokens; with such an answer this model "
                f"takes prompts of {max(allowed, 0)}: shorten the prompt or the answer"
            )
