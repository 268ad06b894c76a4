"""The judge against an endpoint on loopback that speaks the real protocol."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ssd2.__main__ import main
from ssd2.cli import app
from ssd2.errors import InvalidParameter
from ssd2.evaluation.generations import Generation
from ssd2.evaluation.intervals import mean_interval, wilson_interval
from ssd2.lab import chat
from ssd2.lab.chat import ChatClient, Endpoint
from ssd2.lab.errors import JudgeRefused, JudgeReplyInvalid, JudgeUnavailable
from ssd2.lab.judge import (
    Judge,
    Question,
    Verdict,
    ask_missing,
    comparison_questions,
    estimate,
    rating_questions,
    read_verdicts,
)
from ssd2.lab.judge_results import compare, comparison_table, rate, rating_table
from ssd2.lab.judge_templates import parse_ratings, parse_scores
from tests.commands import run_here

KEY = "sk-very-secret-0123456789"
RATING_OF_9 = "\n".join(
    f"{name}: 9/10"
    for name in (
        "Relevance",
        "Factuality",
        "Informativeness",
        "Conciseness",
        "Coherence",
        "Understandability",
        "Overall human preference",
    )
)
ASKED_RATING = """Rate the response below to an instruction, from the aspects of relevance, factuality, \
informativeness, conciseness, coherence, understandability, and overall human preference, each on a scale of 10 \
(format: x/10).

======

Instruction: When {first} opens?

Response: At 9.

=======

