"""The front end's line to an engine: starts it, hands out what it computes, and knows when it is gone."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from core_server.catalogue.engine_messages import (
    Alive,
    Begin,
    Broken,
    Command,
    Computed,
    End,
    Failed,
    NotReady,
    Ready,
    Report,
    Start,
    Upstream,
    read,
    write,
)
from core_server.catalogue.served_model import ServedModel
from core_server.config import ServerConfig
from core_server.frontend.torchrun import ranks_environment, torchrun
from ssd2.errors import EngineLost

STOP_TIMEOUT_S = 10.0
"""How long an engine may take to end once its front end has hung up: about one batch."""

BUFFER_BYTES = 4 * 1024 * 1024
"""What is read ahead from an engine: a frame of full logits of a large vocabulary."""

_Ends: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_log = logging.getLogger(__name__)


class Frames:
    """Frames that an engine computes for one answer, in order."""

    def __init__(self) -> None:
        self._reports: asyncio.Queue[Computed | Failed | None] = asyncio.Queue()

    def put(self, report: Computed | Failed | None) -> None:
        """Hand on a report; None if there are no more to come. How many may wait is bounded by the engine."""
        self._reports.put_nowait(report)

    async def next(self) -> Computed:
        """Wait for the next logits.

        Raises:
            SlingshotError: if the answer cannot go on.
            EngineLost: if the engine is gone.
            RuntimeError: if the engine failed on it, and its log says how.
        """
        report = await self._reports.get()
        if isinstance(report, Computed):
            return report
        if report is None:
            raise EngineLost("the core has lost its engine; ask again in a moment")
        raise report.error or RuntimeError("the engine failed on this answer; see its log")


class EngineClient:
    """A running engine.

    Attributes:
        models: that it has, once it is ready.
        slots: answers that it takes at a time, likewise.
        alive: its last word on how it stands; None before the first.
        broken_models: names of those that have failed an answer and then their self-test.
        on_broken: called when there is one more.
        ends_by_itself: whether it ends once it is hung up on: not while it loads, nor if it has said nothing for too
            long.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        """Take up the line.

        Args:
            reader: from the engine.
            writer: to the engine.
            timeout_s: how long it may say nothing before it is given up.
        """
        self._reader, self._writer, self._timeout_s = reader, writer, timeout_s
        self._frames: dict[int, Frames] = {}
        self._heard_at = time.monotonic()
        self._listening: asyncio.Task[None] | None = None
        self.models: tuple[ServedModel, ...] = ()
        self.slots = 0
        self.alive: Alive | None = None
        self.broken_models: set[str] = set()
        self.on_broken: Callable[[], None] = lambda: None
        self.ends_by_itself = False

    @property
    def answers(self) -> int:
        """In progress, as the front end counts them."""
        return len(self._frames)

    @property
    def is_gone(self) -> bool:
        """True if it has ended, or been given up."""
        return self._listening is not None and (self._listening.done() or self._listening.cancelling() > 0)

    @property
    def silence_s(self) -> float:
        """Seconds since it has said anything."""
        return time.monotonic() - self._heard_at

    async def ready(self) -> None:
        """Wait until the models are loaded; however long that takes.

        Raises:
            SlingshotError: if they cannot be.
            EngineLost: if the engine ends before.
        """
        report = await read(self._reader)
        self.ends_by_itself = True
        if isinstance(report, NotReady):
            raise report.error
        if not isinstance(report, Ready):
            raise EngineLost("the engine ended while it loaded the models; see its log")
        self.models, self.slots, self._heard_at = report.models, report.slots, time.monotonic()
        self._listening = asyncio.create_task(self._listen())

    async def gone(self) -> None:
        """Wait until the engine has ended, or is given up; what it still had to compute fails."""
        if self._listening:
            await asyncio.shield(self._listening)

    async def _listen(self) -> None:
        """Hand on what the engine reports."""
        try:
            while (report := await self._report()) is not None:
                self._heard_at = time.monotonic()
                if isinstance(report, Computed | Failed):
                    if frames := self._frames.get(report.session):  # else it has ended meanwhile
                        frames.put(report)
                elif isinstance(report, Alive):
                    self.alive = report
                elif isinstance(report, Broken):
                    self.broken_models.add(report.model)
                    self.on_broken()
        except TimeoutError:
            self.ends_by_itself = False
            _log.error("the engine has been silent for %g s", self._timeout_s)
        except asyncio.CancelledError:
            self.ends_by_itself = False  # see `give_up`: whoever waits for its end is not cancelled
        finally:
            for frames in self._frames.values():
                frames.put(None)

    async def _report(self) -> Report | None:
        async with asyncio.timeout(self._timeout_s):  # Python 3.11's wait_for may swallow that the task is cancelled
            return await read(self._reader)

    def give_up(self) -> None:
        """Count the engine as ended from now on: what it still had to compute fails, and it is killed on leaving."""
        if self._listening:
            self._listening.cancel()

    @contextmanager
    def answer(self, begin: Begin) -> Iterator[Frames]:
        """Have an answer computed; its slot is freed on leaving."""
        self._frames[begin.session] = frames = Frames()
        self.send(begin)
        try:
            yield frames
        finally:
            del self._frames[begin.session]
            self.send(End(begin.session))

    def send(self, command: Start | Command) -> None:
        """Tell the engine something; a small message, which it takes in at once."""
        write(self._writer, command)

    def close(self) -> None:
        """Hang up: the engine ends after the batch that it is computing."""
        self._writer.close()


