"""The page in a browser, as somebody uses it: linking, asking, looking closer, stopping, coming back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from ssd2.demo.paths import EVERYDAY, USER
from tests.user_agent.api.conftest import KEY, AgentProcess
from tests.user_agent.web.conftest import opened

pytestmark = pytest.mark.slow

TWO_SOURCE = "In which street is the place of my piano lesson?"
CONFIG = json.loads((USER / "config.json").read_text())
BLOCK = CONFIG["block_size"]
"""L, positions of a block of the demo pair."""
ROOM = (CONFIG["max_positions"] - CONFIG["answer_position"]) // BLOCK * BLOCK
"""Tokens of the user model's longest answer."""
SECOND_TIMESTEP = re.compile(r"Block 1, timestep 9\d\d:")
VIEWS = ("chat", "documents", "ledger", "settings")
expect.set_options(timeout=90_000)  # on a busy machine a timestep of the demo takes a second


def ask(page: Page, question: str = TWO_SOURCE) -> None:
    """Ask, and wait until the answer is there and kept."""
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()


@pytest.fixture(scope="module")
def answered(agent: AgentProcess, browser: Browser) -> str:
    """Address of a chat with an answer, for tests that only look at it."""
    with opened(agent, browser) as page:
        ask(page)
        return page.url


def look(page: Page, address: str) -> None:
    """Go to a chat."""
    page.goto(address)
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()


def open_course(page: Page) -> int:
    """Open how the answer came about, and wait for all of its timesteps; how many blocks it has."""
    timesteps = re.search(r"(\d+) timesteps", page.locator(".answer .summary").inner_text())
    assert timesteps
    page.get_by_text("How the answer was made").click()
    expect(page.locator(".denoising .strip rect")).to_have_count(int(timesteps[1]))
    expect(page.locator(".denoising output")).to_contain_text("committed")
    return page.locator(".blocks .commit").count()


def led(page: Page, words: str, by: str) -> Locator:
    """The words of an answer with who led there; neighbours with the same leader are marked with them."""
    return page.get_by_role("button", name=re.compile(rf"{words}.*, led by {by}, λ 0"))


