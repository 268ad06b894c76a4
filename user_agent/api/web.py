"""The page: index.html at /, and the files that it loads under /web/. All of them are public, so they take no key."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from user_agent.api.errors import ApiError

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).resolve().parents[1] / "web"

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Written down, as what a system thinks of .js decides otherwise whether a browser runs it."""


# See docs/decisions/026-the-page.md.
@router.get("/")
async def index() -> FileResponse:
    """Return the page."""
    return _file("index.html")


@router.get("/web/{name}")
async def asset(name: str) -> FileResponse:
    """Return one file of the page.

    Raises:
        ApiError: with 404 if there is none of that name.
    """
    return _file(name)


def _file(name: str) -> FileResponse:
    """A file that stands in the folder; a name is looked up and never joined to a path unseen."""
    found = next((file for file in FOLDER.iterdir() if file.name == name and file.suffix in _TYPES), None)
    if found is None:
        raise ApiError(404, "not_found", f"the page has no file {name[:80]!r}; reload the page")
    return FileResponse(found, media_type=_TYPES[found.suffix])
