"""A core server as a process of its own, and a wire that remembers what crossed it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from ssd2.wire.codec import MAX_MESSAGE_BYTES
from tests.commands import run_here

ROOT = Path(__file__).parents[2]
_HOME = tempfile.TemporaryDirectory(prefix="slingshot-tests-")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT}",
    "OMP_NUM_THREADS": "1",
    "NO_COLOR": "1",
    "XDG_CONFIG_HOME": f"{_HOME.name}/config",  # nothing of this machine's user is read or written
    "XDG_DATA_HOME": f"{_HOME.name}/data",
    "SLINGSHOT_PASSPHRASE": "for tests",
}
START_TIMEOUT_S = 120


@dataclass
class CoreProcess:
    """A running core server, and where /metrics is if it was asked for."""

    process: subprocess.Popen[str]
    address: str
    ops: str = ""


@contextmanager
def running_core(
    folder: Path | str,
    *options: str,
    log: int = subprocess.DEVNULL,
    environment: Mapping[str, str] = ENVIRONMENT,
) -> Iterator[CoreProcess]:
    """Start a core server on a free port and end it on leaving; the folder as --model takes it."""
    command = [sys.executable, "-m", "core_server", "--model", str(folder), "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    late = threading.Timer(START_TIMEOUT_S, process.kill)  # which ends what is read here
    late.start()
    try:
        line = process.stdout.readline()
        ops = re.search(r"/metrics are at (\S+)", line)
        if ops:
            line = process.stdout.readline()
        late.cancel()
        address = re.search(r"listening on (\S+:\d+)", line)
        assert address, f"the core server did not start: {line!r}"
        yield CoreProcess(process, address[1], ops[1] if ops else "")
    finally:
        late.cancel()
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)
        process.stdout.close()


@pytest.fixture(scope="session")
def core(core_folder: Path) -> Iterator[CoreProcess]:
    """A core server with a random model; tests that end one, or need another, start their own."""
    with running_core(f"tiny={core_folder}", "--ops-port", "0") as running:
        yield running


def run_agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `user-agent` to its end."""
    return run_here(*arguments, environment=ENVIRONMENT)


@dataclass
class Wire:
    """All that an agent sent through a recording relay: raw messages and metadata."""

    address: str = ""
    messages: list[bytes] = field(default_factory=list)
    metadata: list[tuple[str, str | bytes]] = field(default_factory=list)

    def sent(self) -> bytes:
        """Everything as one run of bytes."""
        pairs = [part if isinstance(part, bytes) else part.encode() for pair in self.metadata for part in pair]
        return b"\x00".join([*self.messages, *pairs])


class _Relay(grpc.GenericRpcHandler):
    """Hands every call on to a core, message for message, as the bytes that arrived."""

    def __init__(self, channel: grpc.aio.Channel, wire: Wire, delay_s: float) -> None:
        self._channel, self._wire, self._delay_s = channel, wire, delay_s

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self._wire.metadata += [(key, value) for key, value in details.invocation_metadata]
        call = self._channel.stream_stream(details.method)

        async def relay(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
            async def recorded() -> AsyncIterator[bytes]:
                async for message in requests:
                    self._wire.messages.append(message)
                    await asyncio.sleep(self._delay_s)
                    yield message

            async for answer in call(recorded()):
                yield answer

        return grpc.stream_stream_rpc_method_handler(relay)


@asynccontextmanager
async def recording_relay(address: str, delay_s: float = 0.0) -> AsyncIterator[Wire]:
    """A server that stands between an agent and a core and records what the agent sends, and may hold it up."""
    limits = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    wire = Wire()
    async with grpc.aio.insecure_channel(address, options=limits) as channel:
        server = grpc.aio.server(options=limits)
        server.add_generic_rpc_handlers((_Relay(channel, wire, delay_s),))
        wire.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield wire
        finally:
            await server.stop(0)
