"""/v1/pairs: pairs of public models, and their download, which runs in a process of its own and only when asked for."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ssd2.errors import InvalidParameter
from ssd2.models.pairs import EMBEDDED, PAIRS, Pair, fetched_bytes, free_disk, free_memory, pair_named
from user_agent.api.errors import documented
from user_agent.api.state import AppState, state_of

router = APIRouter(prefix="/v1", tags=["Settings"])

ONE_MACHINE = (EMBEDDED, "qwen2.5-coder-1.5b")
"""Pairs to offer on a first start, the better ones last."""


class ShownPair(BaseModel):
    """One pair.

    Attributes:
        name: of the pair.
        purpose: what it is good for.
        run: with which weights the project has run it; "no" if it has not.
        licence: of its models.
        is_gated: a licence has to be accepted, so it is downloaded in a terminal.
        download_bytes: of both models.
        fetched_bytes: that have come so far.
        is_embedded: it is the smallest one, which is offered first.
        is_chosen: this agent answers with it.
        is_downloaded: it can be used.
        is_downloading: its download runs.
        is_offered: this machine has the memory for it, all that its answers load, and the disk for its download, and
            the page offers it.
        error: why its last download failed.
    """

    name: str
    purpose: str
    run: str
    licence: str
    is_gated: bool
    download_bytes: int
    fetched_bytes: int
    is_embedded: bool
    is_chosen: bool
    is_downloaded: bool
    is_downloading: bool
    is_offered: bool
    error: str | None


@router.get("/pairs", responses=documented())
async def pairs(request: Request) -> list[ShownPair]:
    """Return the pairs of public models, and how far their downloads are."""
    state = state_of(request)
    return await asyncio.to_thread(lambda: [_shown(pair, state) for pair in PAIRS])


@router.post("/pairs/{name}/download", status_code=202, responses=documented(409))
async def download(request: Request, name: str) -> ShownPair:
    """Start to download a pair; `GET /v1/pairs` tells how far it is. Then choose it as the setting `pair`."""
    state, pair = state_of(request), pair_named(name)
    if any(model.is_gated for model in pair.models):
        raise InvalidParameter(
            f"{name} is under a licence that has to be accepted; download it in a terminal", parameter="pair"
        )
    state.fetching.start(name)
    return _shown(pair, state)


def _shown(pair: Pair, state: AppState) -> ShownPair:
    fetching, free = state.fetching, free_memory()
    is_its = fetching.pair == pair.name
    needed = sum(model.memory_bytes() for model in pair.loaded)
    room = sum(model.room_bytes for model in pair.models if not model.is_downloaded)
    has_room = fetching.is_running or room <= free_disk()
    return ShownPair(
        name=pair.name,
        purpose=pair.purpose,
        run=pair.run or "no",
        licence=" and ".join(dict.fromkeys(model.licence for model in pair.models)),
        is_gated=any(model.is_gated for model in pair.models),
        download_bytes=sum(model.download_bytes for model in pair.models),
        fetched_bytes=sum(fetched_bytes(model) for model in pair.models),
        is_embedded=pair.name == EMBEDDED,
        is_chosen=pair.name == state.config.pair,
        is_downloaded=all(model.is_downloaded for model in pair.models),
        is_downloading=is_its and fetching.is_running,
        is_offered=pair.name in ONE_MACHINE and has_room and (free is None or needed <= free),
        error=fetching.error if is_its else None,
    )
