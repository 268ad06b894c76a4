"""Access control of the endpoint: a bearer key, and the names in the Host header that are this agent's."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from user_agent.api.errors import ApiError
from user_agent.api.state import state_of
from user_agent.config import AgentConfig
from user_agent.store.tuned import config_folder, write_private

KEY_FILE = "api-key"

_BEARER = HTTPBearer(auto_error=False, description="the agent's API key")


def api_key(config: AgentConfig) -> str:
    """The key that was set, or the one that is kept; made at the first start.

    Raises:
        InvalidParameter: if it can be neither read nor written.
    """
    if config.api_key is not None:
        return config.api_key.get_secret_value()
    file: Path = config_folder() / KEY_FILE
    if not file.is_file():
        write_private(file, f"sk-slingshot-{secrets.token_urlsafe(24)}\n")
    return file.read_text(encoding="utf-8").strip()


def authorised(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
    """Refuse whoever does not know the key.

    Raises:
        ApiError: with 401.
    """
    key = state_of(request).api_key
    if given is None or not hmac.compare_digest(given.credentials.encode(), key.encode()):
        raise ApiError(
            401,
            "invalid_api_key",
            "this agent requires its API key; send it as `Authorization: Bearer KEY`",
        )
