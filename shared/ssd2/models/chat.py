"""Conversations as prompts: the model's own chat template, with user text kept apart from its special tokens."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ssd2.errors import CheckpointInvalid, InvalidParameter

TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
"""Files of a checkpoint folder; the first one goes before the template in the second."""

THINK = "<think>"
"""Begins what a model thinks, which is no part of an answer."""

BRIEFLY = "Answer the question in one short sentence, or at the length it asks for."
"""The system prompt that questions about documents were answered best with."""

NOTES = "Notes of the user:"
"""Stands before the passages, in the user model's prompt only."""

TIME_LIMIT_S = 10.0
"""For a template, with the start of its process."""

LONGEST_TEMPLATE = 1_000_000

Role: TypeAlias = Literal["system", "user", "assistant"]

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_WORKER = Path(__file__).with_name("template_worker.py")


@dataclass(frozen=True)
class Message:
    """Something said in a conversation.

    Attributes:
        role: who said it.
        content: what.
    """

    role: Role
    content: str


class Piece(NamedTuple):
    """A part of a prompt: of the template, whose special tokens count, or a text, in which there are none."""

    text: str
    is_template: bool


def without_thinking(text: str) -> str:
    """Leave out what a model wrote between `<think>` and `</think>`, or up to the end if that is still to come."""
    if "</think>" in (shown := _THINKING.sub("", text)):  # the prompt had begun it
        shown = shown.rpartition("</think>")[2]
    outer = text[: len(text) - len(text.lstrip())]  # as it is, so that a text that grows is shown as a beginning
    return text if shown == text else outer + shown.lstrip()


class ShownText:
    """The text of an answer as it grows, without what the model thought."""

    def __init__(self, begins_thinking: bool = False) -> None:
        """Begin with no text.

        Args:
            begins_thinking: whether the prompt ends within a thought.
        """
        self._before = THINK if begins_thinking else ""
        self._text, self._shown = self._before, 0

    def of(self, text: str) -> str:
        """Return what is shown of a whole text."""
        return without_thinking(self._before + text)

    def add(self, text: str) -> str:
        """Return what a piece adds to the shown text; nothing as long as a mark may have begun."""
        self._text += text
        shown = without_thinking(self._text)
        begun = max(size for size in range(len(THINK)) if shown.endswith(THINK[:size]))
        return self._more(shown, len(shown) - begun)

    @property
    def rest(self) -> str:
        """The shown text behind what was added: what turned out to be no mark."""
        return without_thinking(self._text)[self._shown :]

    def _more(self, shown: str, end: int) -> str:
        added = shown[self._shown : end]
        self._shown = max(self._shown, end)
        return added


def with_notes(messages: Sequence[Message], passages: Sequence[str]) -> list[Message]:
    """Put passages behind the system prompt of a conversation."""
    if not passages:
        return list(messages)
    system = [message.content.strip() for message in messages if message.role == "system" and message.content.strip()]
    content = "\n\n".join([*system, NOTES, *(passage.strip() for passage in passages)])
    return [Message("system", content), *(message for message in messages if message.role != "system")]


