"""Blind votes: who knows what, what is stored when, and what is counted."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Request, expect
from typer.testing import CliRunner

from ssd2.cli import app
from ssd2.errors import InvalidParameter
from ssd2.evaluation.generations import Generation
from ssd2.evaluation.jsonl import append_result
from ssd2.lab.vote_results import agreement_table, count_votes, read_raters, votes_table
from ssd2.lab.vote_server import VoteServer
from ssd2.lab.votes import (
    BLOCK,
    EQUALLY_BAD,
    EQUALLY_GOOD,
    FIRST,
    SECOND,
    BlindPair,
    Vote,
    VotingSession,
    blind_pairs,
    read_votes,
    votes_file,
)
from tests.browser import launched_browser

OURS, THEIRS = "diffusive", "sequential"


def groups(count: int = 4) -> dict[str, list[Generation]]:
    """Answers whose words do not name their system."""
    return {
        OURS: [Generation(f"It is {n}.", f"Question {n}?") for n in range(count)],
        THEIRS: [Generation(f"Nobody knows {n}.", f"Question {n}?") for n in range(count)],
    }


def session(folder: Path, rater: str = "ann", count: int = 4, limit: int | None = None) -> VotingSession:
    return VotingSession(blind_pairs(groups(count), rater, 0), rater, votes_file(folder, rater), limit)


def cast(votes: VotingSession, *choices: str, comment: str = "") -> None:
    for choice in choices:
        assert votes.due is not None
        votes.vote(votes.due.key, choice, comment)


def lines(folder: Path, rater: str = "ann") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{rater}.jsonl").read_text().splitlines()]


# The order


def test_each_system_comes_first_in_half_of_every_block() -> None:
    pairs = blind_pairs(groups(4 * BLOCK + 3), "ann", 0)
    blocks = [pairs[begin : begin + BLOCK] for begin in range(0, len(pairs), BLOCK)]
    firsts = [sum(pair.systems[0] == OURS for pair in block) for block in blocks]
    assert firsts[:4] == [BLOCK // 2] * 4
    assert firsts[4] in (1, 2)
    orders = [tuple(pair.systems[0] for pair in block) for block in blocks[:4]]
    assert len(set(orders)) == 4, "else later pairs can be guessed from earlier ones"
    singles = {blind_pairs(groups(1), "ann", seed)[0].systems[0] for seed in range(20)}
    assert singles == {OURS, THEIRS}, "a lone pair's order is drawn too"


def test_the_order_depends_on_seed_and_rater_only() -> None:
    def order(rater: str, seed: int) -> list[str]:
        return [pair.systems[0] for pair in blind_pairs(groups(20), rater, seed)]

    assert order("ann", 0) == order("ann", 0)
    assert len({tuple(order(*drawn)) for drawn in (("ann", 0), ("bob", 0), ("ann", 1))}) == 3


def test_answers_stand_in_the_order_of_their_systems() -> None:
    said = {OURS: "It is", THEIRS: "Nobody knows"}
    for number, pair in enumerate(blind_pairs(groups(20), "ann", 0)):
        assert pair.prompt == f"Question {number}?"
        assert pair.answers == tuple(f"{said[system]} {number}." for system in pair.systems)


def test_raters_of_either_order_of_the_files_judge_the_same_pairs() -> None:
    given = groups(6)
    turned = {THEIRS: given[THEIRS], OURS: given[OURS]}
    keys = [pair.key for pair in blind_pairs(given, "ann", 0)]
    assert keys == [pair.key for pair in blind_pairs(turned, "bob", 7)]
    assert len(set(keys)) == 6


def test_equal_pairs_are_judged_once() -> None:
    twice = {label: [*group, *group] for label, group in groups(3).items()}
    assert len(blind_pairs(twice, "ann", 0)) == 3


# Blindness


def test_a_page_is_told_only_what_both_orders_share(tmp_path: Path) -> None:
    votes = session(tmp_path, count=20)
    for done in range(20):
        due = votes.due
        assert isinstance(due, BlindPair)
        assert votes.shown() == {
            "rater": "ann",
            "done": done,
            "total": 20,
            "pair": {"key": due.key, "question": due.prompt, "answers": due.answers, "comment": ""},
        }
        cast(votes, FIRST)
    assert votes.shown()["pair"] is None
    with_other_names = {"a": groups()[OURS], "b": groups()[THEIRS]}
    one, other = (blind_pairs(given, "ann", 0) for given in (groups(), with_other_names))
    assert [pair.answers for pair in one] == [pair.answers for pair in other], "names decide nothing of the order"


class Caller:
    """A client of the page's server that remembers all bytes that came back."""

    def __init__(self, server: VoteServer) -> None:
        self.server, self.seen = server, b""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=10)
        sent = {"Authorization": f"Bearer {self.server.token}", **headers}
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection.request(method, path, raw, sent)
        response = connection.getresponse()
        content = response.read()
        self.seen += str(response.getheaders()).encode() + content
        connection.close()
        is_json = response.getheader("Content-Type") == "application/json"
        return response.status, json.loads(content) if is_json else {}