Please give the ratings now."""
ASKED_COMPARISON = """[Question]
When {first} opens?
[The Start of Assistant 1's Answer]
At 9.
[The End of Assistant 1's Answer]
[The Start of Assistant 2's Answer]
Never.
[The End of Assistant 2's Answer]

[System]

We would like to request your feedback on the performance of two AI assistants in response to the user question \
displayed above. Please rate the helpfulness, relevance, accuracy, level of details of their responses. Each assistant \
receives an overall score on a scale of 1 to 10, where a higher score indicates better overall performance. Please \
first output a single line containing only two values indicating the scores for Assistant 1 and 2, respectively. The \
two scores are separated by a space. In the subsequent line, please provide a comprehensive explanation of your \
evaluation, avoiding any potential bias and ensuring that the order in which the responses were presented does not \
affect your judgment."""
PROMPT = "When {first} opens?"  # braces must survive the template

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


def completion(text: str | None) -> Answer:
    body = {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
    }
    return 200, {}, json.dumps(body).encode()


def refusal(status: int, message: str, headers: dict[str, str] | None = None, code: str | None = None) -> Answer:
    return status, headers or {}, json.dumps({"error": {"message": message, "code": code}}).encode()


class Stub:
    """An endpoint whose answers a test decides; it remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: Callable[[str], Answer] = lambda _: completion(RATING_OF_9)
        self.delay_s: Callable[[str], float] = lambda _: 0.0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub.lock:
                    stub.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
                    stub.at_once += 1
                    stub.most_at_once = max(stub.most_at_once, stub.at_once)
                    status, headers, content = stub.answer(body["messages"][0]["content"])
                time.sleep(stub.delay_s(body["messages"][0]["content"]))
                with stub.lock:
                    stub.at_once -= 1
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @property
    def asked(self) -> list[str]:
        return [request["body"]["messages"][0]["content"] for request in self.requests]

    def answers(self, *answers: Answer) -> None:
        """These in turn, then the last one for ever."""
        waiting = list(answers)
        self.answer = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    thread = threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()
    thread.join(5)


def judge_at(stub: Stub, **values: Any) -> Judge:
    return Judge(Endpoint(stub.url, "tiny-judge", backoff_s=0.01, **values), 0.0, 50, 1)


def questions(count: int) -> list[Question]:
    return rating_questions({"ours": [Generation(f"answer {n}", PROMPT) for n in range(count)]})["ours"]


# What is asked


def test_a_rating_is_asked_word_for_word(stub: Stub, tmp_path: Path) -> None:
    plan = rating_questions({"ours": [Generation("At 9.", PROMPT)]})
    ask_missing(plan["ours"], judge_at(stub), KEY, tmp_path / "v.jsonl")
    (request,) = stub.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["Authorization"] == f"Bearer {KEY}"
    assert request["body"] == {
        "model": "tiny-judge",
        "messages": [{"role": "user", "content": ASKED_RATING}],
        "temperature": 0.0,
        "max_tokens": 50,
    }


def test_a_comparison_is_asked_word_for_word_in_both_orders(stub: Stub, tmp_path: Path) -> None:
    stub.answers(completion("8 6\nThe first is right."))
    groups = {"ours": [Generation("At 9.", PROMPT)], "theirs": [Generation("Never.", PROMPT)]}
    (pair,) = comparison_questions(groups, "theirs")["ours"]
    ask_missing([pair.answer_first, pair.baseline_first], judge_at(stub), None, tmp_path / "v.jsonl")
    swapped = ASKED_COMPARISON.replace("At 9.", "*").replace("Never.", "At 9.").replace("*", "Never.")
    assert stub.asked == [ASKED_COMPARISON, swapped]
    assert "Authorization" not in stub.requests[0]["headers"], "without a key there is no header"


def test_the_most_tokens_are_called_as_the_endpoint_wants(stub: Stub, tmp_path: Path) -> None:
    judge = judge_at(stub, limit_field="max_completion_tokens")
    ask_missing(questions(1), judge, None, tmp_path / "v.jsonl")
    assert stub.requests[0]["body"]["max_completion_tokens"] == 50
    assert "max_tokens" not in stub.requests[0]["body"]


def test_answers_are_paired_by_prompt_also_where_one_comes_twice() -> None:
    ours = [Generation("a1", "p"), Generation("a2", "q"), Generation("a3", "p")]
    theirs = [Generation("b1", "q"), Generation("b2", "p"), Generation("b3", "p")]
    pairs = comparison_questions({"theirs": theirs, "ours": ours}, "theirs")["ours"]
    found = [re.findall(r"Answer\]\n(\w\d)\n", pair.answer_first.content) for pair in pairs]
    assert found == [["a1", "b2"], ["a2", "b1"], ["a3", "b3"]]
    assert [re.findall(r"Answer\]\n(\w\d)\n", pair.baseline_first.content) for pair in pairs] == [
        pair[::-1] for pair in found
    ]


def test_what_cannot_be_judged_is_refused() -> None:
    one, other = [Generation("a", "p")], [Generation("b", "q")]
    with pytest.raises(InvalidParameter, match="'q' is not in both"):
        comparison_questions({"ours": [*one, *other], "theirs": one}, "theirs")
    with pytest.raises(InvalidParameter, match="not as often"):
        comparison_questions({"ours": one * 2, "theirs": one}, "theirs")
    with pytest.raises(InvalidParameter, match="one of two or more groups"):
        comparison_questions({"ours": one, "theirs": one}, "nobody")
    with pytest.raises(InvalidParameter, match="one of two or more groups"):
        comparison_questions({"ours": one}, "ours")
    for plan in (rating_questions, lambda groups: comparison_questions(groups, "ours")):
        with pytest.raises(InvalidParameter, match="prompt"):
            plan({"ours": [Generation("a")], "theirs": one})


# What is read


@pytest.mark.parametrize(
    "reply",
    [
        RATING_OF_9,
        RATING_OF_9.replace(": 9/10", " - **9** / 10 (good)"),
        "\n".join(f"{n}. **{line}**" for n, line in enumerate(RATING_OF_9.split("\n"), 1)),
        "\n".join(f"| {line.replace(':', ' |')} |" for line in RATING_OF_9.split("\n")),
        ", ".join(RATING_OF_9.lower().split("\n")[::-1]) + ".",
    ],
)
def test_ratings_are_read_whatever_their_dress(reply: str) -> None:
    ratings = parse_ratings(reply)
    assert ratings is not None
    assert len(ratings) == 7
    assert set(ratings.values()) == {9.0}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot rate this.",
        RATING_OF_9.replace("Coherence: 9/10\n", ""),
        RATING_OF_9.replace("Coherence: 9/10", "Coherence: 11/10"),
        RATING_OF_9.replace("Coherence: 9/10", "Coherence: 9/100"),
        RATING_OF_9.replace("Coherence: 9/10", "Coherence: -"),
        RATING_OF_9.replace("Relevance", "Irrelevance"),
        RATING_OF_9 + "\nCoherence: 2/10",
        "relevance, factuality, informativeness, conciseness, coherence, understandability, human preference: 9/10",
    ],
)
def test_a_reply_without_all_ratings_is_not_guessed_at(reply: str) -> None:
    assert parse_ratings(reply) is None


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("8 9\nBoth are good.", (8, 9)),
        ("\n8.5 9\r\nBoth", (8.5, 9)),
        ("7, 10", (7, 10)),
        ("8 9 7\n", None),
        ("0 9\n", None),
        ("8 11\n", None),
        ("8\n9\n", None),
        ("Assistant 1: 8\nAssistant 2: 9", None),
        ("8 9 are my scores", None),
        ("", None),
    ],
)
def test_scores_are_the_first_line_or_none(reply: str, scores: tuple[float, float] | None) -> None:
    assert parse_scores(reply) == scores


