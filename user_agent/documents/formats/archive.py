"""Documents that are zip archives of XML: harmless before anything in them is unpacked."""

from __future__ import annotations

import io
import zipfile

from user_agent.documents.formats.encoding import looks_like
from user_agent.errors import DocumentsUnreadable

MAX_ENTRIES = 2_000
MAX_UNPACKED_BYTES = 100 * 1024 * 1024
MAX_RATIO = 200  # XML of real documents packs to a fifth or a thirtieth


def check_archive(data: bytes, what: str, suffix: str) -> None:
    """Refuse an archive that would unpack to more than any document has.

    Args:
        data: of the file.
        what: it should be, with its article.
        suffix: to save it with again.

    Raises:
        DocumentsUnreadable: if it would, or is no archive; the text is a reason, without the file's name.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        is_archive = data.startswith(b"PK")
        reason = "is truncated or damaged" if is_archive else f"is {looks_like(data) or f'not {what}'}"
        raise DocumentsUnreadable(f"{reason}; save it as {suffix} again") from error
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or unpacked > MAX_UNPACKED_BYTES or unpacked > MAX_RATIO * len(data):
        raise DocumentsUnreadable(
            f"would unpack from {len(data):,} bytes to {unpacked:,} in {len(entries):,} parts, too much for a "
            f"document; save it as {suffix} again"
        )