@contextmanager
def served(votes: VotingSession) -> Iterator[Caller]:
    with VoteServer(votes) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Caller(server)
        finally:
            server.shutdown()
            thread.join()


def test_no_byte_from_the_server_names_a_system(tmp_path: Path) -> None:
    with served(session(tmp_path, count=6)) as caller:
        for path in ("/", "/votes.css", "/votes.js"):
            assert caller.ask("GET", path)[0] == 200
        status, state = caller.ask("GET", "/state")
        while state["pair"]:
            status, state = caller.ask("POST", "/vote", {"pair": state["pair"]["key"], "choice": FIRST, "comment": ""})
            assert status == 200
        caller.ask("POST", "/undo", {})
        caller.ask("POST", "/vote", {"pair": "x", "choice": FIRST, "comment": ""})
    assert {line["shown"][0] for line in lines(tmp_path)} == {OURS, THEIRS}
    assert b"Nobody knows 5." in caller.seen
    for name in (OURS, THEIRS, "shown", "systems"):
        assert name.encode() not in caller.seen


# Who may vote


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer ü".encode().decode("latin-1")}, 401),
        ({"Host": "example.org"}, 403),
    ],
)
def test_only_the_printed_address_gives_access(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    with served(session(tmp_path)) as caller:
        key = caller.ask("GET", "/state")[1]["pair"]["key"]
        body = {"pair": key, "choice": FIRST, "comment": ""}
        for method, path in (("GET", "/state"), ("POST", "/vote"), ("POST", "/undo")):
            code, answer = caller.ask(method, path, body if method == "POST" else None, **headers)
            assert (code, "Question" in str(answer)) == (status, False)
            assert "that the program printed" in answer["error"]
    assert not (tmp_path / "ann.jsonl").exists()


def test_the_page_is_served_to_this_machine_and_loads_nothing_else(tmp_path: Path) -> None:
    with served(session(tmp_path)) as caller:
        assert caller.server.server_address[0] == "127.0.0.1"
        assert re.fullmatch(rf"http://127\.0\.0\.1:{caller.server.server_port}/#[\w-]{{32}}", caller.server.url)
        with served(session(tmp_path)) as other:
            assert other.server.token != caller.server.token
        caller.ask("GET", "/")
        assert b"default-src 'none'" in caller.seen


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"nonsense", 400, "JSON object"),
        (b"[]", 400, "a pair, a choice and a comment"),
        ({"pair": "x", "choice": 1, "comment": ""}, 400, "a pair, a choice and a comment"),
        ({"pair": "x", "choice": FIRST, "comment": ""}, 409, "another pair is due"),
        ({"pair": None, "choice": "third", "comment": ""}, 409, "one of first, second"),
        (b"x" * 65_537, 413, "shorten the comment"),
    ],
)
def test_a_bad_vote_is_refused_and_not_stored(tmp_path: Path, body: Any, status: int, says: str) -> None:
    with served(session(tmp_path)) as caller:
        if isinstance(body, dict) and body["pair"] is None:
            body = {**body, "pair": caller.ask("GET", "/state")[1]["pair"]["key"]}
        code, answer = caller.ask("POST", "/vote", body)
        assert code == status
        assert says in answer["error"]
        assert caller.ask("POST", "/nowhere", {})[0] == 404
        assert caller.ask("GET", "/state")[1]["done"] == 0
    assert not (tmp_path / "ann.jsonl").exists()


