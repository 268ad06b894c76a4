"""The largest log-probabilities of a position, checked: nothing that an upstream says is taken for granted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from core_server.engine.upstream.faults import lied, too_few

SUM_ROUNDING = 1e-3
"""How far above 1 the sum of the probabilities may come: an upstream adds up a vocabulary in float32."""

TAIL_ROUNDING = 1e-5
"""Least mass that is taken to be left for what was not sent, as far as it has room for it: below, 1 - sum is rounding,
and a tail that is too small would prove more projections exact than are."""

Entries: TypeAlias = Sequence[tuple[object, object]]
"""Token ids with their log-probabilities, as they stand in a reply."""


@dataclass(frozen=True)
class Largest:
    """The K largest log-probabilities of a position.

    Attributes:
        ids: K token ids, from the likeliest down.
        log_probabilities: of them, in nats.
        tail: logarithm of the probability that is left for all others; -inf if there are none.
    """

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    tail: float


def read_largest(entries: Entries, k: int, vocab_size: int, *, are_ordered: bool) -> Largest:
    """Check a reply, and compute what it leaves for the tokens that are not in it.

    Args:
        entries: as they stand in the reply; one more than asked for, where the token drawn is not among the largest.
        k: how many were asked for.
        vocab_size: V.
        are_ordered: whether the reply has an order, from the likeliest down.

    Raises:
        UpstreamFault: if these cannot be the k largest log-probabilities of a position.
    """
    expected = min(k, vocab_size)
    if not expected <= len(entries) <= expected + 1:
        raise lied(f"sent {len(entries)} log-probabilities where {expected} were asked for")
    read = [(_token_id(token_id, vocab_size), _log_probability(value)) for token_id, value in entries]
    if len({token_id for token_id, _ in read}) < len(read):
        raise lied("sent a token twice")
    if are_ordered and any(first < second for (_, first), (_, second) in pairwise(read)):
        raise lied("sent log-probabilities that do not descend")
    ids, values = zip(*sorted(read, key=lambda entry: -entry[1])[:expected], strict=True)
    return Largest(ids, values, _tail(values, vocab_size))


def cut(largest: Largest, k: int, vocab_size: int) -> Largest:
    """Keep the k largest of a smaller vocabulary; the others of it join the tail, and ids behind it are left out.

    Args:
        largest: of the whole vocabulary.
        k: how many to keep.
        vocab_size: V of the agent's model, whose rows are fewer.

    Raises:
        UpstreamFault: if there are fewer.
    """
    pairs = zip(largest.ids, largest.log_probabilities, strict=True)
    known = [(token_id, value) for token_id, value in pairs if token_id < vocab_size]
    expected = min(k, vocab_size)
    if len(known) < expected:
        raise too_few(len(known), expected)
    kept, others = known[:expected], vocab_size - expected
    mass = math.exp(largest.tail) + math.fsum(math.exp(value) for _, value in known[expected:])
    mass = min(mass, others * math.exp(kept[-1][1]))  # no more than so many smaller ones can have
    ids, values = zip(*kept, strict=True)
    return Largest(ids, values, math.log(mass) if mass > 0 else -math.inf)


def _token_id(token_id: object, vocab_size: int) -> int:
    if type(token_id) is not int or not 0 <= token_id < vocab_size:
        raise lied(f"sent a token id outside the vocabulary of {vocab_size}")
    return token_id


def _log_probability(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]  # a number by now
        raise lied("sent log-probabilities that are not finite numbers")
    return float(value)  # type: ignore[arg-type]


def _tail(values: Sequence[float], vocab_size: int) -> float:
    """Logarithm of what the sent probabilities leave; none of the others has more than the least one sent."""
    if values[0] > SUM_ROUNDING or (total := math.fsum(map(math.exp, values))) > 1 + SUM_ROUNDING:
        raise lied("sent probabilities of more than 1 together")
    others = vocab_size - len(values)
    most = others * math.exp(values[-1])
    if 1 - total > most + SUM_ROUNDING:
        raise lied(f"sent probabilities of {total:.3f} together, which leaves more than {others} smaller ones can have")
    mass = min(max(1 - total, TAIL_ROUNDING), most)
    return math.log(mass) if mass > 0 else -math.inf