def overflow(page: Page) -> int:
    """Pixels that the page is wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return width


def test_the_key_leaves_the_address_bar_and_outlasts_a_reload(page: Page) -> None:
    assert "key" not in page.url
    page.reload()
    expect(page.get_by_role("heading", name="Ask about your documents")).to_be_visible()


def test_without_a_key_the_page_asks_for_it_and_says_that_a_wrong_one_is_wrong(
    agent: AgentProcess, browser: Browser
) -> None:
    page = browser.new_page()
    page.goto(agent.url)
    expect(page.get_by_text("Or paste the agent’s key here")).to_be_visible()
    page.get_by_label("Key", exact=True).fill("sk-wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_text("The agent refused this key")).to_be_visible()
    page.get_by_label("Key", exact=True).fill(KEY)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="Ask about your documents")).to_be_visible()
    page.close()


def test_a_first_start_leads_to_an_own_folder_and_an_own_core(page: Page) -> None:
    expect(page.get_by_text("You are looking at a demo")).to_be_visible()
    expect(page.get_by_text("A core elsewhere would see your questions and every word of the answers")).to_be_visible()
    page.get_by_role("link", name="Use my own folder").click()
    expect(page.get_by_label("Folder on this machine")).to_be_focused()
    page.get_by_role("link", name="New chat").click()
    page.get_by_role("link", name="Use my own core").click()
    expect(page.get_by_label("Core", exact=True)).to_be_focused()


def test_a_linked_folder_shows_every_file_and_why_one_failed(page: Page, tmp_path: Path) -> None:
    (tmp_path / "harbour.md").write_text("The boat lies at jetty nine.\n")
    (tmp_path / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
    page.get_by_role("link", name="Documents").click()
    page.get_by_label("Folder on this machine").fill(str(tmp_path))
    page.get_by_role("button", name="Link folder").click()
    expect(page.get_by_role("row", name="harbour.md")).to_contain_text("indexed")
    expect(page.get_by_role("row", name="torn.pdf").locator(".reason")).not_to_be_empty()
    page.get_by_label("Search the passages").fill("boat")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".found")).to_contain_text("The boat lies at jetty nine.")
    page.get_by_label("State").select_option("failed")
    expect(page.get_by_role("row", name="harbour.md")).to_have_count(0)
    page.get_by_role("button", name=f"Unlink {tmp_path}").click()
    page.get_by_role("dialog").get_by_role("button", name="Unlink").click()
    expect(page.get_by_role("row", name="torn.pdf")).to_have_count(0)


def test_a_folder_that_is_not_there_is_said_so(page: Page) -> None:
    page.get_by_role("link", name="Documents").click()
    page.get_by_label("Folder on this machine").fill("/no/such/folder")
    page.get_by_role("button", name="Link folder").click()
    expect(page.get_by_role("alert")).to_contain_text("/no/such/folder")


def test_it_says_where_files_are_read_on_the_network(agent: AgentProcess, browser: Browser) -> None:
    page = browser.new_page()
    warned = {"is_reader_isolated": False, "reader_warning": "files are read without isolation from the network"}
    page.route("**/v1/status", lambda route: route.fulfill(json={**route.fetch().json(), **warned}))
    page.goto(f"{agent.url}/#key={KEY}")
    page.get_by_role("link", name="Documents").click()
    expect(page.get_by_text("Files are read without isolation from the network.")).to_be_visible()
    page.close()


def test_an_uploaded_file_can_be_removed_again(page: Page) -> None:
    page.get_by_role("link", name="Documents").click()
    note = {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"The letter is from Ada."}
    page.get_by_label("Drop files here").set_input_files([note])
    row = page.get_by_role("row", name="letter.txt")
    expect(row).to_contain_text("indexed")
    row.get_by_role("button", name="Remove").click()
    expect(row).to_have_count(0)


def test_a_list_that_is_asked_for_twice_at_a_time_shows_each_row_once(page: Page) -> None:
    page.get_by_role("link", name="Documents").click()
    expect(page.get_by_role("row", name="home.md")).to_have_count(1)
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        held.append(route)
        if len(held) == 2:
            for one in reversed(held):
                one.continue_()

    page.route(re.compile(r"/v1/documents\?"), hold_the_first)
    with page.expect_response(lambda response: "state=indexed" in response.url):
        page.get_by_label("State").select_option("indexed")
        page.get_by_label("State").select_option(label="All states")
    page.evaluate("new Promise((done) => setTimeout(done, 200))")  # until the page has looked at both answers
    expect(page.get_by_role("row", name="home.md")).to_have_count(1)
    page.unroute_all()


def test_an_answer_marks_who_led_and_says_what_both_gave(page: Page) -> None:
    page.get_by_role("button", name=TWO_SOURCE).click()
    changed = led(page, "Rose Pavilion", "your documents")
    expect(changed).to_be_visible()
    expect(changed).to_have_accessible_name(re.compile(r"λ 0\.\d\d$"))
    expect(page.locator(".answer .text")).to_contain_text(re.compile(r"Water\S? Street"))  # a mark may stand between
    changed.focus()
    card = page.get_by_role("tooltip")
    expect(card).to_contain_text("My piano lesson is at Rose Pavilion.")
    for word in ("Rose", "Pavilion"):  # a token each
        expect(card.get_by_role("row", name=re.compile(rf"^{word}\b.*%.*%.*%"))).to_have_count(1)
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()


def test_with_lambda_auto_each_token_shows_who_led_and_its_lambda(page: Page, agent: AgentProcess) -> None:
    page.get_by_role("link", name="Settings").click()
    weight = page.get_by_label("λ, the private model’s weight")
    weight.fill("auto")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.get_by_role("link", name="New chat").click()
    ask(page)
    expect(led(page, "Rose Pavilion", "your documents")).to_have_accessible_name(
        re.compile(r"λ 0\.([5-8]\d–0\.)?[89]\d?$")
    )
    expect(led(page, "^Water", "the core")).to_have_accessible_name(re.compile(r"λ 0\.[0-4]\d?$"))
    expect(page.locator(".answer > .legend")).to_have_text(
        "word◆ led by your documentsword○ led by the coreunmarked: both agree"
    )
    expect(page.locator(".answer .summary")).to_contain_text(re.compile(r"λ auto 0\.[0-4]\d?–0\.[89]"))
    open_course(page)
    lambdas = [float(text.removeprefix("λ ")) for text in page.locator(".blocks .lambda").all_inner_texts()]
    assert len(lambdas) == page.locator(".blocks .commit .token").count()
    assert max(lambdas) > 0.8
    assert min(lambdas) < 0.5
    page.get_by_role("link", name="Settings").click()
    weight.fill("0.25")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    with agent.client() as http:
        assert http.get("/v1/settings").json()["lambda_user"]["value"] == 0.25
        http.patch("/v1/settings", json={"lambda_user": None}).raise_for_status()


def test_where_only_one_model_takes_part_nothing_is_marked(page: Page, agent: AgentProcess) -> None:
    with agent.client() as http:
        http.patch("/v1/settings", json={"lambda_user": 1}).raise_for_status()
    ask(page)
    with agent.client() as http:
        http.patch("/v1/settings", json={"lambda_user": None}).raise_for_status()
    expect(page.locator(".answer .led")).to_have_count(0)
    expect(page.locator(".answer > .legend")).to_have_count(0)


def test_the_card_of_a_token_goes_with_its_token(page: Page) -> None:
    ask(page)
    page.locator("button.led.documents").first.hover()
    expect(page.get_by_role("tooltip")).to_be_visible()
    page.get_by_role("button", name="Regenerate").press("Enter")
    expect(page.get_by_role("tooltip")).to_be_hidden()


def test_a_citation_names_its_line_and_shows_its_passage_on_a_click(page: Page, answered: str) -> None:
    look(page, answered)
    passage = page.locator(".citations").get_by_text("My piano lesson is at Rose Pavilion.")
    expect(passage).to_be_hidden()
    page.get_by_text("appointments.md, line 3").click()
    expect(passage).to_be_visible()


@pytest.fixture
def disputed(agent: AgentProcess) -> Iterator[None]:
    """A second place for the piano lesson, and every token cited."""
    with agent.client() as http:
        http.patch("/v1/settings", json={"cite": "tokens"}).raise_for_status()
        note = b"My piano lesson is at Fern Gallery."
        kept = http.post("/v1/documents", files={"file": ("letter.md", note)}).json()
        yield
        http.delete(f"/v1/documents/{kept['id']}").raise_for_status()
        http.patch("/v1/settings", json={"cite": None}).raise_for_status()


@pytest.mark.usefixtures("disputed")
def test_a_token_names_its_passage_and_notes_that_disagree_are_said_so(page: Page) -> None:
    ask(page, "Where is my piano lesson?")
    for _ in ("as it was made", "as it is kept"):
        notice = page.get_by_role("note")
        expect(notice).to_have_text(
            re.compile(
                r"^Two of your notes disagree: .*(Fern Gallery|Rose Pavilion)”; .*(Fern Gallery|Rose Pavilion)”\.$"
            )
        )
        expect(notice).to_contain_text("letter.md, line 1 says “Fern Gallery”")
        expect(notice).to_contain_text("appointments.md, line 3 says “Rose Pavilion”")
        private = page.locator(".answer .text button.disputed.cited").first
        expect(private).to_have_accessible_name(
            re.compile(r"^(Fern|Rose).*, from (letter\.md, line 1|appointments\.md, line 3), your notes disagree$")
        )
        private.click()
        card = page.get_by_role("tooltip")
        expect(card.locator("q")).to_have_count(1)
        expect(card).to_contain_text("Two of your notes disagree")
        expect(page.locator(".citations summary").first).to_have_text(re.compile(r"^1 · "))
        page.keyboard.press("Escape")
        page.reload()


def test_denoising_can_be_scrubbed_from_the_keyboard(page: Page, answered: str) -> None:
    look(page, answered)
    blocks = open_course(page)
    scrubber = page.get_by_role("slider", name="Timestep")
    scrubber.press("Home")
    expect(scrubber).to_have_attribute(
        "aria-valuetext", re.compile(rf"Block 1, timestep 1000: {BLOCK} new, \d+ tokens? unlike")
    )
    expect(page.locator(".blocks .token")).to_have_count(BLOCK)
    scrubber.press("ArrowRight")
    expect(page.locator(".denoising output")).to_contain_text(SECOND_TIMESTEP)
    scrubber.press("End")
    expect(page.locator(".denoising output")).to_contain_text(f"Block {blocks} committed")
    for word in ("Rose", "Pavilion"):
        expect(page.locator(".blocks .unlike").filter(has_text=word)).to_have_count(1)
    assert page.locator(".strip rect").count() == int(scrubber.get_attribute("max") or 0) + 1


def test_denoising_replays_from_its_first_timestep_to_its_last(page: Page, answered: str) -> None:
    look(page, answered)
    blocks = open_course(page)
    page.get_by_role("button", name="Replay").click()
    expect(page.locator(".denoising output")).to_contain_text(SECOND_TIMESTEP)
    expect(page.locator(".denoising output")).to_contain_text(f"Block {blocks} committed")
    expect(page.get_by_role("button", name="Replay")).to_be_visible()


def test_the_core_alone_answers_beside_and_both_are_kept(page: Page) -> None:
    ask(page)
    page.get_by_role("button", name="Compare with core alone").click()
    alone = page.locator(".beside > div").nth(1)
    expect(alone.locator(".summary")).to_contain_text("λ 0")
    expect(alone.locator(".text")).not_to_contain_text("Rose Pavilion")
    page.reload()
    expect(page.locator(".beside > div").nth(0)).to_contain_text("Rose Pavilion")
    expect(page.locator(".beside > div").nth(1).locator(".summary")).to_contain_text("λ 0")


def test_a_click_is_taken_while_the_totals_are_still_asked_for(page: Page) -> None:
    ask(page)
    page.route("**/v1/ledger/totals*", lambda route: None)  # never answered
    page.get_by_role("button", name="Regenerate").click()
    expect(page.get_by_text("2 of 2")).to_be_visible()
    page.get_by_role("button", name="Regenerate").click()
    expect(page.get_by_text("3 of 3")).to_be_visible()


def test_enter_pressed_twice_asks_once(page: Page, agent: AgentProcess) -> None:
    held: list[Route] = []
    page.route("**/v1/conversations", lambda route: held.append(route))
    page.get_by_label("Question").fill("When does Fern Tower open?")
    with page.expect_request("**/v1/conversations"):
        page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.route("**/v1/conversations", lambda route: route.continue_())
    for route in held:
        route.continue_()
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(1)
    with agent.client() as http:
        latest = http.get("/v1/conversations").json()["data"][0]["id"]
        messages = http.get(f"/v1/conversations/{latest}").json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]


def test_the_ledger_shows_what_the_message_that_left_says(page: Page) -> None:
    ask(page)
    expect(page.locator("#totals")).to_contain_text(re.compile(r"\d+ messages?, .* sent.*this answer \d+, [\d.]+ k?B"))
    page.get_by_role("link", name="Messages sent", exact=True).click()
    expect(page.get_by_text("Messages of one answer.")).to_be_visible()
    expect(page.get_by_role("heading", name="What was sent, on this machine")).to_be_visible()
    expect(page.locator(".lead")).to_contain_text("stayed on this machine")
    expect(page.locator(".page")).not_to_contain_text("left")
    expect(page.locator("#totals")).to_have_attribute("title", re.compile("Stayed on this machine"))
    page.get_by_role("button", name=re.compile("read it")).nth(-2).click()  # the one before asks for the model
    asked = page.locator(".decoded")
    expect(asked).to_contain_text("Opens an answer")
    expect(asked.get_by_role("list", name="Tokens")).to_contain_text("piano")
    expect(asked).not_to_contain_text("Rose")
    page.get_by_role("link", name="Every message").click()
    expect(page.get_by_role("columnheader", name="Answer")).to_be_visible()
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text(re.compile("The hash chain of .* is consistent"))).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    assert all(json.loads(line)["sha256"] for line in download.value.path().read_text().splitlines())


@pytest.fixture
def long_answers(agent: AgentProcess) -> Iterator[None]:
    """The core alone, which is unsure here and so takes all of its timesteps, has many of them."""
    with agent.client() as http:
        http.patch("/v1/settings", json={"lambda_user": 0, "steps": 600}).raise_for_status()
        yield
        http.patch("/v1/settings", json={"lambda_user": None, "steps": None}).raise_for_status()


@pytest.fixture
def no_core(agent: AgentProcess) -> Iterator[None]:
    """The user model alone, without a core."""
    with agent.client() as http:
        http.patch("/v1/settings", json={"lambda_user": 1}).raise_for_status()
        yield
        http.patch("/v1/settings", json={"lambda_user": None}).raise_for_status()


@pytest.mark.usefixtures("no_core")
def test_without_a_core_there_is_none_to_compare_with(page: Page) -> None:
    ask(page)
    expect(page.locator(".summary")).to_contain_text("λ 1")
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    expect(page.get_by_role("button", name="Compare with core alone")).to_have_count(0)


@pytest.mark.usefixtures("long_answers")
def test_a_running_answer_is_watched_and_stopped_by_escape_and_the_agent_stops_too(
    page: Page, agent: AgentProcess
) -> None:
    with page.expect_request("**/events") as watched:
        page.get_by_label("Question").fill(TWO_SOURCE)
        page.keyboard.press("Enter")
        expect(page.locator(".answer.live .token")).to_have_count(BLOCK)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    expect(page.get_by_text("There is no answer yet.")).to_be_visible()
    with agent.client() as http:
        *_, end = (line for line in http.get(watched.value.url).text.splitlines() if line.startswith("data: "))
    assert json.loads(end.removeprefix("data: "))["code"] == "stopped"


@pytest.mark.usefixtures("long_answers")
@pytest.mark.parametrize(("motion", "moves"), [("no-preference", True), ("reduce", False)])
def test_nothing_moves_for_those_who_asked_for_stillness(
    page: Page, motion: Literal["no-preference", "reduce"], moves: bool
) -> None:
    page.emulate_media(reduced_motion=motion)
    page.get_by_label("Question").fill(TWO_SOURCE)
    page.keyboard.press("Enter")
    expect(page.locator(".cursor")).to_be_visible()
    assert page.evaluate("document.getAnimations().length > 0") == moves
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()


def test_a_reload_loses_nothing_of_a_chat(page: Page) -> None:
    ask(page)
    page.reload()
    expect(page.locator(".question")).to_have_text(TWO_SOURCE)
    expect(led(page, "Rose Pavilion", "your documents")).to_be_visible()
    open_course(page)


def test_an_answer_made_again_keeps_the_one_before(page: Page) -> None:
    ask(page)
    page.get_by_role("button", name="Regenerate").click()
    expect(page.get_by_text("2 of 2")).to_be_visible()
    page.get_by_role("button", name="Previous answer").click()
    expect(page.get_by_text("1 of 2")).to_be_visible()


def test_a_conversation_can_be_renamed_and_deleted(page: Page) -> None:
    ask(page, "When does Fern Tower open?")
    entry = page.locator(".conversations li").first
    entry.hover()
    entry.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Opening hours")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Opening hours")).to_be_visible()
    entry.hover()
    entry.get_by_role("button", name="Delete Opening hours").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("link", name="Opening hours")).to_have_count(0)
    expect(page.get_by_role("heading", name="New chat")).to_be_visible()


def test_what_stands_in_an_answer_is_text_and_never_markup(page: Page) -> None:
    ask(page, "<img src=x onerror=alert(1)> <b>When does Fern Tower open?</b>")
    expect(page.locator(".question")).to_have_text("<img src=x onerror=alert(1)> <b>When does Fern Tower open?</b>")
    assert page.locator("main img, main b").count() == 0


def test_shift_and_enter_makes_a_new_line(page: Page) -> None:
    page.get_by_label("Question").fill("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(page.get_by_label("Question")).to_have_value("one\ntwo")


def test_a_changed_setting_is_kept_and_an_empty_one_is_the_default(page: Page, agent: AgentProcess) -> None:
    page.get_by_role("link", name="Settings").click()
    longest = page.get_by_label("Longest answer")
    for given, kept in (("20", 20), ("", 48)):
        longest.fill(given)
        page.get_by_role("button", name="Save").click()
        expect(longest).to_have_value(str(kept))
        with agent.client() as http:
            assert http.get("/v1/settings").json()["max_tokens"]["value"] == kept


def test_an_emptied_system_prompt_is_none_and_not_the_default(page: Page, agent: AgentProcess) -> None:
    page.get_by_role("link", name="Settings").click()
    page.get_by_text("Advanced").click()
    page.get_by_label("System prompt").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    with agent.client() as http:
        value = http.get("/v1/settings").json()["system_prompt"]["value"]
        http.patch("/v1/settings", json={"system_prompt": None}).raise_for_status()
    assert value == ""
    expect(page.get_by_label("System prompt")).to_have_value("")


def test_advanced_settings_take_texts_choices_and_lists(page: Page, agent: AgentProcess) -> None:
    page.get_by_role("link", name="Settings").click()
    page.get_by_text("Advanced").click()
    page.get_by_label("Projection").select_option("multi-hot")
    page.get_by_label("Documents", exact=True).fill("3, 17")
    page.get_by_label("Texts that end the answer").fill('["END", "[stop]"]')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    changed = ("projection", "documents", "stop_texts")
    with agent.client() as http:
        values = [http.get("/v1/settings").json()[name]["value"] for name in changed]
        http.patch("/v1/settings", json=dict.fromkeys(changed)).raise_for_status()
    assert values == ["multi-hot", [3, 17], ["END", "[stop]"]]
    expect(page.get_by_label("Documents", exact=True)).to_have_value("3, 17")


def test_while_settings_are_saved_nothing_is_typed_that_would_be_lost(page: Page) -> None:
    held: list[Route] = []
    page.route(
        "**/v1/settings", lambda route: held.append(route) if route.request.method == "PATCH" else route.continue_()
    )
    page.get_by_role("link", name="Settings").click()
    longest = page.get_by_label("Longest answer")
    expect(longest).to_be_enabled()
    page.get_by_role("button", name="Save").click()
    expect(longest).to_be_disabled()
    held[0].continue_()
    expect(longest).to_be_enabled()
    expect(page.get_by_text("Saved.")).to_be_visible()


@pytest.fixture
def early_stop(agent: AgentProcess) -> Iterator[None]:
    """A stop of 0.4, which leaves 600 timesteps, whatever was measured for the models."""
    with agent.client() as http:
        http.patch("/v1/settings", json={"early_stop": 0.4}).raise_for_status()
        yield
        http.patch("/v1/settings", json={"early_stop": None}).raise_for_status()


@pytest.mark.usefixtures("early_stop")
def test_a_setting_that_no_answer_can_be_made_with_is_refused_and_not_kept(page: Page, agent: AgentProcess) -> None:
    page.get_by_role("link", name="Settings").click()
    for label, given, says in (
        ("Timesteps per block", "601", "1 to 600"),
        ("Core", "nowhere", "write HOST:PORT"),
    ):
        field = page.get_by_label(label, exact=True)
        expect(page.get_by_label("Core", exact=True)).to_be_visible()
        if not field.is_visible():
            page.get_by_text("Advanced").click()
        field.fill(given)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text(says)
        with agent.client() as http:
            assert {http.get("/v1/settings").json()[name]["value"] for name in ("steps", "core")} == {None}
        page.reload()


def test_a_busy_agent_is_asked_again_when_it_says_so(page: Page) -> None:
    busy = {"error": {"message": "too many wait", "type": "rate_limit_error", "param": None, "code": "agent_busy"}}

    def refuse(route: Route) -> None:
        route.fulfill(status=429, headers={"retry-after": "1"}, json=busy)

    page.route("**/v1/chat/completions", refuse, times=1)
    page.get_by_label("Question").fill("When does Fern Tower open?")
    page.keyboard.press("Enter")
    again = page.get_by_role("button", name="Ask again")
    expect(again).to_be_disabled()
    expect(again).to_be_enabled()
    again.click()
    expect(page.locator(".answer .text")).to_contain_text("opens")


def test_an_unreachable_core_is_named_under_the_question_and_can_be_changed(page: Page) -> None:
    gone = {"message": "no core at 10.0.0.9:1; start one", "type": "api_error", "param": "core", "code": "x"}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=503, json={"error": gone}), times=1)
    page.get_by_label("Question").fill("When does Fern Tower open?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer.failed")).to_contain_text("no core at 10.0.0.9:1")
    page.get_by_role("link", name="Change it in Settings").click()
    expect(page.get_by_label("Core", exact=True)).to_be_focused()


def test_while_a_chat_is_open_the_page_says_that_each_question_stands_alone(page: Page, answered: str) -> None:
    said = page.get_by_text("Each question stands alone: the models do not see the earlier ones.")
    expect(said).to_be_hidden()
    look(page, answered)
    expect(said).to_be_visible()
    page.get_by_role("link", name="New chat").click()
    expect(page.get_by_role("heading", name="Ask about your documents")).to_be_visible()
    expect(said).to_be_hidden()


@pytest.fixture
def takes_conversations(page: Page) -> None:
    """As with models that have a chat template; the demo's do not."""

    def taking(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "takes_conversations": True})

    page.route("**/v1/status", taking)
    page.reload()
    expect(page.get_by_role("heading", name="Ask about your documents")).to_be_visible()


