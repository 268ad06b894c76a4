"""Formats of the core's logits, their names, and those that a provider allows.

    float16   every entry in half precision; 2 V bytes a position
    uint8     every entry as its distance below the position's maximum, in steps of 1/16 nat; V bytes
    top-k:K   the K largest entries in the same steps, with their ids, and the logsumexp of all others;
              3 K + 4 bytes, or 5 K + 4 with a vocabulary above 65,536

`ssd2.logits.packed` has the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssd2.errors import InvalidParameter

MAX_TOP_K = 65_536

SMALL_VOCABULARY = 65_536
"""Largest V whose ids are sent in two bytes."""

TAIL_BYTES = 4
"""Of the logsumexp of what is not sent, at each position."""

_FULL_KINDS = ("float16", "uint8")


@dataclass(frozen=True)
class LogitsFormat:
    """One format.

    Attributes:
        kind: "float16", "uint8" or "top-k".
        k: entries that are sent of a position, with "top-k"; else 0. Never more than V are sent.
    """

    kind: str
    k: int = 0

    def __post_init__(self) -> None:
        is_valid = 1 <= self.k <= MAX_TOP_K if self.kind == "top-k" else self.kind in _FULL_KINDS and self.k == 0
        if not is_valid:
            raise InvalidParameter(
                f"the logits format is {str(self)[:40]!r}; use float16, uint8 or top-k:K with K from 1 to {MAX_TOP_K}",
                parameter="logits",
            )

    @classmethod
    def parse(cls, text: str) -> LogitsFormat:
        """Read what `str` writes: float16, uint8 or top-k:64.

        Raises:
            InvalidParameter: if it is none of them.
        """
        kind, _, k = text.strip().partition(":")
        is_number = k.isascii() and k.isdecimal() and len(k) < 10
        return cls(kind, int(k)) if is_number and kind == "top-k" else cls(text.strip())

    def __str__(self) -> str:
        return f"{self.kind}:{self.k}" if self.k else self.kind

    def entries(self, vocab_size: int) -> int:
        """Return how many of a position's V entries are sent."""
        return min(self.k, vocab_size) if self.kind == "top-k" else vocab_size

    def bytes_per_position(self, vocab_size: int) -> int:
        """Return the bytes of a position in a frame."""
        if self.kind == "top-k":
            return TAIL_BYTES + self.entries(vocab_size) * (id_bytes(vocab_size) + 1)
        return vocab_size * (2 if self.kind == "float16" else 1)


def id_bytes(vocab_size: int) -> int:
    """Bytes of a token id in a frame."""
    return 2 if vocab_size <= SMALL_VOCABULARY else 4


FLOAT16 = LogitsFormat("float16")
UINT8 = LogitsFormat("uint8")
PREFERRED = LogitsFormat("top-k", 64)
"""What an agent asks for unless told otherwise: as good as full logits where it was measured, in
5 kB a timestep instead of 2.5 MB (L = 25, V = 50,272)."""


@dataclass(frozen=True)
class AllowedFormats:
    """Formats that a provider lets agents ask for.

    Attributes:
        formats: at least one, each kind at most once; of "top-k" the one with the largest k allowed.
    """

    formats: tuple[LogitsFormat, ...]

    def __post_init__(self) -> None:
        if not self.formats:
            raise InvalidParameter("no logits format is allowed; allow at least one of float16, uint8, top-k:K")
        if len({allowed.kind for allowed in self.formats}) < len(self.formats):
            raise InvalidParameter(f"{self} names a format twice; name each once, top-k with its largest K")

    @classmethod
    def parse(cls, text: str) -> AllowedFormats:
        """Read what `str` writes: formats with commas between them.

        Raises:
            InvalidParameter: if one of them is no format, or one is there twice.
        """
        return cls(tuple(LogitsFormat.parse(part) for part in text.split(",")))

    def __str__(self) -> str:
        return ",".join(map(str, self.formats))

    def allows(self, asked: LogitsFormat) -> bool:
        """True if a format may be asked for."""
        return any(asked.kind == allowed.kind and asked.k <= allowed.k for allowed in self.formats)

    def check(self, asked: LogitsFormat) -> None:
        """Refuse a format that is not allowed.

        Raises:
            InvalidParameter: with the list of those that are.
        """
        if not self.allows(asked):
            raise InvalidParameter(f"this core does not offer {asked} logits; it offers {self}", parameter="logits")

    def best(self) -> LogitsFormat:
        """Choose for a user who has not: `PREFERRED`, else the format closest to the model's logits."""
        choices = (PREFERRED, UINT8, FLOAT16, *self.formats)
        return next(choice for choice in choices if self.allows(choice))


ANY_FORMAT = AllowedFormats((FLOAT16, UINT8, LogitsFormat("top-k", 1024)))
"""What a provider allows unless told otherwise."""
