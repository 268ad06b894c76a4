"""The gRPC server around the service: limits, health, start and stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc

from core_server.access.callers import Callers
from core_server.access.keys import KeyReader
from core_server.config import ServerConfig
from core_server.frontend.engines import Engines, running_engines
from core_server.frontend.health import HealthService
from core_server.frontend.interceptor import CallsWhenLoaded, KeyInterceptor
from core_server.frontend.service import ABORT_TIMEOUT_S, SERVICE_NAME, CollaborationService
from core_server.observability.observation import Observation
from core_server.observability.spans import spans_to
from ssd2.errors import EngineLost, InvalidParameter
from ssd2.wire.codec import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES

MAX_METADATA_BYTES = 16 * 1024

SPARE_STREAMS = 1024
"""Streams of one connection beyond the sessions: an agent too many has to be told so, and neither be reset nor
wait for a stream, even where a gateway carries very many agents on one connection; and there are health checks."""

HANDSHAKE_TIMEOUT_S = 10
IDLE_TIMEOUT_S = 600
"""How long a connection may take to begin, and how long it may be without a call; an agent makes another one."""

_MAX_INT32 = 2**31 - 1
_log = logging.getLogger(__name__)


class CoreServer:
    """One listening server with its engines.

    Attributes:
        observation: what is seen of it.
    """

    def __init__(self, engines: Engines | None, config: ServerConfig, observation: Observation | None = None) -> None:
        """Make a server that listens once it is started.

        Args:
            engines: that serve; None to refuse calls until `open`.
            config: how to serve.
            observation: what is seen of it; None for one of its own.
        """
        self._config, self._engines = config, engines
        self._service: CollaborationService | None = None
        self.observation = observation or Observation()
        self._server = grpc.aio.server(
            interceptors=[
                KeyInterceptor(Callers(KeyReader(config.keys), config.max_sessions), self.observation.metrics)
            ]
            if config.keys
            else [],
            options=_options(config),
            compression=grpc.Compression.NoCompression,
        )
        self._calls = CallsWhenLoaded(self.observation.metrics)
        self._server.add_generic_rpc_handlers((self._calls,))
        health = HealthService(self.observation.readiness, SERVICE_NAME)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)

    @property
    def sessions_active(self) -> int:
        """Answers in progress."""
        return self._service.sessions_active if self._service else 0

    async def start(self) -> int:
        """Listen, and answer if there are engines.

        Returns:
            The port.

        Raises:
            InvalidParameter: if the address cannot be listened on, or the certificate is no use.
        """
        credentials = server_credentials(self._config)
        address = self._config.address()
        try:
            port: int = (
                self._server.add_secure_port(address, credentials)
                if credentials
                else self._server.add_insecure_port(address)
            )
        except RuntimeError as error:
            raise InvalidParameter(
                f"cannot listen on {address}: the port is in use, or the host is not this machine's; "
                "choose another port or host, or port 0 for any free port",
                parameter="port",
            ) from error
        if self._config.tls_certificate:
            from core_server.access.certs import expires_at

            self.observation.metrics.certificate_expires = expires_at(self._config.tls_certificate)
        await self._server.start()
        if self._engines:
            self.open(self._engines)
        return port

    def open(self, engines: Engines) -> None:
        """Answer from now on."""
        self._service = CollaborationService(
            engines,
            max_sessions=self._config.max_sessions,
            answer_timeout_s=self._config.answer_timeout_s,
            session_timeout_s=self._config.session_timeout_s,
            speculation=self._config.speculation,
            observation=self.observation,
        )
        self._calls.handler = self._service.handler()
        self.observation.readiness.engines = engines

    async def stop(self) -> None:
        """Turn new answers away, let those in progress go on for the grace time, then end them and say why.

        Whoever watches the server's health is told by `HealthService`, which looks at the readiness.
        """
        self.observation.readiness.is_draining = True
        stopping = asyncio.create_task(self._server.stop(self._config.grace_s + ABORT_TIMEOUT_S))
        await asyncio.wait({stopping}, timeout=self._config.grace_s)
        if self._service:
            self._service.end_answers()
        await stopping


def server_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """Load the certificate shown to agents and the CA of theirs; None without TLS.

    Raises:
        InvalidParameter: if the files cannot be used.
    """
    if config.tls_certificate is None or config.tls_key is None:
        return None
    try:
        # gRPC takes whatever is in the files; Python's own reader says what is wrong with it.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(config.tls_certificate, config.tls_key)
        pair = config.tls_key.read_bytes(), config.tls_certificate.read_bytes()
    except OSError as error:  # ssl.SSLError is one
        raise InvalidParameter(
            f"cannot use the certificate {config.tls_certificate} with the key {config.tls_key}: "
            f"{error.strerror or error}; choose two PEM files that belong together",
            parameter="tls_certificate",
        ) from error
    if config.client_ca is None:
        return grpc.ssl_server_credentials([pair])
    return grpc.ssl_server_credentials([pair], _authorities(config.client_ca), require_client_auth=True)


def _authorities(file: Path) -> bytes:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=file)
        return file.read_bytes()
    except OSError as error:
        raise InvalidParameter(
            f"cannot use the certificates in {file}: {error.strerror or error}; choose a PEM file",
            parameter="client_ca",
        ) from error


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    lasts_ms = min(round(config.session_timeout_s * 1000), _MAX_INT32 - 60_000)
    return [
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", config.max_sessions + SPARE_STREAMS),
        ("grpc.so_reuseport", 0),  # else a second server on the same port starts without a word
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),  # without it a frozen agent is held for 60 s
        ("grpc.http2.max_pings_without_data", 0),  # keep asking while a long computation sends nothing
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_S * 1000),
        ("grpc.max_connection_idle_ms", IDLE_TIMEOUT_S * 1000),
        # A stream whose agent reads its end no more goes with its connection. Answers end before; agents connect anew.
        ("grpc.max_connection_age_ms", lasts_ms),
        ("grpc.max_connection_age_grace_ms", lasts_ms + 60_000),
        # Agents ping every 10 s; a ping that comes a little early must not count against them.
        ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
    ]


class _Stop:
    """Takes the signals that end a server: while it loads, its task is cancelled; then it is told to drain.

    Attributes:
        number: of the signal that has come; None before.
        is_told: set once one has.
        is_loading: whether the models are being loaded.
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self.is_told = asyncio.Event()
        self.is_loading = True
        self._task = asyncio.current_task()
        for number in stop_signals():
            asyncio.get_running_loop().add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        self.number = number
        self.is_told.set()
        if self.is_loading and self._task:
            # An exit from within a signal's handler would end Python under gRPC's threads, which crashes it.
            self._task.cancel()


