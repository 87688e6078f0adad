"""`course demo` in a real browser, headless Chromium: type, generate, stop, change the strategy, look at a map.

DEMO_SHOTS=folder python -m pytest tests/course/test_demo_page.py    # leaves screenshots there, demo.png the first
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from course.demo import server
from course.demo.session import read_prompt, write
from course.demo.strategies import Settings
from course.demo.turns import Turns
from tests.course import demo_models

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
for missing, reason in (
    (importlib.util.find_spec("gradio") is None, "Gradio (python -m course setup --extra demo)"),
    (importlib.util.find_spec("playwright") is None, "playwright (pip install playwright)"),
    (CHROMIUM is None, "Chromium or Chrome"),
):
    if missing:
        pytest.skip(f"needs {reason}", allow_module_level=True)

HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>{{7*7}}${window.hacked=3}<|endoftext|>"
SHOTS = os.environ.get("DEMO_SHOTS")  # a folder for screenshots


@pytest.fixture(scope="module")
def models():
    return demo_models.shelf()


@pytest.fixture(scope="module")
def address(models):
    app = server.launch(models[0], 0)
    yield app.local_url
    app.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


class Visit:
    """Somebody who has opened the page; what went wrong on it, and what it asked for, is kept."""

    def __init__(self, browser, address: str, **options):
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)  # far more than it takes, but for a machine that does other work
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        self.page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("#about .note:has-text('parameters')")

    def choose(self, model: str) -> None:
        self.page.click("#model input")
        self.page.click(f"[role=option][aria-label='{model}']")
        self.page.wait_for_selector("#about .note:has-text('257 tokens')" if "ytes" in model else "#about")

    def set(self, **values: str) -> None:
        """Fills fields by their ids: `prompt`, and those of the number of tokens and the seed."""
        if "prompt" in values:
            self.page.fill("#prompt textarea", values["prompt"])
        for name in ("tokens", "seed"):
            if name in values:
                self.page.fill(f"#{name} input[type=number]", values[name])
                self.page.press(f"#{name} input[type=number]", "Tab")

    def note(self) -> str:
        return self.page.inner_text("#note")

    def wait(self, text: str) -> None:
        self.page.wait_for_selector(f"#note .note:has-text('{text}')")

    def written(self) -> str:
        """The plain text, from the tab that has it."""
        self.page.click("button[role=tab]:has-text('Plain text')")
        text = self.page.input_value("#plain textarea")
        self.page.click("button[role=tab]:has-text('Text')")
        return text

    def shot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


@pytest.fixture
def visit(browser, address):
    visits = []

    def open_page(**options) -> Visit:
        visits.append(Visit(browser, address, **options))
        return visits[-1]

    yield open_page
    for one in visits:
        assert not one.wrong, one.wrong
        assert all(url.startswith((address, "data:", "blob:")) for url in one.asked), one.asked
        one.context.close()


def test_type_generate_and_look_at_the_alternatives(visit) -> None:
    me = visit()
    me.shot("ready")
    me.set(prompt="JULIET:\nO ", tokens="120", seed="3")
    me.page.click("#generate")
    me.wait("120 tokens in")
    tokens = me.page.locator("#page .token")
    assert tokens.count() == 120
    assert me.page.inner_text("#page .prompt").startswith("JULIET:")
    assert me.written().startswith("JULIET:\nO ") and len(me.written()) == 130
    card = tokens.nth(30).locator(".card")
    assert not card.is_visible()
    tokens.nth(30).hover()
    assert card.is_visible()
    assert card.locator(".row:not(.head)").count() in (5, 6) and card.locator(".row.chosen").count() == 1
    assert "%" in card.inner_text()
    surprises = tokens.evaluate_all("all => all.map(one => Number(one.style.getPropertyValue('--s')))")
    tokens.nth(max(range(120), key=surprises.__getitem__)).hover()
    me.shot("demo")
    me.page.mouse.move(0, 0)
    assert not card.is_visible()
    tokens.nth(31).focus()
    assert tokens.nth(31).locator(".card").is_visible()


def test_text_appears_while_it_is_written_and_stop_ends_the_computation(visit, models) -> None:
    me, slow = visit(), models[1]
    me.choose(demo_models.SLOW)
    me.set(prompt="Once", tokens="400")
    me.page.click("#generate")
    me.wait("Writing")
    lengths = set()
    while len(lengths) < 4:
        lengths.add(me.page.locator("#page .token").count())
        assert me.page.is_disabled("#generate")
    me.page.click("#stop")
    me.wait("Stopped by you after")
    reads = slow.reads
    shown = me.page.locator("#page .token").count()
    assert f"after {shown} tokens" in me.note() and 3 <= shown < 400
    time.sleep(0.3)
    assert slow.reads == reads
    assert me.page.is_enabled("#generate") and me.page.is_disabled("#stop")


def test_a_page_that_is_closed_computes_no_more(visit, models) -> None:
    me, slow = visit(), models[1]
    me.choose(demo_models.SLOW)
    me.set(prompt="Once", tokens="400")
    me.page.click("#generate")
    me.wait("Writing")
    me.page.close()
    deadline, reads = time.monotonic() + 60, -1
    while reads != slow.reads:
        assert time.monotonic() < deadline
        reads = slow.reads
        time.sleep(0.3)
    assert reads < 400


def test_the_strategy_shows_its_sentence_and_its_parameters(visit) -> None:
    me = visit()
    visible = lambda name: me.page.locator(f"#p-{name}").is_visible()  # noqa: E731
    assert visible("top_p") and visible("temperature") and not visible("top_k")
    me.page.click("#strategy label:has-text('Top-k')")
    me.page.wait_for_selector("#p-top_k")
    assert not visible("top_p") and "k likeliest" in me.page.inner_text("#sentence")
    me.page.click("#strategy label:has-text('Greedy')")
    me.page.wait_for_selector("#p-top_k", state="hidden")
    assert not visible("temperature") and "likeliest token" in me.page.inner_text("#sentence")
    me.set(tokens="20")
    me.page.click("#generate")
    me.wait("20 tokens in")
    first = me.written()
    me.set(seed="99", tokens="25")
    me.page.click("#generate")
    me.wait("25 tokens in")
    assert me.written().startswith(first)
    me.page.click("#strategy label:has-text('Beam search')")
    me.page.wait_for_selector("#p-num_beams")
    me.page.click("#generate")
    me.page.wait_for_selector("#page table.beams")
    assert me.page.locator("#page table.beams tbody tr").count() == 4
    me.shot("beams")


def test_the_map_of_a_layer_and_a_head(visit) -> None:
    me = visit()
    me.page.click("button[role=tab]:has-text('Attention')")
    me.page.wait_for_selector("#attention .note:has-text('Write something first')")
    me.set(tokens="40")
    me.page.click("#generate")
    image = me.page.locator("#attention img")
    image.wait_for()
    first = image.get_attribute("alt")
    assert "layer 1, head 1" in first
    me.page.fill("#layer input[type=number]", "3")
    me.page.press("#layer input[type=number]", "Tab")
    me.page.wait_for_selector("#attention img[alt*='layer 3, head 1']")
    assert image.evaluate("image => image.naturalWidth") > 500
    me.shot("attention")


def test_what_cannot_be_continued_is_explained(visit) -> None:
    me = visit()
    me.set(prompt="")
    me.page.click("#generate")
    me.wait("The prompt is empty")
    assert me.page.locator("#note [role=alert]").count() == 1
    me.set(prompt="Grüße, 9 <b>")
    me.page.click("#generate")
    me.wait("ü (U+00FC)")
    me.shot("refused")
    me.set(prompt="a" * 500)
    me.page.click("#generate")
    me.wait("shorten it by 372")


def test_a_hostile_prompt_is_text(visit) -> None:
    me = visit()
    me.choose(demo_models.BYTES)
    me.set(prompt=HOSTILE, tokens="10")
    me.page.click("#generate")
    me.wait("10 tokens in")
    assert me.page.inner_text("#page .prompt") == HOSTILE
    assert me.written().startswith(HOSTILE)
    me.page.click("button[role=tab]:has-text('Attention')")
    me.page.wait_for_selector("#attention img")
    assert me.page.evaluate("window.hacked") is None
    assert me.page.locator("#page img, #page script").count() == 0


def test_two_pages_at_once_do_not_mix(visit, models) -> None:
    shelf = models[0]
    pages = {"one": visit(), "two": visit()}
    for (prompt, me), seed in zip(pages.items(), ("11", "22"), strict=True):
        me.choose(demo_models.SLOW)
        me.set(prompt=prompt, tokens="40", seed=seed)
    for me in pages.values():
        me.page.click("#generate")
    for me in pages.values():
        me.wait("40 tokens in")
    reader = shelf.get(demo_models.BYTES)
    for (prompt, me), seed in zip(pages.items(), (11, 22), strict=True):
        alone = write(
            reader, read_prompt(reader, prompt), Settings("Nucleus", None, 40, seed), threading.Event(), Turns()
        )
        assert me.written() == prompt + "".join(choice.text for choice in alone).replace("\r", "\n")


def test_a_narrow_screen_needs_no_sideways_scrolling(visit) -> None:
    me = visit(viewport={"width": 390, "height": 844}, color_scheme="dark")
    me.set(tokens="60")
    me.page.click("#generate")
    me.wait("60 tokens in")
    assert me.page.evaluate("document.documentElement.scrollWidth") <= 390
    me.page.locator("#page .token").nth(5).click()
    me.shot("narrow")
