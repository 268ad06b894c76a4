"""Callers and their limits: everybody may do anything, or the holder of a key what its limits allow.

The interceptor says who it is, in `CALLER`, for the service to ask.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict, deque
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Protocol

from core_server.access.keys import READ_AGAIN_S, KeyEntry, KeyReader
from ssd2.algorithm.timesteps import DEFAULT_STEPS
from ssd2.errors import KeyRefused, SessionLimitReached, TimestepLimitReached, TokenLimitReached

RESUME_S = 60.0
MAX_BROKEN = 64
"""How long after a break an answer may go on beyond its key's limits a minute, and how many of a key's may."""

_SCHEME = "Bearer "


class Caller(Protocol):
    """Caller that opens an answer."""

    @property
    def id(self) -> str | None:
        """Public part of their key; None without one."""

    def session(self) -> AbstractContextManager[None]:
        """One answer in progress; refuses one that is beyond a limit."""

    def count(self, block_size: int, step: int = 0) -> None:
        """Count a timestep that begins, with the tokens that it is charged; see `tokens_charged`."""

    async def revoked(self) -> None:
        """Wait until this caller may go on no more, and say so with an error."""


class Anybody:
    """The caller where no key is asked for; the server's own limits are all there are."""

    id = None

    def session(self) -> AbstractContextManager[None]:
        """See `Caller`."""
        return nullcontext()

    def count(self, block_size: int, step: int = 0) -> None:
        """See `Caller`."""

    async def revoked(self) -> None:
        """See `Caller`."""
        await asyncio.Event().wait()


CALLER: ContextVar[Caller] = ContextVar("CALLER", default=Anybody())  # noqa: B039  # it has no state
"""Who the call is from that is being answered."""


async def while_allowed(answer: Coroutine[object, object, None]) -> None:
    """Answer a call for as long as its caller may go on.

    Raises:
        KeyRefused: once the key is revoked; the answer has ended by then, and given back what it held.
    """
    tasks = {asyncio.create_task(answer), asyncio.create_task(CALLER.get().revoked())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# See docs/decisions/015-what-is-counted.md.
def tokens_charged(block_size: int, step: int) -> int:
    """Tokens that a timestep is charged: its block's with the first one, and again with every 25th after it.

    So a limit of tokens bounds the timesteps too: a block of 1,000 costs 40 times what one of 25 does.
    """
    return 0 if step % DEFAULT_STEPS else block_size


@dataclass
class Bucket:
    """Use of a limit a minute, in tokens or timesteps: a bucket that a minute fills.

    An answer may take more than is left, so that none is cut off in its middle; the debt has to be filled up before the
    next one, and the limit holds in the long run. An answer whose line broke is in its middle too: for each there may
    be a minute's worth more of debt.

    Attributes:
        owed: what is not yet filled up again.
        counted_at: when that was so, on the monotonic clock.
    """

    owed: float = 0.0
    counted_at: float = 0.0

    def owed_now(self, per_minute: int) -> float:
        """Return what is not filled up by now; at the limit and above, there is nothing left."""
        return max(0.0, self.owed - (time.monotonic() - self.counted_at) * per_minute / 60)

    def take(self, amount: int, per_minute: int) -> None:
        """Take something out."""
        self.owed, self.counted_at = self.owed_now(per_minute) + amount, time.monotonic()


@dataclass
class Usage:
    """Use of a key's limits.

    Attributes:
        sessions: answers in progress.
        tokens: charged, see `tokens_charged`.
        timesteps: that were asked for.
        broken_at: when answers broke that may go on, on the monotonic clock.
    """

    sessions: int = 0
    tokens: Bucket = field(default_factory=Bucket)
    timesteps: Bucket = field(default_factory=Bucket)
    broken_at: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_BROKEN))

    def take_up_broken(self) -> bool:
        """Return True if this may be an answer that broke a moment ago; each counts once."""
        while self.broken_at:
            if time.monotonic() - self.broken_at.popleft() < RESUME_S:
                return True
        return False


