"""bAbI: short stories with questions. A reader that follows a story, a generator of new ones, the published files.

Tasks 1, 2 and 3: people move between rooms and carry things; where is someone, where is a thing, where was it before?
Task 20: people who are tired, bored, thirsty or hungry; where will they go, why did they go, or get something?

Source: Weston et al., "Towards AI-complete question answering: a set of prerequisite toy tasks", 2015.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data import DatasetUnavailable, catalog

TASKS = {1: "single-supporting-fact", 2: "two-supporting-facts", 3: "three-supporting-facts", 20: "agents-motivations"}

PEOPLE = ("Daniel", "John", "Mary", "Sandra")
AGENTS = ("Antoine", "Jason", "Sumit", "Yann")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
MOTIVES = {  # who is so goes there, and gets that
    "bored": ("garden", "football"),
    "hungry": ("kitchen", "apple"),
    "thirsty": ("kitchen", "milk"),
    "tired": ("bedroom", "pajamas"),
}
VERBS = {
    "go": ("went", "moved", "journeyed", "travelled", "went back"),
    "get": ("got", "took", "grabbed", "picked up"),
    "drop": ("dropped", "left", "discarded", "put down"),
}
RECENT = 5  # what is asked about took part in one of the last so many sentences

_FACTS = {
    "go": re.compile(rf"(\w+) (?:{'|'.join(VERBS['go'])}) to the (\w+)\."),
    "get": re.compile(rf"(\w+) (?:{'|'.join(VERBS['get'])}) the (\w+)(?: there)?\."),
    "drop": re.compile(rf"(\w+) (?:{'|'.join(VERBS['drop'])}) the (\w+)(?: there)?\."),
    "feel": re.compile(rf"(\w+) is ({'|'.join(MOTIVES)})\."),
}
_QUESTIONS = {
    "where": re.compile(r"Where is (\w+)\?"),
    "thing": re.compile(r"Where is the (\w+)\?"),
    "before": re.compile(r"Where was the (\w+) before the (\w+)\?"),
    "will": re.compile(r"Where will (\w+) go\?"),
    "why go": re.compile(r"Why did (\w+) go to the \w+\?"),
    "why get": re.compile(r"Why did (\w+) get the \w+\?"),
}


class Question(NamedTuple):
    """A question, the sentences that were told before it, its answer (one word), and what one has to know for it.

    `supporting` are places in `facts`, counted from 0, in the order of the reasoning: what happened to the thing last,
    then the moves.
    """

    facts: tuple[str, ...]
    question: str
    answer: str
    supporting: tuple[int, ...]


class Babi(NamedTuple):
    """The two parts of a task, and where they are from: "generated" or "bAbI 1.2"."""

    train: list[Question]
    test: list[Question]
    source: str


# ---------------------------------------------------------------- a reader


def _parse(patterns: dict[str, re.Pattern], sentence: str) -> tuple[str, tuple[str, ...]]:
    for kind, pattern in patterns.items():
        match = pattern.fullmatch(sentence.strip())
        if match:
            return kind, match.groups()
    raise ValueError(f"no sentence or question of the tasks {list(TASKS)} reads {sentence!r}")


class Reader:
    """Follows a story sentence by sentence, and answers questions about it by remembering what matters.

    For each person the last move; for each thing its holder, the last time it was got, or touched at all, and its way:
    the places where it was known to be, each with the move that tells so.

    >>> reader = Reader()
    >>> for fact in ("Mary moved to the bathroom.", "Mary got the milk there.", "Mary went to the office."):
    ...     reader.hear(fact)
    >>> reader.answer("Where is the milk?"), reader.answer("Where was the milk before the office?")
    (('office', (1, 2)), ('bathroom', (1, 2, 0)))
    """

    def __init__(self) -> None:
        self.heard = 0
        self.moved: dict[str, tuple[str, int]] = {}  # person: (place, number of the sentence)
        self.feels: dict[str, tuple[str, int]] = {}
        self.holder: dict[str, str] = {}
        self.touched: dict[str, int] = {}
        self.got: dict[str, int] = {}
        self.way: dict[str, list[tuple[str, int]]] = {}

    def hear(self, sentence: str) -> None:
        """Takes in one sentence; ValueError for one that the tasks do not have."""
        kind, (who, what) = _parse(_FACTS, sentence)
        number, self.heard = self.heard, self.heard + 1
        if kind == "feel":
            self.feels[who.lower()] = (what, number)
        elif kind == "go":
            self.moved[who] = (what, number)
            for thing, holder in self.holder.items():
                if holder == who:
                    self.way.setdefault(thing, []).append((what, number))
        else:
            self.touched[what] = number
            if kind == "get":
                self._got(who, what)
            else:
                self.holder.pop(what, None)

    def _got(self, who: str, thing: str) -> None:
        self.holder[thing], self.got[thing] = who, self.touched[thing]
        if who in self.moved:
            way, here = self.way.setdefault(thing, []), self.moved[who]
            if way and way[-1][0] == here[0]:
                way.pop()  # known to be there, now by the move of whoever came for it
            way.append(here)

    def carried(self, thing: str) -> list[tuple[str, int]]:
        """The end of the thing's way: the moves that were made with it since it was last got."""
        return [(place, number) for place, number in self.way.get(thing, []) if number > self.got[thing]]

    def answer(self, question: str) -> tuple[str, tuple[int, ...]]:
        """(answer, numbers of the supporting sentences); ValueError for what the story did not tell."""
        kind, about = _parse(_QUESTIONS, question)
        try:
            if kind == "where":
                place, number = self.moved[about[0]]
                return place, (number,)
            if kind == "thing":
                place, number = self.way[about[0]][-1]
                return place, (self.touched[about[0]], number)
            if kind == "before":
                return self._before(*about)
            motive, number = self.feels[about[0]]
            return (MOTIVES[motive][0] if kind == "will" else motive), (number,)
        except (KeyError, IndexError):
            raise ValueError(f"the story does not tell what is needed for {question!r}") from None

    def _before(self, thing: str, place: str) -> tuple[str, tuple[int, ...]]:
        way = self.way[thing]
        last = max((i for i, (where, _) in enumerate(way) if where == place and i), default=len(way))
        return way[last - 1][0], (self.touched[thing], way[last][1], way[last - 1][1])


