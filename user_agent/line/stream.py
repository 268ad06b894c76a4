"""One answer's stream to one core."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeAlias, TypeVar

import grpc

from ssd2 import errors
from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.logits.format import LogitsFormat
from ssd2.logits.packed import CoreLogits
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.addresses import is_loopback
from ssd2.wire.codec import (
    OpenRequest,
    commit_to_proto,
    logits_from_proto,
    open_to_proto,
    position_from_proto,
    projection_to_proto,
)
from ssd2.wire.tensors import unpack_logits
from user_agent.errors import CoreLost
from user_agent.line.status import error_of_status, is_cancelled, line_closed, no_message
from user_agent.store.ledger import PREFIX_BYTES

_T = TypeVar("_T")
_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.CollaborateRequest, pb.CollaborateResponse]"


class CoreStream:
    """One answer's stream; every wait is bounded."""

    def __init__(self, call: _Call, request: OpenRequest, address: str, timeout_s: float) -> None:
        self._call, self._request, self._address, self._timeout_s = call, request, address, timeout_s
        self._projected: list[int] | None = None
        self._error: errors.SlingshotError | None = None
        call.add_done_callback(self._keep_status)
        self.bytes_up = 0
        self.bytes_down = 0
        self.guessed_rightly = 0

    @property
    def logits_format(self) -> LogitsFormat:
        """Format of the core's logits."""
        return self._request.logits_format

    async def start(self) -> None:
        """Send Open and wait until the core has taken it up."""
        await self._send(pb.CollaborateRequest(open=open_to_proto(self._request)))
        if (await self._bounded(self._receive())).WhichOneof("message") != "opened":
            raise errors.ProtocolViolation(
                f"the core at {self._address} did not confirm the answer first; report this to its provider"
            )

    @property
    def is_on_this_machine(self) -> bool:
        """True if the core shares this machine's processors."""
        return is_loopback(self._address.rpartition(":")[0])

    async def logits(self, due: StepPosition) -> CoreLogits:
        """The core's logits of one timestep, [1, L, V]: those that answer the last projection, or guessed it."""
        return await self._bounded(self._due(due))

    async def _due(self, due: StepPosition) -> CoreLogits:
        """Return the due logits, skipping wrong guesses."""
        for _ in range(self._request.speculation + 1):
            response = await self._receive()
            if response.WhichOneof("message") != "block_logits":
                raise errors.ProtocolViolation(
                    f"the core at {self._address} sent no logits where they were due; report this to its provider"
                )
            message = response.block_logits
            if message.guess and not self._is_right(message, due):
                continue
            self.guessed_rightly += bool(message.guess)
            packed = logits_from_proto(
                message,
                due=due,
                block_size=self._request.block_size,
                vocab_size=self._request.vocab_size,
                logits_format=self._request.logits_format,
            )
            return unpack_logits(packed)
        raise errors.ProtocolViolation(
            f"the core at {self._address} sent only wrong guesses where logits were due; report this to its provider"
        )

    def _is_right(self, message: pb.BlockLogits, due: StepPosition) -> bool:
        return list(message.guess) == self._projected and position_from_proto(message) == due

    async def tell(self, at: StepPosition, projected: ProjectedTokens, *, is_commit: bool) -> None:
        """Answer the logits of a timestep with their projection; a commit becomes context."""
        message = commit_to_proto(at, projected.token_ids) if is_commit else projection_to_proto(at, projected)
        self._projected = None if projected.counts else list(projected.token_ids)
        await self._send(pb.CollaborateRequest(projection=message))

    async def close(self) -> None:
        """Tell the core that the answer is done. The answer is complete: what the core makes of it changes nothing."""
        try:
            await self._send(pb.CollaborateRequest(close=pb.Close()))
            await self._bounded(self._end())
        except errors.SlingshotError:
            self.cancel()

    async def _end(self) -> None:
        """Wait until the core has ended the stream too."""
        await self._call.done_writing()
        for _ in range(self._request.speculation + 1):  # what the core had sent ahead
            if not isinstance(await self._call.read(), pb.CollaborateResponse):
                return
        self.cancel()

    def cancel(self) -> None:
        """Drop the stream at once."""
        self._call.cancel()

    async def _send(self, message: pb.CollaborateRequest) -> None:
        await self._bounded(self._call.write(message))
        self.bytes_up += message.ByteSize() + PREFIX_BYTES

    async def _receive(self) -> pb.CollaborateResponse:
        message = await self._call.read()
        if message is None:
            raise no_message(self._address)
        if not isinstance(message, pb.CollaborateResponse):  # grpc.aio.EOF
            raise CoreLost(f"the core at {self._address} ended the answer too early; ask again")
        self.bytes_down += message.ByteSize() + PREFIX_BYTES
        return message

    async def _bounded(self, action: Awaitable[_T]) -> _T:
        """Whatever is waited for, in the time that the core has for an answer."""
        try:
            async with asyncio.timeout(self._timeout_s):  # wait_for may lose a cancellation before Python 3.12
                return await action
        except TimeoutError:
            self.cancel()
            raise errors.CoreTimeout(
                f"the core at {self._address} did not answer within {self._timeout_s:g} s; ask again, or allow more "
                "time",
                parameter="timeout",
            ) from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call has ended, perhaps meanwhile
            raise self._error or CoreLost(f"the connection to the core at {self._address} broke; ask again") from None
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise line_closed(self._address) from None

    def _keep_status(self, call: _Call) -> None:
        """Read how the call has ended while that is true: grpcio makes it INTERNAL if a write fails because of it.

        See https://github.com/grpc/grpc/issues/36066. Once the status is there, nothing in here waits for it.
        """
        with suppress(StopIteration):
            self._read_status(call).send(None)

    async def _read_status(self, call: _Call) -> None:
        code, details, trailer = await call.code(), await call.details(), await call.trailing_metadata()
        self._error = error_of_status(code, details, trailer, self._address, "in the middle of the answer")
