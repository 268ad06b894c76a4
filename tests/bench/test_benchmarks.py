"""Each benchmark runs and prints the figures that it promises; none of these tests looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssd2.algorithm.params import DecodingParams
from ssd2.wire import collaboration_pb2 as pb
from tests.bench.__main__ import BENCHMARKS, main
from tests.bench.asked import committed_tokens
from tests.bench.prompts import LAYOUTS, is_right
from tests.bench.scripted_agents import Recording
from tests.bench.shape import MATRIX_SIZE
from tests.end_to_end.conftest import ENVIRONMENT
from tests.families import save_llama


@pytest.fixture
def pair(core_folder: Path, user_folder: Path) -> list[str]:
    """Options for the random models."""
    return ["--core", str(core_folder), "--user", str(user_folder)]


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    main(arguments)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_decode_compares_time_bytes_and_accuracy(capsys: pytest.CaptureFixture[str], pair: list[str]) -> None:
    (figures,) = _printed(capsys, "decode", "--quick", *pair)
    promised = {"speedup_time", "speedup_bytes", "joint", "joint_plain", "items", "runs", "tokens", "tokens_plain"}
    assert promised <= set(figures)
    assert figures["benchmark"] == "decode"
    per_timestep = 2 * 4 * 8 * 1782
    assert figures["bytes_per_token_plain"] == 20 * per_timestep / 8


@pytest.mark.slow
def test_transport_measures_every_way(capsys: pytest.CaptureFixture[str], pair: list[str]) -> None:
    lines = _printed(capsys, "transport", "--quick", *pair)
    ways = [(line["path"], line["rtt_ms"], line["tls"]) for line in lines]
    lines_of_grpc = [("grpc", 0, False), ("grpc", 0, True), ("grpc", 10, False)]
    assert ways == [("in process", 0, False), *(way for way in lines_of_grpc for _ in range(2))]
    assert [line["speculation"] for line in lines] == [0, 0, 2, 0, 2, 0, 2]
    in_process, near, _, encrypted, _, far, _ = lines
    promised = {"tls", "step_ms_p50", "block_s", "bytes_down_per_step", "bytes_up_per_step", "hit_rate"}
    assert all(promised <= set(line) for line in lines)
    assert in_process["bytes_down_per_step"] == 0
    assert near["bytes_down_per_step"] == encrypted["bytes_down_per_step"] == far["bytes_down_per_step"] > 8 * 196
    assert near["hit_rate"] == 0
    assert far["step_ms_p50"] >= 10, "the way is not as long as it should be"


@pytest.mark.slow
def test_server_measures_every_number_of_sessions(capsys: pytest.CaptureFixture[str], pair: list[str]) -> None:
    lines = _printed(capsys, "server", "--quick", *pair)
    assert [line["sessions"] for line in lines] == [1, 2]
    assert all(line["tokens_per_s"] > 0 and line["step_ms_p99"] >= line["step_ms_p50"] > 0 for line in lines)
    assert lines[0]["mb_per_session"] is None
    assert lines[1]["engine_mb"] > 0


@pytest.mark.slow
def test_causal_measures_sessions_and_a_long_prompt_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    *lines, beside = _printed(capsys, "causal", "--quick")
    assert [(line["sessions"], line["prompt_tokens"]) for line in lines] == [(1, 8), (2, 8)]
    assert lines[0]["gain"] == 1
    assert beside["long_s"] > 0
    assert beside["ratio"] == pytest.approx(beside["step_ms_p99"] / beside["step_ms_p99_before"], rel=0.05)


@pytest.mark.slow
def test_while_replicas_are_restarted_no_answer_is_lost_or_wrong(
    capsys: pytest.CaptureFixture[str], pair: list[str]
) -> None:
    (figures,) = _printed(capsys, "rolling", "--quick", "--restarts", "3", "--sessions", "4", "--grace-s", "0", *pair)
    assert figures["answers"] > 4
    assert figures["resumed"] > 0, "no restart was in the middle of an answer"
    assert (figures["restarts"], figures["lost"], figures["errors"], figures["wrong"]) == (3, 0, {}, 0)


@pytest.mark.slow
def test_a_soak_counts_what_is_lost_and_finds_nothing_left_behind(
    capsys: pytest.CaptureFixture[str], pair: list[str]
) -> None:
    (figures,) = _printed(capsys, "soak", "--quick", "--sessions", "8", *pair)
    assert figures["answers"] > 8
    assert figures["left"] > 0
    assert (figures["lost"], figures["untyped"], figures["wrong"]) == (0, 0, 0)
    assert (figures["sessions_active"], figures["slots_used"]) == (0, 0)
    assert len(figures["growth_mb"]) == 2


@pytest.mark.slow
def test_scaled_out_compares_ray_serve_with_the_plain_server(
    capsys: pytest.CaptureFixture[str], pair: list[str]
) -> None:
    pytest.importorskip("ray.serve")
    plain, behind = _printed(capsys, "scaled_out", "--quick", *pair)
    assert [(line["path"], line["replicas"]) for line in (plain, behind)] == [("core-server", 1), ("Ray Serve", 1)]
    assert plain["step_ratio"] == 1
    assert behind["step_ms_p50"] > 0
    assert behind["tokens_per_s"] > 0


@pytest.mark.slow
def test_growth_measures_every_block(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _printed(capsys, "growth", "--quick")
    assert [(line["sessions"], line["context_tokens"]) for line in lines] == [
        (sessions, context) for sessions in (1, 2) for context in (16, 20, 24)
    ]
    assert all(line["block_ms"] > 0 and line["engine_mb"] > 0 for line in lines)
    assert [line["by_context"] for line in lines if line["block"] == 1] == [1, 1]
    assert [line["by_sessions"] for line in lines if line["sessions"] == 1] == [1, 1, 1]


def test_shape_gives_steps_and_the_machine_s_limit(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _printed(capsys, "shape", "--quick")
    assert [(line["shape"], line["batch"]) for line in lines] == [("tiny", 1), ("tiny", 2)]
    for line in lines:
        assert line["device"]
        assert line["step_ms"] > line["limit_ms"] > 0
        assert line["ratio_to_limit"] == pytest.approx(line["step_ms"] / line["limit_ms"], rel=0.5)


def test_shape_computes_in_bfloat16_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MATRIX_SIZE, "cpu", 64)  # a processor without bfloat16 takes minutes for large products
    lines = _printed(capsys, "shape", "--quick", "--dtype", "bfloat16")
    assert [line["dtype"] for line in lines] == ["bfloat16"] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_shape_is_skipped_where_the_device_is_not_to_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    main(["shape", "--quick", "--device", "cuda"])
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("shape: skipped, device 'cuda' cannot be used")


def test_documents_are_read_and_searched_encrypted_and_not(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _printed(capsys, "documents", "--quick")
    assert [(line["encryption"], line["documents"], line["passages"]) for line in lines] == [
        ("none", 5, 200),
        ("raw", 5, 200),
    ]
    assert all(line["documents_per_s"] > 0 and line["search_ms_p95"] >= line["search_ms_median"] > 0 for line in lines)


def test_the_help_names_every_benchmark_and_imports_no_torch() -> None:
    script = "import sys; sys.argv = ['bench', '--help']\nimport atexit\nfrom tests.bench.__main__ import main\n"
    script += "atexit.register(lambda: print('torch' in sys.modules))\nmain()"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENVIRONMENT
    ).stdout
    assert all(name in printed for name in BENCHMARKS)
    assert printed.endswith("False\n")


def test_scripted_agents_import_no_torch() -> None:
    script = "import sys, tests.bench.scripted_agents; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(("answer_tokens", "committed"), [(0, 8), (7, 8), (8, 16), (16, 24), (48, 48)])
def test_the_block_that_ends_an_answer_counts_too(answer_tokens: int, committed: int) -> None:
    assert committed_tokens(answer_tokens, DecodingParams(block_size=8, max_tokens=48)) == committed


def test_a_recorded_timestep_stands_for_its_part_of_its_block() -> None:
    """Blocks may end early: two timesteps, then one, then three."""

    def projection(*, is_commit: bool) -> bytes:
        return pb.CollaborateRequest(projection=pb.Projection(is_commit=is_commit)).SerializeToString()

    opening = pb.CollaborateRequest(open=pb.Open(block_size=6)).SerializeToString()
    going_on, ending = projection(is_commit=False), projection(is_commit=True)
    close = pb.CollaborateRequest(close=pb.Close()).SerializeToString()
    recording = Recording.of([opening, going_on, ending, ending, going_on, going_on, close])
    assert recording.tokens == [0, 3, 3, 6, 2, 2, 2]
    assert recording.messages[0] == opening.hex()


def test_prompts_answers_every_kind_of_question_in_every_layout(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    save_llama(tmp_path / "llama", 1782)
    (tmp_path / "llama" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    lines = _printed(capsys, "prompts", "--quick", "--user", str(tmp_path / "llama"))
    assert [line["layout"] for line in lines] == list(LAYOUTS)
    assert all(set(line["right"]) == {"document", "public", "two-source"} for line in lines)
    assert is_right("It is on 16 May.", ["16 May", "May 16"])
    assert not is_right("It costs 114 euros.", ["14"])
