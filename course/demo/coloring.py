"""Tokens as HTML: coloured by their surprise, with the alternatives on hover. Whatever is in a text stays text."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence

from .session import Choice, Text

MOST_BITS = 8.0  # of surprise: from here on the colour is the same
# Characters that would turn the direction of what stands around them.
BIDI = {chr(c) for c in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
# Gradio reads values as templates in some places: there braces, dollars and backticks would be more than characters.
TEMPLATES = str.maketrans({c: f"&#{ord(c)};" for c in "{}$`"})


def escape(text: str) -> str:
    """Text for HTML, also inside quotation marks, and for a page whose parts may be taken for templates.

    >>> escape("<b> & ${x}")
    '&lt;b&gt; &amp; &#36;&#123;x&#125;'
    """
    return html.escape(text, quote=True).translate(TEMPLATES)


def visible(text: str, spaces: bool = False) -> str:
    """A token as it can be seen: ⏎ before a line's end, and the code points of control characters.

    With `spaces`, for labels that stand alone, spaces are ␣ and lines do not end.

    >>> visible("a\\n\\0"), visible(" a\\n", spaces=True)
    ('a⏎\\n⟨U+0000⟩', '␣a⏎')
    """
    shown = []
    for c in text:
        if c == "\n":
            shown.append("⏎" if spaces else "⏎\n")
        elif c == " " and spaces:
            shown.append("␣")
        elif c == "\t":
            shown.append("⇥")
        elif unicodedata.category(c) in ("Cc", "Cs") or c in BIDI:
            shown.append(f"⟨U+{ord(c):04X}⟩")
        else:
            shown.append(c)
    return "".join(shown)


def percent(p: float | None) -> str:
    """A probability with two digits.

    >>> percent(0.4321), percent(0.0123), percent(0.00001), percent(None)
    ('43 %', '1.2 %', '< 0.1 %', '–')
    """
    if p is None or p == 0:
        return "–"
    if p < 0.001:
        return "< 0.1 %"
    return f"{100 * p:.1f} %" if p < 0.0995 else f"{100 * p:.0f} %"


def surprise(bits: float) -> float:
    """0 for what was certain to 1 for MOST_BITS and more: how strong the colour is."""
    return min(1.0, max(0.0, bits / MOST_BITS))


def token(choice: Choice, with_card: bool = True) -> str:
    """A token of the text with its card, which the style sheet shows while the token is pointed at or has the focus."""
    if not with_card:
        return f'<span class="token" style="--s:{surprise(choice.bits):.2f}">{escape(visible(choice.label))}</span>'
    return (
        f'<span class="token" tabindex="0" style="--s:{surprise(choice.bits):.2f}">{escape(visible(choice.label))}'
        f"{card(choice)}</span>"
    )


def card(choice: Choice) -> str:
    """The table of what could have come: the likeliest tokens, and the one that came, if it is not among them."""
    head = (
        f'<span class="card-head"><b>{escape(visible(choice.label, spaces=True))}</b> had '
        f"{percent(choice.probability)}: choice {choice.rank:,} of the model, {choice.bits:.1f} bits of surprise</span>"
    )
    drawn = choice.drawn is not None
    columns = "<span>token</span><span>model</span><span></span>" + ("<span>strategy</span>" if drawn else "")
    rows = [(a.label, a.probability, a.drawn, a.token == choice.token) for a in choice.alternatives]
    if not any(chosen for *_, chosen in rows):
        rows.append((choice.label, choice.probability, choice.drawn, True))
    lines = "".join(_row(*row, with_drawn=drawn) for row in rows)
    kind = "card three" if not drawn else "card"
    return f'<span class="{kind}" role="tooltip">{head}<span class="row head">{columns}</span>{lines}</span>'


def _row(label: str, p: float, drawn: float | None, chosen: bool, with_drawn: bool) -> str:
    cells = f'<span class="name">{escape(visible(label, spaces=True))}</span><span>{percent(p)}</span>'
    cells += f'<span class="bar"><span style="width:{100 * p:.1f}%"></span></span>'
    if with_drawn:
        cells += f"<span>{percent(drawn)}</span>"
    return f'<span class="row{" chosen" if chosen else ""}">{cells}</span>'


LEGEND = (
    '<div class="legend" aria-hidden="true"><span>expected</span><span class="scale"></span>'
    "<span>surprising</span></div>"
)


def page(prompt: str, choices: Sequence[Choice], running: bool = False) -> str:
    """The prompt and what was written after it; while that is going on, sent ten times a second, without cards."""
    written = "".join(token(choice, with_card=not running) for choice in choices)
    if running:
        written += '<span class="cursor" aria-hidden="true"></span>'
    return (
        f'<div class="paper{" running" if running else ""}">{LEGEND}<div class="text">'
        f'<span class="prompt">{escape(visible(prompt))}</span>{written}</div></div>'
    )


def empty() -> str:
    """What stands there before the first text."""
    return (
        '<div class="paper blank"><div class="text"><span class="nothing">The text will stand here, each token '
        "coloured by how much it surprised the model. Point at one to see what else could have come.</span></div></div>"
    )


def beams(prompt: str, texts: Sequence[Text]) -> str:
    """The best text in colours, and the others of a beam search below it, with their scores."""
    rows = "".join(
        f'<tr><td>{i}</td><td class="score">{_minus(f"{text.score:.3f}")}</td>'
        f'<td class="score">{_minus(f"{text.log_prob:.2f}")}</td>'
        f'<td class="written">{escape(visible("".join(c.label for c in text.choices)))}</td></tr>'
        for i, text in enumerate(texts, 1)
    )
    table = (
        '<table class="beams"><caption>The texts that the search kept, best first</caption><thead><tr><th>place</th>'
        "<th>score</th><th>ln p</th><th>text</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
    return page(prompt, texts[0].choices if texts else []) + (table if len(texts) > 1 else "")


def _minus(number: str) -> str:
    return number.replace("-", "−")


def note(text: str, kind: str = "") -> str:
    """The line above the text, which screen readers read out; of an error at once."""
    role = 'role="alert"' if kind == "error" else 'role="status"'
    return f'<div class="note {kind}" {role}>{escape(visible(text, spaces=False))}</div>'
