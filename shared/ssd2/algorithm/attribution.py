"""Where a token comes from: each passage's own pass of the user model against the pass without any.

All of it is computed on the device, from logits that never leave it.
See docs/decisions/056-the-passage-of-each-token.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssd2.algorithm.collaboration import UserLogits

RAISE = 1.0
"""Nats by which a passage has to raise a token: to e times its probability. With the demo pair passages raise private
tokens by 4.5 or more, and all others by 0.12 at most."""

CLEAR = 0.5
"""Probability above which a passage alone clearly prefers a token."""


@dataclass(frozen=True)
class Origin:
    """Origin of one token.

    Attributes:
        source: index of the passage that it comes from; None for no passage.
        differs: whether passages, each read alone, would clearly have other tokens here.
        parties: those of them that are also about the question when all are read; empty where these agree.
        ahead: where passages differ, the likeliest tokens of each pass beside the mix, from here to the block's end.
    """

    source: int | None = None
    differs: bool = False
    parties: Sequence[int] = ()
    ahead: Sequence[Sequence[int]] = ()


def origins(token_ids: Tensor, user: UserLogits, passages: int) -> list[Origin]:
    """Find where tokens come from, by the logits of one timestep.

        r(v | x)   = log p(v | x) - log p(v | no passage)
        source     = argmax_n r(w | passage n), if it is above 1 nat; else no passage
        n prefers    argmax_v p(v | passage n) = v_n, if p(v_n | passage n) > 1/2 and r(v_n | passage n) > 1 nat
        n is a party if r(v_n | all passages) > 0 with them in their order or in reverse

    Passages differ where a token comes from one of them and two prefer different ones; they disagree where two parties
    do. Alone a passage about something else is taken for the answer too; beside the others it is not, and is no party.
    Of two about the same the model takes one, often the later: which one that is the order decides.

    Source: ours; the two passes that are compared are the contrastive terms of §3.2.

    Args:
        token_ids: w, int64, [P].
        user: logits at the P positions, each [1, P, V]. Beside the mix: each passage alone; other private text alone,
            which is only a source; and, of several passages, all of them in reverse.
        passages: how many there are.
    """
    if not len(token_ids) or not user.beside or user.with_docs is None or user.without_docs is None:
        return [Origin()] * len(token_ids)
    *sources, turned = user.beside if passages > 1 else (*user.beside, user.with_docs)
    every, turned, none = (torch.log_softmax(one[0].float(), -1) for one in (user.with_docs, turned, user.without_docs))
    alone = torch.log_softmax(torch.cat(sources).float(), -1)  # [N, P, V]
    most, source = _of(token_ids.to(alone.device).expand(len(alone), -1), alone - none).max(0)  # [P]
    likely, first = alone.max(-1)  # [N, P]
    prefers = (likely.exp() > CLEAR) & (likely - _of(first, none) > RAISE) & (most > RAISE)
    prefers[passages:] = False
    is_party = prefers & (_of(first, torch.maximum(every, turned) - none) > 0)
    found = []
    for position, (is_private, n) in enumerate(zip((most > RAISE).tolist(), source.tolist(), strict=True)):
        differs = len(first[prefers[:, position], position].unique()) > 1
        disagree = len(first[is_party[:, position], position].unique()) > 1
        parties = is_party[:, position].nonzero().flatten().tolist() if disagree else ()
        found.append(Origin(n if is_private else None, differs, parties))
    return found


def _of(token_ids: Tensor, log_p: Tensor) -> Tensor:
    """Return the values of some tokens, [N, P], out of those of all, [N, P, V] or [P, V]."""
    return log_p.expand(len(token_ids), -1, -1).gather(-1, token_ids[..., None])[..., 0]


class BlockOrigins:
    """Origins of a block's tokens, each as at the timestep at which the token was last changed.

    Later timesteps show the token itself in the noised block: every pass reads it there, and no passage raises it.
    """

    def __init__(self, passages: int) -> None:
        """Begin a block; for `passages` see `origins`."""
        self._passages = passages
        self._token_ids: Tensor | None = None
        self.found: list[Origin] = []

    def see(self, token_ids: Tensor, user: UserLogits) -> None:
        """Take in a timestep.

        Args:
            token_ids: its projection, int64, [L].
            user: its logits, each [1, L, V].
        """
        before = self._token_ids
        is_changed = torch.ones_like(token_ids, dtype=torch.bool) if before is None else token_ids != before
        self._token_ids, changed = token_ids, is_changed.nonzero().flatten()
        self.found = self.found or [Origin()] * len(token_ids)
        there = _at(changed, user)
        for position, origin in zip(changed.tolist(), origins(token_ids[changed], there, self._passages), strict=True):
            if origin.differs:
                origin = replace(origin, ahead=[row[0, position:].argmax(-1).tolist() for row in user.beside])
            self.found[position] = origin


def _at(positions: Tensor, user: UserLogits) -> UserLogits:
    every, none = (None if row is None else row[:, positions] for row in (user.with_docs, user.without_docs))
    return UserLogits(every, none, tuple(row[:, positions] for row in user.beside))
