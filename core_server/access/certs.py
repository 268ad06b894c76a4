"""A private authority, and the certificates that it signs for a core and for its agents."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ssd2.errors import InvalidParameter

CA_DAYS = 3650
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_CLOCKS_APART = timedelta(hours=1)
"""A certificate is valid from so long ago: the agent's clock may be slow."""


class Authority:
    """A certificate that signs others, in a folder with its private key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def in_folder(cls, folder: Path) -> Authority:
        """The authority of a folder, made if there is none.

        Raises:
            InvalidParameter: if its files cannot be read or written.
        """
        certificate_file, key_file = folder / "ca.pem", folder / "ca.key"
        if not certificate_file.exists() and not key_file.exists():
            made = cls.made()
            made._write(made._certificate, made._key, folder, "ca")
            return made
        try:
            key = load_pem_private_key(key_file.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(folder, str(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise _unreadable(folder, "they are not a pair made by this command")
        return cls(certificate, key)

    @classmethod
    def made(cls) -> Authority:
        """A new one, in memory."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _named("Slingshot private CA")
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(name, name, key.public_key(), CA_DAYS, constraints)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def sign_core(self, hosts: Sequence[str], folder: Path, days: int) -> None:
        """Write core.pem and core.key, for the names and addresses that agents reach the core by.

        Raises:
            InvalidParameter: if a name is none, or a file cannot be written.
        """
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        self._sign(hosts[0][:64], names, ExtendedKeyUsageOID.SERVER_AUTH, folder, "core", days)

    def sign_client(self, name: str, folder: Path, days: int) -> None:
        """Write client-NAME.pem and client-NAME.key, for an agent.

        Raises:
            InvalidParameter: if the name is no good for a file's, or a file cannot be written.
        """
        if not _FILE_NAME.fullmatch(name):
            raise InvalidParameter(f"the client name is {name!r}; use letters, digits, and . _ @ - between them")
        names = x509.SubjectAlternativeName([_of_client(name)])
        self._sign(name, names, ExtendedKeyUsageOID.CLIENT_AUTH, folder, f"client-{name}", days)

    def _sign(
        self,
        subject: str,
        names: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        folder: Path,
        stem: str,
        days: int,
    ) -> None:
        if days > (left := (self._certificate.not_valid_after_utc - datetime.now(UTC)).days + 1):
            raise InvalidParameter(f"days is {days}; this authority itself is valid for {left} more days")
        key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        certificate = (
            _builder(_named(subject), self._certificate.subject, key.public_key(), days, constraints)
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._write(certificate, key, folder, stem)

    @staticmethod
    def _write(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, folder: Path, stem: str) -> None:
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_file(folder / f"{stem}.key", secret, 0o600)
        _write_file(folder / f"{stem}.pem", certificate.public_bytes(Encoding.PEM), 0o644)


def expires_at(file: Path) -> float:
    """When the first certificate of a PEM file ends to be valid, as a Unix timestamp."""
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    days: int,
    constraints: x509.BasicConstraints,
) -> x509.CertificateBuilder:
    """Begin a certificate with the fields that all have."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_APART)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(constraints, critical=True)
        .add_extension(_key_usage(signs=constraints.ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    """Certificates sign others and lists of them, or handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _of_client(name: str) -> x509.GeneralName:
    try:
        return x509.RFC822Name(name) if "@" in name else x509.DNSName(name)
    except ValueError as error:
        raise InvalidParameter(
            f"the client name is {name!r}; one with an @ must be an address, such as a@b.org"
        ) from error


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", host) or len(host) > 253:
        raise InvalidParameter(f"host is {host!r}; give a name or an address without a port, such as core.example.org")
    return x509.DNSName(host)


def _write_file(file: Path, data: bytes, mode: int) -> None:
    """Written whole or not at all, with its mode from the first byte on."""
    new = file.with_name(f"{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(data)
        new.replace(file)
    except OSError as error:
        raise InvalidParameter(
            f"cannot write {file}: {error.strerror}; choose another folder", parameter="out"
        ) from error


def _unreadable(folder: Path, why: str) -> InvalidParameter:
    return InvalidParameter(
        f"the authority in {folder} (ca.pem, ca.key) cannot be used: {why}; restore both files, or choose another "
        "folder for a new one",
        parameter="out",
    )
