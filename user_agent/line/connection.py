"""The connection to one core: the only code on the device that can send anything.

(But for a TLS handshake, in `credentials.tls_failure`, once one of gRPC's has failed.) What it is given to send is what
crosses: the instruction's ids and public parameters, projections, commits. It never holds documents, passages, logits
of the user model, λ, α or the sampling seed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass

import grpc

from ssd2 import errors
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from ssd2.wire.addresses import is_loopback
from ssd2.wire.codec import MAX_MESSAGE_BYTES, ModelCard, OpenRequest, model_card_from_proto
from user_agent.errors import CoreLost, CoreUnavailable
from user_agent.line.credentials import CoreCredentials, tls_failure
from user_agent.line.recorded_channel import RecordedChannel
from user_agent.line.status import error_of_status, is_cancelled, line_closed, no_message
from user_agent.line.stream import CoreStream
from user_agent.store.ledger import Ledger

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it a line that died without a word is kept for 60 s
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel waits as long as one before it that failed
    ("grpc.enable_http_proxy", 0),  # the address that the user gave is the address that is connected to
]

_READY = grpc.ChannelConnectivity.READY
_FAILED = grpc.ChannelConnectivity.TRANSIENT_FAILURE
_CLOSED = grpc.ChannelConnectivity.SHUTDOWN

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s,:\[\]/]+):[0-9]{1,5}")

# gRPC logs what it cannot read with a traceback; the error that follows says it to the user.
logging.getLogger("grpc").addHandler(logging.NullHandler())
logging.getLogger("grpc").propagate = False


def replicas_of(address: str) -> list[str]:
    """The addresses of a core's replicas, each HOST:PORT.

    Args:
        address: as the user gave it.

    Raises:
        InvalidParameter: if one of them is none.
    """
    replicas = [replica.strip() for replica in address.split(",")]
    if not all(_ADDRESS.fullmatch(replica) for replica in replicas):
        raise errors.InvalidParameter(
            f"{address!r} is not a core's address; write HOST:PORT, such as core.example.org:50051, or several "
            "replicas separated by commas",
            parameter="core",
        )
    return replicas


def is_local(address: str) -> bool:
    """True if all replicas of an address are this machine, so that nobody is on the way to them."""
    return all(is_loopback(_host(replica)) for replica in replicas_of(address))


def _host(replica: str) -> str:
    return replica.rpartition(":")[0]


@dataclass(eq=False)
class _Dialled:
    """A channel, and how many calls on it are in progress: to close it is to end them."""

    channel: grpc.aio.Channel
    stub: pb_grpc.CollaborationServiceStub
    calls: int = 0

    def call_ended(self, _: object = None) -> None:
        self.calls -= 1


class CoreConnection:
    """The line to one core; nothing is sent before it is used."""

    def __init__(
        self,
        address: str,
        ledger: Ledger,
        credentials: CoreCredentials,
        *,
        connect_timeout_s: float,
        answer_timeout_s: float,
    ) -> None:
        """See `CoreClient`.

        Raises:
            InvalidParameter: if a file cannot be read.
            InsecureLine: if the line would leave this machine unencrypted, and that is not allowed, or a key is sent.
        """
        _check_line(address, credentials)
        self._address, self._credentials, self._ledger = address, credentials, ledger
        self._tls = _channel_credentials(credentials) if credentials.ca else None
        self._connect_timeout_s, self._answer_timeout_s = connect_timeout_s, answer_timeout_s
        self._dialled, self._given_up, self._trying = self._dial(), list[_Dialled](), asyncio.Lock()

    def _dial(self) -> _Dialled:
        """Make a channel; it connects once it is used."""
        channel = (
            grpc.aio.secure_channel(self._address, self._tls, options=_OPTIONS)
            if self._tls
            else grpc.aio.insecure_channel(_plain_target(self._address), options=_OPTIONS)
        )
        recorded = RecordedChannel(channel, self._address, self._ledger)
        return _Dialled(channel, pb_grpc.CollaborationServiceStub(recorded))

    async def close(self) -> None:
        """Hang up; calls in progress end."""
        for dialled in (*self._given_up, self._dialled):
            await dialled.channel.close()

    async def model_card(self, model: str, family: str) -> ModelCard:
        """See `CoreClient.model_card`."""
        await self.connect()
        request, dialled = pb.GetModelCardRequest(model=model, family=family), self._dialled
        dialled.calls += 1
        try:
            card = await dialled.stub.GetModelCard(
                request, timeout=self._answer_timeout_s, metadata=self._credentials.metadata
            )
        except grpc.aio.AioRpcError as error:
            raise await self._error(error) from None
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise line_closed(self._address) from None
        finally:
            dialled.call_ended()
        if card is None:
            raise no_message(self._address)
        return model_card_from_proto(card)

    async def open(self, request: OpenRequest) -> CoreStream:
        """See `CoreClient.open`."""
        await self.connect()
        dialled = self._dialled
        call = dialled.stub.Collaborate(metadata=self._credentials.metadata)
        dialled.calls += 1
        call.add_done_callback(dialled.call_ended)
        stream = CoreStream(call, request, self._address, self._answer_timeout_s)
        try:
            await stream.start()
        except BaseException:
            stream.cancel()
            raise
        return stream

    async def connect(self) -> None:
        """Wait until there is a connection; no message is sent.

        Raises:
            CoreUnavailable: as soon as it is known that nothing answers at the address, or a certificate does not do.
            CoreLost: if this device has hung up.
        """
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if await self._is_connected():
                    return
        except TimeoutError:
            pass
        await self._check_tls()
        or_ca = "" if self._credentials.ca else ", and set its CA certificate if it uses TLS"
        raise CoreUnavailable(
            f"no core answers at {self._address}; check the address and that the core is running{or_ca}",
            parameter="core",
        )

    async def _is_connected(self) -> bool:
        """Try once. A channel that has failed tries again when it thinks fit, so there is a new one for each try."""
        async with self._trying:
            if self._dialled.channel.get_state() is _FAILED:
                self._given_up.append(self._dialled)
                self._dialled = self._dial()
            await self._close_unused()
            channel = self._dialled.channel
            while (state := channel.get_state(try_to_connect=True)) not in (_READY, _FAILED, _CLOSED):
                await channel.wait_for_state_change(state)
        if state is _CLOSED:
            raise line_closed(self._address)
        return state is _READY

    async def _close_unused(self) -> None:
        """Close the channels that were given up; a core that stops may still have an answer in progress on one."""
        for dialled in [one for one in self._given_up if not one.calls]:
            self._given_up.remove(dialled)
            await dialled.channel.close()

    async def _check_tls(self) -> None:
        """Say what TLS has against the line: gRPC hides it behind a timeout, or behind a line that broke."""
        if not self._credentials.ca:
            return
        if failure := await tls_failure(self._address, self._credentials, self._connect_timeout_s):
            raise CoreUnavailable(
                f"no TLS connection to the core at {self._address}: {failure.why}", parameter=failure.parameter
            ) from None

    async def _error(self, error: grpc.aio.AioRpcError) -> errors.SlingshotError:
        code, details, trailer = error.code(), error.details(), error.trailing_metadata()
        typed = error_of_status(code, details, trailer, self._address, "at the first question")
        if isinstance(typed, CoreLost):
            await self._check_tls()
        return typed


# See docs/decisions/017-what-is-another-machine.md.
def _check_line(address: str, credentials: CoreCredentials) -> None:
    """Refuse a line that somebody on the way could read.

    A name is not looked up for that: but for "localhost" it may mean another machine tomorrow.
    """
    if credentials.ca or is_local(address):
        return
    if credentials.key:
        raise errors.InsecureLine(
            f"the API key for the core at {address} would cross the network unencrypted; set the provider's CA "
            "certificate, or remove the key",
            parameter="ca",
        )
    if not credentials.insecure:
        raise errors.InsecureLine(
            f"the core at {address} is on another machine, and the connection would not be encrypted: anyone on the "
            "network could read questions and answers, or impersonate the core; set the provider's CA certificate",
            parameter="insecure",
        )


def _plain_target(address: str) -> str:
    """Return what gRPC connects to on an unencrypted line.

    "localhost" becomes this machine's own addresses: a resolver that has it elsewhere is not asked.
    """
    if _host(address).lower() != "localhost":
        return address
    port = address.rpartition(":")[2]
    return f"ipv6:[::1]:{port},[::ffff:127.0.0.1]:{port}"


def _channel_credentials(credentials: CoreCredentials) -> grpc.ChannelCredentials:
    credentials.context()  # says what is wrong with a file
    files = (credentials.ca, credentials.client_key, credentials.client_certificate)
    return grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))