class KeyHolder:
    """A caller with a key."""

    def __init__(self, key_id: str, keys: KeyReader, usage: Usage, max_sessions: int | None) -> None:
        self.id, self._keys, self._usage, self._max_sessions = key_id, keys, usage, max_sessions

    @contextmanager
    def session(self) -> Iterator[None]:
        """See `Caller`.

        Raises:
            KeyRefused: if the key has been revoked meanwhile.
            SessionLimitReached: if it has as many answers in progress as it may.
            TokenLimitReached: if it has no tokens left; says when it will.
            TimestepLimitReached: the same of timesteps.
        """
        entry = self._entry()
        self._check_sessions(entry.max_sessions or self._share)
        _check_rates(entry, self._usage)
        self._usage.sessions += 1
        try:
            yield
        except BaseException:
            self._usage.broken_at.append(time.monotonic())
            raise
        finally:
            self._usage.sessions -= 1

    def count(self, block_size: int, step: int = 0) -> None:
        """See `Caller`."""
        entry = self._entry()
        if limit := entry.tokens_per_minute:
            self._usage.tokens.take(tokens_charged(block_size, step), limit)
        if limit := entry.timesteps_per_minute:
            self._usage.timesteps.take(1, limit)

    async def revoked(self) -> None:
        """See `Caller`.

        Raises:
            KeyRefused: then.
        """
        while self._entry():  # noqa: ASYNC110  # a file tells nobody that it has changed
            await asyncio.sleep(READ_AGAIN_S)

    @property
    def _share(self) -> int | None:
        """Answers at a time of a key without a limit: half of the server's where others might want the rest."""
        return (self._max_sessions + 1) // 2 if self._max_sessions and self._keys.count > 1 else None

    def _check_sessions(self, limit: int | None) -> None:
        if limit is not None and self._usage.sessions >= limit:
            raise SessionLimitReached(
                f"this key is at its limit of {limit} answers at a time; ask again when one has ended"
            )

    def _entry(self) -> KeyEntry:
        if entry := self._keys.entry(self.id):
            return entry
        raise _refused()


class Callers:
    """Everybody who has a key, and what they use."""

    def __init__(self, keys: KeyReader, max_sessions: int | None = None) -> None:
        """Know the keys.

        Args:
            keys: of the file.
            max_sessions: answers that the server takes at a time, for keys to share; None if it is not known.
        """
        self._keys, self._max_sessions = keys, max_sessions
        self._usage: defaultdict[str, Usage] = defaultdict(Usage)

    def identify(self, authorization: Sequence[str | bytes]) -> KeyHolder:
        """The holder of a key.

        Args:
            authorization: values of the header of that name.

        Raises:
            KeyRefused: if it is not one valid key; says nothing of what is wrong with it.
        """
        given = authorization[0] if len(authorization) == 1 else ""
        text = given if isinstance(given, str) else ""
        entry = self._keys.find(text.removeprefix(_SCHEME))
        if entry is None or not text.startswith(_SCHEME):
            raise _refused()
        return KeyHolder(entry.id, self._keys, self._usage[entry.id], self._max_sessions)


def _check_rates(entry: KeyEntry, usage: Usage) -> None:
    """Refuse an answer beyond a limit a minute, for as long as the one that takes longest to fill up."""
    rates = (
        (TokenLimitReached, "tokens", entry.tokens_per_minute, usage.tokens),
        (TimestepLimitReached, "timesteps", entry.timesteps_per_minute, usage.timesteps),
    )
    shares = [(bucket.owed_now(limit) / limit, limit, what, kind) for kind, what, limit, bucket in rates if limit]
    share, limit, what, kind = max(shares, key=itemgetter(0), default=(0.0, 0, "", TokenLimitReached))
    if share < 1 or (share < 2 and usage.take_up_broken()):
        return
    wait_s = math.floor((share - 1) * 60) + 1
    raise kind(f"this key is at its limit of {limit} {what} a minute; ask again in {wait_s} s", retry_after_s=wait_s)


def _refused() -> KeyRefused:
    """The same whether a key is missing, unknown or revoked: which one is nobody's business."""
    return KeyRefused("this core requires a valid API key; get one from its provider and store it with the agent")
