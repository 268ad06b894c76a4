"""The page on which a rater votes, served to this machine's browsers only."""

from __future__ import annotations

import hmac
import json
import secrets
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any, cast

from ssd2.errors import InvalidParameter
from ssd2.lab.votes import VotingSession

_HOST = "127.0.0.1"
_PAGE = Path(__file__).parent / "votes_page"
_FILES = {
    "/": ("index.html", "text/html"),
    "/votes.css": ("votes.css", "text/css"),
    "/votes.js": ("votes.js", "text/javascript"),
}
"""Files of the page by path; they take no token, as they hold nothing of a study."""

_MOST_BYTES = 65_536
"""Longest request; a comment has up to 2,000 characters."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class VoteServer(ThreadingHTTPServer):
    """Server of one rater's session. Each browser connection has a thread: one that sends nothing holds up no other."""

    daemon_threads = True

    def __init__(self, session: VotingSession, port: int = 0) -> None:
        """Listen at a loopback port, 0 for any free one.

        Raises:
            InvalidParameter: if the port cannot be had.
        """
        self.session, self.token, self.lock = session, secrets.token_urlsafe(24), Lock()
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InvalidParameter(
                f"cannot listen on {_HOST}:{port}: {error}; choose another port, 0 for any free one", parameter="port"
            ) from error

    @cached_property
    def origin(self) -> str:
        """Host and port, as browsers name them."""
        return f"{_HOST}:{self.server_port}"

    @property
    def url(self) -> str:
        """Address of the page, with the token that it needs."""
        return f"http://{self.origin}/#{self.token}"


class _Refused(Exception):
    """A request that is not carried out."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """One request: a file of the page, the state of the session, a vote or its undoing."""

    server_version, sys_version = "votes", ""
    timeout = 30

    def do_GET(self) -> None:
        """Send a file of the page, or the state."""
        if self.path in _FILES:
            name, kind = _FILES[self.path]
            self._send(200, (_PAGE / name).read_bytes(), f"{kind}; charset=utf-8")
        else:
            self._answer("GET")

    def do_POST(self) -> None:
        """Store a vote, or take the last one back."""
        self._answer("POST")

    def _answer(self, method: str) -> None:
        try:
            self._check_access()
            with self._votes.lock:  # one vote after the other, whatever windows are open
                self._act(f"{method} {self.path}")
                state = self._votes.session.shown()
        except _Refused as error:
            self._send_json(error.status, {"error": str(error)})
        except InvalidParameter as error:
            self._send_json(409, {"error": str(error)})
        else:
            self._send_json(200, state)

    @property
    def _votes(self) -> VoteServer:
        return cast(VoteServer, self.server)

    def _check_access(self) -> None:
        """Refuse who does not know the token, and pages of another name that leads to this machine."""
        if self.headers.get("Host") != self._votes.origin:
            raise _Refused(403, "open the page at the address that the program printed")
        given = self.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self._votes.token}".encode()):
            raise _Refused(401, "open the page at the whole address that the program printed, with all behind the #")

    def _act(self, request: str) -> None:
        session = self._votes.session
        if request == "POST /vote":
            vote = self._body()
            if not all(isinstance(vote.get(name), str) for name in ("pair", "choice", "comment")):
                raise _Refused(400, "a vote has a pair, a choice and a comment")
            session.vote(vote["pair"], vote["choice"], vote["comment"])
        elif request == "POST /undo":
            session.undo()
        elif request != "GET /state":
            raise _Refused(404, "there is nothing at this address")

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            raise _Refused(413, f"a vote has at most {_MOST_BYTES} bytes; shorten the comment")
        try:
            value = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise _Refused(400, "a vote is a JSON object") from error
        return value if isinstance(value, dict) else {}

    def _send_json(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, text in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing: when a rater votes is nobody's business."""
