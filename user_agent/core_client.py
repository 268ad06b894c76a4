"""The line to the core: the only code on the device that can send anything.

What it is given to send is what crosses: the instruction's ids and public parameters, projections,
commits. It never holds documents, passages, logits of the user model, λ, α or the sampling seed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TypeAlias, TypeVar

import grpc

from ssd2 import errors
from ssd2.addresses import is_loopback
from ssd2.logits_format import LogitsFormat
from ssd2.packed_logits import CoreLogits
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from ssd2.wire.codec import (
    ERROR_CODE_KEY,
    MAX_MESSAGE_BYTES,
    ModelCard,
    OpenRequest,
    ProjectedTokens,
    StepPosition,
    commit_to_proto,
    logits_from_proto,
    model_card_from_proto,
    open_to_proto,
    position_from_proto,
    projection_to_proto,
)
from ssd2.wire.tensors import unpack_logits
from user_agent.credentials import CoreCredentials, tls_failure
from user_agent.ledger import Ledger
from user_agent.printable import printable
from user_agent.recorded_channel import RecordedChannel
from user_agent.resuming_stream import ResumingStream

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
PATIENCE_S = 10.0

MAX_DETAILS = 500
"""Characters of a core's message that are shown."""

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it a line that died without a word is kept for 60 s
    ("grpc.enable_http_proxy", 0),  # the address that the user gave is the address that is connected to
]

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/]+):[0-9]{1,5}")

# gRPC logs what it cannot read with a traceback; the error that follows says it to the user.
logging.getLogger("grpc").addHandler(logging.NullHandler())
logging.getLogger("grpc").propagate = False

_T = TypeVar("_T")
_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.CollaborateRequest, pb.CollaborateResponse]"


class CoreClient:
    """A connection to one core."""

    def __init__(
        self,
        address: str,
        *,
        credentials: CoreCredentials | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        ledger: Ledger | None = None,
    ) -> None:
        """Make a client; nothing is sent before it is used.

        Args:
            address: HOST:PORT.
            credentials: whom the line trusts and who it says it is; None for one that is not encrypted, with no key.
            connect_timeout_s: how long to try to reach the core.
            answer_timeout_s: how long to wait for each of its answers.
            patience_s: how long after the line broke in the middle of an answer to begin another try to go on.
            ledger: where every message is entered, before it is sent and when it has come; None for nowhere.

        Raises:
            InvalidParameter: if the address is none, a time is no time, or a file cannot be read.
            InsecureLine: if a key would leave this machine on a line that is not encrypted.
        """
        if not _ADDRESS.fullmatch(address):
            raise errors.InvalidParameter(
                f"the core's address is {address!r}; give --core HOST:PORT, such as core.example.org:50051"
            )
        if not 0 < answer_timeout_s < float("inf"):
            raise errors.InvalidParameter(f"timeout is {answer_timeout_s} s; it must be above 0 and finite")
        self._credentials = credentials or CoreCredentials()
        _check_line(address, self._credentials)
        self._address, self._metadata = address, self._credentials.metadata
        self._connect_timeout_s, self._answer_timeout_s = connect_timeout_s, answer_timeout_s
        self._patience_s = patience_s
        self._channel = (
            grpc.aio.secure_channel(address, _channel_credentials(self._credentials), options=_OPTIONS)
            if self._credentials.ca
            else grpc.aio.insecure_channel(address, options=_OPTIONS)
        )
        self._stub = pb_grpc.CollaborationServiceStub(
            RecordedChannel(self._channel, address, ledger) if ledger else self._channel
        )

    async def __aenter__(self) -> CoreClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def model_card(self, model: str, family: str) -> ModelCard:
        """Ask for a model that the core serves.

        Args:
            model: its name, or "" for the first of the family.
            family: of the user model.

        Raises:
            ModelMismatch: if the core has none such; says which it has.
            KeyRefused: if the core takes no call without a valid key, and this one has none.
            CoreUnavailable: if nothing answers at the address, or a certificate does not do.
            CoreTimeout: if something does, but not in time.
        """
        await self.connect()
        call = self._stub.GetModelCard(
            pb.GetModelCardRequest(model=model, family=family), timeout=self._answer_timeout_s, metadata=self._metadata
        )
        return model_card_from_proto(await self._answer(call))

    async def open(self, request: OpenRequest) -> ResumingStream:
        """Open an answer.

        Raises:
            SlingshotError: whatever the core refused it with; `CoreUnavailable` if it is not there.
        """
        return ResumingStream(await self._open(request), partial(self._open, request), self._patience_s)

    async def _open(self, request: OpenRequest) -> CoreStream:
        await self.connect()
        stream = CoreStream(
            self._stub.Collaborate(metadata=self._metadata), request, self._address, self._answer_timeout_s
        )
        try:
            await stream.start()
        except BaseException:
            stream.cancel()
            raise
        return stream

    async def connect(self) -> None:
        """Wait until there is a connection; no message is sent.

        Raises:
            CoreUnavailable: if nothing answers at the address, or a certificate does not do.
        """
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._channel.channel_ready()
        except TimeoutError:
            await self._check_tls()
            raise errors.CoreUnavailable(
                f"no core answers at {self._address}; check the address (--core), or start one with `core-server`"
            ) from None

    async def _check_tls(self) -> None:
        """Say what TLS has against the line: gRPC hides it behind a timeout, or behind a line that broke."""
        if not self._credentials.ca:
            return
        if why := await tls_failure(self._address, self._credentials, self._connect_timeout_s):
            raise errors.CoreUnavailable(f"there is no line to the core at {self._address}: {why}") from None

    async def _answer(self, call: Awaitable[_T]) -> _T:
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            typed = _typed(error, self._address, "at the first question")
            if isinstance(typed, errors.CoreLost):
                await self._check_tls()
            raise typed from None
        if answer is None:
            raise _no_message(self._address)
        return answer