def test_a_connection_that_sends_nothing_holds_up_no_other(tmp_path: Path) -> None:
    with served(session(tmp_path)) as caller:
        silent = http.client.HTTPConnection("127.0.0.1", caller.server.server_port)
        silent.connect()
        assert caller.ask("GET", "/state")[0] == 200
        silent.close()


def test_a_vote_that_cannot_be_stored_does_not_count(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    votes = VotingSession(blind_pairs(groups(), "ann", 0), "ann", blocked / "ann.jsonl")
    with served(votes) as caller:
        body = {"pair": caller.ask("GET", "/state")[1]["pair"]["key"], "choice": FIRST, "comment": ""}
        code, answer = caller.ask("POST", "/vote", body)
        assert (code, "cannot write" in answer["error"]) == (409, True)
        assert caller.ask("GET", "/state")[1]["done"] == 0


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with (
        served(session(tmp_path)) as caller,
        pytest.raises(InvalidParameter, match="choose another port"),
    ):
        VoteServer(session(tmp_path), caller.server.server_port)


# What is stored


def test_each_vote_is_a_line_at_once_and_a_session_goes_on(tmp_path: Path) -> None:
    votes = session(tmp_path)
    cast(votes, FIRST, comment="Ünclear \ud800")
    assert [(line["choice"], line["comment"], line["prompt"]) for line in lines(tmp_path)] == [
        (FIRST, "Ünclear \ud800", "Question 0?")
    ]
    cast(votes, EQUALLY_BAD)
    again = session(tmp_path)
    assert (again.done, again.total) == (2, 4)
    assert again.due is not None
    assert again.due.prompt == "Question 2?"


def test_an_undone_vote_is_due_again_with_its_comment(tmp_path: Path) -> None:
    votes = session(tmp_path)
    cast(votes, FIRST)
    cast(votes, SECOND, comment="hm")
    votes.undo()
    assert (votes.shown()["pair"]["question"], votes.shown()["pair"]["comment"]) == ("Question 1?", "hm")
    assert [vote.choice for vote in read_votes(tmp_path / "ann.jsonl")] == [FIRST]
    again = session(tmp_path)
    again.undo()
    assert again.done == 0
    with pytest.raises(InvalidParameter, match="no vote to take back"):
        again.undo()
    cast(again, EQUALLY_GOOD, SECOND)
    assert [vote.choice for vote in read_votes(tmp_path / "ann.jsonl")] == [EQUALLY_GOOD, SECOND]
    assert votes.shown()["pair"]["comment"] == "hm"
    cast(votes, SECOND)
    assert votes.shown()["pair"]["comment"] == "", "of another pair"


def test_a_limit_can_grow_and_shrink(tmp_path: Path) -> None:
    cast(session(tmp_path, limit=2), FIRST, SECOND)
    votes = session(tmp_path, limit=3)
    assert (votes.done, votes.total) == (2, 3)
    short = session(tmp_path, limit=1)
    assert (short.done, short.total, short.due) == (1, 1, None)
    short.undo()
    assert [vote.choice for vote in read_votes(tmp_path / "ann.jsonl")] == [SECOND], "the vote on what is shown"


def test_answers_may_be_added_but_not_changed(tmp_path: Path) -> None:
    cast(session(tmp_path), FIRST)
    assert session(tmp_path, count=6).done == 1
    changed = {**groups(), OURS: [Generation("It was.", one.prompt) for one in groups()[OURS]]}
    with pytest.raises(InvalidParameter, match=r"votes on other answers, such as to 'Question 0\?'; choose another f"):
        VotingSession(blind_pairs(changed, "ann", 0), "ann", tmp_path / "ann.jsonl")


def test_a_file_of_another_rater_is_refused(tmp_path: Path) -> None:
    cast(session(tmp_path), FIRST)
    with pytest.raises(InvalidParameter, match="contains votes of 'ann'; choose another folder"):
        VotingSession(blind_pairs(groups(), "bob", 0), "bob", tmp_path / "ann.jsonl")


@pytest.mark.parametrize("name", ["", "../ann", "a b", ".", "x" * 65, "a/b"])
def test_a_name_that_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match="cannot be a rater's name; use up to 64 letters"):
        votes_file(tmp_path, name)