# ---------------------------------------------------------------- a generator


class _Chance:
    """Random choices from a stream that does not change between versions of NumPy."""

    def __init__(self, *seed: int):
        self.random = np.random.RandomState(list(seed))

    def among(self, options: Any) -> Any:
        return options[self.random.randint(len(options))]

    def happens(self, probability: float) -> bool:
        return self.random.random_sample() < probability


class _Story:
    """One story in the making: its sentences, and a reader that has heard them."""

    def __init__(self, chance: _Chance):
        self.chance, self.reader = chance, Reader()
        self.facts: list[str] = []

    def tell(self, who: str, kind: str, what: str, there: bool = False) -> None:
        verb = self.chance.among(VERBS[kind])
        self.say(f"{who} {verb} to the {what}." if kind == "go" else f"{who} {verb} the {what}{' there' * there}.")

    def say(self, sentence: str) -> None:
        self.facts.append(sentence)
        self.reader.hear(sentence)

    def recent(self) -> list[str]:
        """The things that somebody got or dropped in the last sentences."""
        touched = self.reader.touched
        return [thing for thing in THINGS if touched.get(thing, -RECENT) >= len(self.facts) - RECENT]

    def ask(self, question: str) -> Question:
        return Question(tuple(self.facts), question, *self.reader.answer(question))


def _people(chance: _Chance) -> Iterator[Question]:
    """Task 1: two moves, a question, five times over."""
    story, told = _Story(chance), []
    for _ in range(5):
        for _ in range(2):
            who = chance.among(PEOPLE)
            here = story.reader.moved.get(who, (None,))[0]
            story.tell(who, "go", chance.among([place for place in PLACES if place != here]))
            told.append(who)
        yield story.ask(f"Where is {chance.among(told[-RECENT:])}?")


def _things(chance: _Chance, task: int) -> Iterator[Question]:
    """Tasks 2 and 3: two sentences, and a question if there is one to ask, until five are asked.

    People and things start at places that nobody tells. Each time one person does something that is possible there.
    """
    story, asked = _Story(chance), 0
    people = {who: chance.among(PLACES) for who in PEOPLE}
    things = {thing: chance.among(PLACES) for thing in THINGS}  # a place or a person
    there = {"get": 1.0 if task == 2 else 0.2, "drop": 0.2}
    while asked < 5:
        for _ in range(2):
            who = chance.among(PEOPLE)
            possible = {"go": [place for place in PLACES if place != people[who]]}
            possible["get"] = [thing for thing, place in things.items() if place == people[who]]
            possible["drop"] = [thing for thing, place in things.items() if place == who]
            kind = chance.among([kind for kind in ("go", "get", "get", "drop") if possible[kind]])
            what = chance.among(possible[kind])
            story.tell(who, kind, what, kind != "go" and chance.happens(there[kind]))
            if kind == "go":
                people[who] = what
            else:
                things[what] = who if kind == "get" else people[who]
        questions = _two_facts(story) if task == 2 else _three_facts(story)
        if questions:
            asked += 1
            yield story.ask(chance.among(questions))


def _two_facts(story: _Story) -> list[str]:
    """Where is a thing that somebody has moved with, or has put down at a known place?"""
    reader = story.reader
    known = [
        thing
        for thing in story.recent()
        if reader.carried(thing) or (reader.way.get(thing) and thing not in reader.holder)
    ]
    return [f"Where is the {thing}?" for thing in known]


