"""The keys of cores: in the keyring, for one core each, and on no line that can be read."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import grpc
import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import KeyringLocked, PasswordDeleteError

from ssd2.errors import InsecureLine, InvalidParameter, NotFound
from ssd2.wire.addresses import is_loopback
from tests.commands import run_here
from tests.user_agent.api.conftest import agent_environment
from user_agent.commands.config import set_core_key
from user_agent.commands.remedies import with_remedy
from user_agent.config import CHANGEABLE, load_config
from user_agent.errors import KeyringUnusable
from user_agent.line.client import CoreClient
from user_agent.line.core_key import FILE, credentials_for, forget_core_key, keep_core_key
from user_agent.line.credentials import CoreCredentials
from user_agent.store.ledger import Ledger

CORE, OTHER = "core.example.org:50051", "other.example.org:50051"
KEY = "sk-3f2a9c71d0be-secret"


class _Keyring(KeyringBackend):
    """A keyring of the desktop kind, in memory."""

    priority = 5  # type: ignore[assignment]
    viable = False  # none that looks for a keyring is to find it

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = False
        self.times_opened = 0

    def _open(self) -> None:
        self.times_opened += 1
        if self.is_locked:
            raise KeyringLocked("it is locked")

    def get_password(self, service: str, username: str) -> str | None:
        self._open()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._open()
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._open()
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration's folder, and no keyring."""
    monkeypatch.setattr("keyring.core._keyring_backend", NoKeyring())  # set_keyring sets it, so it is put back
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SLINGSHOT_CORE_KEY", raising=False)
    return tmp_path / "config/slingshot"


@pytest.fixture
def desktop() -> _Keyring:
    made = _Keyring()
    keyring.set_keyring(made)
    return made


def test_a_key_goes_to_its_core_alone(desktop: _Keyring) -> None:
    keep_core_key(CORE, KEY)
    assert credentials_for(CORE.upper()).metadata == (("authorization", f"Bearer {KEY}"),)
    for other in (OTHER, "core.example.org:50052", "", None):
        assert credentials_for(other).metadata is None


def test_the_key_of_several_replicas_is_theirs_together_and_goes_to_no_other_list(desktop: _Keyring) -> None:
    keep_core_key(f"{CORE}, {OTHER}", KEY)
    assert credentials_for(f"{CORE},{OTHER}").key == KEY
    assert credentials_for(f"{CORE},{OTHER},third.example.org:50051").key is None
    assert credentials_for(CORE).key is None