def verdicts_of(replies: dict[Question, str], judge: Judge) -> dict[str, Verdict]:
    return {q.key(judge): Verdict(q.key(judge), q.template, reply, None, None) for q, reply in replies.items()}


def test_a_win_takes_both_orders() -> None:
    judge = Judge(Endpoint("http://localhost/v1", "m"), 0.2)
    orders = [
        ("9 5", "5 9"),  # the answer wins in both
        ("5 9", "9 5"),  # the baseline wins in both
        ("9 5", "9 5"),  # each order prefers its first
        ("5 9", "5 9"),  # each order prefers its second
        ("7 7", "7 7"),
        ("9 5", "7 7"),  # one order only
        ("9 5", "Both are fine."),
    ]
    groups = {
        "ours": [Generation(f"a{n}", f"p{n}") for n in range(7)],
        "theirs": [Generation(f"b{n}", f"p{n}") for n in range(7)],
    }
    plan = comparison_questions(groups, "theirs")
    replies = {
        question: reply
        for pair, order in zip(plan["ours"], orders, strict=True)
        for question, reply in zip((pair.answer_first, pair.baseline_first), order, strict=True)
    }
    (result,) = compare(plan, "theirs", judge, verdicts_of(replies, judge))
    assert (result.pairs, result.unreadable) == (7, 1)
    assert (result.wins, result.losses, result.ties, result.contradictions) == (1, 1, 4, 2)
    assert (result.first_preferred, result.second_preferred) == (5, 4)
    assert result.share("ties") == (4 / 6, wilson_interval(4 / 6, 6))
    assert "| ours | theirs | 0.167 (" in comparison_table([result])
    (nothing,) = compare(plan, "theirs", judge, verdicts_of(dict.fromkeys(replies, "?"), judge))
    assert nothing.share("wins") is None
    assert "| – | – | – | 0 | 7 | 7 |" in comparison_table([nothing])


def test_ratings_are_averaged_over_what_can_be_read() -> None:
    judge = Judge(Endpoint("http://localhost/v1", "m"), 0)
    plan = {"ours": questions(3), "theirs": rating_questions({"x": [Generation("z", "p")]})["x"]}
    replies = dict(
        zip(plan["ours"], (RATING_OF_9, RATING_OF_9.replace("Coherence: 9", "Coherence: 6"), "no"), strict=True)
    )
    ours, theirs = rate(plan, judge, verdicts_of({**replies, plan["theirs"][0]: "no"}, judge))
    assert (ours.answers, ours.unreadable) == (3, 1)
    assert ours.means["coherence"] == 7.5
    assert ours.intervals["coherence"] == pytest.approx((7.5 - 2.94, 10), abs=0.01)  # 1.96 · 2.1213 / √2, cut at 10
    assert ours.means["human preference"] == 9
    assert (theirs.means, theirs.unreadable) == ({}, 1)
    table = rating_table([ours, theirs])
    assert "| ours | 9.00 (9.00–9.00) |" in table
    assert "human" not in table
    assert "| theirs | – | – | – | – | – | 1 | 1 |" in table


