from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from user_agent.errors import StoreInUse, StoreUnreadable
from user_agent.store.data_folder import default_data_folder, held_data_folder

HOLD = """
import sys, time
from pathlib import Path
from user_agent.store.data_folder import held_data_folder
with held_data_folder(Path(sys.argv[1]), "http://127.0.0.1:8765"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_says_by_whom_and_is_free_once_that_process_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreInUse, match=rf"http://127\.0\.0\.1:8765 \(process {holder.pid}\)"):
            held_data_folder(tmp_path).__enter__()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with held_data_folder(tmp_path):
        pass


def test_the_one_after_a_longer_name_is_told_right(tmp_path: Path) -> None:
    with held_data_folder(tmp_path, "http://127.0.0.1:12345/a/long/address"):
        pass
    with held_data_folder(tmp_path), pytest.raises(StoreInUse, match=f"process {os.getpid()}; wait"):
        held_data_folder(tmp_path).__enter__()


def test_nobody_else_may_enter_the_folder(tmp_path: Path) -> None:
    with held_data_folder(tmp_path / "new" / "slingshot"):
        assert stat.S_IMODE((tmp_path / "new" / "slingshot").stat().st_mode) == 0o700


def test_a_folder_of_the_users_own_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with held_data_folder(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnreadable, match="choose another folder"):
        held_data_folder(tmp_path / "file" / "slingshot").__enter__()


def test_the_folder_is_where_the_system_keeps_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_folder() == tmp_path / "slingshot"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_data_folder() == tmp_path / "home/.local/share/slingshot"
