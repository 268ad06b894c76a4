"""The keys that providers give out for their cores: in the system's keyring, one for each core's address.

A core with several replicas is known by all of their addresses together, as they are given: a replica that is added may
be somebody else's, and is sent no key before the user says so.

Which addresses have one is written down beside, so that the keyring is not opened for a core that needs none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ssd2.errors import NotFound
from user_agent.errors import KeyringUnusable
from user_agent.line.credentials import CoreCredentials
from user_agent.store.encryption_key import KEYRING_SERVICE
from user_agent.store.tuned import config_folder, write_private

VARIABLE = "SLINGSHOT_CORE_KEY"
"""Goes before the keyring, and with the calls to whichever core is asked."""

FILE = "core-keys.json"


def credentials_for(
    address: str | None,
    *,
    ca: Path | None = None,
    client_certificate: Path | None = None,
    client_key: Path | None = None,
    insecure: bool = False,
) -> CoreCredentials:
    """Load the credentials of a line to a core: the given files, and the key stored for its address.

    Args:
        address: HOST:PORT of the core; None for none.
        ca: see `CoreCredentials`.
        client_certificate: see there.
        client_key: see there.
        insecure: see there.

    Raises:
        InvalidParameter: if they do not go together.
        KeyringUnusable: if a key is kept, and the keyring does not give it.
    """
    key, source = _key_for(address or "")
    return CoreCredentials(ca, client_certificate, client_key, key, source, insecure)


def keep_core_key(address: str, key: str) -> None:
    """Keep the key of a core, in place of an older one.

    Raises:
        InvalidParameter: if it is no key.
        KeyringUnusable: if there is no keyring, or it does not keep it.
    """
    import keyring
    from keyring.errors import KeyringError

    CoreCredentials(key=key)
    if keyring.get_keyring().priority < 1:  # what keyring does not recommend: none, or a file in plain text
        raise KeyringUnusable(
            "this system has no keyring to store the key in; pass the key in the environment instead",
            parameter="core_key",
        )
    try:
        keyring.set_password(KEYRING_SERVICE, _account(address), key)
    except KeyringError as error:
        raise KeyringUnusable(
            f"the system's keyring did not store the key: {error}; unlock it, or pass the key in the environment",
            parameter="core_key",
        ) from error
    _write_down(_addresses() | {_normal(address)})


def forget_core_key(address: str) -> None:
    """Take the key of a core out of the keyring.

    Raises:
        NotFound: if none is kept.
        KeyringUnusable: if the keyring does not let it be deleted.
    """
    import keyring
    from keyring.errors import KeyringError, PasswordDeleteError

    if _normal(address) not in _addresses():
        raise NotFound(f"no key is stored for the core at {address}; keys are stored for: {_listed()}")
    try:
        keyring.delete_password(KEYRING_SERVICE, _account(address))
    except PasswordDeleteError:
        pass  # it is gone already
    except KeyringError as error:
        raise KeyringUnusable(f"the system's keyring did not delete the key: {error}; unlock it") from error
    _write_down(_addresses() - {_normal(address)})


def _key_for(address: str) -> tuple[str | None, str]:
    """The key and where it is from."""
    if (given := os.environ.get(VARIABLE)) is not None:
        return given.strip(), VARIABLE
    if _normal(address) not in _addresses():
        return None, ""
    import keyring
    from keyring.errors import KeyringError

    try:
        key, why = keyring.get_password(KEYRING_SERVICE, _account(address)), "it has none"
    except KeyringError as error:
        key, why = None, str(error)
    if key is None:
        raise KeyringUnusable(
            f"the system's keyring does not return the key for the core at {address}: {why}; unlock it, or store the "
            "key again",
            parameter="core_key",
        )
    return key, "the system's keyring"


def _account(address: str) -> str:
    return f"core {_normal(address)}"


def _normal(address: str) -> str:
    """An address, or those of several replicas with commas between them, as a name for their key."""
    return "".join(address.lower().split())


def _addresses() -> frozenset[str]:
    """Addresses of the cores that a key is stored for."""
    try:
        return frozenset(json.loads((config_folder() / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, TypeError) as error:
        raise KeyringUnusable(
            f"cannot read {config_folder() / FILE}, the list of cores with a stored key: {error}; delete the file and "
            "store the keys again",
            parameter="core_key",
        ) from error


def _write_down(addresses: frozenset[str]) -> None:
    write_private(config_folder() / FILE, json.dumps(sorted(addresses)) + "\n")


def _listed() -> str:
    return ", ".join(sorted(_addresses())) or "none"
