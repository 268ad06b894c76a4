"""The log as text and as JSON, and what is in neither."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core_server.access.keys import create_key
from core_server.engine.loaded_model import LoadedModel
from core_server.observability.logs import MAX_REPEATED, JsonFormatter, LimitedHandler, TextFormatter, fields
from core_server.observability.observation import Observation
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.errors import ProtocolViolation
from ssd2.models.ssd2_lane import BatchLane
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto
from tests.core_server.conftest import Start, ending, eventually, open_request
from tests.core_server.test_main import ENVIRONMENT

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=2, stop=0.4)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def record(message: str, **more: Any) -> logging.LogRecord:
    line = logging.getLogger("core_server.x").makeRecord(
        "core_server.x", logging.WARNING, "x.py", 1, message, (), more.get("exc_info"), extra=more.get("extra")
    )
    line.created = datetime(2026, 11, 22, 12, 0, 0, 250_000, UTC).timestamp()
    return line


def failing() -> Any:
    try:
        raise ValueError("secret")
    except ValueError:
        return sys.exc_info()


def json_of(records: list[logging.LogRecord]) -> list[dict[str, Any]]:
    return [json.loads(JsonFormatter("front end").format(line)) for line in records]


def test_a_line_is_one_object() -> None:
    text = JsonFormatter("engine").format(record("two\nlines", extra=fields(session="ab", model=None, timesteps=3)))
    assert "\n" not in text
    line = json.loads(text)
    assert line.pop("pid") > 0
    assert line == {
        "time": "2026-11-22T12:00:00.250+00:00",
        "level": "warning",
        "logger": "core_server.x",
        "process": "engine",
        "message": "two\nlines",
        "session": "ab",
        "timesteps": 3,
    }


def test_an_exception_is_its_frames_without_its_text() -> None:
    line = json.loads(JsonFormatter("engine").format(record("failed", exc_info=failing())))
    assert line["error"] == "ValueError"
    assert re.fullmatch(r"/\S+test_logs.py:\d+ in failing", line["frames"][0])
    assert "secret" not in str(line)
    text = TextFormatter().format(record("failed", exc_info=failing()))
    assert "in failing" in text
    assert "secret" not in text


UNCAUGHT = "raise ValueError('secret')"
NEVER_RETRIEVED = """
import asyncio
async def fail():
    raise ValueError("secret")
async def main():
    asyncio.create_task(fail())
    await asyncio.sleep(0)
