"""The scope of an answer: which others its prompt may be shared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Protocol

from core_server.access.callers import CALLER

SCOPE_KEY = "slingshot-scope"
"""Metadata in which a proxy tells its replicas the scope of an answer."""

_TELL_APART = ("key:", "certificate:", "ipv4:", "ipv6:")


class Line(Protocol):
    """Origin of a call, as gRPC knows it."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Properties of the encryption, such as the certificate that the agent has shown."""

    def peer(self) -> str:
        """The connection's other end: address and port."""


# See docs/decisions/010-prompt-sharing-scopes.md.
def scope_of(line: Line) -> str | None:
    """Name the answers that a call's prompt may be shared with: those of its key, certificate or connection.

    Args:
        line: that the call came on.

    Returns:
        A name for the first of these that there is; None for no other answer: over a Unix socket all look alike.
    """
    if key_id := CALLER.get().id:
        return f"key:{key_id}"
    if certificate := b"".join(line.auth_context().get("x509_pem_cert", ())):
        return f"certificate:{sha256(certificate).hexdigest()}"
    peer = line.peer()
    return peer if peer.startswith(_TELL_APART) else None
