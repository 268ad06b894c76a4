"""Between the stub and gRPC: every message is in the ledger before gRPC has it, or as soon as gRPC gives it.

gRPC below is handed bytes alone, made here: it knows no message type, so nothing above can send past the ledger. (An
error in a serializer of gRPC's own would not do: it is logged, and the call goes on.) A call's HEADERS frame leaves
before its first message and has no entry: the path, the timeout, the core's key if there is one, and gRPC's own name
and version are in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from user_agent.store.ledger import Ledger

_Serialize = Callable[[Message], bytes]
_Deserialize = Callable[[bytes], Message]


# See docs/decisions/020-the-ledger.md.
class RecordedChannel:
    """A channel for a stub, with the two kinds of calls that the contract has."""

    def __init__(self, channel: grpc.aio.Channel, destination: str, ledger: Ledger) -> None:
        self._channel, self._destination, self._ledger = channel, destination, ledger

    def unary_unary(
        self, path: str, request_serializer: _Serialize, response_deserializer: _Deserialize, **_: object
    ) -> Callable[..., Awaitable[Message | None]]:
        """See `grpc.aio.Channel.unary_unary`."""
        line = _Line(self._destination, path, self._ledger, request_serializer, response_deserializer)
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)

        async def ask(message: Message, **options: Any) -> Message | None:
            return line.arrived(await call(line.departing(message), **options))

        return ask

    def stream_stream(
        self, path: str, request_serializer: _Serialize, response_deserializer: _Deserialize, **_: object
    ) -> Callable[..., _RecordedCall]:
        """See `grpc.aio.Channel.stream_stream`."""
        line = _Line(self._destination, path, self._ledger, request_serializer, response_deserializer)
        call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        return lambda **options: _RecordedCall(call(**options), line)


class _Line:
    """One place each way."""

    def __init__(
        self, destination: str, path: str, ledger: Ledger, serialize: _Serialize, deserialize: _Deserialize
    ) -> None:
        self._destination, self._rpc, self._ledger = destination, path.rpartition("/")[2], ledger
        self._serialize, self._deserialize = serialize, deserialize

    def departing(self, message: Message) -> bytes:
        payload = self._serialize(message)
        self._ledger.record("up", self._destination, self._rpc, payload)
        return payload

    def arrived(self, payload: bytes) -> Message | None:
        """The message; None if it is none, as gRPC has it."""
        self._ledger.record("down", self._destination, self._rpc, payload)
        try:
            return self._deserialize(payload)
        except DecodeError:
            return None


class _RecordedCall:
    """A stream's call, with what `CoreStream` uses of it."""

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes], line: _Line) -> None:
        self._call, self._line = call, line
        self.cancel, self.done_writing = call.cancel, call.done_writing
        self.add_done_callback = call.add_done_callback

    async def write(self, message: Message) -> None:
        await self._call.write(self._line.departing(message))

    async def read(self) -> object:
        """The next message, None if it is none, or `grpc.aio.EOF`."""
        payload = await self._call.read()
        return self._line.arrived(payload) if isinstance(payload, bytes) else payload