@pytest.mark.usefixtures("takes_conversations")
def test_a_second_question_takes_the_first_turn_with_it(page: Page) -> None:
    ask(page, "When does Fern Tower open?")
    first = re.sub("[◆○]", "", page.locator(".answer .text").inner_text())  # the marks are no part of it
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_label("Question").fill("And who runs it?")
        page.keyboard.press("Enter")
    assert sent.value.post_data_json["messages"] == [
        {"role": "user", "content": "When does Fern Tower open?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And who runs it?"},
    ]
    expect(page.get_by_text("Each question stands alone")).to_be_hidden()
    left_out = page.get_by_text("1 earlier turn left out: the oldest do not fit beside this question.")
    expect(left_out).to_be_visible()  # these models read one question
    page.reload()
    expect(left_out).to_be_visible()


def test_a_question_that_is_too_long_says_so_in_the_reader_s_terms(page: Page) -> None:
    page.get_by_label("Question").fill("Where is it? " * 100)
    page.keyboard.press("Enter")
    failed = page.locator(".answer.failed")
    expect(failed).to_contain_text(
        re.compile(r"The question has \d+ tokens, and the models take at most 48; shorten it", re.I)
    )
    expect(failed).not_to_contain_text("--")


@pytest.fixture
def crowded(agent: AgentProcess) -> Iterator[None]:
    """More about the question than fits, and a longer answer wanted than there is room for in the user model alone."""
    visit = f"My piano lesson is at Rose Pavilion. {'It is so. ' * 8}"
    note = "\n\n".join(f"{visit} Visit {n}." for n in range(8))
    with agent.client() as http:
        http.patch("/v1/settings", json={"max_tokens": 4000, "lambda_user": 1}).raise_for_status()
        kept = http.post("/v1/documents", files={"file": ("visit.md", note.encode())}).json()
        yield
        http.delete(f"/v1/documents/{kept['id']}").raise_for_status()
        http.patch("/v1/settings", json={"max_tokens": None, "lambda_user": None}).raise_for_status()


