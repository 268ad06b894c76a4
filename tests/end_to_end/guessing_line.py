"""A line between agents and a core that gives the core time to guess as far ahead as it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import MAX_MESSAGE_BYTES

LIMITS = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
GUESSES_WITHIN_S = 20.0


@dataclass
class GuessingLine:
    """Carries messages both ways, each projection only after the core has sent all that it may send ahead of it.

    So the number of guesses does not depend on timing.

    Attributes:
        address: of it.
        guesses: timesteps that the core sent ahead.
        cut_at: number of the timestep at which the line of each answer breaks, once; None for never.
        cuts: lines that broke.
    """

    address: str = ""
    guesses: int = 0
    cut_at: int | None = None
    cuts: int = 0
    answers_cut: set[int] = field(default_factory=set)


class _Carrier(grpc.GenericRpcHandler):
    """Hand calls on to a core."""

    def __init__(self, channel: grpc.aio.Channel, line: GuessingLine) -> None:
        self._channel, self._line = channel, line

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def carry(_: object, context: Any) -> None:
            call = self._channel.stream_stream(details.method)()
            if details.method.endswith("/Collaborate"):
                await _Answer(call, context, self._line).carry()
            else:
                await call.write(await context.read())
                await call.done_writing()
                await context.write(await call.read())

        return grpc.stream_stream_rpc_method_handler(carry)


class _Answer:
    """One answer's stream."""

    def __init__(self, call: Any, context: Any, line: GuessingLine) -> None:
        self._call, self._context, self._line = call, context, line
        self._open = pb.Open()
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._latest = -1
        self._changed = asyncio.Condition()

    async def carry(self) -> None:
        """Carry messages until the answer ends or the line is cut."""
        tasks = [asyncio.create_task(work) for work in (self._up(), self._from_core(), self._down())]
        try:
            done, _ = await asyncio.wait({tasks[0], tasks[2]}, return_when=asyncio.FIRST_COMPLETED)
            if tasks[2] not in done and not tasks[0].result():
                await tasks[2]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._call.cancel()
        if tasks[0] in done and tasks[0].result():
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "the line was cut")

    async def _up(self) -> bool:
        """Carry what the agent sends; return True where the line is cut."""
        while isinstance(data := await self._context.read(), bytes):
            message = pb.CollaborateRequest.FromString(data)
            if message.HasField("open"):
                self._open = message.open
            if message.HasField("projection"):
                await self._guesses_behind(message.projection)
                if self._is_cut_at(message.projection.number):
                    return True
            await self._call.write(data)
        await self._call.done_writing()
        return False

    async def _guesses_behind(self, projection: pb.Projection) -> None:
        steps = len(self._open.timesteps)
        left = (
            (self._open.max_blocks - projection.block) * steps - projection.step - 1
        )  # without patience, no block ends early
        ahead = projection.number + min(self._open.speculation, left)
        async with asyncio.timeout(GUESSES_WITHIN_S), self._changed:
            await self._changed.wait_for(lambda: self._latest >= ahead)

    def _is_cut_at(self, number: int) -> bool:
        line, answer = self._line, self._open.noise_seed
        if number != line.cut_at or answer in line.answers_cut:
            return False
        line.answers_cut.add(answer)
        line.cuts += 1
        return True

    async def _from_core(self) -> None:
        """Read what the core sends at once, however slowly the agent reads."""
        while isinstance(data := await self._call.read(), bytes):
            message = pb.CollaborateResponse.FromString(data)
            self._frames.put_nowait(data)
            if message.HasField("block_logits"):
                self._line.guesses += bool(message.block_logits.guess)
                async with self._changed:
                    self._latest = message.block_logits.number
                    self._changed.notify_all()
        self._frames.put_nowait(None)

    async def _down(self) -> None:
        while (data := await self._frames.get()) is not None:
            await self._context.write(data)


@asynccontextmanager
async def guessing_line(address: str, cut_at: int | None = None) -> AsyncIterator[GuessingLine]:
    """Put such a line before a core."""
    line = GuessingLine(cut_at=cut_at)
    async with grpc.aio.insecure_channel(address, options=LIMITS) as channel:
        server = grpc.aio.server(options=LIMITS)
        server.add_generic_rpc_handlers((_Carrier(channel, line),))
        line.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield line
        finally:
            await server.stop(0)
