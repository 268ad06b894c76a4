"""Paths of the demo pair's files."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

CORE = _HERE / "core"
USER = _HERE / "user"
NOTES = _HERE / "notes"
TOKENIZER = _HERE / "tokenizer.json"
