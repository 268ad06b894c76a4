"""Questions and chats that people type or paste themselves, and system prompts: nothing of a search is in them.

Those at even places were used to choose the rule of the guard, those at odd places to report.
"""

from __future__ import annotations

import json
from pathlib import Path

ORDINARY: tuple[str, ...] = tuple(
    json.loads((Path(__file__).parent / "ordinary_prompts.json").read_text(encoding="utf-8"))
)
