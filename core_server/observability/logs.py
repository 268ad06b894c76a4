"""The log of a core server's processes, as text or as JSON: one object a line.

The text of an exception is left out of both: it may hold what an agent sent.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO, TypeAlias

MAX_REPEATED, REPEATED_WITHIN_S = 60, 60.0
"""Warnings or errors of one kind that are written within so many seconds."""

_TEXT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_FIELDS = "slingshot_fields"
_Caught: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def start_log(process: str, level: str, log_format: str) -> None:
    """Write this process's log to standard error.

    Args:
        process: what it is: "front end" or "engine".
        level: name of the lowest level that is written.
        log_format: one of `core_server.config.LOG_FORMATS`.
    """
    handler = LimitedHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else TextFormatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("asyncio").addFilter(_first_line)
    sys.excepthook = _log_uncaught


def fields(**values: str | int | float | list[str] | None) -> dict[str, Any]:
    """Return the fields of a log line beside its message, as `extra` of a logging call; None adds nothing.

    Never what an agent sent, but for the ids of a trace context.
    """
    return {_FIELDS: {name: value for name, value in values.items() if value is not None}}


def frames(error: BaseException) -> list[str]:
    """Return the frames of a failure, without its message."""
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]


@dataclass
class _Repeated:
    """Lines of one kind within a minute."""

    began: float
    lines: int = 0

    @property
    def left_out(self) -> int:
        return self.lines - MAX_REPEATED


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes a warning or an error of one kind so often within a minute, then only how many more there were.

    What goes wrong can do so thousands of times a second, and the disk is for others too. Lines of answers that go
    well are as many as these, and all are written.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._repeated: dict[tuple[str, int, str], _Repeated] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        now = self._clock()
        self._write_left_out(now)
        if record.levelno >= logging.WARNING:
            kind = record.name, record.levelno, str(record.msg)  # before arguments are put in
            repeated = self._repeated.setdefault(kind, _Repeated(now))
            repeated.lines += 1
            if repeated.left_out > 0:
                return
        super().emit(record)

    def close(self) -> None:
        """See `logging.Handler`."""
        self._write_left_out(math.inf)
        super().close()

    def _write_left_out(self, now: float) -> None:
        """Say what was left out in the minutes that are over."""
        over = [kind for kind, repeated in self._repeated.items() if now - repeated.began >= REPEATED_WITHIN_S]
        for name, level, message in over:
            repeated = self._repeated.pop((name, level, message))
            if repeated.left_out > 0:
                arguments = (message, repeated.left_out)
                text = "… %s … was repeated %d times and left out"
                super().emit(logging.LogRecord(name, level, "", 0, text, arguments, None))


class TextFormatter(logging.Formatter):
    """A line for people, the frames of an exception below it."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        lines = [super().format(record), *getattr(record, _FIELDS, {}).get("frames", [])]
        return "\n  ".join(lines)

    def formatException(self, ei: _Caught) -> str:  # noqa: N802  # logging's name
        """See `logging.Formatter`."""
        return "\n  ".join([type(ei[1]).__name__, *(frames(ei[1]) if ei[1] else [])])


class JsonFormatter(logging.Formatter):
    """An object a line: time, level, logger, process, pid, message, and the line's own fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "pid": record.process,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info and (error := record.exc_info[1]):
            line |= {"error": type(error).__name__, "frames": frames(error)}
        return json.dumps(line, ensure_ascii=False)


def _first_line(record: logging.LogRecord) -> bool:
    """Keep the first line: of a task that nobody waited for, asyncio's next lines show its exception's message."""
    record.msg, record.args = record.getMessage().partition("\n")[0], ()
    return True


def _log_uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Log what Python would print, in the form of all other lines, without the exception's message."""
    logging.getLogger(__package__).critical("ended with %s", kind.__name__, exc_info=(kind, error, where))
