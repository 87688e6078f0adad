"""`course demo`: tokens as HTML, and the map of a head."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import shared
from course.demo import attention, coloring, session
from course.demo.models import KEPT, Reader, Source
from course.demo.session import Alternative, Choice, read_prompt
from shared.models import load_pretrained, look_inside, look_inside_block
from shared.text import load_tokenizer

HOSTILE = "<script>alert('${x}')</script>{{value}}`\"&\0\u202e"


@pytest.fixture(scope="module")
def kept() -> Reader:
    return Reader(Source("kept", "", "", lambda: (None, None)), load_pretrained(KEPT), load_tokenizer(KEPT))


# ---------------------------------------------------------------- HTML


class Tags(HTMLParser):
    def __init__(self, content: str):
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def choice(label: str, p: float = 0.25, rank: int = 1, drawn: float | None = 0.5) -> Choice:
    names = (label, "b", HOSTILE, "d", "e")
    others = tuple(Alternative(i, name, 0.1, 0.2 if drawn else None) for i, name in enumerate(names))
    return Choice(rank - 1, label, label, p, drawn, rank, others)


def test_hostile_text_stays_text_everywhere() -> None:
    text = session.Text([choice(HOSTILE)], -1.0, -1.0)
    for made in (
        coloring.page(HOSTILE, [choice(HOSTILE, rank=9)], running=True),
        coloring.beams(HOSTILE, [text, text]),
        coloring.note(HOSTILE, "error"),
        attention.draw(np.eye(3), [HOSTILE, "a", "b"], 0, 0),
    ):
        found = Tags(made)
        assert set(found.tags) <= {
            "div",
            "span",
            "b",
            "table",
            "caption",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "figure",
            "figcaption",
            "img",
        }
        assert not found.open
        assert not set("{}`$") & set(made) and "<script" not in made and "\0" not in made and "\u202e" not in made
    assert "<script>alert('${x}')</script>{{value}}`\"&⟨U+0000⟩⟨U+202E⟩" in Tags(coloring.page(HOSTILE, [])).text


def test_a_card_has_the_alternatives_and_the_token_that_came() -> None:
    card = Tags(coloring.card(choice("a", rank=7, p=0.012))).text
    assert "a had 1.2 %: choice 7 of the model" in card and "6.4 bits" in card
    assert card.endswith("a1.2 %50 %")  # below the five
    assert coloring.card(choice("a")).count("row chosen") == 1


def test_a_card_of_a_search_has_no_column_for_a_draw() -> None:
    assert "strategy" not in coloring.card(choice("a", drawn=None))
    assert "strategy" in coloring.card(choice("a"))


def test_the_colour_grows_with_the_surprise() -> None:
    strengths = [float(re.search(r"--s:([\d.]+)", coloring.token(choice("a", p=p)))[1]) for p in (1.0, 0.5, 0.1, 1e-9)]
    assert strengths == sorted(strengths) and strengths[0] == 0 and strengths[-1] == 1


# ---------------------------------------------------------------- attention


def test_the_weights_are_those_inside_the_model(kept: Reader) -> None:
    ids = read_prompt(kept, "To be, or not to be")
    inside = look_inside(kept.model, shared.tensor([ids]))
    with shared.no_grad():
        second = look_inside_block(kept.model.blocks[1], inside["block0"])["attSm"].numpy()[0]
    first = inside["attSm"].numpy()[0]
    for head in range(6):
        np.testing.assert_allclose(attention.weights(kept.model, ids, 0, head), first[head], atol=1e-6)
        np.testing.assert_allclose(attention.weights(kept.model, ids, 1, head), second[head], atol=1e-5)


def test_no_token_looks_at_a_later_one(kept: Reader) -> None:
    weight = attention.weights(kept.model, [1] * 300, 3, 5)
    assert weight.shape == (128, 128)  # the last that it can look at
    assert not np.triu(weight, 1).any()
    np.testing.assert_allclose(weight.sum(1), 1, atol=1e-5)


def test_a_head_that_is_not_there_is_refused(kept: Reader) -> None:
    for layer, head in ((4, 0), (0, 6), (-1, 0)):
        with pytest.raises(ValueError, match=f"layer {layer + 1} with a head {head + 1}"):
            attention.weights(kept.model, [1], layer, head)


@pytest.mark.filterwarnings("error")
def test_labels_are_no_mathematics_and_the_picture_is_described() -> None:
    weight = np.array([[1.0, 0, 0], [0.9, 0.1, 0], [0.2, 0.7, 0.1]])
    made = attention.draw(weight, ["$\\frac{$", "$$", "\n"], 1, 2)
    alt = re.search(r'alt="([^"]+)"', made)[1]
    assert "layer 2, head 3" in alt and "token 2" in alt and "0.90" in alt
    assert base64.b64decode(re.search(r"base64,([^\"]+)", made)[1]).startswith(b"\x89PNG")


def test_a_long_text_shows_its_end() -> None:
    made = attention.draw(np.tril(np.full((60, 60), 1 / 60)), ["a"] * 60, 0, 0, shown=16)
    assert "the last 16 of 60 tokens" in made
