"""Certificates for an encrypted line, made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Files on disk, as PEM.

    Attributes:
        ca: of the authority that signed the core's.
        other_ca: of another one.
        certificate: the core's, for the name localhost.
        key: its private key.
    """

    ca: Path
    other_ca: Path
    certificate: Path
    key: Path

    @property
    def core_options(self) -> tuple[str, ...]:
        """What a core server takes to encrypt its lines."""
        return ("--tls-certificate", str(self.certificate), "--tls-key", str(self.key))


def certificates(folder: Path) -> Certificates:
    """Write an authority's certificate, another's, and a core's."""
    made = Certificates(*(folder / name for name in ("ca.pem", "other.pem", "core.pem", "core.key")))
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(made.ca))
    trustme.CA().cert_pem.write_to_path(str(made.other_ca))
    issued = ca.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(made.key))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(made.certificate), append=True)
    return made
