"""Penalties on tokens that an answer has already, for models that write token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssd2.errors import InvalidParameter

if TYPE_CHECKING:  # a request has penalties, and no help text has to wait for torch
    from torch import Tensor

MAX_PENALTY = 2.0


@dataclass(frozen=True)
class Penalties:
    """Amount taken off the mixed logits of a token that the answer has.

        logits[v] -= frequency * count(v) + presence * (count(v) > 0)

    Source: OpenAI's API reference, `frequency_penalty` and `presence_penalty`. Only tokens that are committed count,
    which the core has anyway; the mix that they change is made on the device.

    Attributes:
        frequency: for each time that the answer has the token, in logits; below 0 it is favoured.
        presence: once, if the answer has it.
    """

    frequency: float = 0.0
    presence: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.frequency or self.presence)

    def check(self, block_size: int) -> None:
        """Refuse a block of several tokens: which of them comes first is not decided before the others.

        Raises:
            InvalidParameter: naming the first penalty that is not 0.
        """
        if self and block_size > 1:
            name = "frequency_penalty" if self.frequency else "presence_penalty"
            raise InvalidParameter(
                f"{name} is {self.frequency or self.presence:g}, and these models write {block_size} tokens at a time; "
                "penalties need models that write token by token, so leave it at 0",
                parameter=name,
            )

    def apply(self, mixed: Tensor, answer_ids: Tensor) -> Tensor:
        """Return the mix without the penalties.

        Args:
            mixed: [1, 1, V], float32.
            answer_ids: [1, C], the tokens committed so far.
        """
        if not self or not answer_ids.numel():
            return mixed
        counts = answer_ids[0].to(mixed.device).bincount(minlength=mixed.shape[-1])[: mixed.shape[-1]]  # [V]
        return mixed - (self.frequency * counts + self.presence * (counts > 0)).to(mixed.dtype)


NONE = Penalties()
