"""SHA256SUMS beside a checkpoint's files: what `sha256sum --check` reads, and what loading compares the files with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ssd2.errors import CheckpointInvalid
from ssd2.models.pretrained import EMBED_SUM, EMBED_TIMESTEP, WEIGHT_SUFFIXES
from ssd2.models.tokenizer import TOKENIZER

SHA256SUMS = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_REMEDY = f"copy the checkpoint again; or if you changed it yourself, run sha256sum again or remove {SHA256SUMS}"


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of some files of a folder, and of all that loading wants one of."""
    _write(folder, {name: _sha256(folder / name) for name in {*names, *_needed(folder)}})


def replace_files(folder: Path, contents: Mapping[str, str]) -> None:
    """Replace some files of a folder with their checksums, if it has any; all other checksums stay.

    Whatever happens midway, a file is the old or the new one, and no checksum is wrong: there are none meanwhile.

    Args:
        folder: of the checkpoint.
        contents: text of each file, by its name.

    Raises:
        CheckpointInvalid: if the folder's checksums are damaged.
        OSError: if it cannot be written to.
    """
    checksums = _checksums(folder)
    unfinished = {name: folder / f"{name}.new" for name in contents}
    for name, text in contents.items():
        unfinished[name].write_text(text, encoding="utf-8")
    (folder / SHA256SUMS).unlink(missing_ok=True)
    for name, file in unfinished.items():
        file.replace(folder / name)
    if checksums:
        _write(folder, {**checksums, **{name: _sha256(folder / name) for name in contents}})


def _write(folder: Path, checksums: Mapping[str, str]) -> None:
    lines = [f"{sha256}  {name}\n" for name, sha256 in sorted(checksums.items())]
    (folder / SHA256SUMS).write_text("".join(lines), encoding="utf-8")


def check_checksums(folder: Path, only: Iterable[str] | None = None) -> None:
    """Compare a folder's files with its checksums; a folder without any passes.

    Args:
        folder: of the checkpoint.
        only: names of the files to compare, those that are there; None for all that have a checksum.

    Raises:
        CheckpointInvalid: if one is missing, has another content or no checksum, or the checksums are damaged.
    """
    checksums = _checksums(folder)
    if checksums and (unlisted := sorted(_needed(folder) - set(checksums))):
        raise CheckpointInvalid(f"{folder / SHA256SUMS} does not list {', '.join(unlisted[:3])}; {_REMEDY}")
    for name, expected in checksums.items():
        if only is not None and not (name in only and (folder / name).is_file()):
            continue
        try:
            is_right = _sha256(folder / name) == expected
        except (OSError, ValueError):  # no such file, or no name of one
            raise CheckpointInvalid(f"{folder / SHA256SUMS} names {name!r}, which cannot be read; {_REMEDY}") from None
        if not is_right:
            raise CheckpointInvalid(f"{folder / name} is damaged: its SHA-256 is not the listed one; {_REMEDY}")


def _needed(folder: Path) -> set[str]:
    """Names of the files that make the model what it is: one without a checksum could be changed unseen."""
    named = {"config.json", TOKENIZER, EMBED_SUM, EMBED_TIMESTEP}
    return {file.name for file in folder.iterdir() if file.name in named or file.suffix in WEIGHT_SUFFIXES}


def _checksums(folder: Path) -> dict[str, str]:
    file = folder / SHA256SUMS
    if not file.exists():
        return {}
    try:
        lines = [_LINE.fullmatch(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        lines = [None]
    if not lines or not all(lines):
        raise CheckpointInvalid(f"{file} is damaged: each line must be a SHA-256 and a file name; {_REMEDY}")
    return {str(Path(line[2])): line[1] for line in lines if line}  # ./config.json is config.json


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
