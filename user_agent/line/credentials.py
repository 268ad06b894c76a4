"""Credentials of a line to a core: the CA it trusts, its own certificate and key, and why TLS fails."""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ssd2.errors import InvalidParameter

_KEY = re.compile(r"[\x21-\x7e]{1,4096}")
"""What a header can carry."""

_OUT_OF_DATE = {9, 10}
_ANOTHER_NAME = {62, 64}
"""OpenSSL's X509_V_ERR numbers."""


@dataclass(frozen=True)
class CoreCredentials:
    """Files, as PEM, and a key.

    Attributes:
        ca: certificates that the core's has to be signed by, or the core's own; None for a line that is not encrypted.
        client_certificate: this device's, for cores that ask for one.
        client_key: its private key.
        key: that the core's provider gave out; None for none.
        key_source: where the key is from, in words.
        insecure: allow an unencrypted line to another machine; a key does not go over it all the same.

    Raises:
        InvalidParameter: if they do not go together, or the key cannot be sent as one.
    """

    ca: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    key: str | None = field(default=None, repr=False)
    key_source: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise InvalidParameter(
                "this device's certificate and its private key go together; set both", parameter="client_certificate"
            )
        if self.client_certificate and not self.ca:
            raise InvalidParameter(
                "this device's certificate requires an encrypted connection; set the core's CA certificate too",
                parameter="ca",
            )
        if self.key is not None and not _KEY.fullmatch(self.key):
            raise InvalidParameter(
                "the core's API key is empty, too long or contains characters that no key has; store it exactly as the "
                "provider issued it",
                parameter="core_key",
            )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """Metadata of every call: the key, or nothing."""
        return None if self.key is None else (("authorization", f"Bearer {self.key}"),)

    def context(self) -> ssl.SSLContext:
        """The same for Python's own TLS, which says what is wrong; gRPC takes whatever is in a file.

        Raises:
            InvalidParameter: if a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidParameter(
                f"cannot use the CA certificate {self.ca}: {error.strerror or error}; choose a PEM file", parameter="ca"
            ) from error
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC: the core's own certificate will do
        context.set_alpn_protocols(["h2"])
        if self.client_certificate:
            try:
                context.load_cert_chain(self.client_certificate, self.client_key, password="")
            except OSError as error:
                raise InvalidParameter(
                    f"cannot use the certificate {self.client_certificate} with the key {self.client_key}: "
                    f"{error.strerror or error}; choose two PEM files that belong together",
                    parameter="client_certificate",
                ) from error
        return context


class TlsFailure(NamedTuple):
    """Why an encrypted line does not come about.

    Attributes:
        why: what is wrong and what to do.
        parameter: the setting that has to change; None if it is none of this device's.
    """

    why: str
    parameter: str | None = None


async def tls_failure(address: str, credentials: CoreCredentials, timeout_s: float) -> TlsFailure | None:
    """Why an encrypted line does not come about, as far as TLS knows; asked once gRPC has failed, which does not say.

    The two sides shake hands once more, and nothing else is sent.

    Args:
        address: HOST:PORT.
        credentials: with a CA.
        timeout_s: how long to try.

    Returns:
        What is wrong; None if TLS has nothing against it, or nothing answers.
    """
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=credentials.context())
            with closing(writer):
                is_taken = bool(await reader.read(1))  # HTTP/2's server speaks first, once it is content
    except ssl.SSLCertVerificationError as error:
        return _about_the_cores(error)
    except ssl.SSLError as error:
        if "WRONG_VERSION" in (error.reason or ""):
            return TlsFailure("it does not use TLS; check the address, or ask its provider to turn TLS on", "core")
        is_taken = False  # an alert
    except (OSError, ValueError):  # TimeoutError is an OSError
        return None
    return None if is_taken else _about_this_side(has_certificate=credentials.client_certificate is not None)


def _about_the_cores(error: ssl.SSLCertVerificationError) -> TlsFailure:
    if error.verify_code in _OUT_OF_DATE:
        return TlsFailure(
            f"its certificate is not valid at this device's time ({error.verify_message}); check this device's clock, "
            "or ask its provider to renew the certificate"
        )
    if error.verify_code in _ANOTHER_NAME:
        return TlsFailure(
            "its certificate is for another host name; use the host name that its provider gave you",
            "core",
        )
    return TlsFailure(
        f"its certificate is not signed by the configured CA certificate ({error.verify_message}); get the right CA "
        "certificate from its provider",
        "ca",
    )


def _about_this_side(*, has_certificate: bool) -> TlsFailure:
    """A core's gRPC hangs up and says nothing; with TLS 1.3 only after this side has found nothing amiss."""
    asks, get = (
        ("refuses this device's certificate", "a new one")
        if has_certificate
        else ("requires a client certificate", "one")
    )
    return TlsFailure(
        f"it closes the connection, as a core that {asks} does; get {get} from its provider, and set it with its key",
        "client_certificate",
    )