@pytest.mark.usefixtures("crowded")
def test_what_did_not_fit_is_said_under_the_answer_and_kept(page: Page) -> None:
    ask(page, "Where is my piano lesson?")
    for _ in ("as it was made", "as it is kept"):
        expect(page.locator(".answer .remark").first).to_have_text(
            re.compile(
                rf"(At most|Cut off at) {ROOM} tokens, not 4,000: this question leaves the models no more room\."
            )
        )
        citations = page.locator(".citations")
        expect(citations.get_by_text(re.compile(r"visit\.md, line \d+, in part"))).to_have_count(1)
        expect(citations.locator(".remark")).to_have_text(
            re.compile(r"\d+ more passages were found but did not fit: visit\.md, line \d+; .*and \d+ others?$")
        )
        page.reload()


@pytest.mark.usefixtures("crowded")
def test_the_search_shows_what_the_private_model_would_be_given(page: Page) -> None:
    page.get_by_role("link", name="Documents").click()
    page.get_by_label("Search the passages").fill("Where is my piano lesson?")
    page.get_by_role("button", name="Search").click()
    found = page.locator(".found small")
    expect(found.filter(has_text="in part")).to_have_count(1)
    expect(found.filter(has_text="does not fit with this question").first).to_be_visible()


def test_an_agent_that_is_gone_is_waited_for(page: Page) -> None:
    page.route(re.compile("/v1/|/health"), lambda route: route.abort())
    page.get_by_role("link", name="Documents").click()
    expect(page.get_by_role("alert")).to_contain_text("The agent does not respond")
    page.get_by_role("link", name="Settings").click()
    page.get_by_role("link", name="Documents").click()
    expect(page.get_by_role("alert")).to_contain_text("The agent does not respond")
    page.unroute_all()
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.get_by_role("row", name="home.md")).to_be_visible()


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_a_narrow_screen(page: Page, answered: str, view: str) -> None:
    look(page, answered)
    page.set_viewport_size({"width": 380, "height": 780})
    page.evaluate("(view) => { if (view !== 'chat') location.hash = `#/${view}`; }", view)
    expect(page.locator("main > *")).to_be_visible()
    if view == "chat":
        open_course(page)
    if view == "ledger":
        page.locator(".told-answers summary").first.click()
        page.get_by_role("button", name=re.compile("read it")).first.click()
        expect(page.locator(".decoded")).to_be_visible()
    assert overflow(page) <= 0
    menu = page.get_by_role("button", name="Menu")
    menu.click()
    page.get_by_role("link", name="Settings").click()
    expect(menu).to_have_attribute("aria-expanded", "false")


