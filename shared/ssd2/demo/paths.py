"""Paths of the demo's files: its pair, and documents to ask about."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

CORE = _HERE / "core"
USER = _HERE / "user"
AUTOREGRESSIVE = (_HERE / "core_autoregressive", _HERE / "user_autoregressive")
"""Pair of the same sizes and text that writes token by token, core and user model."""

NOTES = _HERE / "notes"
EVERYDAY = _HERE / "everyday"
"""Documents in real English, which the demo's models cannot read."""

TOKENIZER = _HERE / "tokenizer.json"

RELATION = _HERE / "relation"
"""The order-free relation: its tokenizer, recipes and models."""
