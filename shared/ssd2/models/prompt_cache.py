"""Keys and values kept between the decodes of one model: what two prompts begin with is read once.

On the device the prompts hold documents, so what is kept is bounded, is forgotten with them, and is wiped when it goes.
See docs/decisions/051-the-user-model-on-the-device.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.errors import InvalidParameter, TooLittleMemory
from ssd2.models.causal_lane import CausalLane, lane_maker
from ssd2.models.context import MIN_SHARED_TOKENS, Context
from ssd2.models.lane import BlockState, NoLane, Row
from ssd2.models.prompts import check_prompts

OnRead: TypeAlias = Callable[[int, int], None]
"""Told, in the thread that reads, how many tokens of the prompts are read and how many there are to read."""

PLACES_STEP = 512
"""Places are reserved in multiples of it, so that an answer seldom outgrows what was reserved for its prompt."""

NOT_KEPT = object()
"""Era of a decode that leaves nothing behind: nobody asks about its prompts again."""

_WITHIN_A_DECODE = "decode"
"""Scope of the rows of one decode, whose prompts begin with the same turns: they are one user's."""


def nobody(_done: int, _total: int) -> None:
    """Take no notice of what is read."""


@dataclass(frozen=True)
class _Kept:
    """Keys and values that a decode left behind.

    Attributes:
        lane: with a slot for each of its rows.
        since: when, as `time.monotonic` has it.
    """

    lane: CausalLane
    since: float

    @property
    def bytes(self) -> int:
        return _bytes(self.lane)

    def shared(self, prompts: Sequence[tuple[int, ...]]) -> int:
        """Count the tokens that these prompts begin with and that are held; 0 unless it is the larger part of all."""
        held = self.lane.held
        if len(held) != len(prompts):
            return 0
        same = [Context(ids).same_as(context) for ids, context in zip(prompts, held, strict=True)]
        # What is cut off is lost to the conversation that left it: a system prompt alone is not worth that.
        most = 2 * sum(same) > sum(len(context.token_ids) for context in held)
        return sum(same) if most and max(same) >= MIN_SHARED_TOKENS else 0