asyncio.run(main())
"""


def log_of(script: str, log_format: str) -> str:
    script = (
        f"from core_server.observability.logs import start_log; start_log('engine', 'info', '{log_format}')\n{script}"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    return done.stderr


def test_what_nobody_caught_is_a_line_as_well() -> None:
    (line,) = log_of(UNCAUGHT, "json").splitlines()
    assert (json.loads(line)["level"], json.loads(line)["error"]) == ("critical", "ValueError")


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(
    ("script", "says"), [(UNCAUGHT, "ended with ValueError"), (NEVER_RETRIEVED, "Task exception was never retrieved")]
)
def test_what_an_exception_says_is_in_no_log_even_where_nobody_caught_it(
    script: str, says: str, log_format: str
) -> None:
    log = log_of(script, log_format)
    assert says in log
    assert "secret" not in log


def test_what_is_logged_again_and_again_is_left_out_and_counted() -> None:
    now, stream = [0.0], io.StringIO()
    handler = LimitedHandler(stream, clock=lambda: now[0])
    log = logging.Logger("core_server.x")
    log.addHandler(handler)
    for number in range(1000):
        log.warning("number %d failed", number)
        log.info("number %d went well", number)
        log.warning("another kind: %d", number % 2) if number < MAX_REPEATED else None
    lines = stream.getvalue().splitlines()
    assert lines.count("number 5 went well") == 1
    assert [line for line in lines if "failed" in line] == [f"number {n} failed" for n in range(MAX_REPEATED)]
    assert len([line for line in lines if "another kind" in line]) == MAX_REPEATED
    now[0] = 61.0
    log.info("something else")
    log.warning("number %d failed", 7)
    ends = stream.getvalue().splitlines()[len(lines) :]
    left_out = f"… number %d failed … was repeated {1000 - MAX_REPEATED} times and left out"
    assert ends == [left_out, "something else", "number 7 failed"]
    assert len(handler._repeated) == 1, "what is over is forgotten"


def test_what_was_left_out_is_counted_at_the_end_too() -> None:
    script = "import logging\nfor n in range(100): logging.getLogger('x').error('no %d', n)"
    *lines, last = log_of(script, "json").splitlines()
    assert len(lines) == MAX_REPEATED
    assert json.loads(last)["message"] == f"… no %d … was repeated {100 - MAX_REPEATED} times and left out"


async def test_a_session_is_told_in_fields(served: LoadedModel, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="core_server.observability.observation")
    server, agent = await start(served)
    await agent.decode(served, PARAMS, Seeds.reproducible(1))
    ended = server.observation.metrics.sessions_ended
    await eventually(lambda: ended["core", "closed"] == 1)
    opened, closed = json_of([line for line in caplog.records if line.name == "core_server.observability.observation"])
    assert (opened["model"], closed["model"]) == ("core", "core")
    assert re.fullmatch("[0-9a-f]{16}", opened["session"])
    assert (closed["session"], closed["end"]) == (opened["session"], "closed")
    assert (closed["timesteps"], closed["tokens"]) == (PARAMS.steps * closed["blocks"], 8 * closed["blocks"])
    assert closed["blocks"] in (1, 2)
    assert closed["seconds"] > 0
    assert closed["bytes_up"] == server.observation.metrics.message_bytes["up"]
    assert closed["bytes_down"] == server.observation.metrics.message_bytes["down"]
    assert "trace_id" not in closed


async def test_whose_key_an_answer_was_under_is_in_its_lines_and_the_key_is_not(
    served: LoadedModel, start: Start, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    key, entry = create_key(tmp_path / "keys.json", "alice")
    server, agent = await start(served, keys=tmp_path / "keys.json")
    call = agent.stub.Collaborate(metadata=(("authorization", f"Bearer {key}"),))
    await call.write(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
    await call.write(pb.CollaborateRequest(close=pb.Close()))
    await ending(call)
    await eventually(lambda: server.observation.metrics.sessions_ended["core", "closed"] == 1)
    lines = json_of([line for line in caplog.records if line.name == "core_server.observability.observation"])
    assert [line["key"] for line in lines] == [entry.id, entry.id]
    assert key.removeprefix(f"sk-{entry.id}-") not in str(json_of(caplog.records))


async def test_a_trace_context_is_in_the_lines_of_its_session(
    served: LoadedModel, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="core_server.observability.observation")
    server, agent = await start(served)
    for value in (f"00-{TRACE}-{SPAN}-01", "00-Zq9sentinel"):
        call = agent.stub.Collaborate(metadata=(("traceparent", value),))
        await call.write(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
        await call.read()
        await call.write(pb.CollaborateRequest(close=pb.Close()))
        await ending(call)
    ended = server.observation.metrics.sessions_ended
    await eventually(lambda: ended["core", "closed"] == 2)
    lines = json_of([line for line in caplog.records if line.name == "core_server.observability.observation"])
    assert [line.get("trace_id") for line in lines] == [TRACE, TRACE, None, None]
    assert [line.get("parent_span_id") for line in lines] == [SPAN, SPAN, None, None]
    assert "Zq9sentinel" not in str(lines)


@pytest.mark.parametrize("error", [RuntimeError("secret"), ProtocolViolation("secret")])
def test_the_text_of_what_ends_a_session_is_not_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(type(error)), Observation().session(()):
        raise error
    (line,) = json_of(caplog.records)
    assert line["end"] in ("internal", "protocol_violation")
    assert "secret" not in str(line) + TextFormatter().format(caplog.records[0])


async def test_a_call_that_asks_for_nothing_leaves_no_line(
    served: LoadedModel, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="core_server.observability.observation")
    _, agent = await start(served)
    call = await agent.send()
    await call.done_writing()
    await ending(call)
    assert [line for line in caplog.records if line.name == "core_server.observability.observation"] == []


PROMPT_ID, TOKEN_ID, NOISE_SEED = 1709, 1613, 8_765_432_101_234


@pytest.mark.parametrize("formatter", [TextFormatter("%(name)s %(message)s"), JsonFormatter("front end")])
async def test_no_prompt_token_or_seed_is_in_the_log(
    served: LoadedModel,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    formatter: logging.Formatter,
) -> None:
    """Of an answer that goes well, one that is refused, and one that fails with all of it in the error's text."""
    caplog.set_level(logging.DEBUG)
    server, agent = await start(served)
    request = open_request(served, PARAMS, noise_seed=NOISE_SEED, prompt_ids=(PROMPT_ID,) * 9)
    projection = pb.CollaborateRequest(projection=pb.Projection(token_ids=[TOKEN_ID] * 8))
    wrong = pb.CollaborateRequest(projection=pb.Projection(token_ids=[TOKEN_ID] * 7))
    for message in (projection, wrong):
        call, _ = await agent.open(request)
        await call.write(message)
        if message is projection:
            await call.write(pb.CollaborateRequest(close=pb.Close()))
        await ending(call)

    def fail(_: BatchLane, rows: Any) -> None:
        raise RuntimeError(f"{PROMPT_ID} {TOKEN_ID} {NOISE_SEED} {rows}")

    monkeypatch.setattr(BatchLane, "logits", fail)
    await ending(await agent.send(pb.CollaborateRequest(open=open_to_proto(request))))
    ended = server.observation.metrics.sessions_ended
    await eventually(lambda: ended["core", "internal"] == 1)
    log = "\n".join(map(formatter.format, caplog.records))
    for said in ("closed", "block_shape_mismatch", "RuntimeError", "in fail"):
        assert said in log
    for secret in (PROMPT_ID, TOKEN_ID, NOISE_SEED):
        assert not re.search(rf"(?<![\d.]){secret}(?!\d)", log)