def test_the_theme_can_be_switched_and_stays(page: Page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    page.get_by_role("button", name="Theme: system").click()
    light = page.evaluate(colour)
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(colour) != light
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_while_the_demos_core_is_started_again_the_page_says_so(page: Page) -> None:
    ended = {"error": "the demo's core ended, and is being started again", "is_starting": True}
    core = page.evaluate("fetch('/ready').then((found) => found.json())")
    page.route("**/ready", lambda route: route.fulfill(status=503, json={**core, "code": "own_core_ended"}))
    page.route("**/v1/chat/completions", lambda route: None)  # it waits for the core
    page.get_by_label("Question").fill("When does Fern Tower open?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer.live")).to_contain_text("The core on this machine ended; starting it again…")
    page.keyboard.press("Escape")
    page.route("**/v1/status", lambda route: route.fulfill(json={"core": ended}), times=2)
    page.get_by_role("link", name="New chat").click()
    page.reload()
    expect(page.locator(".welcome .notice")).to_have_text("The demo's core ended, and is being started again.")
    expect(page.locator(".welcome .notice")).to_have_count(0)


def test_an_open_welcome_says_when_the_demos_core_ends(page: Page) -> None:
    expect(page.get_by_text("You are looking at a demo")).to_be_visible()
    ended = {"error": "the demo's core ended; restart the agent", "is_demo": True, "is_starting": False}
    page.route("**/ready", lambda route: route.fulfill(status=503, json={"code": "own_core_ended"}))
    page.route("**/v1/status", lambda route: route.fulfill(json={"core": ended}))
    expect(page.locator(".welcome .notice")).to_have_text("The demo's core ended; restart the agent.")
    page.unroute_all()
    expect(page.locator(".welcome .notice")).to_have_count(0)


