"""Chats on the page: edited, branched, searched, exported and deleted, and quotes that go with their folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.user_agent.api.conftest import AgentProcess
from tests.user_agent.web.test_page import ask

pytestmark = pytest.mark.slow

TOWER = "When does Fern Tower open?"
LESSON = "Where is my piano lesson?"

ANSWER_MS = 30_000
"""An answer on a busy machine."""


def test_an_edited_question_is_asked_in_a_chat_of_its_own_beside_the_first(page: Page, agent: AgentProcess) -> None:
    ask(page, f"Please tell me: {TOWER}")
    expect(page.get_by_role("heading", name=TOWER)).to_be_visible()  # a title without courtesies
    page.get_by_label("Question", exact=True).fill(LESSON)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(2, timeout=ANSWER_MS)
    first = page.url
    page.get_by_role("button", name=f"Edit: {LESSON}").press("Enter")
    page.get_by_label("New wording").fill("Who is my plumber?")
    page.locator(".editing").get_by_role("button", name="Ask").click()
    expect(page).not_to_have_url(first, timeout=ANSWER_MS)
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(2, timeout=ANSWER_MS)
    expect(page.locator(".question")).to_have_text([f"Please tell me: {TOWER}", "Who is my plumber?"])
    page.get_by_role("button", name="Regenerate").first.click()  # an earlier one, behind which another question stands
    expect(page.get_by_text("2 of 2")).to_be_visible(timeout=ANSWER_MS)
    page.reload()
    expect(page.locator(".turn").first.get_by_text("2 of 2")).to_be_visible(timeout=ANSWER_MS)
    page.get_by_role("button", name="Branch", exact=True).first.click()
    expect(page.locator(".question")).to_have_count(1)
    expect(page.get_by_role("heading", name=f"{TOWER} (branch)")).to_be_visible()
    page.goto(first)
    expect(page.locator(".question")).to_have_text([f"Please tell me: {TOWER}", LESSON])


def test_a_chat_is_found_exported_and_deleted_for_good(page: Page, agent: AgentProcess) -> None:
    ask(page, LESSON)
    trace = page.get_by_role("link", name="Messages sent").get_attribute("href").partition("=")[2]
    for name, begins in (("Export as Markdown", f"# {LESSON}\n"), ("Export as JSON", "{")):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        text = download.value.path().read_text()
        assert text.startswith(begins)
        assert "Rose Pavilion" in text
    assert json.loads(text)["title"] == LESSON
    search = page.get_by_label("Search chats")
    search.fill("rose pavilion")
    found = page.locator(".found-chats a").first
    expect(found).to_contain_text("Rose Pavilion")
    search.fill("no such words")
    expect(page.get_by_text("No chat has these words.")).to_be_visible()
    search.fill("")
    page.get_by_role("button", name="Delete chat", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The ledger keeps the messages that were sent.")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="New chat")).to_be_visible()
    with agent.client() as http:
        told = http.get(f"/v1/ledger/answers/{trace}").json()
    assert (told["question"], told["words"]) == (None, [])


def test_unlinking_a_folder_offers_to_delete_the_answers_that_read_it(
    page: Page, agent: AgentProcess, tmp_path: Path
) -> None:
    (tmp_path / "harbour.md").write_text("My boat lesson is at Juniper Wharf.\n")
    with agent.client() as http:
        http.post("/v1/documents/links", json={"path": str(tmp_path)}).raise_for_status()
    ask(page, "Where is my boat lesson?")
    expect(page.locator(".citations")).to_contain_text("harbour.md")
    chat = page.url
    page.get_by_role("link", name="Documents").click()
    page.get_by_role("button", name=f"Unlink {tmp_path}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Also delete 1 saved answer").check()
    dialog.get_by_role("button", name="Unlink").click()
    expect(page.get_by_role("button", name=f"Unlink {tmp_path}")).to_have_count(0)
    page.goto(chat)
    expect(page.get_by_text("There is no answer yet.")).to_be_visible()