VOTE = Vote("k", "ann", (OURS, THEIRS), FIRST, "", "Why?").as_json()


@pytest.mark.parametrize(
    "content",
    [
        "nonsense\n",
        "[]\n",
        '{"text": "an answer"}\n',
        json.dumps({**VOTE, "choice": "third"}) + "\n",
        json.dumps({**VOTE, "shown": [OURS]}) + "\n",
        json.dumps({**VOTE, "shown": [OURS, OURS]}) + "\n",
        json.dumps({**VOTE, "rater": 3}) + "\n",
        b"\xff\n",
    ],
)
def test_a_file_without_votes_is_refused(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "ann.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidParameter, match=r"ann\.jsonl does not contain votes of one rater; choose a file"):
        read_votes(file)


# What is counted


def record(folder: Path, rater: str, *choices: str | None, systems: tuple[str, str] = (OURS, THEIRS)) -> Path:
    """A file of votes on the pairs 0, 1, …; None leaves one out."""
    file = folder / f"{rater}.jsonl"
    for number, choice in enumerate(choices):
        if choice:
            append_result(file, Vote(f"k{number}", rater, systems, choice, "", "Why?").as_json())
    return file


def test_votes_are_counted_by_rater_and_by_majority(tmp_path: Path) -> None:
    ann = record(tmp_path, "ann", FIRST, FIRST, SECOND, EQUALLY_GOOD, EQUALLY_BAD)
    bob = record(tmp_path, "bob", SECOND, EQUALLY_BAD, FIRST, SECOND, None, systems=(THEIRS, OURS))
    results = count_votes(read_raters([ann, bob]), OURS)
    of_ann, of_bob, majority = results.tallies
    assert (of_ann.wins, of_ann.ties, of_ann.losses, of_ann.equally_bad) == (2, 2, 1, 1)
    assert (of_bob.wins, of_bob.ties, of_bob.losses, of_bob.equally_bad) == (2, 1, 1, 1)
    # Pair 0: both for ours. 1: one for ours. 2: both for theirs. 3: one for ours. 4: nobody for either.
    assert (majority.wins, majority.ties, majority.losses) == (3, 1, 1)
    assert (of_ann.first_preferred, of_bob.first_preferred, majority.first_preferred) == (2, 1, 3)
    assert of_ann.share("wins") == (0.4, pytest.approx((0.1176, 0.7693), abs=1e-4))
    assert of_ann.preferred == (pytest.approx(2 / 3), pytest.approx((0.2077, 0.9385), abs=1e-4))
    turned = count_votes(read_raters([ann, bob]), THEIRS).tallies[2]
    assert (turned.wins, turned.ties, turned.losses) == (1, 1, 3)


def test_raters_agree_on_systems_not_on_places(tmp_path: Path) -> None:
    ann = record(tmp_path, "ann", FIRST, FIRST, SECOND, EQUALLY_GOOD, FIRST)
    bob = record(tmp_path, "bob", SECOND, FIRST, FIRST, EQUALLY_BAD, None, systems=(THEIRS, OURS))
    cid = record(tmp_path, "cid", None, None, None, None, FIRST)
    results = count_votes(read_raters([ann, bob, cid]))
    pairs = {one.raters: one for one in results.agreements}
    both = pairs["ann", "bob"]
    # Ours, ours, theirs, tie by ann; ours, theirs, theirs, tie by bob. p_o = 3/4, p_e = (2×1 + 1×2 + 1×1) / 16 = 5/16.
    assert both.kappa is not None
    assert (both.pairs, both.share and both.share[0], both.kappa.value) == (4, 0.75, pytest.approx(7 / 11))
    assert (pairs["bob", "cid"].pairs, pairs["bob", "cid"].share, pairs["bob", "cid"].kappa) == (0, None, None)
    assert (pairs["ann", "cid"].pairs, pairs["ann", "cid"].kappa) == (1, None), "one category only"
    assert results.mean_kappa == pytest.approx(7 / 11)
    assert "| ann, bob | 0.750 (" in agreement_table(results)
    assert "| bob, cid | – | – | 0 |" in agreement_table(results)
    assert "Mean κ: 0.64" in agreement_table(results)
    assert f"| {OURS} against {THEIRS} |" in votes_table(results)


def test_files_that_make_no_comparison_are_refused(tmp_path: Path) -> None:
    ann, bob = record(tmp_path, "ann", FIRST), record(tmp_path, "bob", FIRST, systems=(OURS, "other"))
    with pytest.raises(InvalidParameter, match="compare diffusive with other and diffusive with sequential; report"):
        read_raters([ann, bob])
    with pytest.raises(InvalidParameter, match="two files contain votes of 'ann'; choose one"):
        read_raters([ann, ann])
    with pytest.raises(InvalidParameter, match=r"nobody\.jsonl does not exist; choose a file"):
        read_raters([tmp_path / "nobody.jsonl"])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InvalidParameter, match=r"empty\.jsonl contains no votes"):
        read_raters([tmp_path / "empty.jsonl"])
    with pytest.raises(InvalidParameter, match="not 'other'"):
        count_votes(read_raters([ann]), "other")
    record(tmp_path, "ann", FIRST, systems=(OURS, "other"))
    with pytest.raises(InvalidParameter, match="votes of two raters, or on different systems"):
        read_votes(ann)


