"""Sentences about who learns what: one place has them, and nothing elsewhere contradicts them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from user_agent.answering import disclosure as sentences
from user_agent.answering.disclosure import Disclosure, disclosure, now_knows, provider_name
from user_agent.answering.request import AnswerSettings
from user_agent.store.answers import CrossedWords

ROOT = Path(__file__).parents[3]
THREATS = ROOT / "protos" / "threat-model.md"
CORE = "core.example.org:50051"
HERE = "127.0.0.1:50051"
WORDS = [CrossedWords("Hazel Hammer", "/n/appointments.md", "appointments.md:3")]


def plain(text: str) -> str:
    """Return a text without line breaks and emphasis."""
    return " ".join(text.replace("**", "").split())


def before(
    core: str | None, *, is_own: bool = False, is_encrypted: bool = True, goes_on: bool = True, **given: Any
) -> str:
    settings = AnswerSettings(**given)
    return disclosure(settings, core, is_own=is_own, is_encrypted=is_encrypted, takes_conversations=goes_on).before


def rows() -> dict[str, str]:
    """Return the app's sentences before a question, by the situation."""
    return {
        "a core elsewhere": before(CORE),
        "the same, with models that read one question at a time": before(CORE, goes_on=False),
        "the same with private context": before(CORE, goes_on=False, private_context="I am 40."),
        "the same, λ 0 or no documents": before(CORE, lambda_user=0),
        "the same without TLS": before(CORE, goes_on=False, is_encrypted=False),
        "a core that you run on this machine, or a tunnel to another one": before(HERE),
        "a core that the agent starts on this machine": before(HERE, is_own=True),
        "λ 1": before(CORE, lambda_user=1),
    }  # fmt: skip


def test_the_threat_model_has_what_the_app_says_before_a_question() -> None:
    table = re.findall(r"^\| ([^|]+) \| “([^|]+)” \|$", THREATS.read_text(), re.MULTILINE)
    assert dict(table) == rows()


@pytest.mark.parametrize("page", ["README.md", "protos/threat-model.md", "docs/privacy.md"])
def test_the_pages_say_in_the_same_words_what_the_provider_learns(page: str) -> None:
    assert sentences.PROVIDER_LEARNS in plain((ROOT / page).read_text())


def test_no_document_and_private_context_are_told_from_each_other() -> None:
    assert "No document is read." in before(CORE, documents=False)
    assert "No document is read." in before(CORE, documents=())
    assert "from your private context." in before(CORE, documents=False, private_context="I am 40.")
    assert "from your documents and your private context." in before(CORE, private_context="I am 40.")


@pytest.mark.parametrize("mode", ["own core", "local core", "provider"])
def test_the_welcome_adds_what_may_happen_elsewhere(mode: Any) -> None:
    shown = Disclosure(mode, CORE)
    assert shown.welcome.startswith(shown.before)
    assert len(shown.welcome) > len(shown.before)


@pytest.mark.parametrize(
    ("addresses", "name"),
    [
        ([CORE], "core.example.org"),
        (["a.example:1", "b.example:2", "a.example:3"], "a.example and b.example"),
        ([HERE], "The core at 127.0.0.1:50051"),
        (["[::1]:7"], "The core at [::1]:7"),
    ],
)
def test_whoever_runs_the_core_is_named(addresses: list[str], name: str) -> None:
    assert provider_name(addresses) == name


def test_what_is_known_now_names_words_and_documents() -> None:
    assert now_knows([CORE], WORDS) == (
        "core.example.org now knows your question, this answer, and from your documents: "
        "Hazel Hammer (appointments.md:3)."
    )
    assert now_knows([CORE], []).endswith("No words of your documents were found in it.")
    assert now_knows([CORE], [], "begun").endswith("Which words of documents were in it is not recorded.")
    assert "as much of the answer as was made" in now_knows([CORE], WORDS, "stopped")


