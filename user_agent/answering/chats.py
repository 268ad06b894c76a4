"""Saved chats as people keep them: a title from the first question, and files to take away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from user_agent.documents.passage import Passage
from user_agent.store.history import Conversation, Message

LONGEST_TITLE = 60

_COURTESY = re.compile(
    r"^(?:(?:hello|hi|hey|hallo|please|bitte|thanks|danke|so|ok(?:ay)?|well)\b[\s,.!:–-]*"
    r"|(?:can|could|would|will) you (?:please )?(?:tell me|explain|say|show me|help me with)\b[\s,:]*(?:to )?"
    r"|(?:kannst|könntest) du mir (?:bitte )?(?:sagen|erklären|zeigen)\b[\s,:]*"
    r"|(?:tell me|i (?:would|'d) like to know|i want to know|sag mir|ich möchte wissen)\b[\s,:]*)+",
    re.IGNORECASE,
)


def title_of(question: str) -> str:
    """Return a title from a first question: its first sentence without courtesies, in at most 60 characters."""
    plain = " ".join(re.sub(r"[*`]+|^\s*[#>]+", "", question, flags=re.MULTILINE).split())
    told = _COURTESY.sub("", plain) or plain
    sentence = re.split(r"(?<=[.?!])\s", told, maxsplit=1)[0]
    sentence = sentence if len(sentence) > 10 else told
    if len(sentence) > LONGEST_TITLE:
        sentence = f"{sentence[:LONGEST_TITLE].rsplit(' ', 1)[0].rstrip(' ,;:')}…"
    return f"{sentence[:1].upper()}{sentence[1:]}" or "Chat"


# See docs/decisions/067-chats.md.
def as_markdown(conversation: Conversation, messages: Sequence[Message]) -> str:
    """Return a chat as Markdown: questions as headings, answers with their passages and what the provider knows.

    Args:
        conversation: the chat.
        messages: of it, in order.
    """
    parts = [f"# {_line(conversation.title)}", f"{conversation.created[:10]} to {conversation.updated[:10]}"]
    for message in messages:
        if message.role == "user":
            parts.append(f"## {_line(message.text)}" if "\n" not in message.text else _quoted(message.text))
            continue
        parts.append(message.text)
        sources = [
            f"- {_line(_place(one))}: {_line(str(one.get('text', '')))}" for one in message.data.get("citations") or []
        ]
        parts += ["Passages read:\n\n" + "\n".join(sources)] if sources else []
        told = message.data.get("told")
        parts += [f"*{_line(told['says'])}*"] if told else []
    return "\n\n".join(parts) + "\n"


def as_json(conversation: Conversation, messages: Sequence[Message]) -> dict[str, Any]:
    """Return a chat with all that is stored of it; see `as_markdown`."""
    return {**asdict(conversation), "messages": [asdict(message) for message in messages]}


def _line(text: str) -> str:
    return " ".join(text.split())


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _place(citation: dict[str, Any]) -> str:
    """Return the place of a saved citation; one saved by an older version has fewer fields."""
    line, page, slide = (citation.get(name) for name in ("line", "page", "slide"))
    source = Path(str(citation.get("source", "")).replace("\\", "/"))
    return Passage("", source, line, page, sheet=citation.get("sheet") or "", slide=slide).place
