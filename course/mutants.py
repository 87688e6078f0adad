"""The classic bugs: small wrong versions of the exercises, each of which the milestone tests must catch and explain.

sprints/NN_*/tests/mutants.toml lists them. `course mutants` puts each into a workspace of its own and runs the tests of
the exercise it belongs to; it is killed when one of them fails with the message that diagnoses it. What killed it is
kept in tests/mutants.json, from which the scoreboard in the sprint's README is generated.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import sources, warm
from .certify import tests_of
from .files import write_atomically
from .grafting import Graft
from .outcomes import FAILED
from .sprints import ROOT, CourseError, Exercise, Sprint

LIMIT = 10.0
LEAST = 10


@dataclass(frozen=True)
class Mutant:
    """One wrong version: the change, what one would have misunderstood, and what the failing test must say."""

    sprint: Sprint
    exercise: Exercise
    name: str
    target: str
    find: str
    replace: str
    misconception: str
    message: str

    def source(self, root: Path = ROOT) -> tuple[str, str]:
        """(module, its source with the change). CourseError unless the change applies exactly once, in the target."""
        module, name = sources.split(self.target, root)
        text = (root / sources.module_path(module)).read_text(encoding="utf-8")
        found = sources.functions(text).get(name)
        where = f"mutant {self.name} of sprint {self.sprint.label}"
        if found is None:
            raise CourseError(f"{where}: there is no {self.target}.")
        if (count := found.text.count(self.find)) != 1:
            raise CourseError(f"{where}: `find` occurs {count} times in {self.target}, not once: {self.find!r}")
        changed = sources.put(text, name, found.text.replace(self.find, self.replace))
        try:
            compile(changed, module, "exec")
        except SyntaxError as error:
            raise CourseError(f"{where}: with the change {module} does not parse: {error}") from None
        if sources.functions(changed)[name].code == found.code:
            raise CourseError(f"{where}: the change changes nothing that runs.")
        return module, changed


@dataclass(frozen=True)
class Fate:
    """What the tests did to a mutant, up to the one that diagnoses it: those that failed, the killers, all messages."""

    mutant: Mutant
    failed: tuple[str, ...]
    killers: tuple[str, ...]
    messages: tuple[str, ...]
    seconds: float
    grafted: bool = False

    @property
    def killed(self) -> bool:
        """True where a failing test says what is wrong."""
        return bool(self.killers)

    @property
    def said(self) -> str:
        """The line of a failing test's message that diagnoses it."""
        wanted = self.mutant.message.partition("\n")[0]
        lines = (line for m in self.messages if self.mutant.message in m for line in m.splitlines())
        return next((line.strip() for line in lines if wanted in line), self.mutant.message)


def load(sprint: Sprint) -> list[Mutant]:
    """The sprint's mutants; a CourseError names the entry and the key that is wrong."""
    path = sprint.folder / "tests" / "mutants.toml"
    where = f"sprints/{sprint.folder.name}/tests/mutants.toml"
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("mutants", [])
    except FileNotFoundError:
        return []
    except tomllib.TOMLDecodeError as error:
        raise CourseError(f"{where} cannot be read: {error}") from None
    keys = ("name", "target", "find", "replace", "misconception", "message")
    found: list[Mutant] = []
    for position, entry in enumerate(entries, 1):
        if sorted(entry) != sorted(keys) or not all(isinstance(entry[key], str) for key in keys):
            raise CourseError(f"{where}, mutant {position}: it needs the strings {', '.join(keys)}, and nothing else.")
        owners = [exercise for exercise in sprint.exercises if entry["target"] in exercise.targets]
        if not owners:
            raise CourseError(f"{where}, mutant {entry['name']}: {entry['target']} is no target of an exercise.")
        found.append(Mutant(sprint, owners[0], **entry))
    names = [mutant.name for mutant in found]
    if len(set(names)) != len(names):
        raise CourseError(f"{where}: two mutants have the same name.")
    return found


