"""The learner's workspace: modules of `shared` with stubs in place of the exercises, which the learner fills in.

    workspace/shared/autograd.py    the reference's module, the exercises' bodies blanked, then written by the learner
    workspace/workspace.json        what was started, and what the reference looked like then
    workspace/backup/…              every text that a command replaced

Nothing is overwritten without a copy in backup/.
"""

from __future__ import annotations

import datetime
import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import sources
from .files import set_aside, write_atomically
from .sprints import ROOT, CourseError, Exercise, Sprint, load_sprints

NOT_STARTED, STUB, WRITTEN, MISSING, BROKEN = "not started", "stub", "written", "missing", "broken"
VERSION = 1


@dataclass(frozen=True)
class Part:
    """One function of an exercise: where the learner's version is, and what state it is in."""

    target: str
    module: str
    name: str
    state: str
    line: int = 0
    code: str = ""
    text: str = ""


class Workspace:
    """A learner's folder, beside the reference it was made from."""

    def __init__(self, folder: Path | None = None, root: Path = ROOT):
        self.root = root
        self.folder = (folder or root / "workspace").absolute()
        self.warnings: list[str] = []
        self.record = self._load()

    # ------------------------------------------------------------ looking

    @property
    def record_path(self) -> Path:
        """Where the record of what was started lies."""
        return self.folder / "workspace.json"

    def _load(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"version": VERSION, "exercises": {}, "modules": {}}
        try:
            record = json.loads(self.record_path.read_text(encoding="utf-8"))
            if record["version"] > VERSION:
                raise CourseError(
                    f"{self.show(self.record_path)} was written by a newer version of the course: update it."
                )
            for entry in record["exercises"].values():
                entry["started"]
            for functions in record["modules"].values():
                functions.items()
            return record
        except FileNotFoundError:
            return empty
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            aside = set_aside(self.record_path)
            self.warnings.append(
                f"{self.show(self.record_path)} could not be read ({type(error).__name__}: {error}) and was set aside "
                f"as {aside.name}. Your code is untouched; `course start` notes down again what you had begun."
            )
            return empty

    def show(self, path: Path) -> str:
        """A path as messages give it: from the repository's root where it lies inside."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def file(self, module: str) -> Path:
        """Where the learner's version of a module lies, if there is one."""
        return self.folder / sources.module_path(module)

    def reference(self, module: str) -> str:
        """The reference's source of a module."""
        return (self.root / sources.module_path(module)).read_text(encoding="utf-8")

    def modules(self) -> list[str]:
        """The modules of which the learner has a version of their own."""
        base = self.folder / "shared"
        return sorted(
            ".".join(path.relative_to(self.folder).with_suffix("").parts)
            for path in base.rglob("*.py")
            if path.name != "__init__.py"
        )

    def started(self, exercise: Exercise) -> bool:
        """True where the learner has begun this exercise."""
        return exercise.key in self.record["exercises"]

    def parts(self, exercise: Exercise) -> list[Part]:
        """The exercise's functions, each with its state in the learner's file."""
        parts = []
        for target in exercise.targets:
            module, name = sources.split(target, self.root)
            path = self.file(module)
            if not self.started(exercise):
                parts.append(Part(target, module, name, NOT_STARTED))
                continue
            try:
                found = sources.functions(path.read_text(encoding="utf-8")).get(name)
            except (SyntaxError, ValueError):
                parts.append(Part(target, module, name, BROKEN))
                continue
            except FileNotFoundError:
                found = None
            if found is None:
                parts.append(Part(target, module, name, MISSING))
            else:
                state = STUB if found.stub else WRITTEN
                parts.append(Part(target, module, name, state, found.first, found.code, found.text))
        return parts

    def state(self, exercise: Exercise) -> str:
        """The worst state of the exercise's functions."""
        states = [part.state for part in self.parts(exercise)]
        return next(state for state in (BROKEN, MISSING, NOT_STARTED, STUB, WRITTEN) if state in states)

    def code(self, exercise: Exercise) -> str:
        """A short text that changes when what the learner wrote for this exercise changes."""
        return "-".join(part.code for part in self.parts(exercise))

    def changed_in_reference(self) -> list[str]:
        """Dotted names of the functions that the reference has changed, added or dropped since they were copied."""
        changed = []
        for module, then in self.record["modules"].items():
            if not self.file(module).exists():
                continue
            now = _codes(self.reference(module)) if (self.root / sources.module_path(module)).exists() else {}
            names = dict.fromkeys([*then, *now])
            changed += [f"{module}.{name}" for name in names if then.get(name) != now.get(name)]
        return changed

    def diff(self, exercise: Exercise) -> list[str]:
        """Lines of a unified diff from the learner's functions to the reference's."""
        lines: list[str] = []
        for part in self.parts(exercise):
            right = sources.functions(self.reference(part.module))[part.name].text
            where = self.show(self.file(part.module))
            lines += difflib.unified_diff(
                part.text.splitlines(),
                right.splitlines(),
                f"{where}: {part.name}, {'yours' if part.text else part.state}",
                f"{sources.module_path(part.module).as_posix()}: {part.name}, the reference",
                lineterm="",
                n=100,
            )
        return lines

    # ------------------------------------------------------------ changing

    def start(self, sprints: Iterable[Sprint]) -> list[Exercise]:
        """Blanks the exercises of `sprints` that were not begun yet, and returns them; all else stays as it is."""
        wanted = [(s, e) for s in sprints for e in s.exercises if not self.started(e)]
        texts: dict[str, str] = {}
        blanked: list[tuple[str, str]] = []
        for sprint, exercise in wanted:
            for target in exercise.targets:
                module, name = sources.split(target, self.root)
                if module not in texts:
                    texts[module] = self._text(module)
                try:
                    if not self._own_work(module, name, texts[module]):
                        texts[module] = self._with_stub(texts[module], module, name, exercise, sprint)
                        blanked.append((module, name))
                except (CourseError, SyntaxError) as error:
                    raise self._unreadable(module, error) from None
        for module, text in texts.items():
            self._write(module, text)
        self._note([exercise for _, exercise in wanted], blanked)
        return [exercise for _, exercise in wanted]

    def reset(self, sprint: Sprint, exercise: Exercise | None = None) -> list[Path]:
        """Puts the stubs back, of one exercise or of the whole sprint; returns the copies of what was replaced.

        A file that Python cannot read is replaced by the reference with all begun exercises of the file as stubs.
        """
        exercises = [exercise] if exercise else [e for e in sprint.exercises if self.started(e)]
        if not exercises or not all(map(self.started, exercises)):
            what = f"exercise {exercise.number} of sprint" if exercise else "sprint"
            raise CourseError(f"You have not started {what} {sprint.label} yet: course start {sprint.label}.")
        texts: dict[str, str] = {}
        blanked: list[tuple[str, str]] = []
        for one in exercises:
            for target in one.targets:
                module, name = sources.split(target, self.root)
                blanked.append((module, name))
                try:
                    text = texts.get(module) or self._text(module)
                    texts[module] = self._with_stub(text, module, name, one, sprint)
                except (CourseError, SyntaxError) as error:
                    if exercise:
                        raise self._unreadable(module, error) from None
                    texts[module] = self._anew(module)
        copies = [copy for module, text in texts.items() if (copy := self._write(module, text))]
        self._note(exercises, blanked)
        return copies

    def _unreadable(self, module: str, error: Exception) -> CourseError:
        path = self.show(self.file(module))
        line = f" (line {error.lineno}: {error.msg})" if isinstance(error, SyntaxError) else f" ({error})"
        return CourseError(
            f"{path} cannot be read as Python{line}, so nothing was changed. Mend it first; or put all stubs of this "
            f"file back, your text being kept as a copy: course reset NN, with the sprint's number."
        )

    def _text(self, module: str) -> str:
        path = self.file(module)
        return path.read_text(encoding="utf-8") if path.exists() else self.reference(module)

    def _own_work(self, module: str, name: str, text: str) -> bool:
        """True where the learner's file has something other than what it was copied with: work without a record."""
        if not self.file(module).exists():
            return False
        found = sources.functions(text).get(name)
        copied = self.record["modules"].get(module, {}).get(name)
        reference = sources.functions(self.reference(module))[name].code
        return found is not None and found.code not in (copied, reference)

    def _with_stub(self, text: str, module: str, name: str, exercise: Exercise, sprint: Sprint) -> str:
        """`text` with the reference's signature and docstring of one function, and a stub as its body."""
        stub = sources.message(exercise, sprint.folder.name)
        blanked = sources.blanked(self.reference(module), {name: stub})
        return sources.put(text, name, sources.functions(blanked)[name].text)

    def _anew(self, module: str) -> str:
        """The reference's module with every begun exercise in it as a stub."""
        text = self.reference(module)
        for sprint in load_sprints(self.root):
            for exercise in filter(self.started, sprint.exercises):
                for target in exercise.targets:
                    owner, name = sources.split(target, self.root)
                    if owner == module:
                        text = self._with_stub(text, module, name, exercise, sprint)
        return text

    def _write(self, module: str, text: str) -> Path | None:
        """Writes a module; what was there before goes to backup/, and its new place is returned."""
        path = self.file(module)
        copy = None
        if path.exists():
            before = path.read_text(encoding="utf-8")
            if before == text:
                return None
            stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S_%f")
            copy = self.folder / "backup" / stamp / sources.module_path(module)
            write_atomically(copy, before)
        write_atomically(path, text)
        return copy

    def _note(self, exercises: Iterable[Exercise], blanked: Iterable[tuple[str, str]]) -> None:
        """Records what was begun, and the reference's functions as they were copied."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        for exercise in exercises:
            self.record["exercises"][exercise.key] = {"started": now, "targets": list(exercise.targets)}
        for module, name in blanked:
            codes = _codes(self.reference(module))
            self.record["modules"].setdefault(module, codes)[name] = codes[name]
        write_atomically(self.record_path, json.dumps(self.record, indent=1, ensure_ascii=False) + "\n")


def _codes(source: str) -> dict[str, str]:
    """{function: digits that change with what it does}"""
    return {name: found.code for name, found in sources.functions(source).items()}
