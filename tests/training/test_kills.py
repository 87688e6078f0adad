"""Training processes, killed with SIGKILL at any moment and resumed, give every loss of the unbroken run to the bit.

`make test` kills each training a few times, `make stress` 60 times and prints what was hit (COURSE_KILLS: how often).
The trainings are in `killable.py`.
"""

import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import pytest

import shared
from shared.training import find_checkpoint
from shared.training.checkpoints import MODEL, STATE, TRAINING, entries, verify
from tests.training.killable import TRAININGS

ROOT = Path(shared.__file__).resolve().parents[1]
STRESS_KILLS = int(os.environ.get("COURSE_KILLS", "60"))

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills processes as POSIX does")


@dataclass
class Life:
    """What one process did until it ended or was killed, by the lines it wrote."""

    losses: dict[int, str] = field(default_factory=dict)
    end: str = ""  # hash of the weights
    resumed: int | None = None
    saving: bool = False  # at its end
    saved: int = 0
    save_seconds: float = 0.0  # the longest save
    code: int = 0


@dataclass
class Aim:
    """When to kill: `delay` seconds after line number `count` that begins with `word` ("": the start of the process)."""

    word: str
    count: int
    delay: float


def live(name, folder, aim=None):
    """Starts a training process in `folder`, kills it where `aim` says, and returns its Life."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # the same bits need the same threads
    command = [sys.executable, "-m", "tests.training.killable", name, str(folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    timer = threading.Timer(aim.delay if aim else 0, process.kill)
    if aim and not aim.word:
        timer.start()
    life, began, seen = Life(), 0.0, 0
    with process:
        for line in process.stdout:
            word, *rest = line.split()
            if aim and word == aim.word:
                seen += 1
                if seen == aim.count:
                    timer.start()
            if word == "step":
                life.losses[int(rest[0])] = rest[1]
            elif word == "end":
                life.end = rest[0]
            elif word == "resumed":
                life.resumed = int(rest[0])
            elif word == "saving":
                life.saving, began = True, perf_counter()
            elif word == "saved":
                life.saving, life.saved = False, life.saved + 1
                life.save_seconds = max(life.save_seconds, perf_counter() - began)
        errors = process.stderr.read()
    timer.cancel()
    life.code = process.returncode
    assert life.code in (0, -signal.SIGKILL), errors
    return life


def halves(folder):
    """The names of checkpoints that were not finished."""
    return {name for name in os.listdir(folder) if name.endswith(".tmp")} if os.path.isdir(folder) else set()


@dataclass
class Log:
    """What a campaign of kills hit."""

    runs: int = 0
    kills: int = 0
    before_training: int = 0  # the process had not yet made a step
    in_a_save: int = 0
    half_checkpoints: int = 0  # left behind under a temporary name
    resumed: int = 0
    began_anew: int = 0  # there was no checkpoint yet
    whole: int = 0  # checkpoints that were there after a kill, every one of them intact
    losses: int = 0  # every one of them the unbroken run's

    def table(self, name, losses):
        rows = [
            ("runs until the end", self.runs),
            ("kills (SIGKILL)", self.kills),
            ("  in the middle of a save", self.in_a_save),
            ("    leaving half a checkpoint under a temporary name", self.half_checkpoints),
            ("  in training", self.kills - self.in_a_save - self.before_training),
            ("  before the first step of a process", self.before_training),
            ("processes that resumed from a checkpoint", self.resumed),
            ("processes that found none yet and began anew", self.began_anew),
            ("checkpoints found after a kill, all intact", self.whole),
            ("losses compared with the unbroken run's, all equal", self.losses),
        ]
        title = f"training {name!r}, {losses} updates a run"
        return "\n".join([title, *(f"  {text:<55}{number:>6}" for text, number in rows)])


def campaign(name, folder, aims):
    """Runs the training until the end again and again, killed at one of the `aims` each time while there are any."""
    unbroken = live(name, folder / "unbroken")
    updates = len(unbroken.losses)
    assert unbroken.code == 0 and unbroken.saved >= 4
    log = Log()
    aims = iter(aims(unbroken, log))
    aim = next(aims)
    while aim is not None:
        log.runs += 1
        here, last = folder / f"run{log.runs}", None
        losses: dict[int, str] = {}
        while last is None or last.code != 0:
            before = find_checkpoint(here)
            left = halves(here)
            last = live(name, here, aim)
            log.losses += check(last, before, unbroken, losses)
            log.resumed += last.resumed is not None
            log.began_anew += last.resumed is None and bool(last.losses)
            if last.code != 0:
                log.kills += 1
                log.in_a_save += last.saving
                log.before_training += not last.losses
                log.half_checkpoints += len(halves(here) - left)
                log.whole += check_intact(here)
                aim = next(aims, None)
        assert last.end == unbroken.end != "", "the losses are the same, but not the weights at the end"
        assert losses == unbroken.losses, f"run {log.runs} has steps {sorted(losses)}, the unbroken one {updates}"
    return log, updates


def check(life, before, unbroken, losses):
    """One life fits to the one before and to the unbroken run; returns how many losses it had."""
    if life.resumed is not None:
        assert before is not None and life.resumed == int(before.name.rpartition("-")[2]), "not the last checkpoint"
    elif life.losses:
        assert before is None, f"{before} was there, but the training began anew"
    for step, loss in life.losses.items():
        assert loss == unbroken.losses[step], (
            f"step {step} of a training resumed after step {life.resumed} has the loss {float.fromhex(loss)!r}, and "
            f"the unbroken one {float.fromhex(unbroken.losses[step])!r}"
        )
    losses.update(life.losses)
    return len(life.losses)


def check_intact(folder):
    """Every checkpoint in a folder is what its manifest says; returns how many there are."""
    found = entries(str(folder))
    for entry in found:
        verify(entry.path, (MODEL, TRAINING, STATE))
    return len(found)


def test_five_kills(tmp_path):
    """In a save, in the first and a later one; between saves; before anything was done.

    Where the machine does other work, a save may be over before the kill comes: then there are some more.
    """

    def aims(unbroken, log):
        longest = unbroken.save_seconds
        yield Aim("saving", 1, longest / 2)
        yield Aim("saving", 2, longest / 4)
        yield Aim("step", 2, 0)
        yield Aim("", 1, 0.2)
        yield Aim("saving", 3, longest / 2)
        for more in range(20):
            if not log.in_a_save:
                yield Aim("saving", 1, longest / 2 ** (1 + more % 5))

    log, _ = campaign("gpt", tmp_path, aims)
    assert log.kills >= 5 and log.in_a_save >= 1 and log.resumed >= 2, log


@pytest.mark.stress
@pytest.mark.parametrize("name", TRAININGS)
def test_many_kills(tmp_path, name, capsys):
    rng = random.Random(6)

    def aims(unbroken, log):
        for _ in range(STRESS_KILLS):
            kind = rng.random()
            if kind < 0.5:
                yield Aim("saving", rng.randint(1, 4), rng.uniform(0, 1.2 * unbroken.save_seconds))
            elif kind < 0.9:
                yield Aim("step", rng.randint(1, 8), rng.uniform(0, 0.05))
            else:
                yield Aim("", 1, rng.uniform(0, 2))

    log, updates = campaign(name, tmp_path, aims)
    with capsys.disabled():
        print("\n" + log.table(name, updates))
    assert log.kills == STRESS_KILLS and log.in_a_save >= STRESS_KILLS // 5 and log.half_checkpoints > 0, log