def _three_facts(story: _Story) -> list[str]:
    """Where was a thing before a place? For each two moves, one after the other, that somebody made with it."""
    questions = []
    for thing in story.recent():
        places = [place for place, _ in story.reader.carried(thing)]
        last = [place for i, place in enumerate(places) if i and place not in places[i + 1 :]]
        questions += [f"Where was the {thing} before the {place}?" for place in last]
    return questions


def _agents(chance: _Chance) -> Iterator[Question]:
    """Task 20: four people, each of whom feels something, goes, and gets what is wanted unless another has it."""
    story, taken = _Story(chance), set()
    motives = {who: chance.among(tuple(MOTIVES)) for who in AGENTS}
    steps = dict.fromkeys(AGENTS, 0)
    while steps:
        who = chance.among(tuple(steps))
        name, (place, thing) = who.lower(), MOTIVES[motives[who]]
        if steps[who] == 0:
            story.say(f"{who} is {motives[who]}.")
            yield story.ask(f"Where will {name} go?")
        elif steps[who] == 1:
            story.tell(who, "go", place)
            yield story.ask(f"Why did {name} go to the {place}?")
        else:
            story.tell(who, "get", thing, there=True)
            taken.add(thing)
            yield story.ask(f"Why did {name} get the {thing}?")
        steps[who] += 1
        steps = {who: n for who, n in steps.items() if n < 2 or (n == 2 and MOTIVES[motives[who]][1] not in taken)}


def generate(task: int, questions: int = 1000, seed: int = 0) -> list[Question]:
    """`questions` questions of new stories of one task; the same for the same seed on every machine.

    The sentences are those of the published files. How often things happen is close to them, not equal: see
    datasets/babi/README.md.

    >>> story = generate(1, questions=5)
    >>> len(story), len(story[0].facts), len(story[4].facts)
    (5, 2, 10)
    """
    _check_task(task)
    chance = _Chance(task, seed)
    found: list[Question] = []
    while len(found) < questions:
        found.extend(_people(chance) if task == 1 else _agents(chance) if task == 20 else _things(chance, task))
    return found[:questions]


# ---------------------------------------------------------------- files


def parse(text: str) -> list[Question]:
    """The questions of a file in bAbI's format: lines "ID sentence" or "ID question<tab>answer<tab>IDs".

    IDs start again at 1 with each story; questions have one, too. ValueError names the line that is different.

    >>> parse("1 Mary moved to the bathroom.\\n2 Where is Mary? \\tbathroom\\t1\\n")[0].supporting
    (0,)
    """
    found: list[Question] = []
    for line_number, line in enumerate(text.splitlines(), start=1):
        number, _, rest = line.partition(" ")
        fields = rest.split("\t")
        if number == "1":
            facts: list[str] = []
            places: dict[str, int] = {}  # the place in facts of each ID
        try:
            if not number.isdigit() or len(fields) not in (1, 3):
                raise ValueError
            if len(fields) == 1:
                places[number] = len(facts)
                facts.append(rest.strip())
            else:
                supporting = tuple(places[i] for i in fields[2].split())
                found.append(Question(tuple(facts), fields[0].strip(), fields[1].strip(), supporting))
        except (ValueError, KeyError, UnboundLocalError):
            raise ValueError(f"line {line_number} is not of bAbI's format: {line!r}") from None
    return found


def files(task: int) -> dict[str, str]:
    """{"train": name, "test": name} of the task's files in the catalog's dataset `babi`."""
    _check_task(task)
    return {part: f"tasks_1-20_v1-2/en/qa{task}_{TASKS[task]}_{part}.txt" for part in ("train", "test")}


def load(
    task: int, real: bool = False, questions: int = 1000, seed: int = 0, fallback: bool = False, progress: bool = True
) -> Babi:
    """(train, test, source) of one task, `questions` questions in each part: generated ones unless `real` asks for
    the published files, which have 1,000 in each.

    Real files are looked for in $COURSE_DATA and the cache, then downloaded. Where they cannot be had:
    DatasetUnavailable; with `fallback` generated questions instead, and one printed sentence that says so.

    >>> data = load(20, questions=100)
    >>> len(data.train), len(data.test), data.source
    (100, 100, 'generated')
    """
    names = files(task)
    if real:
        try:
            known = {file.name: file for file in catalog.entry("babi").files}
            paths = [_file(known[names[part]], progress) for part in ("train", "test")]
            train, test = (parse(path.read_text(encoding="utf-8"))[:questions] for path in paths)
            return Babi(train, test, "bAbI 1.2")
        except DatasetUnavailable:
            if not fallback:
                raise
            print(f"The files of bAbI's task {task} could not be had here; using generated stories instead.")
    return Babi(generate(task, questions, 2 * seed), generate(task, questions, 2 * seed + 1), "generated")


def _file(file: Any, progress: bool) -> Path:
    return catalog.locate("babi", file) or catalog.fetch_file("babi", file, progress)


def _check_task(task: int) -> None:
    if task not in TASKS:
        raise ValueError(f"expected one of bAbI's tasks {list(TASKS)}, but got {task!r}")