def test_one_rating_has_no_interval() -> None:
    assert mean_interval([7.0], 0, 10) is None


# What is kept


def test_a_rerun_asks_only_what_is_missing(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "new" / "v.jsonl"
    ask_missing(questions(2), judge_at(stub), None, file)
    with file.open("a") as verdicts:
        verdicts.write('{"key": "cut sho')  # as a crash leaves it
    seen: list[int] = []
    verdicts_by_key = ask_missing(questions(4), judge_at(stub), None, file, seen.append)
    assert [re.findall(r"answer (\d)", asked)[0] for asked in stub.asked] == ["0", "1", "2", "3"]
    assert seen == [1, 1]
    assert {question.key(judge_at(stub)) for question in questions(4)} == set(verdicts_by_key)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["content"] for line in lines] == stub.asked
    assert lines[0]["parsed"]["coherence"] == 9
    assert read_verdicts(file) == verdicts_by_key


def test_an_unreadable_verdict_is_kept_as_such_and_not_asked_again(stub: Stub, tmp_path: Path) -> None:
    stub.answers(completion("I would rather not."), completion(None))
    for _ in range(2):
        verdicts = ask_missing(questions(2), judge_at(stub), None, tmp_path / "v.jsonl")
    assert len(stub.requests) == 2
    assert [verdict.reply for verdict in verdicts.values()] == ["I would rather not.", ""]
    assert all(json.loads(line)["parsed"] is None for line in (tmp_path / "v.jsonl").read_text().splitlines())


def test_a_reply_with_half_a_surrogate_pair_is_kept(stub: Stub, tmp_path: Path) -> None:
    stub.answers(completion(RATING_OF_9 + "\ud83d"))
    verdicts = ask_missing(questions(1), judge_at(stub), None, tmp_path / "v.jsonl")
    assert read_verdicts(tmp_path / "v.jsonl") == verdicts
    (verdict,) = verdicts.values()
    assert verdict.reply.endswith("\ud83d")
    assert verdict.ratings is not None


def test_another_judge_is_asked_anew_and_equal_questions_once(stub: Stub, tmp_path: Path) -> None:
    judge = judge_at(stub)
    others = [
        Judge(judge.endpoint, 0.5, 50, 1),
        Judge(judge.endpoint, 0.0, 99, 1),  # a reply cut short at 50 tokens may be whole
        Judge(Endpoint(stub.url, "another"), 0.0, 50, 1),
        Judge(Endpoint(f"{stub.url}/other", "tiny-judge"), 0.0, 50, 1),
    ]
    for each in (judge, *others, Judge(judge.endpoint, 0.0, 50, 3), judge_at(stub, timeout_s=9)):
        ask_missing(questions(1) * 2, each, None, tmp_path / "v.jsonl")
    assert len(stub.requests) == 5


WRONG_TYPES = '{"key": 1, "template": "rating", "reply": 2, "prompt_tokens": null, "completion_tokens": null}\n'


@pytest.mark.parametrize("content", ["nonsense\n", "[]\n", "{}\n", WRONG_TYPES])
def test_a_file_that_holds_no_verdicts_is_refused_and_kept(stub: Stub, tmp_path: Path, content: str) -> None:
    file = tmp_path / "v.jsonl"
    file.write_text(content)
    with pytest.raises(InvalidParameter, match="another folder"):
        ask_missing(questions(1), judge_at(stub), None, file)
    assert file.read_text() == content
    assert stub.requests == []


