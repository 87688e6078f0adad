"""Measured numbers in the notes and READMEs are those of results/metrics.json.

A number is tied to what measured it by a comment right behind it, which no reader sees: `88.6%<!-- metric: NAME -->`.
NAME may be arithmetic over names, `a + b` or `a / 1000`. A share between 0 and 1 may be printed in per cent. Behind a
formula punctuation or a space comes first, `$10^{-9}$,<!-- metric: NAME -->`, so that the formula is still read as one.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from pathlib import Path
from typing import Any

import pytest

from course.sprints import ROOT, sprint_folders

NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+|\s*\\cdot\s*10\^\{[−-]?\d+\})?"
MARKED = re.compile(
    rf"(?P<number>{NUMBER})(?:\$(?:[.,:;)]+| ))?(?P<unit>%|\s?[^\W\d_]+)?<!-- metric: (?P<metric>[^<>]+?) -->"
)
MARKER = re.compile(r"<!--\s*metric")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SPELLED = {"seconds": "s", "second": "s"}
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value_of(expression: str, metrics: dict[str, dict[str, Any]]) -> tuple[float, set[str]]:
    """(the value of arithmetic over metrics, the units of those metrics)."""
    units: set[str] = set()

    def walk(node: ast.expr) -> float:
        if isinstance(node, ast.Name):
            if node.id not in metrics:
                raise ValueError(f"{node.id} is not in results/metrics.json: correct the name in the marker")
            units.add(metrics[node.id].get("unit", ""))
            return float(metrics[node.id]["value"])
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            return OPERATIONS[type(node.op)](walk(node.left), walk(node.right))
        raise ValueError(f"`{expression}` is neither a metric nor arithmetic (+ - * /) over metrics")

    name = ast.Name(expression) if expression in metrics else ast.parse(expression, mode="eval").body
    return walk(name), units


def printed(number: str) -> tuple[float, int, int | None]:
    """(value, digits behind the point, power of ten or None)."""
    plain = number.replace("−", "-").replace(",", "")
    match = re.fullmatch(r"(-?\d+(?:\.(\d+))?)(.*)", plain, re.DOTALL)
    assert match is not None, number
    power = re.search(r"(-?\d+)\}?$", match[3])
    exponent = int(power[1]) if power else None
    return float(match[1]) * 10.0 ** (exponent or 0), len(match[2] or ""), exponent


def problem(match: re.Match[str], metrics: dict[str, dict[str, Any]]) -> str | None:
    """What is wrong with one marked number, and what to do; None where it is right."""
    number, expression = match["number"], match["metric"]
    unit = SPELLED.get((match["unit"] or "").strip(), (match["unit"] or "").strip())
    try:
        value, units = value_of(expression, metrics)
    except (ValueError, SyntaxError) as error:
        return str(error)
    if unit == "%" and "%" not in units:
        value *= 100
    elif unit and expression in metrics and unit not in units:
        return f"{number} {unit} is measured in {units.pop() or 'no unit'} ({expression}): correct the unit"
    shown, digits, exponent = printed(number)
    last = 10.0 ** ((exponent or 0) - digits)
    if abs(shown - value) <= last / 2 * (1 + 1e-6):
        return None
    right = f"{value:,.{digits}f}" if exponent is None else f"{value:.{digits}e}"
    return f"prints {number}, but {expression} was measured as {right} ({value:.6g}): correct the text around it"


def problems(text: str, metrics: dict[str, dict[str, Any]]) -> list[str]:
    """Everything that is wrong with the marked numbers of one text, each with its line."""
    prose = FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    read = {match.end(): match for match in MARKED.finditer(prose)}
    found = []
    for marker in MARKER.finditer(text):
        line = text.count("\n", 0, marker.start()) + 1
        end = text.find("-->", marker.start()) + 3
        in_formula = prose[: marker.start()].rpartition("\n\n")[2].count("$") % 2 == 1
        if end not in read or in_formula:
            found.append(
                f"line {line}: put the marker right behind a number and its unit (behind a formula after "
                "punctuation or a space), outside code and formulas"
            )
        elif (trouble := problem(read[end], metrics)) is not None:
            found.append(f"line {line}: {trouble}")
    return found


FOLDERS = [folder for folder in sprint_folders(ROOT) if (folder / "results" / "metrics.json").exists()]
TEXTS = [path for folder in FOLDERS for path in [folder / "README.md", *sorted(folder.glob("notes/*.md"))]]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT / "sprints").as_posix())
def test_marked_numbers_are_the_measured_ones(path: Path) -> None:
    folder = path.parent if path.name == "README.md" else path.parent.parent
    metrics = json.loads((folder / "results" / "metrics.json").read_text(encoding="utf-8"))
    found = problems(path.read_text(encoding="utf-8"), metrics)
    assert not found, "\n".join(f"{path.relative_to(ROOT).as_posix()}, {trouble}" for trouble in found)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_sprint_marks_what_it_quotes(folder: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("notes/*.md")]
    assert any(MARKED.search(text) for text in texts), (
        f"No note of {folder.name} marks a measured number: write `12.3 ms<!-- metric: NAME -->` behind each that "
        "results/metrics.json holds"
    )


METRICS = {
    "time": {"value": 12.34, "unit": "ms"},
    "share": {"value": 0.8864, "unit": ""},
    "right": {"value": 91.2, "unit": "%"},
    "tiny": {"value": 2.54e-9, "unit": ""},
    "big": {"value": 147870000.0, "unit": "nats"},
    "below": {"value": -0.3032, "unit": ""},
    "at_1e-6": {"value": 0.03, "unit": ""},
}


@pytest.mark.parametrize(
    "text",
    [
        "12 ms<!-- metric: time -->",
        "12.3\nms<!-- metric: time -->",
        "88.6%<!-- metric: share -->",
        "91.2%<!-- metric: right -->",
        "$2.5\\cdot10^{-9}$).<!-- metric: tiny -->",
        "$2.5\\cdot10^{-9}$ <!-- metric: tiny -->and",
        "$1.48 \\cdot 10^{8}$ nats<!-- metric: big -->",
        "147,870,000<!-- metric: big -->",
        "2.5e-09<!-- metric: tiny -->",
        "−0.303<!-- metric: below -->",
        "0.025 s<!-- metric: (time + time) / 1000 -->",
        "3%<!-- metric: at_1e-6 -->",
        "no number, no marker",
    ],
)
def test_a_number_that_was_measured_is_accepted(text: str) -> None:
    assert problems(text, METRICS) == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("12.4 ms<!-- metric: time -->", "prints 12.4, but time was measured as 12.3"),
        ("88.7%<!-- metric: share -->", "88.6"),
        ("$2.6\\cdot10^{-9}$,<!-- metric: tiny -->", "2.5e-09"),
        ("$2.5\\cdot10^{-9}$<!-- metric: tiny -->", "after punctuation or a space"),
        ("0.303<!-- metric: below -->", "-0.303"),
        ("\n12 s<!-- metric: time -->", "line 2: 12 s is measured in ms"),
        ("12 ms<!-- metric: tine -->", "tine is not in results/metrics.json"),
        ("12 ms<!-- metric: time ** 2 -->", "neither a metric nor arithmetic"),
        ("12 ms<!-- metric: time + -->", "invalid syntax"),
        ("12 ms <!-- metric: time -->", "right behind a number"),
        ("twelve<!-- metric: time -->", "right behind a number"),
        ("```\n12 ms<!-- metric: time -->\n```", "outside code"),
        ("$t = 12.3<!-- metric: time -->$ ms", "outside code and formulas"),
        ("12 ms<!--metric: time -->", "right behind a number"),
    ],
)
def test_a_wrong_number_or_marker_is_reported(text: str, message: str) -> None:
    (found,) = problems(text, METRICS)
    assert message in found
