"""Earlier turns of a conversation, as far as each side may see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ssd2.models.chat import Message, turns_of, without_thinking
from ssd2.models.layouts import AnswerLayout


@dataclass(frozen=True)
class Turn:
    """One turn.

    Attributes:
        question: of the user's; "" where the conversation begins with an answer.
        answer: "" if there is none.
        crossed: the part of the answer that a core was sent when it was made; only this is ever sent again.
    """

    question: str
    answer: str
    crossed: str


@dataclass(frozen=True)
class Conversation:
    """Messages before a question.

    Attributes:
        system_prompt: the one of both prompts; "" for the model's own.
        turns: the oldest first.
        layout: of the answers, in both prompts.
    """

    system_prompt: str = ""
    turns: tuple[Turn, ...] = ()
    layout: AnswerLayout = "plain"

    @classmethod
    def of(cls, history: Sequence[Message], crossed_part: Callable[[str], str]) -> Conversation:
        """Read the messages before a question.

        Args:
            history: in order.
            crossed_part: gives the part of an answer that may be sent to a core.
        """
        turns = []
        for said in turns_of(history):
            questions = [message.content for message in said if message.role == "user"]
            answers = [without_thinking(message.content) for message in said if message.role == "assistant"]
            turns.append(Turn("\n\n".join(questions), "\n\n".join(answers), _crossed_of(answers, crossed_part)))
        return cls("\n\n".join(message.content for message in history if message.role == "system"), tuple(turns))

    def instructed(self, system_prompt: str) -> Conversation:
        """Return the conversation with a system prompt, unless it has one of its own."""
        return replace(self, system_prompt=self.system_prompt or system_prompt)

    def laid_out(self, layout: AnswerLayout) -> Conversation:
        """Return the conversation with a layout of its answers."""
        return replace(self, layout=layout)

    def without_turns(self) -> Conversation:
        """Leave out all turns."""
        return replace(self, turns=())

    def without_oldest(self) -> Conversation:
        """Leave out the oldest turn."""
        return replace(self, turns=self.turns[1:])

    def for_core(self, question: str) -> list[Message]:
        """Messages of the core's prompt: the user's own, and of the answers what crossed."""
        return self._messages(question, [turn.crossed for turn in self.turns])

    def for_user(self, question: str) -> list[Message]:
        """Messages of the user model's prompt: all."""
        return self._messages(question, [turn.answer for turn in self.turns])

    def _messages(self, question: str, answers: Sequence[str]) -> list[Message]:
        messages = [Message("system", self.system_prompt)]
        for turn, answer in zip(self.turns, answers, strict=True):
            messages += [Message("user", turn.question), Message("assistant", answer)]
        return [*(message for message in messages if message.content.strip()), Message("user", question)]


def _crossed_of(answers: Sequence[str], crossed_part: Callable[[str], str]) -> str:
    """Return the part of one turn's answers that crossed; a client may have split one into several messages."""
    joined = "\n\n".join(answers)
    if (part := crossed_part(joined)) != joined:
        return part
    parts = []
    for answer in answers:
        parts.append(crossed_part(answer))
        if parts[-1] != answer:  # what comes behind may belong to it
            break
    return "\n\n".join(part for part in parts if part)


NOTHING_SAID = Conversation()