def turns_of(messages: Sequence[Message]) -> list[list[Message]]:
    """Cut a conversation into its turns: a message of the user's with the answers behind it; no system prompt."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or (message.role == "assistant" and not turns):
            turns.append([])
        if message.role != "system":
            turns[-1].append(message)
    return turns


# See docs/decisions/041-prompts.md.
@dataclass(frozen=True)
class ChatTemplate:
    """A model's chat template.

    Attributes:
        source: in Jinja's language.
        tokens: the special tokens that it names, such as bos_token.
    """

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of_folder(cls, folder: Path) -> ChatTemplate | None:
        """Read the template of a checkpoint; None if it has none.

        Raises:
            CheckpointInvalid: if a file of it is damaged.
        """
        config = _read_object(folder / TOKENIZER_CONFIG)
        source = config.get("chat_template")
        if isinstance(source, list):  # several, by name
            named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
            source = named.get("default")
        if (folder / TEMPLATE).is_file():
            source = _read_text(folder / TEMPLATE)
        if not source:
            return None
        if not isinstance(source, str) or len(source) > LONGEST_TEMPLATE:
            raise CheckpointInvalid(f"the chat template in {folder} is not usable; download the model again")
        found = {name: _content(value) for name, value in config.items() if name.endswith("_token")}
        return cls(source, {name: content for name, content in found.items() if content is not None})

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        """Render a conversation, and what begins an answer behind it.

        A template that takes no system prompt finds it in the first turn; one whose roles have to alternate finds
        messages of one role behind each other joined. Outer whitespace of texts is left out, and what a model thought.

        Args:
            messages: the last one is the user's.

        Raises:
            InvalidParameter: if the template takes no such conversation.
            CheckpointInvalid: if it fails, does not end or leaves out the question.
        """
        refused = ""
        for said in _forms(messages):
            skeleton = _skeleton(self.source, tuple(sorted(self.tokens.items())), _roles(said), date.today())
            if not skeleton.refused:
                return list(_filled(skeleton.parts, [message.content for message in said]))
            refused = refused or skeleton.refused
        raise InvalidParameter(
            f"the model's chat template does not take this conversation: {refused[:200]}; begin a new one",
            parameter="messages",
        )


def _forms(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield a conversation as it is, then as stricter templates want it."""
    said = [replace(message, content=_cleaned(message)) for message in messages]
    system = "\n\n".join(message.content for message in said if message.role == "system" and message.content)
    others = [message for message in said if message.role != "system" and message.content]
    if not others or others[-1].role != "user":
        others.append(Message("user", ""))
    yield [*([Message("system", system)] if system else []), *others]
    joined = [Message(role, "\n\n".join(m.content for m in group)) for role, group in groupby(others, lambda m: m.role)]
    if joined[0].role == "assistant":  # what it answered was left out
        joined = joined[1:]
    yield [*([Message("system", system)] if system else []), *joined]
    if system:
        first = Message("user", f"{system}\n\n{joined[0].content}".strip())
        yield [first, *joined[1:]]


def _cleaned(message: Message) -> str:
    content = without_thinking(message.content) if message.role == "assistant" else message.content
    return content.strip()


def _roles(messages: Sequence[Message]) -> tuple[Role, ...]:
    return tuple(message.role for message in messages)


class _Skeleton(NamedTuple):
    """A rendering without its texts: pieces of the template and, between them, which message stands there."""

    parts: tuple[str | int, ...]
    refused: str = ""


@lru_cache(maxsize=256)
def _skeleton(source: str, tokens: tuple[tuple[str, str], ...], roles: tuple[Role, ...], _day: date) -> _Skeleton:
    """Render once for each sequence of roles: no text has a part in it, so none can act on the template."""
    secret = secrets.token_hex(16)  # nobody who writes a template or a text can guess it
    names = [f"text{secret}n{number}e" for number in range(len(roles))]
    messages = [{"role": role, "content": name} for role, name in zip(roles, names, strict=True)]
    switches = {"add_generation_prompt": True, "enable_thinking": False, "tools": None, "documents": None}
    reply = _rendered(source, {**dict(tokens), **switches, "messages": messages})
    if "refused" in reply:
        return _Skeleton((), str(reply["refused"]) or "it refuses it")
    parts = re.split(f"text{secret}n([0-9]+)e", str(reply["text"]))
    places = [int(number) for number in parts[1::2]]
    if len(set(places)) < len(places) or len(roles) - 1 not in places:
        raise CheckpointInvalid(
            "the model's chat template leaves out the question or repeats a message; use another model"
        )
    if len(places) < len(roles):
        return _Skeleton((), "it leaves out a message")
    ordered: list[str | int] = [int(part) if at % 2 else part for at, part in enumerate(parts)]
    return _Skeleton(tuple(part for part in ordered if part != ""))


def _filled(parts: Sequence[str | int], texts: Sequence[str]) -> Iterator[Piece]:
    for part in parts:
        yield Piece(texts[part], is_template=False) if isinstance(part, int) else Piece(part, is_template=True)


def _rendered(source: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Render in a process of its own, which ends when it takes too long or too much.

    Raises:
        CheckpointInvalid: if there is no rendering.
    """
    request = json.dumps({"template": source, "variables": variables})
    try:
        done = subprocess.run(  # noqa: S603 - this project's own file
            [sys.executable, "-I", str(_WORKER)], input=request, capture_output=True, text=True, timeout=TIME_LIMIT_S
        )
        reply: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise CheckpointInvalid(
            "the model's chat template takes too much time or memory; use another model, or download it again"
        ) from error
    if "error" in reply:
        raise CheckpointInvalid(
            f"the model's chat template fails ({reply['error']}); use another model, or download it again"
        )
    return reply


def _content(token: object) -> str | None:
    """The text of a special token, as older and newer files have it."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _read_object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        values = json.loads(_read_text(file))
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{file} is not JSON ({error}); download the model again") from error
    return values if isinstance(values, dict) else {}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"cannot read {file} ({error}); download the model again") from error