def run(
    mutants: list[Mutant],
    processes: int | None = None,
    on_done: Callable[[], Any] | None = None,
    grafted: bool = True,
    anew: bool = False,
) -> list[Fate]:
    """The fate of each mutant, in their order; where not `grafted`, each imports the framework with its change anew.

    The tests that killed a mutant when the scoreboard was written come first, unless everything is to be found `anew`.
    """
    killers: dict[str, dict[str, set[str]]] = {}
    with tempfile.TemporaryDirectory(prefix="course-mutants-") as folder:
        jobs, by_key = [], {}
        for mutant in mutants:
            label = mutant.sprint.label
            key = f"{label}-{mutant.name}"
            module, text = mutant.source()
            path = Path(folder) / key / sources.module_path(module)
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")
            if label not in killers:
                killers[label] = {} if anew else _killers(mutant.sprint)
            first = killers[label].get(mutant.name, ())
            tests = tests_of(mutant.sprint, mutant.exercise)
            tests = tuple(sorted(tests, key=lambda test: test.rpartition("::")[2] not in first))
            # Only messages are read: a traceback with the lines around each frame takes long to write.
            options = ("--no-preflight", f"--time-limit={LIMIT:g}", "--tb=native")
            # Formulas do for tests of a few numbers; loading compiled kernels takes longer than they save.
            variables = {"SHARED_WORKSPACE": str(Path(folder) / key), "SHARED_KERNELS": "reference"}
            graft = Graft(module, sources.split(mutant.target)[1], str(path)) if grafted else None
            seconds = (LIMIT + 5) * len(tests) + 30
            jobs.append(warm.Job(key, tests, variables, options, seconds, mutant.message, graft))
            by_key[key] = mutant
        fates = {}
        for result in warm.run(jobs, processes or warm.processes()):
            fates[result.key] = _fate(by_key[result.key], result)
            if on_done:
                on_done()
    return [fates[job.key] for job in jobs]


def _killers(sprint: Sprint) -> dict[str, set[str]]:
    """{mutant: the functions whose tests killed it, as last written}; empty where the scoreboard is out of date."""
    try:
        return {name: {test.partition("[")[0] for test in row["killed_by"]} for name, row in board(sprint).items()}
    except CourseError:
        return {}


def _fate(mutant: Mutant, result: warm.Result) -> Fate:
    failed = {node: test["message"] for node, test in result.tests.items() if test["outcome"] == FAILED}
    if not result.tests:
        raise CourseError(f"mutant {mutant.name}: pytest ran no test:\n{result.output[-1500:]}")
    killers = [node for node, message in failed.items() if mutant.message in message]
    return Fate(mutant, tuple(failed), tuple(killers), tuple(failed.values()), result.seconds, result.grafted)


# ---------------------------------------------------------------- the scoreboard


def digest(sprint: Sprint) -> str:
    """Changes with the sprint's list of mutants."""
    path = sprint.folder / "tests" / "mutants.toml"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write_board(sprint: Sprint, fates: list[Fate]) -> None:
    """Keep what killed each mutant of a sprint in tests/mutants.json."""
    rows = {
        fate.mutant.name: {
            "killed_by": [node.rpartition("::")[2] for node in fate.killers],
            "said": fate.said.removeprefix("AssertionError: ").removeprefix("Failed: "),
        }
        for fate in fates
    }
    board = {"mutants_toml_sha256": digest(sprint), "mutants": rows}
    path = sprint.folder / "tests" / "mutants.json"
    write_atomically(path, json.dumps(board, indent=1, ensure_ascii=False) + "\n")


def board(sprint: Sprint) -> dict[str, Any]:
    """What killed each mutant, as last written; CourseError where the list has changed since."""
    where = f"sprints/{sprint.folder.name}/tests/mutants.json"
    try:
        found = json.loads((sprint.folder / "tests" / "mutants.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"{where} is missing: `course mutants {sprint.label} --write` makes it.") from None
    if found["mutants_toml_sha256"] != digest(sprint):
        raise CourseError(f"{where} is older than mutants.toml: `course mutants {sprint.label} --write` renews it.")
    return found["mutants"]
