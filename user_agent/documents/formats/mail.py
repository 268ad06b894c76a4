"""Mail: who wrote what to whom, and the body."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart

from user_agent.documents.formats.encoding import recognised
from user_agent.documents.formats.headings import TITLE, Leveled, under_headings
from user_agent.documents.formats.plain_text import lines_of, paragraphs
from user_agent.documents.formats.section import Section
from user_agent.documents.formats.web_page import blocks
from user_agent.errors import DocumentsUnreadable

# Text for a reader; others are data for the mail program (calendar, vcard) or hold marks of their own (enriched, rtf).
_READ = ("html", "markdown", "plain", "x-diff", "x-patch")
_TOLD = ("From", "To", "Cc", "Date", "Subject")


def sections(data: bytes) -> Iterator[Section]:
    """The header in one section, then the texts of the body, which stand under the subject."""
    message = message_from_bytes(data, policy=policy.default)
    if "From" not in message and "Subject" not in message:
        raise DocumentsUnreadable("is not an e-mail (it has neither sender nor subject); save the message again")
    yield Section(", ".join(_header(message)))
    subject = (Section(_as_utf8(message["Subject"] or "")), TITLE)
    body = [one for part in _texts(message) for one in _leveled(part)]
    if any(level is None for _, level in body):  # else it is the header's subject once more
        yield from under_headings([subject, *body])


def _header(message: EmailMessage) -> Iterator[str]:
    yield from (f"{name}: {_as_utf8(message[name])}" for name in _TOLD if name in message)
    names = [_as_utf8(name) for part in message.iter_attachments() if (name := part.get_filename())]
    if names:
        yield f"Attachments: {', '.join(names)}"


def _as_utf8(value: str) -> str:
    """A header with the bytes in it that are not ASCII, which new mail may have and the parser leaves undecoded."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _texts(part: MIMEPart) -> Iterator[MIMEPart]:
    """The parts that a reader of the mail sees one below the other, as text before the attachments and after them.

    Of alternatives mail programs show the HTML; the plain one may say no more than that there is one.
    """
    if part.is_attachment() or part.get_content_type() == "message/rfc822":
        return
    if part.get_content_maintype() == "text":
        if part.get_content_subtype() in _READ:
            yield part
    elif part.get_content_type() in ("multipart/alternative", "multipart/related"):
        bodies = [body for kind in ("html", "plain") if (body := part.get_body((kind,)))]
        yield from [body for body in bodies if any(section.text.strip() for section, _ in _leveled(body))][:1]
    elif part.is_multipart():
        for below in part.iter_parts():
            yield from _texts(below)


def _leveled(part: MIMEPart) -> Iterator[Leveled]:
    """The sections without lines: those of a part are not those of the file."""
    text = _content(part)
    if part.get_content_subtype() == "html":
        yield from ((Section(section.text), None if level == TITLE else level) for section, level in blocks(text))
    else:
        lines = enumerate(lines_of(text), start=1)
        yield from ((Section(section.text), None) for section in paragraphs(lines, has_quotes=True))


def _content(part: MIMEPart) -> str:
    """The text of a part; where its encoding is not named or not known, UTF-8 or what is recognised.

    One odd part costs no other: what cannot be decoded becomes a replacement character.
    """
    data = bytes(part.get_payload(decode=True) or b"")
    charset = part.get_content_charset("us-ascii")
    with suppress(LookupError, UnicodeError):
        if charset != "us-ascii":
            return data.decode(charset, "replace")
    with suppress(UnicodeError):
        return data.decode("utf-8")
    return recognised(data) or data.decode("utf-8", "replace")
