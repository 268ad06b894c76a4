"""/v1/documents: what the user model may look in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, UploadFile
from pydantic import BaseModel, Field

from user_agent.answering.traces import passage_json
from user_agent.api.errors import ApiError, documented
from user_agent.api.reading import LinkCheck
from user_agent.api.state import AppState, state_of
from user_agent.documents import store
from user_agent.documents.collection import Collection
from user_agent.stores import forget_quotes

router = APIRouter(prefix="/v1/documents", tags=["Documents"])

Id = Annotated[int, Field(ge=0, lt=2**63)]


class Document(BaseModel):
    """A file that was read, could not be read, or has an unsupported format.

    Attributes:
        copy_of: the path of the first document with the same bytes; their passages are found once.
    """

    id: int
    name: str
    path: str
    link: int | None
    state: Literal["indexed", "failed", "skipped"]
    reason: str
    copy_of: str | None
    passages: int
    bytes: int
    changed: str | None

    @classmethod
    def of(cls, document: store.Document) -> Document:
        """As the library has it."""
        changed = datetime.fromtimestamp(document.modified_ns / 1e9, UTC) if document.modified_ns else None
        return cls(
            id=document.id,
            name=document.path.name,
            path=str(document.path),
            link=document.link_id,
            state=document.state,
            reason=document.reason,
            copy_of=str(document.copy_of) if document.copy_of else None,
            passages=document.passages,
            bytes=document.size_bytes,
            changed=changed.isoformat() if changed else None,
        )


class Documents(BaseModel):
    """Page of documents, in the order of their paths."""

    data: list[Document]
    has_more: bool


class Check(BaseModel):
    """Check whether the user model can read a link: a few questions about it, answered on this device.

    Attributes:
        state: waiting until the documents are read, running, or done.
        models: that are checked.
        questions: number answered so far.
        right: number of them answered correctly.
        can_read: false if the models cannot read the documents; null while it is not known.
        says: the result in a sentence.
    """

    state: Literal["waiting", "running", "done"]
    models: str
    questions: int
    right: int
    can_read: bool | None
    says: str

    @classmethod
    def of(cls, check: LinkCheck) -> Check:
        """Describe a check as it stands."""
        found, is_done = check.found, check.state == "done"
        return cls(
            state=check.state,
            models=check.models,
            questions=found.questions,
            right=found.right,
            can_read=found.can_read if is_done else None,
            says=check.says,
        )


class Link(BaseModel):
    """A folder or file that is kept in sync; `check` is null if it was not checked since the agent's start."""

    id: int
    path: str
    documents: int
    failed: int
    check: Check | None


class Links(BaseModel):
    """All links."""

    data: list[Link]


