"""One answer's line to the core, which outlives a stream that breaks.

What the agent has sent is all that any core needs to get to where the answer was: the same Open, then the commit of
each block and the projections of the one in the making. So a broken stream goes on at the same core once it is back, or
at another one that serves the same model, and nothing is kept of it there meanwhile. Nothing crosses that has not
crossed before. A timestep's projection is kept before it is first sent: a core that breaks the line on purpose, and
answers that timestep otherwise the next time, is told no second one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ssd2.algorithm.projection import FIRST, ProjectedTokens, StepPosition
from ssd2.errors import CoreError, KeyRefused, ModelBroken
from ssd2.logits.format import LogitsFormat
from ssd2.logits.packed import CoreLogits
from user_agent.errors import CoreLost, OwnCoreEnded
from user_agent.line.patience import Patience

if TYPE_CHECKING:
    from user_agent.line.stream import CoreStream

_log = logging.getLogger(__name__)


# See docs/decisions/018-an-answer-outlives-its-connection.md.
class ResumingStream:
    """One answer's stream, on as many connections as it takes.

    Attributes:
        resumed: how often it has gone on after a break.
    """

    def __init__(
        self,
        stream: CoreStream,
        reopen: Callable[[], Awaitable[CoreStream]],
        patience: Patience,
        leave: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take up an answer.

        Args:
            stream: the first one, opened.
            reopen: opens another one for the same answer.
            patience: with breaks.
            leave: keeps this answer from the replica that it was at; False if no other is left.
        """
        self._stream: CoreStream | None = stream
        self._reopen, self._patience, self._leave = reopen, patience, leave
        self._streams = [stream]
        self._commits: list[ProjectedTokens] = []
        self._projections: list[ProjectedTokens] = []
        self._number = 0
        self.resumed = 0

    @property
    def is_on_this_machine(self) -> bool:
        """True if the core shares this machine's processors."""
        return self._streams[-1].is_on_this_machine

    @property
    def logits_format(self) -> LogitsFormat:
        """Format of the core's logits."""
        return self._streams[0].logits_format

    @property
    def bytes_up(self) -> int:
        """Payload sent, what was sent again included."""
        return sum(stream.bytes_up for stream in self._streams)

    @property
    def bytes_down(self) -> int:
        """Payload received."""
        return sum(stream.bytes_down for stream in self._streams)

    @property
    def guessed_rightly(self) -> int:
        """Timesteps whose logits the core sent before it was asked."""
        return sum(stream.guessed_rightly for stream in self._streams)

    async def logits(self, due: StepPosition) -> CoreLogits:
        """The core's logits of one timestep, [1, L, V].

        Args:
            due: the timestep; its number is counted anew on each stream.

        Raises:
            CoreError: if no other stream could be had for too long; see `Patience.wait`.
            SlingshotError: if a core is there, but cannot go on with this answer.
        """
        while True:
            try:
                stream = self._stream or await self._resume()
                logits = await stream.logits(replace(due, number=self._number))
            except CoreError as error:
                await self._break(error)
            else:
                self._patience.restore()
                return logits

    async def project(self, at: StepPosition, projected: ProjectedTokens) -> None:
        """Answer the logits of a timestep with their projection."""
        self._projections.append(projected)
        await self._tell(at, self._projections[-1], is_commit=False)

    async def commit(self, at: StepPosition, token_ids: list[int]) -> None:
        """Answer a block's last logits with the tokens that become context."""
        self._commits.append(ProjectedTokens(tuple(token_ids)))
        self._projections.clear()
        await self._tell(at, self._commits[-1], is_commit=True)

    async def _tell(self, at: StepPosition, projected: ProjectedTokens, *, is_commit: bool) -> None:
        """Tell the stream that there is; the next one is told by `_resume`."""
        if self._stream:
            try:
                await self._stream.tell(replace(at, number=self._number), projected, is_commit=is_commit)
                self._number += 1
            except CoreError as error:
                await self._break(error)

    async def _resume(self) -> CoreStream:
        """Open a stream and bring it to where the answer is; a block that is done takes one timestep on the way."""
        stream, at = await self._reopen(), FIRST
        self._streams.append(stream)
        try:
            told = [(projected, True) for projected in self._commits] + [(one, False) for one in self._projections]
            for projected, is_commit in told:
                await stream.logits(at)
                await stream.tell(at, projected, is_commit=is_commit)
                at = at.after(is_commit=is_commit)
        except BaseException:
            stream.cancel()
            raise
        self._stream, self._number = stream, at.number
        self.resumed += 1
        _log.info("the answer was resumed after replaying %d timesteps", at.number)
        return stream

    async def _break(self, error: CoreError) -> None:
        """Drop what is broken and wait a little.

        Raises:
            KeyRefused: if it is that: a key does not become valid by waiting.
            ModelBroken: if it is that and no other replica is left: the same model would break again.
            CoreLost: if it is this device that has closed the line.
            OwnCoreEnded: if the demo's core is not started again.
            CoreError: one of those since there were logits, once there is no patience left; see `Patience.wait`.
        """
        self.cancel()
        is_over = isinstance(error, CoreLost | OwnCoreEnded) and error.retry_after_s is None
        if isinstance(error, KeyRefused) or is_over:
            raise error
        _log.info("the connection to the core broke (%s)", error.code)
        if not isinstance(error, ModelBroken):
            await self._patience.wait(error)
        elif not self._leave():
            raise error

    async def close(self) -> None:
        """Tell the core that the answer is done; see `CoreStream.close`."""
        if self._stream:
            await self._stream.close()

    def cancel(self) -> None:
        """Drop the line at once."""
        if self._stream:
            self._stream.cancel()
        self._stream = None
