"""A wall clock that jumps by a day, or by years: no wait is longer or shorter for it, and no token another one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from core_server.access.keys import create_key
from tests.commands import run_here

from .certificates import certificates
from .conftest import ENVIRONMENT, running_core
from .faults import asking, in_the_middle, let_go, result, told_bytes

DAY_S, YEAR_S = 86_400, 31_557_600
COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler is here to make a clock that jumps")


class Clock:
    """The wall clock of all processes that have its environment."""

    def __init__(self, folder: Path) -> None:
        library, self._offset = folder / "jumping_clock.so", folder / "offset"
        source = Path(__file__).with_name("jumping_clock.c")
        subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
        self.environment: Mapping[str, str] = {
            **ENVIRONMENT,
            "LD_PRELOAD": str(library),
            "CLOCK_OFFSET": str(self._offset),
            "XDG_DATA_HOME": str(folder / "data"),
        }
        self._offset.write_bytes(bytes(8))

    def jump(self, seconds: int) -> None:
        """Be off by this."""
        with self._offset.open("r+b", buffering=0) as file:  # which processes have mapped
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def jumps(times: list[str]) -> list[int]:
    """Whole days between times and the ones right after them, where there are any."""
    seconds = [datetime.fromisoformat(time).timestamp() for time in times]
    return [days for before, after in pairwise(seconds) if (days := round((after - before) / DAY_S))]


async def test_a_clock_that_jumps_on_both_sides_in_mid_answer_changes_nothing(
    core_folder: Path, user_folder: Path, tmp_path: Path, clock: Clock
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "somebody", max_sessions=1, tokens_per_minute=100_000)
    environment = {**clock.environment, "SLINGSHOT_CORE_KEY": key}
    options = ("--ops-port", "0", "--keys", str(tmp_path / "keys.json"), "--log-format", "json")
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        running_core(f"tiny={core_folder}", *options, log=file.fileno(), environment=environment) as core,
    ):
        unbroken = result(asking(core, user_folder, environment))
        for days in (1, 0):
            before = told_bytes(core)
            agent = asking(core, user_folder, environment)
            await in_the_middle(core, before)
            clock.jump(days * DAY_S)
            assert result(agent) == unbroken == (unbroken[0], 0)
        await let_go([core], 10)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert jumps([line["time"] for line in lines]) == [1, -1], "the core's clock has jumped"
    assert all(0 <= line["seconds"] < 300 for line in lines if "seconds" in line)
    ledger = tmp_path / "ledger.jsonl"
    assert run_here("ledger", "export", str(ledger), environment=environment).returncode == 0
    assert jumps([json.loads(entry)["time"] for entry in ledger.read_text().splitlines()]) == [1, -1], (
        "the agent's clock has jumped"
    )
    assert run_here("ledger", "verify", environment=environment).returncode == 0


def test_a_device_whose_clock_is_years_off_is_told_so_of_a_certificate(
    core_folder: Path, user_folder: Path, tmp_path: Path, clock: Clock
) -> None:
    files = certificates(tmp_path)
    with running_core(core_folder, *files.core_options) as core:
        core.address = core.address.replace("127.0.0.1", "localhost")
        for years in (30, -30):
            clock.jump(years * YEAR_S)
            agent = asking(core, user_folder, {**clock.environment, "SLINGSHOT_CA": str(files.ca)})
            out, err = agent.communicate(timeout=240)
            assert agent.returncode not in (0, None)
            assert "Traceback" not in err
            assert "check this device's clock" in " ".join(err.split())
            assert out == ""
