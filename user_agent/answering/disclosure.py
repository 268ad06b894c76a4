"""Sentences about who learns what: the only place that has them. Page, command line, REST and documents repeat them.

A test compares them with README, docs and the threat model, and looks for sentences elsewhere that contradict them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ssd2.wire.addresses import is_loopback
from user_agent.answering.request import AnswerSettings
from user_agent.store.answers import CrossedWords, State

Mode: TypeAlias = Literal["alone", "own core", "local core", "no documents", "provider"]
"""Who takes part: the private model alone, a core that the agent started, one that is reached on this machine,
or a provider's core; with no documents it is one of the last two."""

PROVIDER_LEARNS = (
    "The provider learns your questions and every word of the answers, including what they quote from your documents."
)
ATTACKS = (
    "A provider that attacks can read more of the passages found for a question. Use only a provider that you trust "
    "not to attack."
)
FILES_STAY = "Files are not sent. " + PROVIDER_LEARNS
ALONE = "The private model answers by itself (λ 1). Nothing is sent, so nobody else sees the question or the answer."
OWN_CORE = "Both models run on this machine. No other machine sees the question or the answer."
ELSEWHERE = (
    "A core elsewhere would see your questions and every word of the answers, including what they quote from your "
    "documents."
)
NO_WORDS = "No words of your documents were found in it."
NOT_RECORDED = "Which words of documents were in it is not recorded."
PLAINTEXT = "The connection is not encrypted: anyone on the network path will see the same."
LEDGER_LEFT = (
    "The provider can read all that left: the questions, and the tokens of the answers with what they quote from your "
    "documents."
)
LEDGER_LOCAL = (
    "These messages went to a core on this machine. A provider elsewhere could read all of them: the questions, and "
    "the tokens of the answers with what they quote from your documents."
)


# See docs/decisions/066-what-the-provider-learns.md.
@dataclass(frozen=True)
class Disclosure:
    """Who will see what of the next answer.

    Attributes:
        mode: who takes part.
        core: address of the core; None if none is asked.
        is_encrypted: whether the connection is encrypted, or does not leave this machine.
        takes_conversations: whether earlier messages of a chat go with a question.
        reads: what the private model reads beside the question, such as "documents".
    """

    mode: Mode
    core: str | None = None
    is_encrypted: bool = True
    takes_conversations: bool = True
    reads: Sequence[str] = ("documents",)

    @property
    def before(self) -> str:
        """What will be seen, for the line under the question."""
        if self.mode == "alone":
            return ALONE
        if self.mode == "own core":
            return OWN_CORE
        said = "what you write in this chat" if self.takes_conversations else "your question"
        answers = "every word of the answers" if self.takes_conversations else "every word of the answer"
        quoted = " and ".join(f"your {one}" for one in self.reads) if self.mode != "no documents" else ""
        verb = "they quote" if self.takes_conversations else "it quotes"
        seen = f"will see {said} and {answers}{f', including what {verb} from {quoted}' if quoted else ''}."
        parts = [
            f"{self._who} {seen}",
            "" if quoted else "No document is read.",
            "" if self.is_encrypted else PLAINTEXT,
        ]
        return " ".join(part for part in parts if part)

    @property
    def welcome(self) -> str:
        """The same with what an attack can do, for somebody who has not asked yet."""
        more = {"own core": ELSEWHERE, "provider": ATTACKS, "local core": ATTACKS}.get(self.mode, "")
        return f"{self.before} {more}".strip()

    @property
    def _who(self) -> str:
        """Whoever runs the core: an address on this machine may be a tunnel to another one."""
        name = provider_name([self.core or ""])
        return f"Whoever runs the core at {self.core}" if is_here([self.core or ""]) else name


def disclosure(
    settings: AnswerSettings, core: str | None, *, is_own: bool, is_encrypted: bool, takes_conversations: bool
) -> Disclosure:
    """Return who will see what of an answer with these settings.

    Args:
        settings: λ, documents and private context.
        core: address of the core that is asked, of several replicas with commas; None for none.
        is_own: whether the agent started it on this machine.
        is_encrypted: whether TLS is on.
        takes_conversations: whether the models see earlier turns.
    """
    if core is None or settings.lambda_user == 1:
        return Disclosure("alone")
    if is_own:
        return Disclosure("own core", core)
    here = is_here(core.split(","))
    reads = {"documents": settings.documents not in (False, ()), "private context": settings.private_context.strip()}
    read = [name for name, is_read in reads.items() if is_read and settings.lambda_user != 0]
    mode: Mode = "no documents" if not read else "local core" if here else "provider"
    return Disclosure(mode, core, is_encrypted or here, takes_conversations, read)


def is_here(addresses: Sequence[str]) -> bool:
    """True if all of some addresses HOST:PORT are this machine."""
    return all(is_loopback(address.strip().rpartition(":")[0]) for address in addresses)


def provider_name(addresses: Sequence[str]) -> str:
    """Name whoever gets what is sent to some addresses: their hosts, or the core on this machine."""
    if is_here(addresses):
        return f"The core at {', '.join(addresses)}"
    every = [host for address in addresses for host in address.split(",")]
    return " and ".join(dict.fromkeys(host.strip().rpartition(":")[0] for host in every))


def now_knows(addresses: Sequence[str], words: Sequence[CrossedWords], state: State = "whole") -> str:
    """Say what a core has learned from one answer.

    Args:
        addresses: that something was sent to, HOST:PORT.
        words: of the user's own text that were in the answer.
        state: of the answer.
    """
    lead = now_knows_lead(addresses, state, has_words=bool(words))
    return f"{lead} {', '.join(f'{one.text} ({one.place})' for one in words)}." if words else lead


def now_knows_lead(addresses: Sequence[str], state: State = "whole", *, has_words: bool) -> str:
    """Begin the sentence of `now_knows`, for a face that marks the words; without words it is the whole sentence."""
    answer = "this answer" if state == "whole" else "as much of the answer as was made"
    if has_words:
        return f"{provider_name(addresses)} now knows your question, {answer}, and from your documents:"
    found = NOT_RECORDED if state == "begun" else NO_WORDS
    return f"{provider_name(addresses)} now knows your question and {answer}. {found}"


def no_record(addresses: Sequence[str]) -> str:
    """Say what a core has learned from an answer whose record is gone."""
    return f"{provider_name(addresses)} now knows a question and its answer. {NOT_RECORDED}"