# The commands


@pytest.fixture
def answers(tmp_path: Path) -> list[str]:
    files = []
    for label, group in groups().items():
        file = tmp_path / f"{label}.jsonl"
        file.write_text("".join(json.dumps({"prompt": one.prompt, "text": one.text}) + "\n" for one in group))
        files.append(str(file))
    return files


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["lab", "votes", *arguments])
    assert isinstance(result.exception, InvalidParameter), result.output
    return str(result.exception)


def test_rows_that_are_not_two_are_refused(answers: list[str], tmp_path: Path) -> None:
    out = ["--rater", "ann", "--out", str(tmp_path)]
    assert f"a comparison is of two rows, and here are {OURS}; choose two" in refusal(answers[0], *out)
    assert "choose two of them" in refusal(*answers, "--between", OURS, "other", *out)
    assert "choose two of them" in refusal(*answers, "--between", OURS, OURS, *out)
    (tmp_path / "plain.txt").write_text("An answer.\n")
    assert "a judge needs the question" in refusal(answers[0], str(tmp_path / "plain.txt"), *out)
    (tmp_path / "short.jsonl").write_text('{"prompt": "Question 0?", "text": "a"}\n')
    assert "do not answer the same prompts" in refusal(answers[0], str(tmp_path / "short.jsonl"), *out)
    assert "cannot be a rater's name" in refusal(*answers, "--rater", "a/b")


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as it is typed, with the address that it prints."""
    command = [sys.executable, "-m", "ssd2", "lab", "votes", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_a_killed_session_goes_on_and_the_report_counts_it(answers: list[str], tmp_path: Path) -> None:
    def ask(address: str, path: str, body: Any = None) -> Any:
        port, token = re.findall(r"http://127\.0\.0\.1:(\d+)/#(\S+)", address)[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        return json.loads(connection.getresponse().read())

    with running(tmp_path, *answers, "--rater", "ann") as (process, address):
        first = ask(address, "/state")["pair"]
        ask(address, "/vote", {"pair": first["key"], "choice": EQUALLY_GOOD, "comment": ""})
        process.kill()
    file = tmp_path / "votes" / "ann.jsonl"
    with file.open("a") as cut_short:
        cut_short.write('{"pair": "hal')
    with running(tmp_path, "--rater", "ann", *answers) as (process, address):
        state = ask(address, "/state")
        assert (state["done"], state["pair"]["question"]) == (1, "Question 1?")
        is_ours = state["pair"]["answers"][0].startswith("It is")
        body = {"pair": state["pair"]["key"], "choice": FIRST if is_ours else SECOND, "comment": ""}
        assert ask(address, "/vote", body)["done"] == 2
        process.send_signal(signal.SIGINT)
        assert "2 of 4 pairs are judged" in process.communicate(timeout=10)[1]
        assert process.returncode == 0
    result = CliRunner().invoke(app, ["lab", "votes", "report", str(file), "--system", OURS, "--json"])
    facts = json.loads(result.stdout)
    assert (facts["system"], facts["other"], facts["mean_kappa"]) == (OURS, THEIRS, None)
    assert [(row["label"], row["wins"], row["ties"], row["losses"]) for row in facts["rows"]] == [
        ("ann", 1, 1, 0),
        ("majority", 1, 1, 0),
    ]
    table = CliRunner().invoke(app, ["lab", "votes", "report", str(file)]).stdout
    assert "| ann | 0.500 (" in table
    assert "One rater: there is no agreement to measure." in table


# The page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched_browser() as browser:
        yield browser


def test_the_page_votes_by_keys_and_by_buttons_and_never_names_a_system(browser: Browser, tmp_path: Path) -> None:
    asked: list[Request] = []
    failures: list[str] = []
    with served(session(tmp_path)) as caller:
        context = browser.new_context(locale="en-GB")
        page = context.new_page()
        page.on("request", lambda one: asked.append(one))  # the library marks a function that it is given
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(caller.server.url)
        question, status = page.get_by_role("region", name="Question"), page.get_by_role("status")
        expect(question).to_contain_text("Question 0?")
        expect(page.get_by_role("progressbar", name="ann: 0 of 4 pairs judged")).to_be_visible()
        expect(page.get_by_role("button", name="Take back the last vote")).to_be_disabled()
        page.keyboard.press("1")
        expect(question).to_contain_text("Question 1?")
        expect(status).to_have_text("Vote stored. 1 of 4 pairs judged.")
        expect(page.get_by_role("heading", name="Question")).to_be_focused()
        page.keyboard.press("c")
        page.keyboard.type("1 is as bad as 2")  # digits of a comment are no votes
        page.keyboard.press("Escape")
        page.keyboard.press("9")
        expect(question).to_contain_text("Question 2?")
        expect(page.get_by_role("textbox", name="Comment")).to_have_value("")
        page.keyboard.press("u")
        expect(page.get_by_role("textbox", name="Comment")).to_have_value("1 is as bad as 2")
        page.keyboard.press("0")
        expect(question).to_contain_text("Question 2?")
        page.get_by_role("checkbox", name="Use the keys").uncheck()
        page.keyboard.press("2")
        page.get_by_role("button", name="Answer 2 is better").click()
        expect(question).to_contain_text("Question 3?")
        expect(status).to_have_text("Vote stored. 3 of 4 pairs judged.")
        content = page.content()
        page.get_by_role("button", name="Tie: equally bad").click()
        expect(page.get_by_role("heading", name="All pairs are judged")).to_be_focused()
        context.close()
        votes = read_votes(tmp_path / "ann.jsonl")
        assert [vote.choice for vote in votes] == [FIRST, EQUALLY_GOOD, SECOND, EQUALLY_BAD]
        assert [vote.comment for vote in votes] == ["", "1 is as bad as 2", "", ""]
        sent = content + "".join(f"{one.url} {one.headers} {one.post_data}" for one in asked)
        assert all(one.url.startswith((f"http://{caller.server.origin}/", "data:")) for one in asked)
    assert failures == []
    assert OURS not in sent
    assert THEIRS not in sent


def test_text_of_an_answer_is_never_markup(browser: Browser, tmp_path: Path) -> None:
    markup = "<img src=x onerror=document.title='run'><b>bold</b>\n  & indented"
    given = {"a": [Generation(markup, "<i>Why?</i>")], "b": [Generation("", "<i>Why?</i>")]}
    votes = VotingSession(blind_pairs(given, "ann", 0), "ann", tmp_path / "ann.jsonl")
    with served(votes) as caller:
        context = browser.new_context()
        page = context.new_page()
        page.goto(caller.server.url)
        expect(page.get_by_role("region", name="Question")).to_contain_text("<i>Why?</i>")
        answers = page.get_by_role("region", name="Answer")
        shown = {answers.nth(place).locator(".text").text_content() for place in (0, 1)}
        assert shown == {markup, "(empty answer)"}
        assert page.title() == "Which answer is better?"
        context.close()


def test_a_page_whose_program_has_ended_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    with served(session(tmp_path)) as caller:
        page.goto(caller.server.url.partition("#")[0])
        expect(page.get_by_role("alert")).to_contain_text("the whole address that the program printed")
        page.goto("about:blank")
        page.goto(caller.server.url)
        expect(page.get_by_role("region", name="Question")).to_contain_text("Question 0?")
    page.keyboard.press("1")
    expect(page.get_by_role("alert")).to_contain_text("Start it again with the same command: all votes so far are st")
    context.close()
