from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import main
from tests.bench.next_token import environment_of


@pytest.mark.slow
def test_a_token_is_timed_beside_its_network_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(["next_token", "--quick"])
    (line,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (line["checkout"], line["vocabulary"]) == ("this", 4096)
    assert line["beside_ratio"] in (1, None), "None where too little was measured, as on a busy machine"
    assert {"cpu_ms", "ratio", "cpu_ratio"} <= set(line)
    assert line["decode_ratio"] == 1
    assert line["decode_ms"] > 0 < line["model_ms"]
    assert line["beside_ms"] == pytest.approx(line["token_ms"] - line["model_ms"], abs=0.02)
    assert line["vocabulary_ms"] == pytest.approx(line["beside_ms"] - line["line_ms"], abs=0.02)


def test_another_checkout_runs_its_own_code(tmp_path: Path) -> None:
    for name in ("core_server", "shared/ssd2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
    code = "import core_server, ssd2; print(core_server.__file__, ssd2.__file__)"
    environment = environment_of(tmp_path, tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [f"{tmp_path}/core_server/__init__.py", f"{tmp_path}/shared/ssd2/__init__.py"]
