"""The log of a core server's processes, as text or as JSON: one object a line.

The text of an exception is left out of both: it may hold what an agent sent.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TypeAlias

LOG_FORMATS = ("text", "json")

_TEXT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_FIELDS = "slingshot_fields"
_Caught: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def start_log(process: str, level: str, log_format: str) -> None:
    """Write this process's log to standard error.

    Args:
        process: what it is: "front end" or "engine".
        level: name of the lowest level that is written.
        log_format: one of `LOG_FORMATS`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else TextFormatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("asyncio").addFilter(_first_line)
    sys.excepthook = _log_uncaught


def fields(**values: str | int | float | list[str] | None) -> dict[str, Any]:
    """What a line says beside its message, as the `extra` of a call of the log; None says nothing.

    Never what an agent sent, but for the ids of a trace context.
    """
    return {_FIELDS: {name: value for name, value in values.items() if value is not None}}


def frames(error: BaseException) -> list[str]:
    """Where it failed, not what it said."""
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]


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
    """Of a task that nobody waited for asyncio says more in the next lines: what its exception said."""
    record.msg, record.args = record.getMessage().partition("\n")[0], ()
    return True


def _log_uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """What Python would print, in the form of all other lines, without what the exception said."""
    logging.getLogger(__package__).critical("ended with %s", kind.__name__, exc_info=(kind, error, where))