def test_replies_on_their_way_are_kept_when_another_fails(stub: Stub, tmp_path: Path) -> None:
    stub.delay_s = lambda asked: 0.0 if "answer 0" in asked else 0.5
    stub.answer = lambda asked: refusal(400, "no") if "answer 0" in asked else completion(RATING_OF_9)
    judge = Judge(Endpoint(stub.url, "m", backoff_s=0.01), 0.0, 50, concurrency=3)
    with pytest.raises(JudgeRefused, match="400"):
        ask_missing(questions(9), judge, None, tmp_path / "v.jsonl")
    assert len(read_verdicts(tmp_path / "v.jsonl")) == 2
    assert len(stub.requests) == 3, "nothing new is asked after a failure"


# What goes wrong


def outcome(stub: Stub, tmp_path: Path, **values: Any) -> str:
    """The reply to one question."""
    (verdict,) = ask_missing(questions(1), judge_at(stub, **values), KEY, tmp_path / "v.jsonl").values()
    return verdict.reply


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(stub: Stub, tmp_path: Path, status: int) -> None:
    stub.answers(refusal(status, "busy"), refusal(status, "busy"), completion(RATING_OF_9))
    assert outcome(stub, tmp_path) == RATING_OF_9
    assert len(stub.requests) == 3


def test_a_connection_that_breaks_is_tried_again(stub: Stub, tmp_path: Path) -> None:
    stub.answers((0, {}, b""), completion(RATING_OF_9))
    assert outcome(stub, tmp_path) == RATING_OF_9
    assert len(stub.requests) == 2


def test_an_endpoint_that_goes_away_in_the_middle_is_tried_again(
    stub: Stub, tmp_path: Path, waits: list[float]
) -> None:
    def answer_once(_: str) -> Answer:
        stub.server.socket.close()
        status, _, body = completion(RATING_OF_9)
        return status, {"Connection": "close"}, body

    stub.answer = answer_once
    with pytest.raises(JudgeUnavailable, match="no connection"):
        ask_missing(questions(2), judge_at(stub, attempts=3), None, tmp_path / "v.jsonl")
    assert len(waits) == 2
    assert len(read_verdicts(tmp_path / "v.jsonl")) == 1


def test_a_damaged_compressed_body_is_asked_for_again(stub: Stub, tmp_path: Path) -> None:
    damaged = (200, {"Content-Encoding": "gzip"}, b"no gzip at all")
    stub.answers(damaged, completion(RATING_OF_9))
    assert outcome(stub, tmp_path) == RATING_OF_9
    assert len(stub.requests) == 2
    stub.answers(damaged)
    with pytest.raises(JudgeUnavailable, match="the answer was incomplete: DecodingError"):
        ask_missing(questions(2), judge_at(stub, attempts=2), None, tmp_path / "v.jsonl")


def test_the_last_attempt_is_the_last(stub: Stub, tmp_path: Path) -> None:
    stub.answers(refusal(503, "overloaded"))
    with pytest.raises(JudgeUnavailable, match=r"503: overloaded.*resumes with what is missing"):
        outcome(stub, tmp_path, attempts=3)
    assert len(stub.requests) == 3


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited between attempts; nobody really waits."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(chat.asyncio, "sleep", sleep)
    return waited


def test_waits_double_up_to_the_longest(stub: Stub, tmp_path: Path, waits: list[float]) -> None:
    stub.answers(refusal(500, "no"))
    judge = Judge(Endpoint(stub.url, "m", attempts=9, backoff_s=1), 0, 50, 1)
    with pytest.raises(JudgeUnavailable):
        ask_missing(questions(1), judge, None, tmp_path / "v.jsonl")
    assert len(waits) == 8
    for wait, expected in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60), strict=True):
        assert 0.5 * expected <= wait <= 1.5 * expected


def test_retry_after_goes_before(stub: Stub, tmp_path: Path, waits: list[float]) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    retry_after = ("7", "0", date, "Wed, 21 Oct 2015 07:28:00 GMT", "soon")
    stub.answers(*(refusal(429, "busy", {"Retry-After": value}) for value in retry_after), completion(RATING_OF_9))
    assert outcome(stub, tmp_path) == RATING_OF_9
    assert waits[:2] == [7, 0]
    assert 10 < waits[2] <= 20
    assert waits[3] == 0, "a date in the past"
    assert 0 < waits[4] < 1, "not understood: the usual wait"


