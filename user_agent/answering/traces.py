"""Traces of answers, event by event: live while they are made, and again afterwards.

Kept in memory alone, the latest `MAX_TRACES` of them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ssd2.algorithm.params import DecodingParams
from ssd2.errors import CoreError, NotFound
from ssd2.models.tokenizer import Tokenizer
from user_agent.answering.answer import Answer, CommittedBlock, Conflict, Observer, ProjectedBlock
from user_agent.documents.passage import Passage

if TYPE_CHECKING:
    from user_agent.answering.run import Question

MAX_TRACES = 256

END = "answer.end"
"""The kind of every trace's last event."""


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        number: in its trace, from 1.
        kind: answer.start, core.wait, decoding.start, prompt.read, block.start, denoise.step, token.final,
            block.commit, egress or answer.end.
        data: about it, as JSON.
    """

    number: int
    kind: str
    data: dict[str, Any]


class Trace(Observer):
    """One answer's events."""

    def __init__(self, trace_id: str, tokenizer: Tokenizer) -> None:
        self.id = trace_id
        self._tokenizer = tokenizer
        self._events: list[Event] = []
        self._shown: list[int] = []
        self._more = asyncio.Event()

    @property
    def events(self) -> Sequence[Event]:
        """All so far."""
        return self._events

    @property
    def is_finished(self) -> bool:
        """True if nothing follows."""
        return bool(self._events) and self._events[-1].kind == END

    def add(self, kind: str, **data: Any) -> None:
        """Note an event and wake whoever follows; nothing is noted behind the end."""
        if not self.is_finished:
            self._events.append(Event(len(self._events) + 1, kind, data))
            self._more.set()
            self._more = asyncio.Event()

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """All events behind one, as they come, to the last."""
        while True:
            while after < len(self._events):  # which may grow while one of them is taken
                yield self._events[after]
                after += 1
            if self.is_finished:
                return
            await self._more.wait()

    def began(self, params: DecodingParams) -> None:
        """The settings of the decode are known."""
        names = ("steps", "stop", "patience", "self_conditioning")
        self.add("decoding.start", **{name: getattr(params, name) for name in names})

    def projected(self, seen: ProjectedBlock) -> None:
        """A timestep: the positions that changed, with their tokens."""
        self._begin(seen.block, seen.step)
        changed = [
            [position, token_id, self._tokenizer.token_name(token_id)]
            for position, token_id in enumerate(seen.token_ids)
            if position >= len(self._shown) or self._shown[position] != token_id
        ]
        self._shown = list(seen.token_ids)
        where = {"block": seen.block, "step": seen.step, "timestep": seen.timestep}
        self.add("denoise.step", **where, changed=changed, unlike_core=list(seen.unlike_core))

    def committed(self, seen: CommittedBlock) -> bool:
        """A block: each of its tokens with what the models gave it."""
        self._begin(seen.block, seen.step)
        for position, token in enumerate(seen.tokens):
            self.add("token.final", block=seen.block, pos=position, **asdict(token))
        where = {"block": seen.block, "step": seen.step, "timestep": seen.timestep}
        self.add("block.commit", **where, tokens=len(seen.tokens), text=seen.text)
        self._shown = []
        return True

    def waiting(self, error: CoreError, seconds: float) -> None:
        """The core cannot be asked just now."""
        self.add("core.wait", code=error.code, message=str(error), seconds=round(seconds, 3))

    def reading(self, done: int, total: int) -> None:
        """The user model reads long prompts."""
        self.add("prompt.read", done=done, total=total)

    def departed(self, seq: int, wire_bytes: int) -> None:
        """A message leaves, as this entry of the ledger."""
        self.add("egress", seq=seq, wire_bytes=wire_bytes)

    def ended(self, answer: Answer) -> None:
        """The answer is there."""
        self.add(END, text=answer.text, **answer.figures)

    def failed(self, code: str, message: str) -> None:
        """There will be no answer."""
        self.add(END, end="error", code=code, message=message)

    def _begin(self, block: int, step: int) -> None:
        if step == 0:
            self.add("block.start", block=block)


def passage_json(passage: Passage) -> dict[str, Any]:
    """A passage as a citation: of a cut one, what the user model was given."""
    return {"text": passage.text, **_place_json(passage), "is_cut": passage.is_cut}


def conflicts_json(conflicts: Sequence[Conflict] | None) -> list[dict[str, Any]] | None:
    """Describe where passages disagree; None where it was not looked for."""
    return None if conflicts is None else [asdict(conflict) for conflict in conflicts]


def fit_json(question: Question) -> dict[str, Any]:
    """Describe what did not fit: passages, by their places, the longest answer, earlier turns, private context."""
    return {
        "left_out": [_place_json(passage) for passage in question.left_out],
        "nothing_found": question.nothing_found,
        "max_tokens": question.params.max_tokens,
        "clamped_from": question.clamped_from,
        "left_out_turns": question.left_out_turns,
        "private_context": question.private_context_fit,
    }


def _place_json(passage: Passage) -> dict[str, Any]:
    places = {"line": passage.line, "page": passage.page, "slide": passage.slide, "sheet": passage.sheet or None}
    return {"source": str(passage.source), "heading": passage.heading, **places}


class Traces:
    """The latest answers' traces, by their ids."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Trace] = OrderedDict()

    def begin(self, trace_id: str, tokenizer: Tokenizer) -> Trace:
        """A new trace; the oldest one goes if there are too many."""
        self._kept[trace_id] = trace = Trace(trace_id, tokenizer)
        if len(self._kept) > MAX_TRACES:
            self._kept.popitem(last=False)
        return trace

    def forget(self, trace_ids: Iterable[str]) -> None:
        """Drop the traces of some answers; those that are none are left out."""
        for trace_id in trace_ids:
            self._kept.pop(trace_id, None)

    def get(self, trace_id: str) -> Trace:
        """A trace that was begun.

        Raises:
            NotFound: if there is none such.
        """
        try:
            return self._kept[trace_id]
        except KeyError:
            raise NotFound(
                f"there is no trace {trace_id[:80]!r}; only the last {MAX_TRACES} answers since the start have one"
            ) from None
