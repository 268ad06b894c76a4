"""The user's token for the model hub, for models whose licence has to be accepted: in the system's keyring."""

from __future__ import annotations

import os

from user_agent.errors import KeyringUnusable

VARIABLE = "HF_TOKEN"
"""Takes precedence over the keyring; the hub's own tools read it too."""

_SERVICE, _ACCOUNT = "slingshot model hub", "token"


def hub_token() -> str | None:
    """Return the token, or None where there is none.

    Raises:
        KeyringUnusable: if the keyring does not answer.
    """
    if given := os.environ.get(VARIABLE, "").strip():
        return given
    import keyring
    from keyring.errors import KeyringError, NoKeyringError

    try:
        return keyring.get_password(_SERVICE, _ACCOUNT)
    except NoKeyringError:
        return None
    except KeyringError as error:
        raise KeyringUnusable(
            f"the system's keyring does not return the hub's token: {error}; unlock it", parameter="hub_token"
        ) from error


def keep_hub_token(token: str) -> None:
    """Store the token in place of an older one.

    Raises:
        KeyringUnusable: if there is no keyring, or it does not store it.
    """
    import keyring
    from keyring.errors import KeyringError

    if keyring.get_keyring().priority < 1:  # what keyring does not recommend: none, or a file in plain text
        raise KeyringUnusable(
            "this system has no keyring to store the token in; pass it in the environment", parameter="hub_token"
        )
    try:
        keyring.set_password(_SERVICE, _ACCOUNT, token)
    except KeyringError as error:
        raise KeyringUnusable(
            f"the system's keyring did not store the token: {error}; unlock it, or pass it in the environment",
            parameter="hub_token",
        ) from error