def _check_line(address: str, credentials: CoreCredentials) -> None:
    """Refuse a line that somebody on the way could read the key on."""
    if credentials.key and not credentials.ca and not is_loopback(address.rpartition(":")[0]):
        raise errors.InsecureLine(
            f"the key for the core at {address} would cross the network in the clear; give --ca FILE with its "
            "provider's CA certificate, or take the key away with `user-agent config forget-core-key`"
        )


def _channel_credentials(credentials: CoreCredentials) -> grpc.ChannelCredentials:
    credentials.context()  # says what is wrong with a file
    files = (credentials.ca, credentials.client_key, credentials.client_certificate)
    return grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))


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
        """What the core's logits come in."""
        return self._request.logits_format

    async def start(self) -> None:
        """Send Open and wait until the core has taken it up."""
        await self._send(pb.CollaborateRequest(open=open_to_proto(self._request)))
        if (await self._receive()).WhichOneof("message") != "opened":
            raise errors.ProtocolViolation(f"the core at {self._address} did not begin with Opened")

    async def logits(self, due: StepPosition) -> CoreLogits:
        """The core's logits of one timestep, [1, L, V]: those that answer the last projection, or guessed it."""
        for _ in range(self._request.speculation + 1):
            response = await self._receive()
            if response.WhichOneof("message") != "block_logits":
                raise errors.ProtocolViolation(f"the core at {self._address} sent no logits where they were due")
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
            f"the core at {self._address} guesses on and does not answer; report this to its provider"
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
            await self._bounded(self._call.done_writing())
            for _ in range(self._request.speculation + 1):  # what the core had sent ahead
                if not isinstance(await self._bounded(self._call.read()), pb.CollaborateResponse):
                    return
            self.cancel()
        except errors.SlingshotError:
            self.cancel()

    def cancel(self) -> None:
        """Drop the stream at once."""
        self._call.cancel()

    async def _send(self, message: pb.CollaborateRequest) -> None:
        await self._bounded(self._call.write(message))
        self.bytes_up += message.ByteSize()

    async def _receive(self) -> pb.CollaborateResponse:
        message = await self._bounded(self._call.read())
        if message is None:
            raise _no_message(self._address)
        if not isinstance(message, pb.CollaborateResponse):  # grpc.aio.EOF
            raise errors.CoreLost(f"the core at {self._address} ended the stream too early; ask again")
        self.bytes_down += message.ByteSize()
        return message

    async def _bounded(self, action: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._timeout_s):  # wait_for may lose a cancellation before Python 3.12
                return await action
        except TimeoutError:
            self.cancel()
            raise errors.CoreTimeout(
                f"the core at {self._address} did not answer within {self._timeout_s:g} s; ask again, or give it "
                "longer with --timeout"
            ) from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call has ended, perhaps meanwhile
            raise self._error or errors.CoreLost(f"the connection to the core at {self._address} broke") from None

    def _keep_status(self, call: _Call) -> None:
        """Read how the call has ended while that is true: grpcio makes it INTERNAL if a write fails because of it.

        See https://github.com/grpc/grpc/issues/36066. Once the status is there, nothing in here waits for it.
        """
        with suppress(StopIteration):
            self._read_status(call).send(None)

    async def _read_status(self, call: _Call) -> None:
        code, details, trailer = await call.code(), await call.details(), await call.trailing_metadata()
        self._error = _typed_status(code, details, trailer, self._address, "in the middle of the answer")


def _no_message(address: str) -> errors.ProtocolViolation:
    """What gRPC gives None for: bytes that it could not read."""
    return errors.ProtocolViolation(f"what answers at {address} is no core: its bytes are no message")


def _typed(error: grpc.aio.AioRpcError, address: str, when: str) -> errors.SlingshotError:
    return _typed_status(error.code(), error.details(), error.trailing_metadata(), address, when)


def _typed_status(
    code: grpc.StatusCode, details: str | None, trailer: grpc.aio.Metadata | None, address: str, when: str
) -> errors.SlingshotError:
    """The error that a status stands for: the core's own code first, else by what gRPC says."""
    sent = dict(trailer or ()).get(ERROR_CODE_KEY)
    for kind in _leaves(errors.SlingshotError):
        if kind.code == sent:
            return kind(f"the core at {address} refused: {printable(details or '')[:MAX_DETAILS]}")
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.CoreLost(f"the connection to the core at {address} broke {when}; ask again")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.CoreTimeout(f"the core at {address} did not answer in time {when}; ask again")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return errors.CoreBusy(f"the core at {address} is full, or a message was over its limit; ask again later")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.ProtocolVersionMismatch(f"what answers at {address} is no core of this version")
    return errors.CoreLost(f"the core at {address} failed {when} ({code.name}); ask again, then tell its provider")


def _leaves(kind: type[errors.SlingshotError]) -> list[type[errors.SlingshotError]]:
    children = kind.__subclasses__()
    return [leaf for child in children for leaf in _leaves(child)] if children else [kind]
