"""Answers, and what can be seen of them while they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ssd2.algorithm.params import DecodingParams
from ssd2.errors import CoreError

Leader: TypeAlias = Literal["core", "documents", "both"]
"""Side that a token comes from."""


@dataclass(frozen=True)
class AnswerToken:
    """One token of an answer.

    Attributes:
        token_id: as committed.
        text: as it stands in the answer.
        core_choice: text of what the core alone would have committed here, on the same draw and from
            the same noised block; None where no core took part.
        is_changed: whether the user's side changed the token.
        core_p: probability that the core gave it at the timestep of its commit; None where no core took part.
        user_p: that the user model gave it with the documents; None where it took no part.
        mixed_p: that the mix gave it. None of the three is a left-to-right probability: each position has
            seen a noised version of all of its block.
        led_by: "documents" if the user's side changed it, or no core took part; else "core" if the user model with the
            documents would have committed another one on the same draw, or took no part; else "both".
        lambda_user: λ of its position at that timestep; None by the difference rule, which has none.
    """

    token_id: int
    text: str
    core_choice: str | None
    is_changed: bool
    core_p: float | None = None
    user_p: float | None = None
    mixed_p: float | None = None
    led_by: Leader = "both"
    lambda_user: float | None = None


@dataclass(frozen=True)
class Answer:
    """An answer and what it took.

    Attributes:
        text: the answer.
        tokens: its tokens.
        timesteps: timesteps decoded, over all blocks.
        round_trips: how often the core was asked: at every timestep, unless `core_every` says otherwise.
        exact_timesteps: those of them whose projection is provably what the core's logits would have given
            if none had been rounded or left out on the way, at every position.
        logits_format: of the core's logits; None where no core took part.
        seconds: wall time of the decode.
        bytes_up: payload sent to the core.
        bytes_down: payload received from it.
        guessed_timesteps: those whose logits the core had sent ahead, on a right guess.
        resumed: how often it went on after the line to the core had broken.
        end: why it ended: "eos", "length" (at its longest), or "observer" (who wanted no more of it).
    """

    text: str
    tokens: list[AnswerToken]
    timesteps: int
    round_trips: int
    exact_timesteps: int
    logits_format: str | None
    seconds: float
    bytes_up: int
    bytes_down: int
    guessed_timesteps: int
    resumed: int
    end: str


@dataclass(frozen=True)
class ProjectedBlock:
    """A block after a timestep that is not its last.

    Attributes:
        block: its index in the answer.
        step: index of the timestep in the block.
        timestep: t.
        token_ids: the projection, where a multi-hot one has several its likeliest; [L].
        unlike_core: positions where the core's likeliest token is not the mix's.
    """

    block: int
    step: int
    timestep: int
    token_ids: Sequence[int]
    unlike_core: Sequence[int]


@dataclass(frozen=True)
class CommittedBlock:
    """A block that has become part of the answer.

    Attributes:
        block: its index in the answer.
        step: index of its last timestep.
        timestep: t of it.
        tokens: of it, without the EOS and what is behind.
        text: of the answer so far.
    """

    block: int
    step: int
    timestep: int
    tokens: Sequence[AnswerToken]
    text: str


class Observer:
    """Sees an answer while it is made, on the device. This one takes no notice."""

    def began(self, params: DecodingParams) -> None:
        """Nothing stands in the way: the question fits, and the core has taken it up.

        Args:
            params: of the decode, completed with what the core's model was measured with.
        """

    def waiting(self, error: CoreError, seconds: float) -> None:
        """The core cannot be asked just now; in so many seconds it is tried again, there or at another replica."""

    def reading(self, done: int, total: int) -> None:
        """The user model has read so many of the tokens of long prompts, before the first timestep."""

    def projected(self, seen: ProjectedBlock) -> None:
        """A timestep is done."""

    def committed(self, seen: CommittedBlock) -> bool:
        """A block is done; False if that is enough of the answer."""
        del seen
        return True