def test_a_key_is_in_the_keyring_and_in_no_file(desktop: _Keyring, folder: Path) -> None:
    keep_core_key(CORE, KEY)
    assert list(desktop.kept.values()) == [KEY]
    (file,) = folder.iterdir()
    assert (file.name, KEY in file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (FILE, False, 0o600)


def test_the_keyring_is_not_opened_for_a_core_that_no_key_is_kept_for(desktop: _Keyring) -> None:
    credentials_for(CORE)
    assert desktop.times_opened == 0


def test_the_variable_goes_before_the_keyring(desktop: _Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_core_key(CORE, KEY)
    monkeypatch.setenv("SLINGSHOT_CORE_KEY", "sk-other\n")
    assert credentials_for(CORE).key == "sk-other"


@pytest.mark.parametrize("is_locked", [True, False])
def test_a_keyring_that_does_not_give_a_kept_key_is_named(desktop: _Keyring, is_locked: bool) -> None:
    keep_core_key(CORE, KEY)
    desktop.is_locked = is_locked
    if not is_locked:
        desktop.kept.clear()
    with pytest.raises(KeyringUnusable, match="unlock it"):
        credentials_for(CORE)
    assert credentials_for(OTHER).key is None


def test_a_forgotten_key_is_gone_and_only_that(desktop: _Keyring) -> None:
    keep_core_key(CORE, KEY)
    keep_core_key(OTHER, KEY)
    forget_core_key(CORE)
    assert credentials_for(CORE).key is None
    assert credentials_for(OTHER).key == KEY
    with pytest.raises(NotFound, match=OTHER):
        forget_core_key(CORE)


def test_without_a_keyring_the_variable_is_named() -> None:
    with pytest.raises(KeyringUnusable, match="in the environment") as raised:
        keep_core_key(CORE, KEY)
    assert "SLINGSHOT_CORE_KEY" in with_remedy(raised.value)


@pytest.mark.parametrize("key", ["", "two words", "sk-\u00e9", "sk-1\r\nx-other: 1", "x" * 5000])
def test_what_cannot_be_a_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(InvalidParameter, match="API key") as refused:
        CoreCredentials(key=key)
    assert not key or key not in str(refused.value)
    assert "set-core-key" in with_remedy(refused.value)


def test_a_key_is_in_nobodys_repr() -> None:
    assert KEY not in repr(CoreCredentials(key=KEY))


NAMES = (CORE, "localhost.example.org:1", "localhost.:1", "unix:1")
REMOTE = (*NAMES, "192.0.2.1:1", "[2001:db8::1]:1", "127.1:1", "0.0.0.0:1")
"""A name is another machine's whatever it resolves to, but for localhost."""
LOCAL = ("localhost:1", "127.0.0.1:1", "127.3.2.1:1", "[::1]:1", "LOCALHOST:1")


@pytest.mark.parametrize("address", [*REMOTE, f"{LOCAL[0]},{REMOTE[0]}", f"{REMOTE[0]},{LOCAL[0]}"])
async def test_a_line_to_another_machine_is_encrypted_unless_the_user_allows_otherwise(address: str) -> None:
    with pytest.raises(InsecureLine, match=r"another machine.*not be encrypted"):
        CoreClient(address, Ledger.in_memory())


@pytest.mark.parametrize("address", REMOTE)
async def test_a_key_does_not_cross_the_network_in_the_clear_even_on_an_allowed_line(address: str) -> None:
    with pytest.raises(InsecureLine, match=r"the API key .* unencrypted"):
        CoreClient(address, Ledger.in_memory(), credentials=CoreCredentials(key=KEY, insecure=True))
    async with CoreClient(address, Ledger.in_memory(), credentials=CoreCredentials(insecure=True)):
        pass


@pytest.mark.parametrize("address", LOCAL)
async def test_a_key_goes_to_this_machine_as_it_is(address: str) -> None:
    async with CoreClient(address, Ledger.in_memory(), credentials=CoreCredentials(key=KEY)):
        assert is_loopback(address.rpartition(":")[0])


@pytest.mark.parametrize("address", ["localhost:7", "LocalHost:7"])
def test_no_resolver_is_asked_where_localhost_is(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[str] = []
    monkeypatch.setattr(grpc.aio, "insecure_channel", lambda target, **_: dialled.append(target) or Mock())
    CoreClient(address, Ledger.in_memory())
    assert [target.partition(":")[0] for target in dialled] == ["ipv6"], "no name"
    assert "[::1]:7,[::ffff:127.0.0.1]:7" in dialled[0]


def test_a_certificate_of_this_device_goes_with_its_key_and_over_tls() -> None:
    file = Path("file.pem")
    for files in ((file, file, None), (file, None, file)):
        with pytest.raises(InvalidParameter, match="go together"):
            CoreCredentials(*files)
    with pytest.raises(InvalidParameter, match="CA certificate") as raised:
        CoreCredentials(None, file, file)
    assert with_remedy(raised.value).endswith("(--ca FILE, or `user-agent config set ca FILE`)")


def test_where_no_core_is_asked_the_keyring_is_not_opened(tmp_path: Path, desktop: _Keyring, user_folder: Path) -> None:
    environment = agent_environment(
        tmp_path, core=CORE, user_model=user_folder, lambda_user=1, steps=2, max_tokens=8, passphrase="for tests"
    )
    keep_core_key(CORE, KEY)
    desktop.is_locked = True
    done = run_here("ask", "Who?", environment=environment)
    assert (done.returncode, desktop.times_opened) == (0, 1), done.stderr


def test_the_command_reads_a_key_from_its_input_and_takes_none_as_an_argument(
    tmp_path: Path, desktop: _Keyring
) -> None:
    environment = agent_environment(tmp_path)
    done = run_here("config", "set-core-key", CORE, environment=environment, typed=f"{KEY}\n")
    assert (done.returncode, KEY in done.stdout + done.stderr) == (0, False)
    assert list(desktop.kept.values()) == [KEY]
    assert run_here("config", "set-core-key", CORE, KEY, environment=environment).returncode != 0
    assert "core_key" not in run_here("config", "show", "--json", environment=environment).stdout
    refused = run_here("config", "set", "core_key", KEY, environment=environment)
    assert (refused.returncode, KEY in refused.stderr) == (1, False)
    assert run_here("config", "set-core-key", environment=environment, typed=KEY).returncode == 1, "which core?"
    assert run_here("config", "forget-core-key", CORE, environment=environment).returncode == 0
    assert desktop.kept == {}


def test_a_key_on_a_terminal_is_asked_for_and_not_shown(desktop: _Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda text, **options: asked.append(options) or KEY)
    set_core_key(CORE)
    assert asked[0]["hide_input"]
    assert list(desktop.kept.values()) == [KEY]


@pytest.mark.parametrize(
    "command",
    [("ask", "Who?"), ("serve", "--port", "0"), ("chat",), ("tune", "--docs", "{home}", "--yes"), ("doctor", "--json")],
    ids=lambda command: command[0],
)
def test_every_command_refuses_a_line_that_anybody_could_read(
    command: tuple[str, ...], tmp_path: Path, user_folder: Path
) -> None:
    environment = agent_environment(tmp_path, core="192.0.2.1:1", user_model=user_folder, passphrase="for tests")
    (tmp_path / "note.txt").write_text("The shed code is 4711.")
    done = run_here(*(part.format(home=tmp_path) for part in command), environment=environment)
    assert (done.returncode, "--insecure" in done.stdout + done.stderr) == (1, True), done.stderr


def test_a_line_is_allowed_by_option_variable_or_file_and_by_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = partial(agent_environment, tmp_path)
    assert [load_config(insecure=given).insecure for given in (None, True)] == [False, True]
    assert run_here("config", "set", "insecure", "true", environment=allowed()).returncode == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert load_config().insecure
    monkeypatch.setenv("SLINGSHOT_INSECURE", "false")
    assert not load_config().insecure
    assert "insecure" not in CHANGEABLE, "whoever has the key of the REST endpoint cannot allow it"