def test_too_long_a_retry_after_is_for_a_later_run(stub: Stub, tmp_path: Path, waits: list[float]) -> None:
    stub.answers(refusal(429, "come back tomorrow", {"Retry-After": "86400"}))
    with pytest.raises(JudgeUnavailable, match="come back tomorrow"):
        outcome(stub, tmp_path)
    assert (waits, len(stub.requests)) == ([], 1)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (refusal(401, "bad key"), "401: bad key.*set another"),
        (refusal(403, "forbidden"), "403: forbidden.*set another"),
        (refusal(404, "no such model"), "no such model.*check the model's name"),
        (refusal(400, "max_tokens is not supported"), "max_tokens is not supported"),
        (refusal(429, "no money", code="insufficient_quota"), "no money"),
        ((307, {"Location": "http://127.0.0.1:1/"}, b"moved"), "307: moved"),
        ((404, {}, b""), "no reason given"),
        ((422, {}, b'{"error": "flat"}'), "422: flat"),
        ((422, {}, b'["\x1b[31mred"]'), r"422: \[\" ?\[31mred"),
    ],
)
def test_a_refusal_is_told_and_not_tried_again(stub: Stub, tmp_path: Path, answer: Answer, says: str) -> None:
    stub.answers(answer)
    with pytest.raises(JudgeRefused, match=says) as caught:
        outcome(stub, tmp_path)
    assert len(stub.requests) == 1
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {}}]}',
        b'{"choices": [{"message": {"content": 3}}]}',
        b'{"choices": [{"message": {"content": "a"}}], "usage": 3}',
        b'{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "many"}}',
        b'"\xff',
    ],
)
def test_what_is_no_completion_is_named(stub: Stub, tmp_path: Path, body: bytes) -> None:
    stub.answers((200, {}, body))
    with pytest.raises(JudgeReplyInvalid, match="other than a chat completion"):
        outcome(stub, tmp_path)
    assert not (tmp_path / "v.jsonl").exists()


def test_an_endpoint_that_does_not_count_tokens_is_fine(stub: Stub, tmp_path: Path) -> None:
    stub.answers((200, {}, b'{"choices": [{"message": {"content": "a"}}]}'))
    assert outcome(stub, tmp_path) == "a"


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    judge = Judge(Endpoint("http://127.0.0.1:1/v1", "m"), 0)
    started = time.monotonic()
    with pytest.raises(JudgeUnavailable, match=r"nothing answers at http://127\.0\.0\.1:1/v1.*check the address"):
        ask_missing(questions(1), judge, None, tmp_path / "v.jsonl")
    assert time.monotonic() - started < 5, "a wrong address is not tried again and again"


def test_an_endpoint_that_does_not_finish(stub: Stub, tmp_path: Path) -> None:
    stub.delay_s = lambda _: 0.5
    with pytest.raises(JudgeUnavailable, match=r"no answer within 0\.1 s"):
        outcome(stub, tmp_path, timeout_s=0.1, attempts=2)
    assert len(stub.requests) == 2


