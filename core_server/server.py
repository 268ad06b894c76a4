"""The gRPC server around the service: limits, health, start and stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

import grpc
import torch
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from core_server.config import ServerConfig
from core_server.hosted import HostedModels
from core_server.served_model import ServedModel
from core_server.service import SERVICE_NAME, CollaborationService
from ssd2.errors import InvalidParameter
from ssd2.wire.codec import MAX_MESSAGE_BYTES

MAX_METADATA_BYTES = 16 * 1024

SPARE_STREAMS = 64
"""Streams of one connection beyond the sessions: an agent too many has to be told so, and not left
to wait for a stream; and there are health checks."""

_log = logging.getLogger(__name__)


class CoreServer:
    """One listening server with its models."""

    def __init__(self, hosted: HostedModels, config: ServerConfig) -> None:
        self._config = config
        self._server = grpc.aio.server(options=_options(config), compression=grpc.Compression.NoCompression)
        self._health = health.aio.HealthServicer()
        self._service = CollaborationService(
            hosted,
            max_sessions=config.max_sessions,
            threads=config.threads,
            answer_timeout_s=config.answer_timeout_s,
        )
        self._service.add_to(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    @property
    def sessions_active(self) -> int:
        """Answers in progress."""
        return self._service.sessions_active

    async def start(self) -> int:
        """Listen, and say so to health checks.

        Returns:
            The port.

        Raises:
            InvalidParameter: if the address cannot be listened on.
        """
        try:
            port: int = self._server.add_insecure_port(self._config.address())
        except RuntimeError as error:
            raise InvalidParameter(
                f"cannot listen on {self._config.address()}: the port is in use, or the host is not this machine's; "
                "choose another --port or --host, or --port 0 for any free port"
            ) from error
        await self._server.start()
        await self._health.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self) -> None:
        """Turn new answers away, let those in progress go on for the grace time, then end them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._config.grace_s)
        self._service.close()


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", config.max_sessions + SPARE_STREAMS),
        ("grpc.so_reuseport", 0),  # else a second server on the same port starts without a word
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),  # without it a frozen agent is held for 60 s
        ("grpc.http2.max_pings_without_data", 0),  # keep asking while a long computation sends nothing
        # Agents ping every 10 s; a ping that comes a little early must not count against them.
        ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
    ]


async def serve(config: ServerConfig, announce: Callable[[str], None]) -> None:
    """Load the models and serve them until SIGTERM or SIGINT.

    Args:
        config: what to serve, and how.
        announce: is given one line once the server listens.

    Raises:
        InvalidParameter: if the device or the address cannot be used.
        ModelNotFound: if there is no checkpoint.
        CheckpointInvalid: if it is damaged.
    """
    # Computations run side by side: each with its share of the processors, or they slow each other down.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.threads))
    served = [
        ServedModel.load(folder, name, config.device, config.logits_formats) for name, folder in config.models.items()
    ]
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    server = CoreServer(HostedModels(served), config)
    port = await server.start()
    what = ", ".join(f"{one.name} ({one.card.family}, {one.card.parameters:,} parameters)" for one in served)
    announce(f"listening on {config.address(port)}, serving {what}")
    await told_to_stop.wait()
    _log.info("stopping; answers in progress have %g s", config.grace_s)
    await server.stop()
