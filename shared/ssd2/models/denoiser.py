"""One model's part in a decode: its contexts kept, its own predictions remembered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.noised_simplex import x_t_of
from ssd2.algorithm.simplex import tokens_to_simplex
from ssd2.errors import PromptTooLong
from ssd2.models.context import Context
from ssd2.models.context_pool import ContextPool
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
        self._own: list[tuple[BlockView, Tensor]] = []  # the last two predictions, V-sized, and what was seen for them

    @torch.inference_mode()
    def logits(self, view: BlockView) -> Tensor:
        """Return the logits of one timestep.

        Returns:
            [B, L, V], float32.

        Raises:
            PromptTooLong: if the answer has grown past the model's positions.
            InvalidParameter: if there is no expert for the timestep.
            ValueError: if own predictions are fed back, and what was projected in the block so far is not known.
        """
        if self._self_conditioning == "own":
            return self._logits_on_own(view)
        return self._denoised(view, self._given(view))

    def _logits_on_own(self, view: BlockView) -> Tensor:
        """Feed back the model's own prediction at the timestep before, made again unless it is the last one made."""
        missing, own = [view], self._own_before(view)
        while missing[-1].step and own is None:
            missing.append(missing[-1].before())
            own = self._own_before(missing[-1])
        for each in reversed(missing):
            logits = self._denoised(each, own)
            self._own = [(each.before(), own), (each, logits)] if own is not None else [(each, logits)]
            own = logits
        return logits

    def _own_before(self, view: BlockView) -> Tensor | None:
        """Find what was predicted at the timestep before; None at the first one, or if it is not kept."""
        if not view.step:
            return None
        before = view.before()
        return next((logits for seen, logits in self._own if _is_same(seen, before)), None)

    def _given(self, view: BlockView) -> Tensor | None:
        if self._self_conditioning == "mixed":
            return view.mixed_logits
        if view.projected is None:
            return None
        config, device = self._model.config, view.answer_ids.device
        value = config.feedback_value(view.simplex_value)
        return tokens_to_simplex(view.projected, view.block_size, config.vocab_size, value, device)

    def _denoised(self, view: BlockView, self_cond: Tensor | None) -> Tensor:
        model, answers = self._model.at(view.timestep), view.answer_ids.tolist()
        tokens = max(len(prompt) for prompt in self._prompts) + view.answer_ids.shape[1] + view.block_size
        self._check_room(tokens)
        if model not in self._pools:
            self._pools[model] = ContextPool(model, len(self._prompts), tokens)
        pool = self._pools[model]
        pool.make_room(tokens)
        pool.hold({slot: self._context(slot, answer, view.timestep) for slot, answer in enumerate(answers)})
        x_t = x_t_of(view, model.config.vocab_size, pool.device)
        fed_back = None if self_cond is None else model.feed_back(self_cond)
        t = torch.full((len(answers),), view.timestep, device=pool.device)
        return pool.denoise(range(len(answers)), x_t, fed_back, t)

    def _context(self, row: int, answer_ids: list[int], timestep: int) -> Context:
        prompt, config = self._prompts[row], self._model.config
        first_position, quantised = config.first_position(len(prompt)), config.quantised(timestep)
        return Context((*prompt, *answer_ids), first_position, quantised, len(prompt), scope="this decode")

    def _check_room(self, tokens: int) -> None:
        longest, config = max(len(prompt) for prompt in self._prompts), self._model.config
        answer_tokens = tokens - longest
        if longest > (allowed := config.max_prompt_tokens_before(answer_tokens)):
            raise PromptTooLong(
                f"prompt and answer have {longest} + {answer_tokens} tokens; with such an answer this model "
                f"takes prompts of {max(allowed, 0)}: shorten the prompt or the answer"
            )


def _is_same(a: BlockView, b: BlockView) -> bool:
    """Tell whether own predictions are the same for both: what crossed is."""
    places = ((v.block, v.timestep, v.block_size, v.noise_seeds, v.simplex_value) for v in (a, b))
    return next(places) == next(places) and a.trail == b.trail and torch.equal(a.answer_ids, b.answer_ids)