@asynccontextmanager
async def running_engine(config: ServerConfig, replica: int) -> AsyncIterator[EngineClient]:
    """An engine's processes, ready with the models of a server, and ended on leaving.

    Args:
        config: of the server.
        replica: which of its engines, from 0.

    Raises:
        SlingshotError: if the models cannot be loaded.
        EngineLost: if the process does not start.
    """
    with tempfile.TemporaryDirectory(prefix="core-server-") as folder:  # for this user alone
        path = Path(folder) / "engine.sock"
        connected: asyncio.Queue[_Ends] = asyncio.Queue()
        server = await asyncio.start_unix_server(lambda *ends: connected.put_nowait(ends), path, limit=BUFFER_BYTES)
        process = await _start_process(config, path)
        try:
            client = EngineClient(*await _first(connected, process), config.engine_timeout_s)
            try:
                client.send(_start(config, replica))
                await client.ready()
                yield client
            finally:
                client.close()
                if client.ends_by_itself:  # and may say why, where it has ended already
                    with suppress(TimeoutError):  # wait_for may swallow that the task is cancelled, see `_listen`
                        async with asyncio.timeout(STOP_TIMEOUT_S):
                            await process.wait()
        finally:
            server.close()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _start_process(config: ServerConfig, path: Path) -> asyncio.subprocess.Process:
    """An engine that connects to a Unix socket: one process, or torchrun and its ranks."""
    module = "core_server.engine.upstream.process" if config.upstream else "core_server.engine.process"
    command, environment = [module, str(path)], None
    if config.tensor_parallel > 1:
        command = torchrun(command, config.tensor_parallel, path.parent)
        environment = ranks_environment(config.threads_per_rank)
    else:
        command = [sys.executable, "-m", *command]
    # A session of its own: an interrupt from the keyboard is for the front end to deal with.
    return await asyncio.create_subprocess_exec(*command, env=environment, start_new_session=True)


def _start(config: ServerConfig, replica: int) -> Start:
    upstream = None
    if config.upstream and config.upstream_model:
        url = config.upstream.rstrip("/").removesuffix("/v1")
        upstream = Upstream(url, config.upstream_model, config.upstream_key, config.upstream_timeout_s)
    return Start(
        models=config.model_folders,
        slots=config.slots_per_engine,
        devices=config.devices(replica),
        precision=config.weights_precision,
        logits_formats=config.logits_formats,
        threads=config.threads_per_rank,
        compiled=config.compiled,
        timeout_s=config.engine_timeout_s,
        log_level=config.log_level,
        log_format=config.log_format,
        upstream=upstream,
        max_context=config.max_context,
    )


async def _first(connected: asyncio.Queue[_Ends], process: asyncio.subprocess.Process) -> _Ends:
    """The engine's end of the line, unless it ends before it has connected."""
    connecting, ending = asyncio.create_task(connected.get()), asyncio.create_task(process.wait())
    done, pending = await asyncio.wait({connecting, ending}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    if connecting not in done:
        raise EngineLost(f"the engine did not start: it ended with exit code {ending.result()}; see its log")
    return connecting.result()
