"""The learner's workspace: modules of `shared` with stubs in place of the exercises, which the learner fills in.

    workspace/shared/autograd.py    the reference's module, the exercises' bodies blanked, then written by the learner
    workspace/workspace.json        what was started, and what the reference looked like then
    workspace/backup/…              every text that a command replaced

Nothing is overwritten without a copy in backup/.
"""

from __future__ import annotations

import contextlib
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
                list(entry["targets"])
            for functions in record["modules"].values():
                functions.items()
            return record
        except (FileNotFoundError, NotADirectoryError):
            if modules := self.modules():
                self.warnings.append(
                    f"{self.show(self.record_path)} is missing, so it is unknown which exercises you began. Your "
                    f"{len(modules)} modules are untouched; `course start NN` notes down again what you had begun."
                )
            return empty
        except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError) as error:
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
        files = (path for path in (self.folder / "shared").rglob("*.py") if path.is_file())
        names = (path.relative_to(self.folder).with_suffix("").parts for path in files if path.stem != "__init__")
        # A notebook's checkpoints and an editor's copies are not modules.
        return sorted(".".join(parts) for parts in names if all(part.isidentifier() for part in parts))

    def started(self, exercise: Exercise) -> bool:
        """True where the learner has begun this exercise."""
        return exercise.key in self.record["exercises"]

    def _begun(self, exercise: Exercise, target: str) -> bool:
        """True where this function of the exercise was blanked; the course may have added functions since."""
        return target in self.record["exercises"].get(exercise.key, {"targets": ()})["targets"]

    def expected(self) -> list[str]:
        """The modules that hold begun exercises: of these the workspace should have a file."""
        modules = {}
        for entry in self.record["exercises"].values():
            for target in entry["targets"]:
                with contextlib.suppress(CourseError):  # the course has dropped that module
                    modules[sources.split(target, self.root)[0]] = True
        return sorted(modules)

    def parts(self, exercise: Exercise) -> list[Part]:
        """The exercise's functions, each with its state in the learner's file."""
        parts = []
        for target in exercise.targets:
            module, name = sources.split(target, self.root)
            path = self.file(module)
            if not self._begun(exercise, target):
                parts.append(Part(target, module, name, NOT_STARTED))
                continue
            try:
                found = sources.functions(sources.read(path)).get(name)
            except FileNotFoundError:
                found = None
            except (SyntaxError, OSError):
                parts.append(Part(target, module, name, BROKEN))
                continue
            if found is None:
                parts.append(Part(target, module, name, MISSING))
            else:
                state = STUB if found.stub else WRITTEN
                parts.append(Part(target, module, name, state, found.first, found.code, found.text))
        return parts

    def places(self, exercise: Exercise) -> list[str]:
        """`workspace/shared/autograd.py:214, 230`, for each file of the exercise: the functions that are there."""
        found: dict[str, list[str]] = {}
        for part in self.parts(exercise):
            lines = found.setdefault(self.show(self.file(part.module)), [])
            lines += [str(part.line)] if part.line else []
        return [f"{path}:{', '.join(lines)}" if lines else path for path, lines in found.items()]

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
        wanted = [(s, e) for s in sprints for e in s.exercises if not all(self._begun(e, t) for t in e.targets)]
        texts: dict[str, str] = {}
        blanked: list[tuple[str, str]] = []
        for sprint, exercise in wanted:
            for target in exercise.targets:
                module, name = sources.split(target, self.root)
                try:
                    if module not in texts:
                        texts[module] = self._text(module)
                    if not self._begun(exercise, target) and not self._own_work(module, name, texts[module]):
                        texts[module] = self.with_stub(texts[module], module, name, exercise, sprint)
                        blanked.append((module, name))
                except (CourseError, SyntaxError, OSError) as error:
                    raise self._unreadable(module, error) from None
        fresh = {module for module in texts if not self.file(module).exists()}
        for module, text in texts.items():
            self._write(module, text)
        self._note([exercise for _, exercise in wanted], blanked, fresh)
        return [exercise for _, exercise in wanted]

    def reset(self, sprint: Sprint, exercise: Exercise | None = None) -> list[Path]:
        """Puts the stubs back, of one exercise or of the whole sprint; returns the copies of what was replaced.

        With the whole sprint, a file that Python cannot read, or in which other code misses something, is replaced by
        the reference with all begun exercises of the file as stubs.
        """
        exercises = [exercise] if exercise else [e for e in sprint.exercises if self.started(e)]
        if not exercises or not all(map(self.started, exercises)):
            what = f"exercise {exercise.number} of sprint" if exercise else "sprint"
            raise CourseError(f"You have not started {what} {sprint.label} yet: course start {sprint.label}.")
        texts: dict[str, str] = {}
        blanked: list[tuple[str, str]] = []
        fresh: set[str] = set()
        for one in exercises:
            for target in one.targets:
                module, name = sources.split(target, self.root)
                blanked.append((module, name))
                if not self.file(module).exists():
                    fresh.add(module)
                try:
                    text = texts[module] if module in texts else self._text(module)
                    texts[module] = self.with_stub(text, module, name, one, sprint)
                except (CourseError, SyntaxError, OSError) as error:
                    if exercise:
                        raise self._unreadable(module, error) from None
                    texts[module] = self.with_stub(self._anew(module), module, name, one, sprint)
                    fresh.add(module)
        if not exercise:
            for module in {*texts} - fresh:
                if sources.definitions(self.reference(module)) - sources.definitions(texts[module], assigned=True):
                    texts[module] = self._anew(module)
                    fresh.add(module)
        copies = [copy for module, text in texts.items() if (copy := self._write(module, text))]
        self._note(exercises, blanked, fresh)
        return copies

    def write_renewed(self, texts: dict[str, str]) -> list[Path]:
        """Writes modules that were made from today's reference; returns the copies of what was replaced."""
        copies = [copy for module, text in texts.items() if (copy := self._write(module, text))]
        self._note([], [], texts)
        return copies

    def _unreadable(self, module: str, error: Exception) -> CourseError:
        path = self.show(self.file(module))
        if isinstance(error, SyntaxError):
            reason = f"cannot be read as Python (line {error.lineno}: {error.msg})"
        elif isinstance(error, OSError):
            reason = f"cannot be read ({error.strerror})"
        else:
            reason = f"has no place for the stub ({error})"
        return CourseError(
            f"{path} {reason}, so nothing was changed. Mend it first; or put all stubs of this file back, your text "
            f"being kept as a copy: course reset NN, with the sprint's number."
        )

    def _text(self, module: str) -> str:
        path = self.file(module)
        return sources.read(path) if path.exists() else self._anew(module)

    def _own_work(self, module: str, name: str, text: str) -> bool:
        """True where the learner's file has something other than what it was copied with: work without a record."""
        if not self.file(module).exists():
            return False
        found = sources.functions(text).get(name)
        if found is None or found.stub:
            return False
        reference = sources.functions(self.reference(module))[name]
        if copied := self.record["modules"].get(module, {}).get(name):
            return found.code not in (copied, reference.code)
        return found.text != reference.text

    def with_stub(self, text: str, module: str, name: str, exercise: Exercise, sprint: Sprint) -> str:
        """`text` with the reference's signature and docstring of one function, and a stub as its body."""
        reference = self.reference(module)
        blanked = sources.blanked(reference, {name: sources.message(exercise, sprint.folder.name)})
        names = list(sources.functions(reference))
        result = sources.put(text, name, sources.functions(blanked)[name].text, names[: names.index(name)])
        if not sources.functions(result)[name].stub:
            raise CourseError(f"{name} is defined in another place too")
        return result

    def _anew(self, module: str) -> str:
        """The reference's module with every begun exercise in it as a stub."""
        text = self.reference(module)
        for sprint in load_sprints(self.root) if self.record["exercises"] else ():
            for exercise in sprint.exercises:
                for target in exercise.targets:
                    owner, name = sources.split(target, self.root)
                    if owner == module and self._begun(exercise, target):
                        text = self.with_stub(text, module, name, exercise, sprint)
        return text

    def _write(self, module: str, text: str) -> Path | None:
        """Writes a module; what was there before goes to backup/, and its new place is returned."""
        path = self.file(module)
        try:
            if not path.exists():
                write_atomically(path, text)
                return None
            before = path.read_bytes() if path.is_file() else b""
            after = sources.encoded(text, before)
            if path.is_file() and before == after:
                return None
            stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S_%f")
            copy = self.folder / "backup" / stamp / sources.module_path(module)
            if path.is_file():
                write_atomically(copy, before)
            else:  # a folder of that name
                copy.parent.mkdir(parents=True)
                path.rename(copy)
            write_atomically(path, after)
            return copy
        except OSError as error:
            raise CourseError(f"{self.show(path)} could not be written: {error.strerror or error}.") from None

    def _note(self, exercises: list[Exercise], blanked: Iterable[tuple[str, str]], fresh: Iterable[str]) -> None:
        """Records what was begun, and the reference's functions as they were copied: of `fresh` modules, all."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        for exercise in exercises:
            self.record["exercises"][exercise.key] = {"started": now, "targets": list(exercise.targets)}
        for module in fresh:
            self.record["modules"][module] = _codes(self.reference(module))
        for exercise in exercises:
            for target in exercise.targets:  # work without a record: as it was copied is as it is now
                module, _ = sources.split(target, self.root)
                self.record["modules"].setdefault(module, _codes(self.reference(module)))
        for module, name in blanked:
            codes = _codes(self.reference(module))
            self.record["modules"][module][name] = codes[name]
        text = json.dumps(self.record, indent=1, ensure_ascii=False) + "\n"
        if not self.record_path.exists() or self.record_path.read_text(encoding="utf-8") != text:
            write_atomically(self.record_path, text)


def _codes(source: str) -> dict[str, str]:
    """{function: digits that change with what it does}"""
    return {name: found.code for name, found in sources.functions(source).items()}
