"""The tokens that a slot holds the keys and values of, and what of them another slot may copy.

See docs/decisions/010-prompt-sharing-scopes.md: prompts alone are shared, and only within a scope. Who sees how long an
answer takes could find out else what another user's prompt or answer begins with.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

MIN_SHARED_TOKENS = 8
"""Tokens that two contexts begin with, from which on one copies the other's instead of computing its own."""


@dataclass(frozen=True)
class Context:
    """Context that a slot holds, or has to hold.

    Attributes:
        token_ids: of the prompt and the committed blocks.
        first_position: position of the first of them.
        timestep: that they are encoded for, quantised; 0 for a model without a context timestep.
        prompt_tokens: how many of them are of the prompt, and not of the answer.
        scope: whose they are; prompts of one scope are shared, and those of None with nobody.
    """

    token_ids: tuple[int, ...]
    first_position: int = 0
    timestep: int = 0
    prompt_tokens: int = 0
    scope: Hashable = None

    def shared_with(self, other: Context) -> int:
        """Count the tokens of another slot's context that this one may begin with a copy of."""
        if self.scope is None or self.scope != other.scope:
            return 0
        return min(self.same_as(other), self.prompt_tokens, other.prompt_tokens)

    def same_as(self, other: Context) -> int:
        """Count the tokens that two contexts begin with whose keys and values are the same."""
        if (self.first_position, self.timestep) != (other.first_position, other.timestep):
            return 0
        mine, theirs = self.token_ids, other.token_ids
        if mine[: len(theirs)] == theirs:  # the common case: a block was added
            return len(theirs)
        pairs = enumerate(zip(mine, theirs, strict=False))
        return next((index for index, (a, b) in pairs if a != b), min(len(mine), len(theirs)))

    def longest_shared(self, held: Sequence[Context]) -> tuple[int, int]:
        """Find the slot that this context may copy most of.

        Args:
            held: by all slots.

        Returns:
            How many tokens, 0 if too few to copy, and the slot.
        """
        shared, slot = max((self.shared_with(other), index) for index, other in enumerate(held))
        return (shared, slot) if shared >= MIN_SHARED_TOKENS else (0, slot)


NOTHING = Context(())
"""What an empty slot holds."""
