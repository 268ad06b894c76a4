"""Remedies of errors in the terms of the command line."""

from __future__ import annotations

from ssd2.errors import SlingshotError

_REMEDIES = {
    "core": "--core HOST:PORT, or `user-agent config set core HOST:PORT`",
    "ca": "--ca FILE, or `user-agent config set ca FILE`",
    "insecure": "--ca FILE, or --insecure if you trust every network on the way",
    "client_certificate": "--client-certificate FILE --client-key FILE",
    "user_model": "--user-model FOLDER, or `user-agent config set user_model FOLDER`",
    "timeout": "`user-agent config set timeout SECONDS`",
    "logits": "--logits FORMAT",
    "block_size": "--block-size",
    "max_tokens": "--max-tokens",
}
"""What a reader in a terminal can do, by the parameter of an error. The page and the REST endpoint have their own."""


def with_remedy(error: SlingshotError) -> str:
    """Return the text of an error with the option or the command that mends it, if there is one."""
    remedy = _REMEDIES.get(error.parameter or "")
    return f"{error} ({remedy})" if remedy else str(error)
