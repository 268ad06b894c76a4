"""Text to train on, record by record: local text files, JSONL files, and data sets of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ssd2.errors import InvalidParameter

PIECE_CHARACTERS = 4000
"""A text file is read in pieces of whole lines of at least this length, so that a part of it can be held out."""

FIELDS = {"text": (), "dolly": ("instruction", "context", "response")}
"""What a record must have, by the format; the field of plain text has the name that the recipe gives."""


_EFFECT = {
    "config": "it applies to a data set named by hub",
    "split": "it applies to a data set named by hub",
    "files": "they apply to a loader named by hub",
    "field": "it names the plain text of records, so it applies only to jsonl or hub with format 'text'",
}
"""What the keys are for that only some data has."""


@dataclass(frozen=True)
class DataParams:
    """The [data] table of a recipe: where the training text is and how it is laid out.

    Attributes:
        text: patterns of text files, against the recipe's folder.
        jsonl: patterns of files with one JSON object a line.
        hub: name of a data set of the Hugging Face hub, which is streamed; or, with `files`, the name
            of a loader of the datasets library ("json", "parquet", …).
        config: configuration of the data set, "en" of C4 say.
        split: its split.
        files: patterns of the files for a loader.
        format: "text": plain text, packed to `max_length`; "dolly": the fields instruction, context
            (may be empty) and response of the DOLLY data (§4).
        field: which field of a record is the plain text.
        held_out: share of the records that is never trained on; validation reads it.
        held_out_limit: the most held-out examples that a validation reads.
        max_length: longest example in tokens, prompt and answer together; what the model's positions
            allow if None.
    """

    text: tuple[str, ...] = ()
    jsonl: tuple[str, ...] = ()
    hub: str | None = None
    config: str | None = None
    split: str = "train"
    files: tuple[str, ...] = ()
    format: str = "text"
    field: str = "text"
    held_out: float = 0.05
    held_out_limit: int = 1000
    max_length: int | None = None

    def __post_init__(self) -> None:
        if [bool(self.text), bool(self.jsonl), bool(self.hub)].count(True) != 1:
            raise InvalidParameter("[data] must have exactly one of text, jsonl and hub")
        if self.format not in FIELDS:
            raise InvalidParameter(f"the format of [data] is {self.format!r}; use 'text' or 'dolly'")
        if self.text and self.format != "text":
            raise InvalidParameter(f"text files have no fields; use jsonl for format {self.format!r}")
        for name, has_effect in self._have_effect().items():
            if not has_effect and getattr(self, name) != getattr(DataParams, name):
                raise InvalidParameter(f"{name} of [data] has no effect here: {_EFFECT[name]}; leave it out")
        if not 0 <= self.held_out < 1 or self.held_out_limit < 1:
            raise InvalidParameter("held_out of [data] must be in [0, 1), held_out_limit at least 1")

    def _have_effect(self) -> dict[str, bool]:
        of_hub = bool(self.hub)
        return {"config": of_hub, "split": of_hub, "files": of_hub, "field": self.format == "text" and not self.text}

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that a record must have."""
        return FIELDS[self.format] or (self.field,)


@dataclass(frozen=True)
class Record:
    """One piece of training text.

    Attributes:
        values: of the format's fields, in their order.
        is_end: whether its document ends here.
    """

    values: tuple[str, ...]
    is_end: bool = True

    def is_held_out(self, share: float) -> bool:
        """True if this record is of the share that is not trained on; its text alone decides."""
        digest = hashlib.sha256("\x1f".join(self.values).encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64


def read_records(data: DataParams, folder: Path, start: int = 0) -> Iterator[Record]:
    """Records of one pass over the data, always in the same order.

    Args:
        data: where to read.
        folder: what patterns are resolved against.
        start: how many records to leave out at the beginning.

    Raises:
        InvalidParameter: if nothing matches a pattern, or a file, line or field is bad; it says which.
    """
    if data.hub:
        return _hub_records(data, folder, start)
    if data.text:
        return islice(_text_records(find_files(data.text, folder)), start, None)
    return islice(_jsonl_records(find_files(data.jsonl, folder), data.fields), start, None)


def find_files(patterns: Sequence[str], folder: Path) -> list[Path]:
    """Files that match, in the order of the patterns and then of their names.

    Raises:
        InvalidParameter: if a pattern matches no file.
    """
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        base = Path(path.anchor) if path.is_absolute() else folder
        found = sorted(file for file in base.glob(str(path.relative_to(path.anchor))) if file.is_file())
        if not found:
            raise InvalidParameter(f"no file matches {pattern!r} of [data] in {base}; correct the pattern")
        files += found
    return files


def _text_records(files: Sequence[Path]) -> Iterator[Record]:
    for file in files:
        piece, is_begun = "", False
        for _, line in _lines(file):
            if len(piece) >= PIECE_CHARACTERS:
                yield Record((piece,), is_end=False)
                piece, is_begun = "", True
            piece += line
        if is_begun or piece.strip():
            yield Record((piece,))


def _jsonl_records(files: Sequence[Path], fields: Sequence[str]) -> Iterator[Record]:
    for file in files:
        for number, line in _lines(file):
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            try:
                values = json.loads(line)
            except ValueError as error:
                raise InvalidParameter(f"{place} is not JSON ({error}); write one object per line") from error
            yield _checked(values, fields, place)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Lines of a file with their numbers from 1."""
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, 1):
                try:
                    yield number, line.decode()
                except UnicodeDecodeError as error:
                    raise InvalidParameter(f"{file}, line {number} is not UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise InvalidParameter(f"cannot read {file}: {error}; check its permissions") from error


def _hub_records(data: DataParams, folder: Path, start: int) -> Iterator[Record]:
    place = f"{data.hub}, split {data.split}"
    try:
        rows = iter(_load_streamed(data, folder).skip(start))
    except Exception as error:  # the library and its transports raise what they like
        raise InvalidParameter(
            f"cannot open the data set {place}: {error}; check hub, config and split of [data] and the network"
        ) from error
    number = start
    while True:
        try:
            row = next(rows, None)
        except Exception as error:
            raise InvalidParameter(f"cannot read record {number} of {place}: {error}; correct it") from error
        if row is None:
            return
        yield _checked(row, data.fields, f"record {number} of {place}")
        number += 1


def _load_streamed(data: DataParams, folder: Path) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InvalidParameter(
            "data sets of the hub require the datasets package; install it with: pip install 'slingshot[train]'"
        ) from error
    files = [str(file) for file in find_files(data.files, folder)] or None
    return load_dataset(data.hub, data.config, data_files=files, split=data.split, streaming=True)


def _checked(values: Any, fields: Sequence[str], place: str) -> Record:
    if not isinstance(values, dict):
        raise InvalidParameter(f"{place} is not an object with fields; write one per line")
    for field in fields:
        if not isinstance(values.get(field), str):
            known = ", ".join(sorted(map(str, values)))
            raise InvalidParameter(f"{place} has no text in its field {field!r}; its fields are: {known}")
        try:
            values[field].encode()
        except UnicodeEncodeError as error:  # JSON can spell half a character
            raise InvalidParameter(
                f"{place}: its field {field!r} is not valid Unicode ({error}); correct it"
            ) from error
    return Record(tuple(values[field] for field in fields))
