"""Prompts that programs stuff with passages, in the manner of public ones but in words of our own.

Each is a template in the manner of a program, filled with invented passages in the form that it gives them. The
rule was chosen on the first set; the other was looked at once, to report. Both are in rag_prompts.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

PASSAGES = (
    (
        "hazel-hammer.md",
        "Hazel Hammer repairs boilers in Quarry Lane. She charges 64 crowns an hour and comes on Tuesdays.",
    ),
    (
        "lease.pdf",
        "The deposit of 1,850 crowns is returned within six weeks after the keys were handed over at the office.",
    ),
    (
        "choir.txt",
        "Rehearsals begin at half past seven in the old ferry hall. Members bring their own lamp and a chair.",
    ),
    (
        "garden-club.docx",
        "The spring exchange of seedlings takes place on the second Saturday of April behind the mill.",
    ),
    (
        "insurance.html",
        "Water damage has to be reported within three days. Photographs of each room help to settle the claim.",
    ),
    (
        "clinic.eml",
        "Dr. Osk Varnel moved the appointment to the ninth of May, a quarter past ten, on the second floor.",
    ),
)
QUESTIONS = (
    "Who repairs my boiler?",
    "When do I get the deposit back?",
    "Where does the choir meet?",
    "When is my appointment?",
)


def _plain(chunks: list[tuple[str, str]]) -> str:
    return "\n\n".join(text for _, text in chunks)


def _numbered(chunks: list[tuple[str, str]]) -> str:
    return "\n".join(f"[{number}] {text}" for number, (_, text) in enumerate(chunks, 1))


def _tagged(chunks: list[tuple[str, str]]) -> str:
    return "\n".join(
        f'<source id="{number}" name="{name}">{text}</source>' for number, (name, text) in enumerate(chunks, 1)
    )


def _named(chunks: list[tuple[str, str]]) -> str:
    return "\n\n".join(f"{text}\nSource: {name}" for name, text in chunks)


def _documents(chunks: list[tuple[str, str]]) -> str:
    return "\n".join(f"Document {number} ({name}):\n{text}" for number, (name, text) in enumerate(chunks, 1))


def _metadata(chunks: list[tuple[str, str]]) -> str:
    return "\n\n".join(f"page_label: 1\nfile_path: /data/{name}\n\n{text}" for name, text in chunks)


def _json(chunks: list[tuple[str, str]]) -> str:
    return "[" + ", ".join(f'{{"content": "{text}", "title": "{name}"}}' for name, text in chunks) + "]"


def _bullets(chunks: list[tuple[str, str]]) -> str:
    return "\n".join(f"- {text}" for _, text in chunks)


_FORMS = {
    "plain": _plain,
    "numbered": _numbered,
    "tagged": _tagged,
    "named": _named,
    "documents": _documents,
    "metadata": _metadata,
    "json": _json,
    "bullets": _bullets,
}


@dataclass(frozen=True)
class Stuffed:
    """One prompt.

    Attributes:
        manner: the program whose prompts it is like.
        text: filled.
    """

    manner: str
    text: str


def _filled(place: int, manner: str, form: str, template: str) -> Stuffed:
    chunks = [PASSAGES[(place + at) % len(PASSAGES)] for at in range(2 + place % 3)]
    question = QUESTIONS[place % len(QUESTIONS)]
    return Stuffed(manner, template.replace("{context}", _FORMS[form](chunks)).replace("{question}", question))


_SETS = json.loads((Path(__file__).parent / "rag_prompts.json").read_text(encoding="utf-8"))
CHOSEN_ON = tuple(_filled(place, **one) for place, one in enumerate(_SETS["chosen on"]))
REPORTED_ON = tuple(_filled(place, **one) for place, one in enumerate(_SETS["reported on"], len(CHOSEN_ON)))
