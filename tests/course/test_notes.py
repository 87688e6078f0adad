"""The examples in the notes print what the notes say they print."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from course.sprints import ROOT

NOTES = sorted(ROOT.glob("sprints/*/notes/*.md"))


def session(text: str) -> str:
    """The ```python blocks that hold a prompt, one after the other: a note is one interactive session."""
    return "\n".join(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if ">>>" in block)


@pytest.mark.parametrize("path", [p for p in NOTES if session(p.read_text(encoding="utf-8"))], ids=lambda p: p.stem)
def test_the_examples_of_a_note_print_what_it_says(path: Path) -> None:
    source = session(path.read_text(encoding="utf-8"))
    examples = doctest.DocTestParser().get_doctest(source, {}, path.name, str(path), 0)
    report: list[str] = []
    failed, attempted = doctest.DocTestRunner(verbose=False).run(examples, out=report.append)
    assert attempted and not failed, f"{path.name}: {failed} of {attempted} examples differ\n{''.join(report)}"
