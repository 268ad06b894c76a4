"""Answers, and what can be seen of them while they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ssd2.algorithm.params import DecodingParams
from ssd2.errors import CoreError

Leader: TypeAlias = Literal["core", "documents", "both"]
"""Side that a token comes from."""


@dataclass(frozen=True)
class AnswerToken:
    """One token of an answer.

    What the models gave it is as at the timestep at which it was last changed: from the next one on both read it in the
    noised block. See `contributions`.

    Attributes:
        token_id: as committed.
        text: as it stands in the answer.
        core_choice: text of what the core alone would have had here, on the same draw and from
            the same noised block; None where no core took part.
        is_changed: whether the user's side changed the token.
        core_p: probability that the core gave it; None where no core took part.
        user_p: that the user model gave it with the documents; None where it took no part.
        mixed_p: that the mix gave it. None of the three is a left-to-right probability: each position has
            seen a noised version of all of its block.
        led_by: "documents" if the user's side changed it, or no core took part; else "core" if the user model with the
            documents would have had another one on the same draw, or took no part; else "both".
        lambda_user: λ of its position; None by the difference rule, which has none.
        citation: index of the passage that it comes from, or that it comes from the private context; None where no
            passage raises its probability, or tokens are not cited. See `ssd2.algorithm.attribution`.
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
    citation: int | Literal["private context"] | None = None


@dataclass(frozen=True)
class Saying:
    """One side of a conflict.

    Attributes:
        citation: index of the passage.
        would_say: what the answer would say here, had the user model read this passage only; words of the passage.
    """

    citation: int
    would_say: str


@dataclass(frozen=True)
class Conflict:
    """Place in an answer about which passages disagree.

    Attributes:
        position: index of its first token in the answer.
        length: in tokens.
        text: what the answer says there, in whole words.
        passages: that disagree.
    """

    position: int
    length: int
    text: str
    passages: Sequence[Saying]


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
        bytes_up: sent to the core for it, as the ledger counts them: messages with the 5 bytes before each.
        bytes_down: received from it.
        guessed_timesteps: those whose logits the core had sent ahead, on a right guess.
        resumed: how often it went on after the line to the core had broken.
        end: why it ended: "eos", "length" (at its longest), or "observer" (who wanted no more of it).
        conflicts: where passages disagree; None where tokens are not cited.
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
    conflicts: list[Conflict] | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """What it took: all but the text and what is found out about it."""
        return {name: value for name, value in vars(self).items() if name not in ("text", "tokens", "conflicts")}


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
