"""Mail: who wrote what to whom, and the body."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart

from ssd2.errors import DocumentsUnreadable
from user_agent.documents.formats.plain_text import paragraphs
from user_agent.documents.formats.section import Section
from user_agent.documents.formats.web_page import blocks

_TOLD = ("From", "To", "Cc", "Date", "Subject")


def sections(data: bytes) -> Iterator[Section]:
    """The header in one section, then the body: its plain text, else its HTML."""
    message = message_from_bytes(data, policy=policy.default)
    if "From" not in message and "Subject" not in message:
        raise DocumentsUnreadable("is no mail: it has neither a sender nor a subject")
    yield Section(", ".join(_header(message)))
    body = message.get_body(("plain", "html"))
    if body is not None:
        yield from _body(body)


def _header(message: EmailMessage) -> Iterator[str]:
    yield from (f"{name}: {message[name]}" for name in _TOLD if name in message)
    names = [name for part in message.iter_attachments() if (name := part.get_filename())]
    if names:
        yield f"Attachments: {', '.join(names)}"


def _body(body: MIMEPart) -> Iterator[Section]:
    """Without lines: those of a part are not those of the file."""
    try:
        text = body.get_content()
    except (LookupError, UnicodeError) as error:
        raise DocumentsUnreadable(f"has a body in an encoding that is not known: {error}") from error
    is_html = body.get_content_subtype() == "html"
    found = blocks(text) if is_html else paragraphs(enumerate(text.splitlines(), start=1))
    yield from (Section(section.text) for section in found)