def test_an_attempt_has_one_deadline_however_slowly_it_drips(tmp_path: Path) -> None:
    class Dripping(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(40):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
                time.sleep(0.05)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    judge = Judge(Endpoint(f"http://127.0.0.1:{server.server_address[1]}", "m", timeout_s=0.3, attempts=1), 0)
    started = time.monotonic()
    try:
        with pytest.raises(JudgeUnavailable, match="no answer within"):
            ask_missing(questions(1), judge, None, tmp_path / "v.jsonl")
        assert time.monotonic() - started < 1.5
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_than_so_many_at_once(stub: Stub, tmp_path: Path, concurrency: int) -> None:
    stub.delay_s = lambda _: 0.05
    judge = Judge(Endpoint(stub.url, "m"), 0, 50, concurrency)
    assert len(ask_missing(questions(9), judge, None, tmp_path / "v.jsonl")) == 9
    assert stub.most_at_once == concurrency


# The key


@pytest.mark.parametrize("said", [refusal(400, f"You sent Bearer {KEY}"), (200, {}, f"key {KEY}".encode())])
def test_a_key_that_is_sent_back_is_not_shown(stub: Stub, tmp_path: Path, said: Answer) -> None:
    stub.answers(said)
    with pytest.raises((JudgeRefused, JudgeReplyInvalid)) as caught:
        outcome(stub, tmp_path)
    assert "[key]" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_key_that_is_sent_back_is_not_kept(stub: Stub, tmp_path: Path) -> None:
    stub.answers(completion(f"Your key is {KEY}"))
    assert outcome(stub, tmp_path) == "Your key is [key]"
    assert KEY not in (tmp_path / "v.jsonl").read_text()


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_is_none_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InvalidParameter, match="single printable word") as caught:
        ChatClient(Endpoint("https://example.org", "m"), key)
    assert key not in str(caught.value)


def test_a_key_does_not_travel_unencrypted() -> None:
    with pytest.raises(InvalidParameter, match="unencrypted"):
        ChatClient(Endpoint("http://192.0.2.7/v1", "m"), KEY)
    for url in ("https://example.org", "http://localhost:8000", "http://127.0.0.2", "http://[::1]:8000"):
        ChatClient(Endpoint(url, "m"), KEY)
    ChatClient(Endpoint("http://192.0.2.7/v1", "m"), None)


