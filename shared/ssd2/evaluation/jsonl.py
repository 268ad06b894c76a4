"""Result files of JSON lines: appended to result by result, and read by a resumed run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ssd2.errors import InvalidParameter


def read_results(file: Path) -> list[dict[str, Any]]:
    """Return the results of earlier runs, without a last line cut short by a crash.

    Raises:
        InvalidParameter: if the file cannot be read, or a line is no JSON object.
    """
    if not file.exists():
        return []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
        results = [json.loads(line) for line in lines[:-1] if line]
    except (OSError, ValueError) as error:
        raise not_results(file) from error
    if not all(isinstance(result, dict) for result in results):
        raise not_results(file)
    return results


def append_result(file: Path, result: Mapping[str, Any]) -> None:
    """Append a line, replacing one that a crash cut short.

    Raises:
        InvalidParameter: if the file cannot be written.
    """
    line = json.dumps(result) + "\n"  # ASCII: a text may hold half a surrogate pair, which has no UTF-8
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab+") as results:
            _drop_unfinished_line(results)
            results.write(line.encode())
    except OSError as error:
        raise InvalidParameter(
            f"cannot write results to {file}: {error}; choose another folder", parameter="out"
        ) from error


def not_results(file: Path) -> InvalidParameter:
    """Return the error for a file without such results."""
    return InvalidParameter(f"{file} does not contain results of an evaluation; choose another folder", parameter="out")


def _drop_unfinished_line(results: BinaryIO) -> None:
    if results.seek(0, os.SEEK_END) == 0:
        return
    results.seek(-1, os.SEEK_END)
    if results.read(1) != b"\n":
        results.seek(0)
        results.truncate(results.read().rfind(b"\n") + 1)