class NewLink(BaseModel):
    """A folder or file of this machine."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]


class Progress(BaseModel):
    """Progress of a sync, or the end of the last one; `done` counts unchanged files too."""

    is_running: bool
    total: int
    done: int
    indexed: int
    unchanged: int
    failed: int
    skipped: int
    per_second: float
    eta_s: float | None
    current: str
    problems: list[str]


class SearchRequest(BaseModel):
    """Query of a search."""

    query: Annotated[str, Field(max_length=10_000)]
    limit: Annotated[int, Field(ge=1, le=100)] = 10
    documents: list[Id] | None = None
    collections: list[Id] | None = None


class Passage(BaseModel):
    """A piece of a document, with its place; of a workbook the line is a row of its sheet.

    Attributes:
        text: without the headings.
        heading: the headings that it stands under, the outermost first; the user model reads them before the text.
    """

    text: str
    source: str
    heading: str
    line: int | None
    page: int | None
    slide: int | None
    sheet: str | None
    is_cut: bool


class Passages(BaseModel):
    """Passages found for a question, the best match first.

    Attributes:
        data: passages that the user model would read; one of them may be cut to the sentences that fit.
        left_out: passages that do not fit, or are not used.
        why_none: reason why no passage is used, whatever fits; null if there is no such reason.
        more: number of passages found beyond the limit.
    """

    data: list[Passage]
    left_out: list[Passage]
    why_none: str | None
    more: int


Answers = Annotated[bool, Query(description="also delete the saved answers for which something of it was read")]


class Quoting(BaseModel):
    """Number of saved answers for which something of a document was read."""

    answers: int


class Removed(BaseModel):
    """Confirmation of a removal."""

    id: int
    deleted: Literal[True] = True


@router.get("", responses=documented())
async def documents(
    request: Request,
    state: Literal["indexed", "failed", "skipped"] | None = None,
    after: Annotated[int, Query(ge=0, le=10**9, description="number of entries to skip")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Documents:
    """List every file found, including failed and skipped ones."""
    found = await asyncio.to_thread(_collection(request).documents)
    wanted = [document for document in found if state in (None, document.state)]
    page = wanted[after : after + limit]
    return Documents(data=[Document.of(document) for document in page], has_more=len(wanted) > after + limit)


@router.post("", responses=documented())
async def upload(request: Request, file: UploadFile) -> Document:
    """Read an upload and store it encrypted; a damaged one is stored as failed, with the reason."""
    data = await file.read()
    return Document.of(await asyncio.to_thread(_collection(request).add, data, file.filename or "upload"))


@router.get("/links", responses=documented())
async def links(request: Request) -> Links:
    """List folders and files that are kept in sync."""
    return Links(data=await asyncio.to_thread(_links, state_of(request)))


@router.post("/links", responses=documented())
async def link(request: Request, new: NewLink) -> Link:
    """Keep a folder or file in sync from now on; its documents are read, and then checked, in the background."""
    state = state_of(request)
    added = await asyncio.to_thread(state.stores.documents.link, Path(new.path))
    state.check_links(added.id)
    return next(link for link in await asyncio.to_thread(_links, state) if link.id == added.id)


@router.delete("/links/{link_id}", responses=documented())
async def unlink(request: Request, link_id: Id, answers: Answers = False) -> Removed:
    """Remove a link and its documents; the files stay."""
    state = state_of(request)
    paths = [one.path for one in await asyncio.to_thread(_collection(request).links) if one.id == link_id]
    await asyncio.to_thread(_collection(request).unlink, link_id)
    await _forget_quotes(state, paths if answers else [])
    return Removed(id=link_id)


@router.get("/links/{link_id}/answers", responses=documented())
async def answers_from(request: Request, link_id: Id) -> Quoting:
    """Count the saved answers for which something of a link was read."""
    stores = state_of(request).stores
    paths = [str(one.path) for one in await asyncio.to_thread(stores.documents.links) if one.id == link_id]
    return Quoting(answers=len(await asyncio.to_thread(stores.history.answers_with, paths)))


@router.get("/progress", responses=documented())
async def progress(request: Request) -> Progress:
    """Return the progress of the sync."""
    now = _collection(request).progress
    return Progress(
        is_running=bool(now.current),
        total=now.total,
        done=now.done,
        indexed=now.indexed,
        unchanged=now.unchanged,
        failed=now.failed,
        skipped=now.skipped,
        per_second=now.documents_per_s,
        eta_s=now.eta_s,
        current=now.current,
        problems=list(now.problems),
    )


@router.post("/search", responses=documented())
async def search(request: Request, body: SearchRequest) -> Passages:
    """Return the passages that the user model would read for a question, and others found; `limit` counts both."""
    answering = state_of(request).answering
    if body.documents is not None and body.collections is not None:
        message = "collections take the place of documents; send one of them"
        raise ApiError(400, "invalid_value", message, "collections")
    given = {} if body.documents is None else {"documents": tuple(body.documents)}
    if body.collections is not None:
        given["documents"] = await asyncio.to_thread(_collection(request).documents_of, body.collections)
    fitted = await answering.passages_for(answering.request(body.query, **given))
    shown = [Passage(**passage_json(passage)) for passage in fitted.passages[: body.limit]]
    left_out = [Passage(**passage_json(passage)) for passage in fitted.left_out[: body.limit - len(shown)]]
    more = len(fitted.passages) + len(fitted.left_out) - len(shown) - len(left_out)
    return Passages(data=shown, left_out=left_out, why_none=fitted.why_none, more=more)


@router.delete("/{document_id}", responses=documented())
async def remove(request: Request, document_id: Id, answers: Answers = False) -> Removed:
    """Remove an upload."""
    state = state_of(request)
    paths = [one.path for one in await asyncio.to_thread(_collection(request).documents) if one.id == document_id]
    await asyncio.to_thread(_collection(request).remove, document_id)
    await _forget_quotes(state, paths if answers else [])
    return Removed(id=document_id)


async def _forget_quotes(state: AppState, paths: Sequence[Path]) -> None:
    for path in paths:
        state.answering.traces.forget(await asyncio.to_thread(forget_quotes, state.stores, path))
    if paths:
        state.answering.forget_prompts()


def _collection(request: Request) -> Collection:
    return state_of(request).stores.documents


def _links(state: AppState) -> list[Link]:
    library, checks = state.stores.documents, state.checks
    failed = [document.link_id for document in library.documents() if document.state == "failed"]
    return [
        Link(
            id=link.id,
            path=str(link.path),
            documents=link.documents,
            failed=failed.count(link.id),
            check=Check.of(check) if (check := checks.of(link.id)) else None,
        )
        for link in library.links()
    ]