def test_the_page_is_there_before_a_core_that_is_gone_is_known_to_be(page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/status", lambda route: held.append(route))
    page.reload()
    expect(page.get_by_role("heading", name="Ask about your documents")).to_be_visible()
    expect(page.get_by_text("You are looking at a demo")).to_have_count(0)
    held[0].continue_()
    expect(page.get_by_text("You are looking at a demo")).to_be_visible()


@pytest.fixture
def other_core(agent: AgentProcess) -> Iterator[str]:
    """The address of a core that is not there; the demo's is asked again afterwards."""
    yield "127.0.0.1:9"
    with agent.client() as http:
        http.patch("/v1/settings", json={"core": None}).raise_for_status()


def test_settings_name_the_core_that_is_asked_from_now_on(page: Page, other_core: str) -> None:
    page.get_by_role("link", name="Settings").click()
    core = page.get_by_label("Core", exact=True)
    core.fill("nowhere")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("write HOST:PORT")
    core.fill(other_core)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.locator(".about")).to_contain_text(f"no core answers at {other_core}")
    page.reload()
    expect(page.locator(".about")).to_contain_text(f"Current core{other_core}")  # which is not asked again for that
    page.get_by_role("button", name="Ask the core for its model").click()
    expect(page.locator(".about")).to_contain_text(f"no core answers at {other_core}")


