"""Generated texts, read from files of JSON lines or plain text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssd2.demo.generator import Item
from ssd2.errors import InvalidParameter

PROMPT_FIELDS = ("prompt", "instruction", "question")
"""Fields that may hold the prompt; the first that a line has is used."""


@dataclass(frozen=True)
class Generation:
    """One generated text.

    Attributes:
        text: what a model wrote.
        prompt: what it was given; "" where it was given nothing.
        reference: what a person wrote, or the right answer, if known.
        separator: stands between prompt and text where neither has white space at the seam.
    """

    text: str
    prompt: str = ""
    reference: str | None = None
    separator: str = ""

    @property
    def context(self) -> str:
        """Prompt with the separator, if one is needed; "" without a prompt."""
        needs_one = self.prompt and not self.prompt[-1].isspace() and not self.text[:1].isspace()
        return self.prompt + self.separator if needs_one else self.prompt


class AnswersFile:
    """File of answers to items, JSON lines for `read_generations`."""

    def __init__(self, file: Path) -> None:
        """Truncate the file, before anything is computed.

        Raises:
            InvalidParameter: if it cannot be written, or its name does not end in .jsonl.
        """
        if file.suffix != ".jsonl":
            raise InvalidParameter(
                f"{file} would hold JSON lines; choose a name that ends in .jsonl", parameter="answers"
            )
        self._file = file
        self._write("w", "")

    def add(self, system: str, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Append the answers of one system, each with its question and the right answer."""
        lines = [
            {"system": system, "kind": item.kind, "prompt": item.question, "text": answer, "reference": item.answer}
            for item, answer in zip(items, answers, strict=True)
        ]
        self._write("a", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def _write(self, mode: str, text: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open(mode, encoding="utf-8") as answers:
                answers.write(text)
        except OSError as error:
            raise InvalidParameter(
                f"cannot write {self._file}: {error}; choose another file", parameter="answers"
            ) from error


def read_generations(files: Sequence[Path], by: str | None = None) -> dict[str, list[Generation]]:
    """Read generations, group by group.

    Args:
        files: .jsonl with {"text", optionally "prompt", "reference"} a line, or .txt with a text a line.
        by: field of the lines whose values are the groups; None: each file is a group of its name.

    Returns:
        The generations of each group, in the order of the files.

    Raises:
        InvalidParameter: if a file cannot be read, is empty or holds something else; it names the line.
    """
    groups: dict[str, list[Generation]] = {}
    for file in files:
        if by is None and file.stem in groups:
            raise InvalidParameter(f"two files are called {file.stem}; rename one of them")
        before = sum(map(len, groups.values()))
        for group, generation in _read(file, by):
            groups.setdefault(group, []).append(generation)
        if sum(map(len, groups.values())) == before:
            raise InvalidParameter(f"{file} contains no text; use a file with one text per line")
    return groups


def separated(groups: Mapping[str, Sequence[Generation]], separator: str) -> dict[str, list[Generation]]:
    """Return the generations with a separator between prompt and text."""
    return {label: [replace(one, separator=separator) for one in group] for label, group in groups.items()}


def _read(file: Path, by: str | None) -> Iterator[tuple[str, Generation]]:
    if file.suffix not in (".jsonl", ".txt"):
        raise InvalidParameter(f"{file} must be .jsonl (one object per line) or .txt (one text per line)")
    if file.suffix == ".txt" and by:
        raise InvalidParameter(f"{file} has no field {by!r}; only .jsonl files have fields", parameter="by")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"cannot read {file}: {error}; use a UTF-8 file") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if file.suffix == ".txt":
            yield file.stem, Generation(line)
        else:
            value = _parse(line, f"line {number} of {file}")
            yield _group(value, by, f"line {number} of {file}") if by else file.stem, _generation(value)


def _parse(line: str, place: str) -> dict[str, Any]:
    """Check that a line is an object whose texts are strings, and return it."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InvalidParameter(f"{place} is not JSON: {error}; write one object per line") from error
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise InvalidParameter(f'{place} has no text; give {{"text": …, "prompt": …, "reference": …}} per line')
    for name in (*PROMPT_FIELDS, "reference"):
        if not isinstance(value.get(name), str | None):
            raise InvalidParameter(f"the {name} in {place} is not a string; write a string")
    try:
        "".join(value.get(name) or "" for name in ("text", *PROMPT_FIELDS, "reference")).encode()
    except UnicodeEncodeError as error:
        raise InvalidParameter(f"{place} is not valid Unicode: {error.reason}; escape whole characters") from error
    return value


def _group(value: dict[str, Any], by: str, place: str) -> str:
    if not isinstance(value.get(by), str):
        raise InvalidParameter(f"{place} has no field {by!r} with a string; choose another field", parameter="by")
    return str(value[by])


def _generation(value: dict[str, Any]) -> Generation:
    prompt = next((value[name] for name in PROMPT_FIELDS if value.get(name) is not None), "")
    return Generation(value["text"], prompt, value.get("reference"))