async def serve(config: ServerConfig, announce: Callable[[str], None]) -> int:
    """Listen, start the engines with the models and serve them until SIGTERM, SIGINT or SIGHUP.

    Args:
        config: what to serve, and how.
        announce: is given one line once the server listens; before it, one on the ops port if there is one.

    Returns:
        0, or 128 and the signal's number if it came while the models were being loaded.

    Raises:
        InvalidParameter: if the device or the address cannot be used.
        ModelNotFound: if there is no checkpoint.
        CheckpointInvalid: if it is damaged.
        EngineLost: if an engine ends before it is told to.
    """
    stop = _Stop()
    try:
        await _serve(config, announce, stop)
    except asyncio.CancelledError:
        if stop.number is None:
            raise
        return 128 + stop.number
    return 0


async def _serve(config: ServerConfig, announce: Callable[[str], None], stop: _Stop) -> None:
    async with (
        observed(config, announce) as observation,
        _listening(CoreServer(None, config, observation)) as (server, port),
        running_engines(config) as engines,
    ):
        stop.is_loading = False
        server.open(engines)
        announce(f"listening on {config.address(port)}, serving {_served(engines, config)}")
        ends = {asyncio.create_task(stop.is_told.wait()), asyncio.create_task(engines.gone())}
        _, pending = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        _log.info("stopping; answers in progress have %g s to finish", config.grace_s)
        await server.stop()
        if not stop.is_told.is_set():
            raise EngineLost("no engine is left, so the server stops; see its log, then start it again")


def _served(engines: Engines, config: ServerConfig) -> str:
    """Say what is served, and what computes it."""
    if config.upstream:
        return ", ".join(
            f"{one.name} ({one.card.family}) by {config.upstream}, logits {one.card.logits_formats}"
            for one in engines.models
        )
    what = ", ".join(f"{one.name} ({one.card.family}, {one.card.parameters:,} parameters)" for one in engines.models)
    return f"{what} in {config.weights_precision} on {config.device}"


def stop_signals() -> list[signal.Signals]:
    """Signals that a server drains at; SIGHUP only where it is not to outlive its terminal (`nohup`)."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hangs_up else [])]


@asynccontextmanager
async def _listening(server: CoreServer) -> AsyncIterator[tuple[CoreServer, int]]:
    """Take the port before minutes of loading: one that is in use shows at once.

    Yields:
        The server and its port.
    """
    port = await server.start()
    try:
        yield server, port
    finally:
        await server.stop()


@asynccontextmanager
async def observed(config: ServerConfig, announce: Callable[[str], None]) -> AsyncIterator[Observation]:
    """Observe a server, from before its models are loaded until after it has ended.

    Raises:
        InvalidParameter: if the ops port cannot be listened on, or spans take what is not installed.
    """
    with spans_to(config.otlp_endpoint) as spans:
        observation = Observation(spans)
        if config.ops_port is None:
            yield observation
            return
        from core_server.observability.ops import serving_ops  # FastAPI takes a third of a second to import

        async with serving_ops(config.ops_host, config.ops_port, observation) as address:
            announce(f"/health, /ready and /metrics are at http://{address}")
            yield observation
