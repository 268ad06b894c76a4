"""Access control of the endpoint: a bearer key, and the scope that a route requires of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from user_agent.api.errors import ApiError
from user_agent.api.state import state_of
from user_agent.config import AgentConfig
from user_agent.store.access_keys import AccessKey, AccessKeys
from user_agent.store.tuned import config_folder

_BEARER = HTTPBearer(auto_error=False, description="a key of the agent")


def access_keys(config: AgentConfig) -> AccessKeys:
    """Return the keys of a configuration."""
    return AccessKeys(config_folder(), config.api_key.get_secret_value() if config.api_key is not None else None)


# See docs/decisions/064-keys-with-scopes.md.
def authorised(
    wanted: SecurityScopes,
    request: Request,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> AccessKey:
    """Refuse whoever has no key, or one that may not do this.

    Returns:
        The caller's key.

    Raises:
        ApiError: with 401 or 403.
    """
    key = state_of(request).keys.find(given.credentials) if given else None
    if key is None:
        raise ApiError(
            401,
            "invalid_api_key",
            "this agent requires one of its keys; send it as `Authorization: Bearer KEY`",
        )
    if missing := [scope for scope in wanted.scopes if scope not in key.scopes]:
        raise ApiError(
            403,
            "insufficient_scope",
            f"this key has the scope {', '.join(key.scopes)}, and {missing[0]} is required here; use a key with it",
        )
    return key