class PromptCache:
    """Keys and values of one model's earlier decodes. For any number of threads."""

    def __init__(self, model: Any, max_bytes: int) -> None:
        """Keep nothing yet.

        Args:
            model: a causal network whose rows can be one batch.
            max_bytes: of all that is kept; what was not used for the longest goes first.
        """
        self._model, self._max_bytes = model, max_bytes
        self._make: Callable[[int, int], CausalLane] | None
        try:
            self._make = lane_maker(model)
        except NoLane:
            self._make = None
        self._lock = threading.Lock()
        self._kept: list[_Kept] = []  # the least recently used first
        self._era = object()  # another one each time that everything is forgotten

    @property
    def is_usable(self) -> bool:
        """True if rows of the model can be one batch; see `lane_maker`."""
        return self._make is not None

    @property
    def bytes(self) -> int:
        """Memory of all that is kept; decodes that go on are not counted."""
        with self._lock:
            return sum(one.bytes for one in self._kept)

    @property
    def era(self) -> object:
        """The time since everything was last forgotten, of this cache alone; to be had before prompts are made."""
        return self._era

    def begin(
        self, prompts: Sequence[Sequence[int]], on_read: OnRead = nobody, era: object | None = None
    ) -> CachedDecode:
        """Take up a decode.

        Args:
            prompts: B prompts as token ids, of any lengths.
            on_read: told of the parts of long prompts.
            era: when the texts in the prompts were read. In another one they may have been removed, so nothing of the
                decode is kept. None for now.

        Raises:
            SlingshotError: as `ssd2.models.predict.begin`.
        """
        check_prompts(prompts, self._model.config)
        return CachedDecode(self, [tuple(prompt) for prompt in prompts], on_read, self._era if era is None else era)

    def forget(self) -> None:
        """Forget everything, that of decodes that go on as soon as they end."""
        with self._lock:
            gone, self._kept = self._kept, []
            self._era = object()
        _wipe(gone)

    def forget_unused(self, seconds: float) -> float | None:
        """Forget what was not used for so long.

        Returns:
            Seconds until the next of the rest is due; None if nothing is left.
        """
        now = time.monotonic()
        with self._lock:
            gone = [one for one in self._kept if one.since <= now - seconds]
            self._kept = [one for one in self._kept if one.since > now - seconds]
            oldest = min((one.since for one in self._kept), default=None)
        _wipe(gone)
        return None if oldest is None else oldest + seconds - now

    def take(self, prompts: Sequence[tuple[int, ...]], era: object) -> CausalLane:
        """Take what shares most with some prompts, or an empty lane, for one decode alone.

        Raises:
            TooLittleMemory: if there is no memory for the prompts.
        """
        with self._lock:
            shared, at = max(((one.shared(prompts), at) for at, one in enumerate(self._kept)), default=(0, 0))
            kept = self._kept.pop(at) if shared else None
        longest = max(map(len, prompts))
        if kept is None:
            return self._lane(len(prompts), longest)
        try:
            return self.grown(kept.lane, longest)
        except TooLittleMemory:
            self.give_back(kept.lane, era)
            raise

    def grown(self, lane: CausalLane, tokens: int) -> CausalLane:
        """Return the lane, or a larger one that holds the same, with room for so many tokens."""
        if lane.places >= tokens:
            return lane
        larger = self._lane(len(lane.held), tokens)
        larger.take_over(lane)
        _wipe([_Kept(lane, 0.0)])
        return larger

    def give_back(self, lane: CausalLane, era: object) -> None:
        """Keep what a decode of an era leaves behind, within the bounds."""
        gone = []
        with self._lock:
            if era is self._era:
                self._kept.append(_Kept(lane, time.monotonic()))
            else:
                gone.append(_Kept(lane, 0.0))
            while sum(one.bytes for one in self._kept) > self._max_bytes:
                gone.append(self._kept.pop(0))
        _wipe(gone)

    def _lane(self, rows: int, tokens: int) -> CausalLane:
        if self._make is None:
            raise ValueError("the model's rows cannot be one batch")
        places = min(self._model.config.max_positions, (tokens // PLACES_STEP + 1) * PLACES_STEP)
        try:
            return self._make(rows, places)
        except InvalidParameter as error:
            raise TooLittleMemory(
                f"there is no memory for a prompt of {tokens:,} tokens in the user model; close other programs, or use "
                "fewer documents"
            ) from error


@dataclass(frozen=True)
class _Opening:
    """One row's prompt, as a lane takes it."""

    prompt_ids: tuple[int, ...]
    block_size: int
    noise_seed: int = 0
    timesteps: tuple[int, ...] = (0,)
    simplex_value: float = 0.0
    self_conditioning: str = ""


class CachedDecode:
    """One model's part in one decode, with what earlier ones left behind. A `Predictor`, to be closed."""

    def __init__(self, cache: PromptCache, prompts: Sequence[tuple[int, ...]], on_read: OnRead, era: object) -> None:
        """Take up a decode; see `PromptCache.begin`."""
        self._cache, self._prompts, self._on_read, self._era = cache, prompts, on_read, era
        self._taken: CausalLane | None = None
        self._is_closed = False
        self._at_work = threading.Lock()

    @torch.inference_mode()
    def logits(self, view: BlockView) -> Tensor:
        """Return the logits of the next token: a function of prompt and committed ids, whatever was kept.

        Returns:
            [B, 1, V], float32, on the CPU.

        Raises:
            InvalidParameter: if more than one token is asked for at once.
            PromptTooLong: if the answer has grown past the model's positions.
            TooLittleMemory: if there is no memory for the prompts.
            CancelledError: if the decode was closed while a prompt was read.
        """
        try:
            with self._at_work:
                return self._logits(view)
        finally:  # behind the lock: whoever closes while it is held leaves the rest to this thread
            self._give_back_if_closed()

    def close(self) -> None:
        """End the decode, at once or behind the part that is being read: another thread may be at work."""
        self._is_closed = True
        self._give_back_if_closed()

    def _give_back_if_closed(self) -> None:
        if self._is_closed and self._at_work.acquire(blocking=False):
            try:
                lane, self._taken = self._taken, None
                if lane is not None:
                    self._cache.give_back(lane, self._era)
            finally:
                self._at_work.release()

    def _logits(self, view: BlockView) -> Tensor:
        answers = view.answer_ids.tolist()
        lane = self._cache.take(self._prompts, self._era) if self._taken is None else self._taken
        self._taken = lane
        tokens = max(len(prompt) + len(answer) for prompt, answer in zip(self._prompts, answers, strict=True))
        self._taken = lane = self._cache.grown(lane, tokens)
        rows = [
            Row(slot, _Opening(prompt, view.block_size), BlockState(answer_ids=tuple(answer)), _WITHIN_A_DECODE)
            for slot, (prompt, answer) in enumerate(zip(self._prompts, answers, strict=True))
        ]
        self._read(lane, rows)
        return lane.logits(rows).cpu()

    def _read(self, lane: CausalLane, rows: Sequence[Row]) -> None:
        """Read all but the newest token of each row, in parts."""
        total = sum(lane.missing(row) - 1 for row in rows)
        is_long = any(lane.is_long(row, beside=False) for row in rows)
        for row in rows:
            while lane.missing(row) > 1:
                if self._is_closed:
                    raise CancelledError
                if is_long:
                    self._on_read(total - sum(lane.missing(one) - 1 for one in rows), total)
                lane.read(row, beside=False)
        if is_long:
            self._on_read(total, total)


def _bytes(lane: CausalLane) -> int:
    return lane.bytes_per_slot * len(lane.held)


@torch.inference_mode()
def _wipe(gone: Sequence[_Kept]) -> None:
    """Overwrite what is kept no longer: freed memory holds its numbers until something else is written there."""
    for one in gone:
        for slot in range(len(one.lane.held)):
            one.lane.clear(slot)
