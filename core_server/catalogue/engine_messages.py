"""Messages between the front end and an engine, and their way from one process to the other.

A Unix socket with pickles on it: both ends are this program, and the folder that holds the socket is
its user's alone.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from core_server.catalogue.distribution import Distribution
from core_server.catalogue.served_model import ServedModel
from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.errors import SlingshotError
from ssd2.logits.format import AllowedFormats
from ssd2.wire.codec import OpenRequest, PackedLogits

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Upstream:
    """Another server that computes in place of an engine's own models.

    Attributes:
        url: of the server, without a path of its interface.
        model: its name there.
        key_file: text file with the API key; None to read the variable, or for a server without keys.
        timeout_s: how long one timestep may take.
    """

    url: str
    model: str
    key_file: Path | None
    timeout_s: float


@dataclass(frozen=True)
class Start:
    """Configuration of an engine; the first command.

    Attributes:
        models: checkpoint folders by the names that agents know the models by.
        slots: answers at a time.
        devices: where the models run, as torch names it; one a rank.
        precision: one of `ssd2.models.precision.PRECISIONS`.
        logits_formats: that agents may have the models' logits in.
        threads: processors that a rank uses.
        compiled: whether the noise is compiled.
        timeout_s: how long a rank waits for the others.
        log_level: name of the lowest level that is logged.
        log_format: one of `core_server.config.LOG_FORMATS`.
        upstream: computes the one model, whose folder then needs no weights; None to load the models.
        max_context: tokens that an answer takes with its prompt at most, where a model takes more.
    """

    models: Mapping[str, Path]
    slots: int
    devices: Sequence[str]
    precision: str
    logits_formats: AllowedFormats
    threads: int
    compiled: bool
    timeout_s: float
    log_level: str
    log_format: str
    upstream: Upstream | None = None
    max_context: int | None = None


@dataclass(frozen=True)
class Begin:
    """Take up an answer and compute its first logits.

    Attributes:
        session: number of the answer, never used twice.
        model: name of the model, one of those that the engine is ready with.
        request: checked against the model.
        scope: of the answers that its prompt may be shared with; None for none.
    """

    session: int
    model: str
    request: OpenRequest
    scope: str | None = None


@dataclass(frozen=True)
class Advance:
    """Compute the logits that follow a projection.

    Attributes:
        session: number of the answer.
        projected: the tokens; checked, and due.
        is_commit: whether they end their block.
    """

    session: int
    projected: ProjectedTokens
    is_commit: bool


@dataclass(frozen=True)
class End:
    """Drop an answer, at whatever point."""

    session: int


@dataclass(frozen=True)
class Ready:
    """The engine has loaded its models.

    Attributes:
        models: that it has.
        slots: answers that it takes at a time.
    """

    models: tuple[ServedModel, ...]
    slots: int


@dataclass(frozen=True)
class Computed:
    """Logits of one timestep.

    Attributes:
        session: number of the answer.
        at: the timestep.
        logits: as they travel.
        guess: tokens of the projection that they are computed on, where it has not arrived yet.
    """

    session: int
    at: StepPosition
    logits: PackedLogits
    guess: tuple[int, ...] = ()


@dataclass(frozen=True)
class Failed:
    """An answer cannot go on.

    Attributes:
        session: number of the answer.
        error: why; None if it is not for the agent to know, and the engine's log has it.
    """

    session: int
    error: SlingshotError | None


@dataclass(frozen=True)
class Broken:
    """A model that has failed an answer fails its self-test as well.

    Attributes:
        model: its name.
    """

    model: str


@dataclass(frozen=True)
class Alive:
    """The engine goes round, and has come this far since it began.

    Attributes:
        slots_used: answers that it holds.
        slots: answers that it can hold.
        steps_waiting: timesteps that agents wait for.
        step_seconds: that batches took.
        batch_size: blocks that batches had.
        fault: why it cannot compute at the moment, in words for the provider; None if it can.
    """

    slots_used: int
    slots: int
    steps_waiting: int
    step_seconds: Distribution
    batch_size: Distribution
    fault: str | None = None


@dataclass(frozen=True)
class NotReady:
    """The engine could not load its models, and why."""

    error: SlingshotError


Command: TypeAlias = Begin | Advance | End
Report: TypeAlias = Ready | NotReady | Computed | Failed | Broken | Alive


def send(connection: socket.socket, message: Report) -> None:
    """Send a message, waiting while the other side has too much unread.

    Raises:
        OSError: if the other side is gone.
    """
    data = pickle.dumps(message)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> Start | Command | None:
    """Wait for a message; None if the other side is gone."""
    header = _exactly(connection, _LENGTH.size)
    data = _exactly(connection, *_LENGTH.unpack(header)) if header else None
    command: Start | Command | None = pickle.loads(data) if data else None  # noqa: S301  # this program's other half
    return command


def write(writer: asyncio.StreamWriter, message: Start | Command | Report) -> None:
    """`send` for an event loop; what it sends is small and bounded by the number of its answers."""
    data = pickle.dumps(message)
    writer.write(_LENGTH.pack(len(data)) + data)


async def read(reader: asyncio.StreamReader) -> Report | None:
    """`receive` for the front end."""
    report: Report | None = await _read(reader)
    return report


async def read_command(reader: asyncio.StreamReader) -> Start | Command | None:
    """`receive` for an engine with an event loop."""
    command: Start | Command | None = await _read(reader)
    return command


async def _read(reader: asyncio.StreamReader) -> Any:
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return pickle.loads(await reader.readexactly(length))  # noqa: S301  # see `receive`
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            part = connection.recv(size - len(data))
        except ConnectionError:
            return None
        if not part:
            return None
        data += part
    return bytes(data)