def test_the_ledger_tells_what_left_from_what_stayed_on_this_machine(page: Page) -> None:
    def traffic(messages: int) -> dict[str, int]:
        return {"messages": messages, "payload_bytes": messages * 5, "wire_bytes": messages * 10}

    totals = {"up": traffic(5), "down": traffic(4), "local": traffic(2)}
    page.route("**/v1/ledger/totals*", lambda route: route.fulfill(json=totals))
    page.get_by_role("link", name="What left this device").click()
    expect(page.locator(".lead")).to_have_text(
        "3 messages with 30 B left this device, 2 messages with 20 B stayed on this machine, "
        "4 messages with 40 B came back. Every message is recorded before it is sent."
    )
    expect(page.get_by_text("The provider can read all that left")).to_be_visible()


STREAMS = """async () => {
    const { LiveAnswer } = await import("/web/answer.js");
    const [controllers, encoder, fetched] = [{}, new TextEncoder(), window.fetch];
    const named = (path) => path.includes("traces") ? "trace" : path.includes("completions") ? "answer" : null;
    window.send = (to, text) => controllers[to].enqueue(encoder.encode(text));
    window.fetch = async (path, ...more) => named(path) === null ? fetched(path, ...more) : new Response(
        new ReadableStream({ start: (controller) => (controllers[named(path)] = controller) }));
    window.isOpen = (stream) => stream in controllers;
    const live = new LiveAnswer("Where is it?", { seed: "1" });
    document.body.replaceChildren(live.element);
    live.run(new AbortController().signal, () => {});
}"""
"""An answer whose streams the test writes."""


def until_open(page: Page, stream: str) -> None:
    """Wait for a stream of STREAMS: the page's policy forbids what `wait_for_function` evaluates later."""
    for _ in range(200):
        if page.evaluate("(name) => isOpen(name)", stream):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"the page has not opened the stream {stream}")


def test_what_an_answer_waits_for_is_said_on_the_page(page: Page) -> None:
    page.evaluate(STREAMS)
    first = {"choices": [{"delta": {"role": "assistant"}, "finish_reason": None}], "slingshot": {"trace": "t"}}
    until_open(page, "answer")
    page.evaluate("(text) => send('answer', text)", f"data: {json.dumps(first)}\n\n")
    until_open(page, "trace")
    said = {"code": "core_lost", "message": "the connection to the core broke; ask again", "seconds": 0.4}
    page.evaluate("(text) => send('trace', text)", f"id: 1\nevent: core.wait\ndata: {json.dumps(said)}\n\n")
    expect(page.get_by_role("status")).to_have_text("the connection to the core broke; ask again. Trying again.")
    reads = 'id: 2\nevent: prompt.read\ndata: {"done": 1024, "total": 4000}\n\n'
    page.evaluate("(text) => send('trace', text)", reads)
    expect(page.get_by_role("status")).to_have_text("Reading 1,024 of 4,000 tokens")
    page.evaluate("(text) => send('trace', text)", 'id: 3\nevent: block.start\ndata: {"block": 1}\n\n')
    expect(page.get_by_role("status")).to_be_empty()


