"""An engine process, as the front end sees it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from core_server.config import ServerConfig
from core_server.engine import process as engine
from core_server.frontend import engine_client
from core_server.frontend.engine_client import running_engine
from ssd2.errors import EngineLost

ENDING = """
import socket, sys, time
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
time.sleep(0.5)
open(sys.argv[2], "w").write("why")
"""
"""An engine that hangs up and then says why."""


async def test_an_engine_that_ends_is_not_cut_short_while_it_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(config: ServerConfig, path: Path) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(sys.executable, "-c", ENDING, str(path), str(tmp_path / "log"))

    monkeypatch.setattr(engine_client, "_start_process", start)
    with pytest.raises(EngineLost, match="ended while it loaded"):
        async with running_engine(ServerConfig({}), 0):
            pass
    assert (tmp_path / "log").read_text() == "why"


def test_an_engine_whose_front_end_is_gone_ends_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An interrupt while a server starts is answered by its front end alone."""
    monkeypatch.setattr(sys, "argv", ["engine", str(tmp_path / "engine.sock")])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        engine.main()
    assert ended.value.code == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("device", "precision"), [("cuda:1", "bfloat16"), ("cpu", "float32")])
def test_an_engine_is_told_the_precision_that_fits_its_device(device: str, precision: str) -> None:
    assert engine_client._start(ServerConfig({}, device=device), 0).precision == precision
