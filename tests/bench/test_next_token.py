from __future__ import annotations

import json

import pytest

from tests.bench.__main__ import main
from tests.end_to_end.conftest import ROOT


@pytest.mark.slow
def test_two_checkouts_are_measured_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    main(["next_token", "--quick", "--against", str(ROOT)])
    ours, theirs = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (ours["checkout"], theirs["checkout"], ours["ratio"]) == ("this", "against", 1)
    for line in (ours, theirs):
        assert line["vocabulary"] == 4096
        assert line["model_ms"] > 0
        assert line["beside_ms"] == pytest.approx(line["token_ms"] - line["model_ms"], abs=0.02)
