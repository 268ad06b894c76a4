"""Markdown of answers: what becomes an element, what stays text, and that nothing is loaded or can be followed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from tests.user_agent.api.conftest import AgentProcess
from tests.user_agent.web.conftest import opened

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(agent: AgentProcess, browser: Browser) -> Iterator[Page]:
    """One page for all: none of the tests leaves anything in it that another looks at."""
    with opened(agent, browser) as page:
        yield page


RENDER = """async (text) => {
    const { markdown } = await import("/web/markdown.js");
    const box = document.createElement("div");
    box.append(...markdown(text));
    return [box.innerHTML, box.textContent];
}"""


def rendered(page: Page, text: str) -> str:
    markup: str = page.evaluate(RENDER, text)[0]
    return re.sub(r' (class|tabindex)="[^"]*"', "", markup)


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("a **b**, *c* and ~~d~~.", "<p>a <strong>b</strong>, <em>c</em> and <del>d</del>.</p>"),
        ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
        ("Run `a * b` now", "<p>Run <code>a * b</code> now</p>"),
        ("# Head #\none\ntwo\n\nthree", "<p>Head</p><p>one\ntwo</p><p>three</p>"),
        ("```js\nlet a = `b`;\n  **c**\n```\nend", "<pre><code>let a = `b`;\n  **c**</code></pre><p>end</p>"),
        ("```\nnever closed", "<pre><code>never closed</code></pre>"),
        ("- a\n- b\n  - c", "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li></ul></li></ul>"),
        ("3. three\n7. seven", '<ol><li value="3"><p>three</p></li><li value="7"><p>seven</p></li></ol>'),
        ("> quoted\n> **more**", "<blockquote><p>quoted\n<strong>more</strong></p></blockquote>"),
        (
            "|a|b|\n|---|:-:|\n|1|*2*|",
            "<div><table><thead><tr><th>a</th><th>b</th></tr></thead>"
            "<tbody><tr><td>1</td><td><em>2</em></td></tr></tbody></table></div>",
        ),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        (r"\*not slanted\*", "<p>*not slanted*</p>"),
    ],
)  # fmt: skip
def test_what_is_meant_as_markdown_becomes_elements(page: Page, text: str, markup: str) -> None:
    assert rendered(page, text) == markup


@pytest.mark.parametrize(
    "text",
    [
        "5 * 3 * 2 is 30",
        "2*3*4 and a_b_c and __init__.py",
        "Temperature > 40 degrees",
        "#4711 is the code",
        "-5 degrees",
        "My dentist - Dr. Meyer",
        "a | b",
        "1.5 is less than 2.",
        "`` ` and ** and _",
        "$HOME/*.py and ~/notes/*.md",
    ],
)
def test_text_that_looks_like_markup_stays_as_it_is(page: Page, text: str) -> None:
    markup, shown = page.evaluate(RENDER, text)
    assert shown == text
    assert "<em>" not in markup


@pytest.mark.parametrize(
    "text",
    [
        "![x](https://evil.example/a.png?q=4711)",
        "[click](https://evil.example/?q=4711)",
        "[click](javascript:alert(1))",
        "<img src=https://evil.example/a.png> <script>alert(1)</script> <a href=//evil.example>x</a>",
        "![a](data:image/svg+xml,<svg/onload=alert(1)>)",
        "https://evil.example/?q=4711",
        "<style>@import url(https://evil.example)</style>",
        "[x]: https://evil.example\n\n![x]",
    ],
)
def test_nothing_is_loaded_and_no_link_can_be_followed(page: Page, text: str) -> None:
    page.evaluate(RENDER.replace("return", "document.querySelector('main').append(box); return"), text)
    page.wait_for_timeout(100)  # the fixture fails the test on any request elsewhere
    found = "main img, a[href^='http'], a[href^='java'], main script, iframe, main style, object, svg[onload]"
    assert page.locator(found).count() == 0


def test_addresses_are_shown_as_text(page: Page) -> None:
    assert page.evaluate(RENDER, "See [the page](https://a.example/b) and ![a plan](c.png).")[1] == (
        "See the page (https://a.example/b) and image “a plan” (c.png)."
    )


def test_any_text_is_rendered_with_all_of_its_letters(page: Page) -> None:
    letters = st.text(alphabet="ab1 \n*_`~#>-|[]()!\\.", max_size=60)

    @settings(max_examples=60, deadline=None, database=None)
    @given(letters)
    def holds(text: str) -> None:
        shown = page.evaluate(RENDER, text)[1]
        fence = re.sub(r"(?m)^ {0,3}(```|~~~).*$", "", text)  # the language of code is not shown
        numbers = re.sub(r"(?m)^[\s>]*(?:[-*] +)*\d+[.)] +", "", fence)  # those of a list are attributes
        assert [c for c in numbers if c in "ab"] == [c for c in shown if c in "ab"] or "image" in shown or "](" in text

    holds()


MARKED: dict[str, Any] = {
    "text": "The **shed code** is:\n\n- `4711`",
    "tokens": [
        {
            "text": text,
            "core_p": 0.1,
            "user_p": 0.9,
            "mixed_p": 0.8,
            "core_choice": "x",
            "led_by": by,
            "lambda_user": 0.5,
        }
        for text, by in [
            (" The **", "both"),
            ("shed co", "documents"),
            ("de** is:\n\n- `47", "both"),
            ("11`", "documents"),
        ]
    ],
}


def test_marks_of_tokens_stand_inside_of_markdown(page: Page) -> None:
    page.evaluate(
        """async ({ text, tokens }) => {
            const { keptAnswer } = await import("/web/answer.js");
            document.body.replaceChildren(keptAnswer({ text, trace: "", data: { tokens, citations: [] } }));
        }""",
        MARKED,
    )
    assert page.locator(".text strong button.led.documents").inner_text().startswith("shed co")
    assert page.locator(".text li code button.led.documents").inner_text().startswith("11")
    assert page.locator(".text").inner_text().replace("◆", "").split() == ["The", "shed", "code", "is:", "4711"]
