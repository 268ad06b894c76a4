"""Shares of both models in the tokens of a block, and so which side led at each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd2.algorithm.ensemble import Weight
from user_agent.answering.answer import Leader


@dataclass(frozen=True)
class Contribution:
    """Share of each model in one token; None of a model that took no part.

    Attributes:
        core_choice: token that the core alone would have had, on the same draw.
        user_choice: token that the user model alone would have had.
        core_p: probability that the core gave the token.
        user_p: that the user model gave it.
        mixed_p: that the mix gave it.
        lambda_user: λ of its position; None where the rule has none.
    """

    core_choice: int | None
    user_choice: int | None
    core_p: float | None
    user_p: float | None
    mixed_p: float | None
    lambda_user: float | None

    def led_by(self, token_id: int) -> Leader:
        """Tell which side the token comes from."""
        if self.core_choice != token_id:
            return "documents"
        return "both" if self.user_choice == token_id else "core"


class BlockContributions:
    """Contributions to a block's tokens, each as at the timestep at which the token was last changed.

    Later timesteps show the token itself in the noised block, and both models read it there: a core that was trained
    beside a partner takes it over, and would seem to have known what only the documents say.
    """

    def __init__(self) -> None:
        """Begin a block."""
        self._token_ids: Tensor | None = None
        self._found: dict[int, Contribution] = {}

    def __getitem__(self, position: int) -> Contribution:
        """Return the contribution to the token at a position that has been seen."""
        return self._found[position]

    def see(
        self,
        token_ids: Tensor,
        given: tuple[Tensor | None, Tensor | None, Tensor],
        lambda_user: Weight | None,
        choose: Callable[[Tensor], Tensor],
    ) -> None:
        """Take in a timestep.

        Args:
            token_ids: its projection, int64, [L].
            given: logits of the core, of the user model with the documents, and of the mix, each [1, L, V].
            lambda_user: that they were mixed with.
            choose: projects logits, [1, L, V], with the draws that the mix had, to token ids, [1, L].
        """
        before, self._token_ids = self._token_ids, token_ids
        is_changed = torch.ones_like(token_ids, dtype=torch.bool) if before is None else token_ids != before
        changed: list[int] = is_changed.nonzero().flatten().tolist()
        if not changed:
            return
        chosen = [_at(changed, None if of is None else choose(of)[0]) for of in given[:2]]
        likely = [_probabilities(of, token_ids, changed) for of in given]
        lambdas = _by_position(lambda_user, changed)
        self._found.update(zip(changed, map(Contribution, *chosen, *likely, lambdas), strict=True))


def _at(positions: Sequence[int], choices: Tensor | None) -> Sequence[int | None]:
    if choices is None:
        return [None] * len(positions)
    found: list[int | None] = choices[positions].tolist()
    return found


def _probabilities(logits: Tensor | None, token_ids: Tensor, positions: Sequence[int]) -> Sequence[float | None]:
    """Return the probabilities of the tokens at some positions."""
    if logits is None:
        return [None] * len(positions)
    of_all = logits[0].float()  # of positions picked here a copy would be made
    chosen = of_all.gather(-1, token_ids[:, None].to(of_all.device))
    probabilities: list[float | None] = (chosen - of_all.logsumexp(-1, keepdim=True)).exp()[positions, 0].tolist()
    return probabilities


def _by_position(weight: Weight | None, positions: Sequence[int]) -> Sequence[float | None]:
    """Return a weight at some positions, from one for all or one for each."""
    return weight[0, positions, 0].tolist() if isinstance(weight, Tensor) else [weight] * len(positions)
