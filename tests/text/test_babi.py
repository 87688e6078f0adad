"""bAbI: the reader on stories by hand and on the published files, the generator's grammar, the format, the loader."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data import DatasetUnavailable, catalog
from shared.text import babi
from shared.text.babi import Reader, generate, load, parse

TASKS = list(babi.TASKS)


def told(*facts):
    reader = Reader()
    for fact in facts:
        reader.hear(fact)
    return reader


# ---------------------------------------------------------------- the reader


def test_the_last_move_counts():
    reader = told("Mary moved to the garden.", "John went to the office.", "Mary went back to the kitchen.")
    assert reader.answer("Where is Mary?") == ("kitchen", (2,))
    assert reader.answer("Where is John?") == ("office", (1,))


def test_a_thing_is_where_its_holder_went_or_where_it_was_dropped():
    reader = told("Mary went to the garden.", "Mary took the milk there.", "Mary travelled to the office.")
    assert reader.answer("Where is the milk?") == ("office", (1, 2))
    reader.hear("Mary discarded the milk there.")
    reader.hear("Mary moved to the hallway.")
    assert reader.answer("Where is the milk?") == ("office", (3, 2))


def test_a_thing_was_where_it_had_been_brought_to_before():
    reader = told(
        "Mary got the milk.", "Mary went to the garden.", "John went to the office.", "Mary went to the hallway."
    )
    assert reader.answer("Where was the milk before the hallway?") == ("garden", (0, 3, 1))
    reader.hear("Mary put down the milk.")
    reader.hear("Mary journeyed to the kitchen.")
    assert reader.answer("Where was the milk before the hallway?") == ("garden", (4, 3, 1))


def test_another_person_may_carry_it_on():
    reader = told(
        "Mary got the milk.", "Mary went to the garden.", "Mary dropped the milk.", "John moved to the garden.",
        "John picked up the milk.", "John went to the office.",
    )  # fmt: skip
    assert reader.answer("Where is the milk?") == ("office", (4, 5))
    assert reader.answer("Where was the milk before the office?") == ("garden", (4, 5, 3))


def test_motives():
    reader = told("Sumit is thirsty.", "Yann is bored.", "Sumit went to the kitchen.")
    assert reader.answer("Where will yann go?") == ("garden", (1,))
    assert reader.answer("Why did sumit go to the kitchen?") == ("thirsty", (0,))


@pytest.mark.parametrize(
    "question",
    ["Where is John?", "Where is the apple?", "Where was the apple before the garden?", "Why did yann get the milk?"],
)
def test_what_was_not_told_is_not_answered(question):
    with pytest.raises(ValueError, match=re.escape(f"the story does not tell what is needed for {question!r}")):
        told("Mary went to the garden.").answer(question)


@pytest.mark.parametrize("sentence", ["Mary flew to the garden.", "Where is Mary?", "", "Mary is happy."])
def test_a_sentence_of_another_grammar_is_refused(sentence):
    with pytest.raises(ValueError, match="no sentence or question of the tasks"):
        Reader().hear(sentence)


# ---------------------------------------------------------------- the published files


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("task", TASKS)
def test_the_reader_answers_every_published_question_with_its_supporting_facts(task, part):
    if catalog.status("babi") != "course-data":
        pytest.skip("$COURSE_DATA has no babi")
    data = load(task, real=True)
    questions = getattr(data, part)
    assert len(questions) == 1000 and data.source == "bAbI 1.2"
    for asked in questions:
        assert told(*asked.facts).answer(asked.question) == (asked.answer, asked.supporting), asked


def pattern(sentence):
    """A sentence without its names: what is left is the grammar."""
    sentence = re.sub(r"\b(" + "|".join(babi.PEOPLE + babi.AGENTS) + r")\b", "P", sentence, flags=re.IGNORECASE)
    sentence = re.sub(r"\b(" + "|".join(babi.PLACES) + r")\b", "L", sentence)
    sentence = re.sub(r"\b(" + "|".join((*babi.THINGS, "pajamas")) + r")\b", "T", sentence)
    return re.sub(r"\b(" + "|".join(babi.MOTIVES) + r")\b", "M", sentence)


@pytest.mark.parametrize("task", TASKS)
def test_generated_and_published_stories_have_the_same_sentences(task):
    if catalog.status("babi") != "course-data":
        pytest.skip("$COURSE_DATA has no babi")
    real = [q for part in load(task, real=True)[:2] for q in part]
    made = generate(task, 2000)
    for field in ("facts", "question"):
        sentences = [
            {pattern(s) for q in questions for s in (q.facts if field == "facts" else [q.question])}
            for questions in (real, made)
        ]
        assert sentences[0] == sentences[1]
    assert {q.answer for q in real} == {q.answer for q in made}
    words = [{w for q in questions for f in q.facts for w in f.split()} for questions in (real, made)]
    assert words[0] == words[1]


# ---------------------------------------------------------------- the generator


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(TASKS), st.integers(0, 2**31 - 1))
def test_a_generated_question_has_the_readers_answer_and_is_about_what_happened_lately(task, seed):
    for asked in generate(task, 12, seed):
        assert told(*asked.facts).answer(asked.question) == (asked.answer, asked.supporting)
        assert len(asked.supporting) == {1: 1, 2: 2, 3: 3, 20: 1}[task]
        if task != 20:
            assert len(asked.facts) - asked.supporting[0] <= babi.RECENT and len(asked.facts) % 2 == 0


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([2, 3]), st.integers(0, 2**31 - 1))
def test_nobody_gets_what_is_not_free_and_there(task, seed):
    story = generate(task, 5, seed)[-1].facts
    where, place, holder = {}, {}, {}
    for fact in story:
        kind, (who, what) = babi._parse(babi._FACTS, fact)
        if kind == "go":
            assert where.get(who) != what
            where[who] = what
        elif kind == "get":
            assert what not in holder
            if what in place and who in where:
                assert place[what] in (where[who], None)
            holder[what] = who
        else:
            assert holder.pop(what) == who
            place[what] = where.get(who)


def test_the_agents_want_one_thing_each_and_share_none():
    story = generate(20, 200)
    last = [a for a, b in zip(story, story[1:], strict=False) if b.facts[: len(a.facts)] != a.facts]
    assert len(last) > 10
    for asked in last:
        got = [fact.split(" the ")[1] for fact in asked.facts if " the " in fact and "there" in fact]
        assert len(set(got)) == len(got) and sum(" is " in fact for fact in asked.facts) == 4


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_makes_the_same_stories_and_another_seed_others(task):
    assert generate(task, 30, 5) == generate(task, 30, 5) != generate(task, 30, 6)
    assert generate(task, 30, 5)[:10] == generate(task, 10, 5)


@pytest.mark.parametrize(("task", "length"), [(1, 6.0), (2, 15.4), (3, 50.5), (20, 5.9)])
def test_generated_stories_are_about_as_long_as_the_published_ones(task, length):
    questions = generate(task, 1000)
    assert sum(len(q.facts) for q in questions) / 1000 == pytest.approx(length, rel=0.25)
    answers = Counter(q.answer for q in questions)
    assert max(answers.values()) < 0.3 * len(questions)


# ---------------------------------------------------------------- the format, the loader


def test_ids_start_again_with_each_story_and_count_questions():
    found = parse("1 A b.\n2 Q? \tx\t1\n3 C d.\n4 R?\ty\t3 1\n1 E f.\n2 S?\tz\t1\n")
    assert found == [
        (("A b.",), "Q?", "x", (0,)),
        (("A b.", "C d."), "R?", "y", (1, 0)),
        (("E f.",), "S?", "z", (0,)),
    ]


@pytest.mark.parametrize(
    "text", ["Mary went.", "1 A b.\n2 Q?\tx", "1 A b.\n2 Q?\tx\t7", "2 A b.", "1 A b.\n2 Q?\tx\t2"]
)
def test_a_line_of_another_format_is_named(text):
    last = text.splitlines()[-1]
    with pytest.raises(ValueError, match=re.escape(f"line {len(text.splitlines())} is not of bAbI's format: {last!r}")):
        parse(text)


def test_the_default_needs_no_file(monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    data = load(1, questions=20)
    assert data.source == "generated" and len(data.train) == len(data.test) == 20
    assert data.train != data.test and not os.listdir(tmp_path)


def test_without_the_files_it_says_so(monkeypatch, capsys):
    def nowhere(*_):
        raise DatasetUnavailable("not here")

    monkeypatch.setattr(babi, "_file", nowhere)
    with pytest.raises(DatasetUnavailable):
        load(2, real=True)
    assert load(2, real=True, questions=10, fallback=True).source == "generated"
    assert "bAbI's task 2 could not be had here" in capsys.readouterr().out


def test_the_catalog_has_the_files_of_every_task():
    names = {file.name for file in catalog.entry("babi").files}
    assert names == {name for task in TASKS for name in babi.files(task).values()}
    assert all(Path(name).suffix == ".txt" for name in names)


@pytest.mark.parametrize("call", [generate, load, babi.files])
def test_an_unknown_task_is_refused(call):
    with pytest.raises(ValueError, match=r"expected one of bAbI's tasks \[1, 2, 3, 20\], but got 4"):
        call(4)