def test_what_stays_on_this_machine_goes_through_no_proxy(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert outcome(stub, tmp_path) == RATING_OF_9


@pytest.mark.parametrize(
    "url", [f"https://user:{KEY}@example.org", f"https://example.org/v1?key={KEY}", f"https://example.org#{KEY}"]
)
def test_an_address_with_a_key_in_it_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidParameter, match="set the key in the environment") as caught:
        Endpoint(url, "m")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("url", ["", "example.org", "ftp://example.org", "http://", "http://[::1", "http://a:b/"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="such as https://"):
        Endpoint(url, "m")


@pytest.mark.parametrize("url", ["http://h/v1", "http://h/v1/", "http://h/v1/chat/completions"])
def test_an_address_may_be_whole_or_not(url: str) -> None:
    assert Endpoint(url, "m").completions_url == "http://h/v1/chat/completions"


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(InvalidParameter, match=r"slingshot\[train\]"):
        Endpoint("https://example.org", "m")


# The cost


def test_the_estimate_counts_calls_bytes_and_prices() -> None:
    judge = Judge(Endpoint("http://localhost", "m"), 0, max_tokens=100)
    asked = [Question("rating", "x" * 41), Question("rating", "ü" * 20), Question("rating", "x" * 41)]
    known = verdicts_of({Question("rating", "old"): ""}, judge)
    expected = estimate([*asked, Question("rating", "old")], judge, known, 2.0, 10.0)
    assert (expected.calls, expected.known, expected.tokens_in) == (2, 1, 11 + 10)
    assert expected.most_tokens_out == 200
    assert expected.most_price == pytest.approx((21 * 2 + 200 * 10) / 1e6)
    assert estimate(asked, judge, known).most_price is None


# The command


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Three systems' answers to two prompts."""
    file = tmp_path / "answers.jsonl"
    lines = [
        {"system": system, "prompt": f"p{n}", "text": f"{system} says {n}"}
        for system in ("a", "b", "c")
        for n in (0, 1)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def run(stub: Stub, answers: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as it is typed."""
    command = ["lab", "judge", str(answers), "--by", "system"]
    options = ["--endpoint", stub.url, "--model", "tiny-judge", "--out", str(answers.parent / "r")]
    return run_here(*command, *options, *arguments, environment={**os.environ, **environment}, main=main)


def test_the_command_rates_reports_and_goes_on(stub: Stub, answers: Path) -> None:
    result = run(stub, answers, "--yes", "--json", OPENAI_API_KEY=f" {KEY}\n")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert [(row["label"], row["means"]["coherence"]) for row in facts["rows"]] == [("a", 9), ("b", 9), ("c", 9)]
    assert facts["temperature"] == 0
    assert len(stub.requests) == 6
    assert "6 calls to tiny-judge at 127.0.0.1" in result.stderr
    assert "600 tokens of questions, 42 of replies" in result.stderr
    assert "6/6" in result.stderr
    report = answers.parent / "r"
    assert "| a | 9.00 (9.00–9.00) |" in (report / "rating.md").read_text()
    assert (report / "rating.svg").stat().st_size > 1000

    again = run(stub, answers, "--against", "c", OPENAI_API_KEY=KEY)
    assert "8 calls" in again.stderr, "2 systems x 2 prompts x 2 orders"
    assert "--yes" in again.stderr
    assert (again.returncode, len(stub.requests)) == (1, 6)
    stub.answer = lambda asked: completion("9 4" if asked.index("says") < asked.index("c says") else "4 9")
    compared = run(stub, answers, "--against", "c", "--yes", OPENAI_API_KEY=KEY)
    assert compared.returncode == 0, compared.stderr
    assert "| a | c | 1.000 (" in compared.stdout
    assert stub.requests[-1]["body"]["temperature"] == 0.2
    assert "4 prefer what they are shown first, 4 the other" in (report / "comparison.md").read_text()
    assert (report / "comparison.svg").stat().st_size > 1000

    rerun = run(stub, answers, OPENAI_API_KEY=KEY)
    assert (rerun.returncode, len(stub.requests)) == (0, 14), "all verdicts are there: nothing to ask, or to pay"
    written = b"".join(file.read_bytes() for file in report.iterdir())
    said = "".join(part.stdout + part.stderr for part in (result, again, compared, rerun))
    assert KEY not in said
    assert KEY.encode() not in written


def test_a_wrong_key_is_one_line_without_it(stub: Stub, answers: Path) -> None:
    stub.answers(refusal(401, f"Incorrect API key provided: {KEY}"))
    result = run(stub, answers, "--yes", "--key-env", "MY_KEY", MY_KEY=KEY)
    assert result.returncode == 1
    assert "refuses the key" in result.stderr
    assert "Traceback" not in result.stderr
    assert KEY not in result.stderr + result.stdout
    assert "requires a key" in run(stub, answers, "--yes", "--key-env", "NO_SUCH_VARIABLE").stderr


def invoke(stub: Stub, answers: Path, *arguments: str, answer: str | None = None) -> Any:
    command = ["lab", "judge", str(answers), "--by", "system", "--endpoint", stub.url, "--model", "m"]
    return CliRunner().invoke(app, [*command, "--out", str(answers.parent / "r"), *arguments], input=answer)


def test_a_dry_run_asks_nobody_and_writes_nothing(stub: Stub, answers: Path) -> None:
    result = invoke(stub, answers, "--dry-run", "--price-in", "10", "--price-out", "30", "--max-tokens", "1000")
    assert result.exit_code == 0, result.output
    assert "6 calls to m at 127.0.0.1" in result.stdout
    assert "at most 6,000 of replies, price at most 0.19" in result.stdout  # 0.18 of replies, 0.01 of questions
    assert json.loads(invoke(stub, answers, "--dry-run", "--json", "--limit", "1").stdout)["calls"] == 3
    assert stub.requests == []
    assert not (answers.parent / "r").exists()
    assert "both --price-in and --price-out" in str(invoke(stub, answers, "--dry-run", "--price-in", "1").exception)


@pytest.mark.parametrize(("said", "calls"), [("n\n", 0), ("y\n", 6)])
def test_on_a_terminal_it_asks_first(
    stub: Stub, answers: Path, monkeypatch: pytest.MonkeyPatch, said: str, calls: int
) -> None:
    monkeypatch.setattr("ssd2.cli.lab.judge._is_terminal", lambda: True)
    result = invoke(stub, answers, answer=said)
    assert len(stub.requests) == calls
    assert result.exit_code == (0 if calls else 1)
