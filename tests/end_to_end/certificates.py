"""Certificates for an encrypted line, made on the spot."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Files on disk, as PEM.

    Attributes:
        ca: of the authority that signed the core's.
        other_ca: of another one.
        certificate: the core's, for the name localhost, good for ten years.
        key: its private key.
        expired: the core's with this key, out of date since yesterday.
        expired_key: its private key.
        client: an agent's, signed by the same authority.
        client_key: its private key.
        expired_client: the same agent's, out of date since yesterday.
        expired_client_key: its private key.
        other_client: an agent's, signed by the other one.
        other_client_key: its private key.
    """

    ca: Path
    other_ca: Path
    certificate: Path
    key: Path
    expired: Path
    expired_key: Path
    client: Path
    client_key: Path
    expired_client: Path
    expired_client_key: Path
    other_client: Path
    other_client_key: Path

    @property
    def core_options(self) -> tuple[str, ...]:
        """What a core server takes to encrypt its lines."""
        return ("--tls-certificate", str(self.certificate), "--tls-key", str(self.key))


def certificates(folder: Path) -> Certificates:
    """Write an authority's certificate, another's, and those of cores and agents."""
    made = Certificates(**{field.name: folder / f"{field.name}.pem" for field in fields(Certificates)})
    ca, other_ca = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(made.ca))
    other_ca.cert_pem.write_to_path(str(made.other_ca))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    in_ten_years = datetime.now(UTC) + timedelta(days=3650)
    _write(ca.issue_cert("localhost", not_after=in_ten_years), made.certificate, made.key)
    _write(ca.issue_cert("localhost", not_after=yesterday), made.expired, made.expired_key)
    _write(ca.issue_cert("alice@example.org"), made.client, made.client_key)
    _write(ca.issue_cert("alice@example.org", not_after=yesterday), made.expired_client, made.expired_client_key)
    _write(other_ca.issue_cert("alice@example.org"), made.other_client, made.other_client_key)
    return made


def _write(issued: trustme.LeafCert, certificate: Path, key: Path) -> None:
    issued.private_key_pem.write_to_path(str(key))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(certificate), append=True)