def test_the_line_under_the_question_says_who_will_see_what_as_settings_are(page: Page, agent: AgentProcess) -> None:
    line = page.locator("#learns")
    expect(line).to_have_text("Both models run on this machine. No other machine sees the question or the answer.")
    expect(page.get_by_label("Question")).to_have_accessible_description(line.inner_text())
    for settings, says in (
        ({"lambda_user": 1}, "The private model answers by itself (λ 1). Nothing is sent"),
        ({"lambda_user": None, "core": "127.0.0.1:9"}, "Whoever runs the core at 127.0.0.1:9 will see your question"),
        ({"lambda_user": 0}, "No document is read."),
    ):
        with agent.client() as http:
            http.patch("/v1/settings", json=settings).raise_for_status()
        page.reload()
        expect(line).to_contain_text(says)
        expect(page.locator(".welcome")).to_contain_text(says)
    with agent.client() as http:
        http.patch("/v1/settings", json={"lambda_user": None, "core": None}).raise_for_status()


def test_an_answer_says_which_words_of_which_document_are_known_now(page: Page) -> None:
    ask(page, "Where is my piano lesson?")
    for _ in ("as it was made", "as it is kept"):
        told = page.locator(".told")
        expect(told).to_contain_text(
            "now knows your question, this answer, and from your documents: Rose Pavilion (app"
        )
        expect(told.locator("strong")).to_have_text("Rose Pavilion")
        page.reload()


def test_the_ledger_begins_with_a_row_an_answer_and_its_messages_on_a_click(page: Page) -> None:
    ask(page, "Where is my piano lesson?")
    sent = re.search(r"↑ ([\d.]+ k?B)", page.locator(".summary").inner_text())
    assert sent
    expect(page.locator("#totals")).to_contain_text(f", {sent[1]}")
    page.get_by_role("link", name="What left this device").click()
    row = page.locator(".told-answers > li").first
    expect(row).to_contain_text("You asked “Where is my piano lesson?”")
    expect(row.locator(".told")).to_contain_text("from your documents: Rose Pavilion (appointments.md:3).")
    expect(row.locator("summary")).to_have_text(re.compile(rf"^\d+ messages, {re.escape(sent[1])} sent$"))
    expect(row.locator("table")).to_have_count(0)
    row.locator("summary").press("Enter")
    row.get_by_role("button", name=re.compile("read it")).first.click()
    expect(row.locator(".decoded")).to_contain_text("Ends the answer")


@pytest.mark.usefixtures("long_answers")
def test_an_answer_that_was_stopped_says_what_is_known_of_it(page: Page) -> None:
    stopped = {"is_stopped": True, "tokens": [], "citations": [], "figures": None}
    page.get_by_label("Question").fill(TWO_SOURCE)
    with page.expect_request("**/events") as watched:
        page.keyboard.press("Enter")
    expect(page.locator(".answer.live .token")).to_have_count(BLOCK)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    trace = watched.value.url.split("/")[-2]
    page.evaluate(
        """async (message) => {
            const { keptAnswer } = await import("/web/answer.js");
            document.querySelector(".turns").replaceChildren(keptAnswer(message));
        }""",
        {"text": "The", "trace": trace, "data": stopped},
    )
    expect(page.locator(".told")).to_contain_text(
        "now knows your question and as much of the answer as was made. No words"
    )


def test_a_folder_that_the_models_cannot_read_is_said_beside_a_pair_that_can(page: Page) -> None:
    page.get_by_role("link", name="Documents").click()
    page.get_by_label("Folder on this machine").fill(str(EVERYDAY))
    page.get_by_role("button", name="Link folder").click()
    notice = page.locator(".links .unreadable")
    expect(notice).to_contain_text("The demo's models answered 0 of", timeout=60_000)
    expect(notice).to_contain_text("cannot read them")
    expect(notice.get_by_role("button", name="Read my own documents")).to_be_visible()
    page.get_by_role("button", name=f"Unlink {EVERYDAY}").click()
    page.get_by_role("dialog").get_by_role("button", name="Unlink").click()
    expect(notice).to_have_count(0)


def test_a_first_start_offers_to_read_ones_own_documents_in_one_click(page: Page) -> None:
    words = {"name": "smollm2-135m", "purpose": "facts of one page", "licence": "Apache-2.0", "error": None}
    states = {
        "is_downloaded": False,
        "is_downloading": False,
        "is_offered": True,
        "is_embedded": True,
        "is_chosen": False,
    }
    entry = {**words, **states, "download_bytes": 93_000_000, "fetched_bytes": 0}
    now: dict[str, object] = {}

    def download(route: Route) -> None:
        now.update(is_downloading=True, fetched_bytes=41_000_000)
        route.fulfill(status=202, json=entry)

    def settings(route: Route) -> None:
        if route.request.method == "PATCH":
            return route.fulfill(json={})
        return route.continue_()

    in_use = {**entry, "name": "in-use", "is_chosen": True}
    page.route("**/v1/pairs", lambda route: route.fulfill(json=[in_use, {**entry, **now}]))
    page.route("**/v1/pairs/*/download", download)
    page.route("**/v1/settings", settings)
    page.reload()
    expect(page.get_by_text("smollm2-135m: facts of one page")).to_be_visible()
    expect(page.get_by_text("in-use")).to_have_count(0)
    with page.expect_request(lambda request: request.method == "PATCH") as used:
        page.get_by_role("button", name="Read my own documents (93.0 MB)").click()
        expect(page.get_by_text("41.0 MB of 93.0 MB")).to_be_visible()
        now.update(is_downloading=False, is_downloaded=True)
    assert used.value.post_data == '{"pair":"smollm2-135m"}'
    expect(page.get_by_role("heading", name="Documents")).to_be_visible()
