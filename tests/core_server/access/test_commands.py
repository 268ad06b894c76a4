"""`core-server keys` and `core-server certs`."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from core_server.__main__ import main
from core_server.access.certs import expires_at
from core_server.access.keys import KeyReader
from tests.core_server.test_main import ENVIRONMENT, run


def test_a_key_is_printed_once_listed_without_it_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "keys.json")
    limits = ("--max-sessions", "4", "--timesteps-per-minute", "900")
    assert main(["keys", "create", "alice", "--keys", file, *limits]) == 0
    key = capsys.readouterr().out.strip()
    assert KeyReader(Path(file)).find(key)
    assert main(["keys", "list", "--keys", file]) == 0
    assert main(["keys", "list", "--keys", file, "--json"]) == 0
    table, _, listed = capsys.readouterr().out.strip().rpartition("\n")
    assert [row.split()[1] for row in table.splitlines()] == ["NAME", "alice"]
    assert [row.split()[3:] for row in table.splitlines()] == [
        ["SESSIONS", "TOKENS/MIN", "TIMESTEPS/MIN"],
        ["4", "-", "900"],
    ]
    ((entry),) = json.loads(listed)["keys"]
    assert (entry["name"], entry["max_sessions"], entry["tokens_per_minute"]) == ("alice", 4, None)
    assert entry["timesteps_per_minute"] == 900
    assert key.split("-", 2)[2] not in table + listed
    assert "sha256" not in listed
    assert main(["keys", "revoke", "alice", "--keys", file]) == 0
    assert KeyReader(Path(file)).find(key) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("keys", "list", "--keys", "/nowhere/keys.json"), "core-server keys create"),
        (("keys", "create", "alice", "--keys", "/nowhere/keys.json"), "cannot write the key file"),
        (("keys", "create", "alice", "--keys", "/dev/null/x", "--max-sessions", "0"), "cannot write the key file"),
        (("certs", "create", "--out", "/dev/null/x", "--host", "localhost"), "--out"),
        (("certs", "create", "--out", "nowhere"), "--host NAME"),
        (("certs", "create", "--out", "nowhere", "--host", "a", "--days", "0"), "days is 0"),
        (("certs", "create", "--out", "{folder}", "--host", "a", "--days", "3651"), "is valid for 3650 more days"),
        (("certs", "create", "--out", "{folder}", "--host", "a", "--days", "9999999"), "is valid for 3650 more days"),
        (("certs", "create", "--out", "{folder}", "--client", "alice@"), "such as a@b.org"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_what_to_do(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([argument.replace("{folder}", str(tmp_path)) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert says in told.err


@pytest.mark.parametrize("command", ["keys", "certs"])
def test_help_has_examples_and_loads_nothing_heavy(command: str) -> None:
    script = (
        f"import sys; from core_server.__main__ import main\ntry: main(['{command}', '--help'])\n"
        "finally: assert not {'torch', 'grpc', 'cryptography'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"core-server {command} create" in done.stdout


def test_a_server_is_not_started_with_keys_on_a_bare_line_to_the_network() -> None:
    done = run("--model", "nowhere", "--keys", "keys.json", "--host", "192.0.2.1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--tls-certificate FILE --tls-key FILE" in done.stderr


def names(file: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def test_certificates_name_their_hosts_and_their_keys_are_their_owners(tmp_path: Path) -> None:
    out = tmp_path / "certs"
    hosts = ("core.example.org", "203.0.113.7", "::1")
    given = [part for host in hosts for part in ("--host", host)]
    assert main(["certs", "create", "--out", str(out), *given, "--client", "alice", "--days", "7"]) == 0
    assert names(out / "core.pem") == set(hosts)
    for stem in ("ca", "core", "client-alice"):
        assert stat.S_IMODE((out / f"{stem}.key").stat().st_mode) == 0o600
        ssl.create_default_context(cafile=out / "ca.pem").load_cert_chain(out / f"{stem}.pem", out / f"{stem}.key")
    certificate = x509.load_pem_x509_certificate((out / "core.pem").read_bytes())
    assert expires_at(out / "core.pem") == certificate.not_valid_after_utc.timestamp()
    assert abs(certificate.not_valid_after_utc - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=5)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((out / "ca.pem").read_bytes()))


@pytest.mark.parametrize(
    ("stem", "usage"), [("core", ExtendedKeyUsageOID.SERVER_AUTH), ("client-alice", ExtendedKeyUsageOID.CLIENT_AUTH)]
)
def test_a_certificate_is_good_for_one_side_and_signs_no_other(
    tmp_path: Path, stem: str, usage: x509.ObjectIdentifier
) -> None:
    assert main(["certs", "create", "--out", str(tmp_path), "--host", "localhost", "--client", "alice"]) == 0
    signed, authority = (x509.load_pem_x509_certificate((tmp_path / f"{one}.pem").read_bytes()) for one in (stem, "ca"))
    assert list(signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
    for certificate, is_authority in ((signed, False), (authority, True)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.ca) == (True, is_authority)
        assert constraints.value.path_length == (0 if is_authority else None), "it signs no other authority"
        valid_for = datetime.now(UTC) - certificate.not_valid_before_utc
        assert timedelta(hours=1) <= valid_for < timedelta(hours=1, minutes=5), "another clock may be slow"


def test_the_authority_of_a_folder_stays_the_same(tmp_path: Path) -> None:
    assert main(["certs", "create", "--out", str(tmp_path), "--host", "localhost"]) == 0
    before = {name: (tmp_path / name).read_bytes() for name in ("ca.pem", "ca.key", "core.pem")}
    assert main(["certs", "create", "--out", str(tmp_path), "--host", "localhost", "--client", "alice"]) == 0
    after = {name: (tmp_path / name).read_bytes() for name in before}
    assert {name for name in before if before[name] != after[name]} == {"core.pem"}


def test_half_an_authority_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "create", "--out", str(tmp_path), "--host", "localhost"]) == 0
    (tmp_path / "ca.key").unlink()
    before = (tmp_path / "ca.pem").read_bytes()
    assert main(["certs", "create", "--out", str(tmp_path), "--host", "localhost"]) == 2
    assert "restore both files" in capsys.readouterr().err
    assert (tmp_path / "ca.pem").read_bytes() == before


@pytest.mark.parametrize("given", [("--host", "core:50051"), ("--host", "a b"), ("--client", "../x"), ("--client", "")])
def test_what_is_no_name_is_refused(tmp_path: Path, given: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "create", "--out", str(tmp_path), *given]) == 2
    assert repr(given[1]) in capsys.readouterr().err