OWN = r"(?:documents?|notes?|data|texts?|passages?|words?|answers?|questions?|everything|nothing|information)"
CLAIMS = (
    rf"\b{OWN}\b(?: \w+){{0,3}} (?:stays?|remains?|never leaves?|never leave|do(?:es)? not leave|don['’]t leave)\b",
    r"\bnothing (?:leaves?|is sent|crosses)\b",
    r"\b(?:fully|completely|totally) (?:private|local|offline)\b",
    r"\bprovider (?:never|cannot|can't|does not) (?:sees?|reads?|learns?)\b",
    r"\bzero[- ]knowledge\b",
)
"""Claims that more is kept than is."""

LOOKED_AT = {
    "README.md": ["With this one the user model answers by itself, and nothing is sent:"],
    "docs/rest.md": [
        "nothing is sent for it",
        "nothing is sent unless `ask_core` is true",
        "At λ = 1 nothing is sent, so nothing is looked at.",
    ],
    "docs/using-the-app.md": ["at most 15 s and without the core: nothing is sent."],
    "protos/threat-model.md": ["with `--lambda-user 1` nothing is sent", "λ 1 | “The private model answers by itself"],
    "user_agent/store/ledger.py": ["the ledger of what leaves this device cannot be written ({error}), so nothing is"],
    "user_agent/commands/answering.py": ["(λ 1, as measured); nothing is sent"],
    "user_agent/commands/tune.py": ["questions are made from the documents and stay on this device."],
    "user_agent/commands/search.py": ["the setting max_tokens. Nothing is sent."],
    "user_agent/commands/reading.py": ["the documents of some links. Nothing is sent."],
    "user_agent/api/reading.py": ["beside the agent's answers; nothing is sent for them."],
    "user_agent/api/settings.py": ["Nothing is sent for it.", "Nothing is sent unless `ask_core` is true."],
}
"""Claims that were looked at and hold, by their file: of each some words of its paragraph."""


def paragraphs() -> Iterator[tuple[str, str]]:
    """Yield all that people read: pages, help texts, messages, routes, the page in the browser."""
    folders = [(ROOT / "docs").glob("*.md"), (ROOT / "protos").glob("*.md"), (ROOT / "deploy").rglob("*.md")]
    for page in [ROOT / "README.md", *(page for folder in folders for page in folder)]:
        for text in re.split(r"\n\s*\n|\n(?=[-|])", page.read_text()):
            yield str(page.relative_to(ROOT)), plain(text)
    for source in [*(ROOT / "user_agent").rglob("*.py"), *(ROOT / "user_agent" / "web").glob("*.[jh]*")]:
        where, text = str(source.relative_to(ROOT)), source.read_text()
        if where.startswith(("user_agent/commands", "user_agent/api")):  # whose docstrings are help and schema
            yield from ((where, plain(one)) for one in re.findall(r'"""(.*?)"""', text, re.DOTALL))
        if source.name != "disclosure.py":
            joined = re.sub(r'"\s*\+?\s*\n\s*f?"', "", re.sub(r'""".*?"""', "", text, flags=re.DOTALL))
            yield from ((where, plain("".join(one))) for one in re.findall(r'"([^"\n]+)"|`([^`\n]+)`', joined))


def contradictions(texts: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the paragraphs with a claim that nobody has looked at, each with its page."""
    return [
        (where, text)
        for where, text in texts
        for claims in [sum(len(re.findall(claim, text, re.IGNORECASE)) for claim in CLAIMS)]
        if claims > sum(text.count(known) for known in LOOKED_AT.get(where, ()))
    ]


def test_no_sentence_in_app_readme_or_docs_claims_that_more_is_kept_than_is() -> None:
    assert contradictions(paragraphs()) == []


@pytest.mark.parametrize(
    "text",
    [
        "Your documents stay on your device.",
        "The documents never leave this machine.",
        "Nothing leaves your device.",
        "Answers are fully private.",
        "The provider never sees your notes.",
    ],
)
def test_a_contradiction_is_found(text: str) -> None:
    assert contradictions(iter([("page", text)])) == [("page", text)]
