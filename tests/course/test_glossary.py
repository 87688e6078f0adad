"""sprints/GLOSSARY.md holds each term of the notes, once, with a link to where it is defined.

In a note bold is kept for a term where it is defined. Two other uses are told apart by their form: bold that ends in
punctuation is a sentence or the head of a paragraph, and bold that is code is a name, which its docstring explains.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from course.sprints import ROOT

GLOSSARY = ROOT / "sprints" / "GLOSSARY.md"
NOTES = sorted(ROOT.glob("sprints/*/notes/*.md"))
ENTRY = re.compile(r"- \*\*(?P<term>[^*]+)\*\*: (?P<text>.+?) \[[^\]]+\]\((?P<path>[^)#]+)#(?P<anchor>[^)]+)\)")


def key(term: str) -> str:
    """One spelling for a term: lower case, the last word in the singular.

    >>> key("Leaves"), key("hidden activations"), key("losses"), key("bias"), key("batches")
    ('leaf', 'hidden activation', 'loss', 'bias', 'batch')
    """
    words = " ".join(term.casefold().split())
    for plural, singular in ((r"ves$", "f"), (r"(s|x|ch|sh)es$", r"\1"), (r"(?<![aius])s$", "")):
        words = re.sub(plural, singular, words)
    return words


def slug(heading: str) -> str:
    """The anchor that GitHub makes from a heading.

    >>> slug("The gradient: p − y"), slug("Two modes, and `eval`")
    ('the-gradient-p--y', 'two-modes-and-eval')
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@dataclass(frozen=True)
class Definition:
    """A term in bold: in which note, under which heading, in which line."""

    term: str
    note: str
    anchor: str
    line: int


def definitions(text: str, note: str) -> list[Definition]:
    """The terms that a note defines, in their order."""

    def without_stars(match: re.Match[str]) -> str:
        return re.sub(r"[*#]", " ", match[0])

    for pattern in (r"^```.*?^```", r"\$\$.+?\$\$", r"`[^`\n]+`", r"\$[^$\n]+\$"):
        text = re.sub(pattern, without_stars, text, flags=re.DOTALL | re.MULTILINE)
    found, anchor, seen = [], "", Counter[str]()
    for match in re.finditer(r"^#+ (?P<heading>.+)$|\*\*(?P<bold>[^*]+)\*\*", text, re.MULTILINE):
        if match["heading"]:
            anchor = slug(match["heading"])
            seen[anchor] += 1
            anchor += f"-{seen[anchor] - 1}" if seen[anchor] > 1 else ""
            continue
        bold = " ".join(match["bold"].split())
        is_sentence = re.search(r"[.,:;?!]$", bold.rstrip("\"”'`"))
        is_code = bold.startswith("`") and bold.endswith("`")
        if not is_sentence and not is_code:
            found.append(Definition(bold, note, anchor, text.count("\n", 0, match.start()) + 1))
    return found


def all_definitions() -> list[Definition]:
    folder = GLOSSARY.parent
    return [
        definition
        for path in NOTES
        for definition in definitions(path.read_text(encoding="utf-8"), path.relative_to(folder).as_posix())
    ]


def entries() -> list[re.Match[str]]:
    lines = [line for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if line.startswith("- ")]
    read = [ENTRY.fullmatch(line) for line in lines]
    wrong = [line for line, match in zip(lines, read, strict=True) if match is None]
    assert not wrong, "Write each entry as `- **term**: one sentence. [where](path#heading)`:\n" + "\n".join(wrong)
    return [match for match in read if match is not None]


def test_every_term_that_a_note_defines_is_in_the_glossary() -> None:
    known = {key(entry["term"]) for entry in entries()}
    missing = [
        f"sprints/{d.note}:{d.line} has **{d.term}** in bold: add `- **{d.term}**: … [Sprint {d.note[:2]}, …]"
        f"({d.note}#{d.anchor})` to sprints/GLOSSARY.md, or write *{d.term}* if it is not a definition"
        for d in all_definitions()
        if key(d.term) not in known
    ]
    assert not missing, "\n".join(missing)


def test_every_entry_links_to_the_heading_under_which_its_term_is_defined() -> None:
    places: dict[str, list[Definition]] = {}
    for definition in all_definitions():
        places.setdefault(key(definition.term), []).append(definition)
    wrong = []
    for entry in entries():
        term, link = entry["term"], f"{entry['path']}#{entry['anchor']}"
        right = [f"{d.note}#{d.anchor}" for d in places.get(key(term), [])]
        if not right:
            wrong.append(f"No note has **{term}** in bold: mark it where it is defined, or remove the entry")
        elif link not in right:
            wrong.append(f"{term} links to {link}, but is defined in {right[0]}: correct the link")
    assert not wrong, "\n".join(wrong)


def test_the_glossary_is_in_alphabetical_order_without_doubles() -> None:
    terms = [re.sub(r"[^\w]", "", entry["term"].casefold()) for entry in entries()]
    wrong = [f"move `{b}` before `{a}`" for a, b in zip(terms, terms[1:], strict=False) if a > b]
    wrong += [f"`{term}` has {n} entries: keep one" for term, n in Counter(terms).items() if n > 1]
    assert not wrong, "\n".join(wrong)


def test_an_entry_is_one_sentence_that_does_not_use_its_own_term() -> None:
    wrong = []
    for entry in entries():
        text, term = entry["text"], entry["term"]
        if not text.endswith(".") or re.search(r"\.\s", text):
            wrong.append(f"{term}: make it one sentence, ended by a full stop")
        if re.search(rf"\b{re.escape(key(term))}(s|es)?\b", text.casefold()):
            wrong.append(f"{term}: the definition uses the term itself; say it in other words")
    assert not wrong, "\n".join(wrong)


def test_a_term_is_defined_once() -> None:
    first: dict[str, Definition] = {}
    wrong = []
    for d in all_definitions():
        earlier = first.setdefault(key(d.term), d)
        if earlier is not d:
            wrong.append(
                f"sprints/{d.note}:{d.line} has **{d.term}** in bold, which sprints/{earlier.note}:{earlier.line} "
                "already defines: take the stars away here"
            )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page, link", [("README.md", "sprints/GLOSSARY.md"), ("sprints/README.md", "GLOSSARY.md")])
def test_the_glossary_can_be_found(page: str, link: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert f"]({link})" in text, f"{page} does not link to the glossary: add [glossary]({link})"


def test_bold_is_read_as_a_term_only_where_it_is_one() -> None:
    note = Path("01_x/notes/01_y.md").as_posix()
    text = (
        "# A title\n\nA **term** and a **second\nterm**.\n\n## What: `x`\n\n**A head.** text\n\n**A head:** text\n"
        '\n**"It hangs."** text\n\n**`name`** is code, `a ** b` too, and $a ** b$.\n\n```python\n# no\n** no **\n```\n'
        "| x | **in a table** |\n\n## What: `x`\n\n**again**\n"
    )
    assert [(d.term, d.anchor, d.line) for d in definitions(text, note)] == [
        ("term", "a-title", 3),
        ("second term", "a-title", 3),
        ("in a table", "what-x", 20),
        ("again", "what-x-1", 24),
    ]
