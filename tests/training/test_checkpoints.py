"""The folder of a training's checkpoints: what is in them, which stay, what is refused, and saves that fail or are killed."""

import dataclasses
import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import shared
from shared import nn
from shared.checkpoint import CheckpointError
from shared.data import DataLoader, StatefulDataLoader
from shared.training import (
    EarlyStopping,
    History,
    checkpoint_info,
    checkpoints,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

ROOT = Path(shared.__file__).resolve().parents[1]
FILES = ["manifest.json", "model.safetensors", "state.json", "training.safetensors"]


class Tied(nn.Module):
    """A table that is used at both ends, and a buffer."""

    def __init__(self, vocab=7, width=3):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, vocab, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.norm(self.embedding(ids)))


def made(seed=0):
    """A model and its optimizer after one step."""
    shared.manual_seed(seed)
    model = Tied()
    optimizer = shared.optim.AdamW(model.parameters(), lr=0.1)
    ids = shared.tensor([0, 1, 2, 3])
    nn.functional.cross_entropy(model(ids), ids).backward()
    optimizer.step()
    return model, optimizer


def numbers(state):
    """Nested state as nested lists, to compare."""
    if isinstance(state, dict):
        return {key: numbers(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [numbers(value) for value in state]
    return state.tolist() if hasattr(state, "tolist") else state


def steps(folder):
    return sorted(os.listdir(folder))


# ---------------------------------------------------------------- what is in it


def test_it_is_a_folder_of_files_that_others_can_read(tmp_path):
    model, optimizer = made()
    path = save_checkpoint(tmp_path / "new" / "run", model, optimizer, 1000, config={"width": 3}, value=1.5)
    assert path == tmp_path / "new" / "run" / "step-00001000" and steps(path) == FILES
    found = load_file(path / "model.safetensors")
    assert set(found) == {key for key in model.state_dict() if key != "head.weight"}, "tied weights are there once"
    assert (found["embedding.weight"] == model.embedding.weight.array).all()
    state = json.loads((path / "state.json").read_text())
    assert state["step"] == 1000 and state["value"] == 1.5 and state["config"] == {"width": 3}
    assert state["parts"] == {"optimizer": "AdamW", "scheduler": None, "scaler": None, "callbacks": []}
    assert state["versions"]["numpy"] == np.__version__ and set(state["versions"]) == {
        "shared",
        "numpy",
        "python",
        "device",
    }


def test_everything_comes_back_and_tied_weights_are_tied(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, model, optimizer, 3)
    other, its = made(seed=1)
    assert numbers(other.state_dict()) != numbers(model.state_dict())
    assert load_checkpoint(tmp_path, other, its) == 3
    assert numbers(other.state_dict()) == numbers(model.state_dict())
    assert numbers(its.state_dict()) == numbers(optimizer.state_dict())
    assert other.head.weight is other.embedding.weight
    assert not np.shares_memory(other.head.weight.array, model.head.weight.array)


class Scaler:
    """Has a state as shared.amp.GradScaler has."""

    def __init__(self, scale):
        self.scale = scale

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


def test_the_scaler_the_schedule_the_history_and_what_data_has(tmp_path):
    def parts(scale, seed):
        model, optimizer = made()
        g = shared.Generator().manual_seed(seed)
        history, position = History(train_loss=[scale, scale / 3]), Scaler(scale + 1)
        return model, optimizer, {
            "scheduler": shared.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
            "scaler": Scaler(scale),
            "history": history,
            "data": [position, g, DataLoader(range(9), shuffle=True, generator=shared.Generator().manual_seed(seed))],
            "callbacks": [EarlyStopping(patience=3)],
        }  # fmt: skip

    model, optimizer, saved = parts(8.0, 1)
    optimizer.step()
    saved["scheduler"].step()
    save_checkpoint(tmp_path, model, optimizer, 1, **saved)
    draws = [saved["data"][1].rng.random(), [int(i) for i in saved["data"][2]]]
    other, its, given = parts(2.0, 2)
    load_checkpoint(tmp_path, other, its, **given)
    assert its.param_groups[0]["lr"] == 0.05 and given["scheduler"].last_epoch == 1
    assert given["scaler"].scale == 8.0 and given["history"] == {"train_loss": [8.0, 8.0 / 3]}
    assert given["data"][0].scale == 9.0
    assert [given["data"][1].rng.random(), [int(i) for i in given["data"][2]]] == draws
    assert checkpoint_info(tmp_path)["latest"] == {"train_loss": 8.0 / 3}


@dataclasses.dataclass(frozen=True)
class Config:
    width: int = 3
    betas: tuple = (0.9, 0.95)
    out: Path = Path("run")


def test_a_config_is_written_for_people_and_compared_when_given(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, model, optimizer, 1, config={"model": Config(), "steps": np.int64(5)})
    expected = {"model": {"width": 3, "betas": [0.9, 0.95], "out": "run"}, "steps": 5}
    assert checkpoint_info(tmp_path)["config"] == expected
    load_checkpoint(tmp_path, model, optimizer, config={"model": Config(), "steps": 5})
    with pytest.raises(ValueError, match="another config .steps: 5 there, 6 here"):
        load_checkpoint(tmp_path, model, optimizer, config={"model": Config(), "steps": 6})
    with pytest.raises(ValueError, match="config should have numbers, strings, lists"):
        save_checkpoint(tmp_path, model, optimizer, 2, config={"model": model})
    assert steps(tmp_path) == ["step-00000001"]


def test_without_an_optimizer_only_the_model_is_restored(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, model, optimizer, 4, callbacks=[EarlyStopping()])
    os.remove(tmp_path / "step-00000004" / "training.safetensors")  # not even looked at
    other, _ = made(seed=1)
    before = shared.get_rng_state().tolist()
    assert load_checkpoint(tmp_path, other) == 4
    assert numbers(other.state_dict()) == numbers(model.state_dict()) and shared.get_rng_state().tolist() == before


def test_a_model_alone_can_be_saved(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, model, None, 1)
    load_checkpoint(tmp_path, made(1)[0])
    with pytest.raises(ValueError, match="written with optimizer None, but this training has optimizer AdamW"):
        load_checkpoint(tmp_path, model, optimizer)


# ---------------------------------------------------------------- which stay, which is taken


def save_values(folder, values, **options):
    model, optimizer = made()
    for step, value in enumerate(values, start=1):
        save_checkpoint(folder, model, optimizer, step, value=value, **options)
    return model, optimizer


@pytest.mark.parametrize(
    ("values", "keep_last", "left", "best"),
    [
        ([4, 3, 2, 1], 2, [3, 4], 4),
        ([1, 2, 3, 4], 2, [1, 3, 4], 1),
        ([3, 1, 1, 2, 4], 1, [2, 5], 2),
        ([None, 2, math.nan, None, math.inf], 1, [2, 5], 2),
        ([None] * 3, 1, [3], None),
        ([3, 2, 1], None, [1, 2, 3], 3),
    ],
)
def test_the_last_and_the_best_stay(tmp_path, values, keep_last, left, best):
    save_values(tmp_path, values, keep_last=keep_last)
    assert steps(tmp_path) == [f"step-{step:08d}" for step in left]
    assert find_checkpoint(tmp_path).name == f"step-{len(values):08d}"
    if best is None:
        with pytest.raises(ValueError, match="saved with a value, so none is the best"):
            find_checkpoint(tmp_path, "best")
    else:
        assert load_checkpoint(tmp_path, made()[0], which="best") == best


def test_steps_of_more_digits_come_after_those_of_fewer(tmp_path):
    model, optimizer = made()
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, model, optimizer, step)
    assert load_checkpoint(tmp_path, model) == 100_000_000


def test_a_training_that_goes_back_counts_its_new_checkpoints_as_the_last(tmp_path):
    model, optimizer = save_values(tmp_path, [1, 2, 3])
    load_checkpoint(tmp_path, model, optimizer, which="best")
    save_checkpoint(tmp_path, model, optimizer, 2, value=0.5)
    assert load_checkpoint(tmp_path, model) == 2, "the one written last, though step 3 is there"
    assert steps(tmp_path) == ["step-00000002", "step-00000003"]


def test_the_same_step_again_takes_the_place_of_the_old(tmp_path):
    model, optimizer = save_values(tmp_path, [1, 2])
    save_checkpoint(tmp_path, model, optimizer, 2, value=7.0)
    assert steps(tmp_path) == ["step-00000001", "step-00000002"] and checkpoint_info(tmp_path)["value"] == 7.0


def test_a_checkpoints_own_folder_may_be_given(tmp_path):
    model, optimizer = save_values(tmp_path, [1, 2])
    assert load_checkpoint(tmp_path / "step-00000001", model, optimizer) == 1
    (tmp_path / "step-00000002").rename(tmp_path / "kept")
    assert load_checkpoint(tmp_path / "kept", model, optimizer) == 2
    for name in ("step-00000001", "kept"):
        with pytest.raises(FileExistsError, match="this is one checkpoint; give the folder around it"):
            save_checkpoint(tmp_path / name, model, optimizer, 3)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "step-00000007").mkdir()  # not one of ours: nothing in it
    (tmp_path / "notes.txt").write_text("mine")
    save_values(tmp_path, [1, 2, 3], keep_last=1)
    assert steps(tmp_path) == ["notes.txt", "step-00000001", "step-00000003", "step-00000007"]


def test_where_there_is_none(tmp_path):
    model, _ = made()
    for folder in (tmp_path, tmp_path / "nothing"):
        assert find_checkpoint(folder) is None
        with pytest.raises(FileNotFoundError, match="there is no checkpoint in this folder"):
            load_checkpoint(folder, model)


@pytest.mark.parametrize("step", [-1, 1.5, True, None])
def test_a_step_is_a_number(tmp_path, step):
    with pytest.raises(ValueError, match="step should be an int of at least 0"):
        save_checkpoint(tmp_path, *made(), step)
    with pytest.raises(ValueError, match="keep_last should be None or at least 1"):
        save_checkpoint(tmp_path, *made(), 1, keep_last=0)


# ---------------------------------------------------------------- damaged and foreign ones


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": (truncate, "is truncated: it has .* bytes, and .* were written|is damaged: it is not JSON"),
    "longer": (
        lambda path: path.write_bytes(path.read_bytes() + b" "),
        "is changed: it has .* bytes, and .* were written",
    ),
    "a bit": (flip, "is not the file that was written|not JSON|has no|lacks|truncated|changed"),
    "missing": (os.remove, "is missing"),
    "empty": (lambda path: path.write_bytes(b""), "is truncated: it has 0 bytes|not JSON"),
    "list": (lambda path: path.write_text("[]"), "was not written by save_checkpoint|is truncated"),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_with_the_intact_one_before(tmp_path, damage, file):
    save_values(tmp_path, [3, 2, 1], keep_last=3)
    spoil, message = DAMAGE[damage]
    if (damage, file) == ("longer", "manifest.json"):
        pytest.skip("a space at its end changes nothing")
    spoil(tmp_path / "step-00000003" / file)
    truncate(tmp_path / "step-00000002" / "training.safetensors")
    model, optimizer = made(seed=1)
    before = numbers([model.state_dict(), optimizer.state_dict()]), shared.get_rng_state().tolist()
    with pytest.raises(CheckpointError) as found:
        load_checkpoint(tmp_path, model, optimizer)
    text = str(found.value)
    assert str(tmp_path / "step-00000003") in text and file in text and re.search(message, text), text
    assert f"The newest intact checkpoint is {tmp_path / 'step-00000001'}: load it by this name" in text
    assert (numbers([model.state_dict(), optimizer.state_dict()]), shared.get_rng_state().tolist()) == before
    assert load_checkpoint(tmp_path / "step-00000001", model, optimizer) == 1


def test_no_intact_one(tmp_path):
    model, optimizer = save_values(tmp_path, [1])
    flip(tmp_path / "step-00000001" / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"No other checkpoint in {tmp_path} is intact"):
        load_checkpoint(tmp_path / "step-00000001", model, optimizer)


@pytest.mark.parametrize("file", FILES[1:])
def test_a_file_of_another_checkpoint_is_noticed(tmp_path, file):
    save_checkpoint(tmp_path, *made(0), 1)
    model, optimizer = made(1)
    save_checkpoint(tmp_path, model, optimizer, 2)
    shutil.copy(tmp_path / "step-00000001" / file, tmp_path / "step-00000002" / file)
    with pytest.raises(CheckpointError, match=f"{tmp_path}/step-00000002/{file} is "):
        load_checkpoint(tmp_path, model, optimizer)


def test_a_number_that_was_edited_is_noticed(tmp_path):
    model, optimizer = save_values(tmp_path, [1.5])
    file = tmp_path / "step-00000001" / "state.json"
    file.write_text(file.read_text().replace('"value": 1.5', '"value": 0.5'))
    with pytest.raises(CheckpointError, match="state.json is not the file that was written: it is damaged, was edited"):
        load_checkpoint(tmp_path, model, optimizer)


def test_a_renamed_one_is_noticed(tmp_path):
    model, optimizer = save_values(tmp_path, [1])
    (tmp_path / "step-00000001").rename(tmp_path / "step-00000009")
    with pytest.raises(CheckpointError, match="has the checkpoint of step 1: it was renamed, call it step-00000001"):
        load_checkpoint(tmp_path, model, optimizer)


def test_a_newer_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.training.resume.VERSION", 99)
    model, optimizer = save_values(tmp_path, [1])
    with pytest.raises(CheckpointError, match="written by a newer version of this library"):
        load_checkpoint(tmp_path, model, optimizer)


def test_a_single_file_is_named_for_what_it_is(tmp_path):
    model, optimizer = made()
    old = {"training": 1, "epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    shared.checkpoint.save(old, tmp_path / "old")
    (tmp_path / "text").write_text("some text")
    for name, message in (
        ("old", "is a checkpoint of an earlier version, in a single file"),
        ("text", "is a file, but a checkpoint is a folder"),
    ):
        with pytest.raises(CheckpointError, match=f"{tmp_path / name} {message}"):
            load_checkpoint(tmp_path / name, model, optimizer)
        with pytest.raises(NotADirectoryError, match="this is a file, and checkpoints need a folder"):
            save_checkpoint(tmp_path / name, model, optimizer, 1)
    assert (tmp_path / "text").read_text() == "some text"


class Spoilt:
    """Its state cannot be loaded again."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        raise KeyError("spoilt")


@pytest.mark.parametrize("last", ["data", "model"])
def test_a_load_that_fails_leaves_everything_as_it_was(tmp_path, last):
    def parts(seed):
        model, optimizer = made(seed)
        scheduler = shared.optim.lr_scheduler.StepLR(optimizer, 1, gamma=1 / (seed + 2))
        g = shared.Generator().manual_seed(seed)
        return model, optimizer, scheduler, History(lr=[seed]), Scaler(seed), g

    def state(model, optimizer, scheduler, history, scaler, g):
        states = [part.state_dict() for part in (model, optimizer, scheduler, scaler)]
        return numbers([*states, dict(history), g.get_state(), shared.get_rng_state()])

    def options(parts):
        data = [parts[5], Spoilt()] if last == "data" else [parts[5]]
        return {"scheduler": parts[2], "history": parts[3], "scaler": parts[4], "data": data}

    saved, given = parts(0), parts(1)
    save_checkpoint(tmp_path, saved[0], saved[1], 1, **options(saved))
    model = given[0] if last == "data" else nn.Linear(2, 2)
    given = (model, *given[1:])
    before = state(*given)
    with pytest.raises(KeyError if last == "data" else RuntimeError, match="spoilt|Missing key"):
        load_checkpoint(tmp_path, model, given[1], **options(given))
    after = state(*given)
    for name, a, b in zip(
        "model optimizer scheduler scaler history generator random".split(), after, before, strict=True
    ):
        assert a == b, name


# ---------------------------------------------------------------- saves that fail


def check_failed_save(folder, message, number, old=True):
    """A save into `folder` fails with this error, and the one checkpoint there is as before."""
    model, optimizer = made(seed=5)
    before = {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    with pytest.raises(OSError, match=f"cannot save: .*{message}.*") as found:
        save_checkpoint(folder, model, optimizer, 2)
    assert found.value.errno == number
    assert {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()} == before, "nothing else is left"
    if old:
        assert "the checkpoint that was there before is unchanged" in str(found.value)
        assert load_checkpoint(folder, model, optimizer) == 1


FAILURES = {
    "full": (errno.ENOSPC, "the disk is full; free some space"),
    "quota": (errno.EDQUOT, "the disk quota is used up"),
    "read-only": (errno.EROFS, "the file system is read-only"),
    "other": (errno.EIO, "Input/output error"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("moment", ["mkdir", "open", "write", "fsync", "rename"])
def test_whatever_fails_the_checkpoint_before_is_intact(tmp_path, monkeypatch, moment, failure):
    number, message = FAILURES[failure]
    save_values(tmp_path, [1])

    def fail(*args, **options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if moment == "write":
            write = checkpoints._Hashing.write
            patch.setattr(checkpoints._Hashing, "write", lambda self, data: fail() if self.bytes else write(self, data))
        elif moment == "open":
            patch.setattr(checkpoints, "open", fail, raising=False)
        else:
            patch.setattr(os, moment, fail)
        model, optimizer = made(seed=5)
        with pytest.raises(
            OSError, match=f"cannot save: {message}.*checkpoint that was there before is unchanged"
        ) as e:
            save_checkpoint(tmp_path, model, optimizer, 2)
    assert e.value.errno == number
    assert steps(tmp_path) == ["step-00000001"] and load_checkpoint(tmp_path, model, optimizer) == 1


def test_a_disk_that_is_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=200k", "none", disk], capture_output=True).returncode
    ):
        pytest.skip("a small disk cannot be mounted here")
    try:
        save_values(disk / "run", [1])
        (disk / "filling").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 8_192))
        check_failed_save(disk / "run", "the disk is full; free some space and save again", errno.ENOSPC)
        (disk / "filling").unlink()
        save_checkpoint(disk / "run", *made(), 2)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_limit_on_the_size_of_files(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of processes need POSIX")
    save_values(tmp_path, [1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        check_failed_save(tmp_path, "the file is larger than this file system or its limits allow", errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def open_folder():
    """A folder that every user may enter, which pytest's own is not."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    for folder in (path, *path.rglob("*")):
        if folder.is_dir():
            folder.chmod(0o700)
    shutil.rmtree(path)


@pytest.fixture
def no_root():
    """Root may write anywhere: be nobody for the while."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs users as POSIX has them")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written(open_folder, request):
    run = open_folder / "run"
    save_values(run, [1])
    for folder in (*run.rglob("*"), run, open_folder):
        folder.chmod(0o555 if folder.is_dir() else 0o444)
    request.getfixturevalue("no_root")
    check_failed_save(run, f"no permission to write in the folder {run}", errno.EACCES)
    check_failed_save(open_folder / "new", "no permission to write in the folder", errno.EACCES, old=False)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    check_failed_save(
        tmp_path / "file" / "run", "a part of this path is a file, not a folder", errno.ENOTDIR, old=False
    )


def test_a_value_that_cannot_be_saved_is_named_by_its_place(tmp_path):
    save_values(tmp_path, [1])
    with pytest.raises(CheckpointError, match=r"state\['history'\]\['odd'\] is of type builtins.set"):
        save_checkpoint(tmp_path, *made(), 2, history=History(odd={1}))
    assert steps(tmp_path) == ["step-00000001"]


# ---------------------------------------------------------------- order on the disk, and what kills leave behind


def test_all_is_on_the_disk_before_the_name_and_the_name_before_an_old_one_goes(tmp_path, monkeypatch):
    save_values(tmp_path, [None], keep_last=1)
    calls = []

    def recorded(name):
        function = getattr(os, name)

        def call(*args, **options):
            place = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[0])
            place = re.sub(r"\.[0-9a-f]{8}\.", ".*.", os.path.relpath(place, tmp_path))
            calls.append((name, place))
            return function(*args, **options)

        monkeypatch.setattr(os, name, call)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs Linux to see which file a handle is of")
    recorded("fsync")
    recorded("rename")
    save_checkpoint(tmp_path, *made(), 2, keep_last=1)
    temporary = ".step-00000002.*.tmp"
    assert calls == [
        ("fsync", f"{temporary}/model.safetensors"),
        ("fsync", f"{temporary}/training.safetensors"),
        ("fsync", f"{temporary}/state.json"),
        ("fsync", f"{temporary}/manifest.json"),
        ("fsync", temporary),
        ("rename", "step-00000002"),  # if there is one already; there is not
        ("rename", temporary),
        ("fsync", "."),
        ("rename", "step-00000001"),
        ("fsync", "."),
    ]


def test_what_killed_saves_left_is_removed_in_time(tmp_path):
    model, optimizer = save_values(tmp_path, [1])
    old, fresh, removed, other = (
        tmp_path / name
        for name in (
            ".step-00000002.0123abcd.tmp",
            ".step-00000002.4567abcd.tmp",
            ".step-00000001.0123abcd.old",
            ".step-1.tmp",
        )
    )
    for path in (old, fresh, removed, other):
        path.mkdir()
        (path / "model.safetensors").write_bytes(b"half")
    for path in (old, old / "model.safetensors"):
        os.utime(path, (0, 0))
    save_checkpoint(tmp_path, model, optimizer, 2)
    assert [path.exists() for path in (old, fresh, removed, other)] == [False, True, False, True]


KILLED = textwrap.dedent(
    """
    # Kills a save before each thing it does to the disk, and looks at what is left.
    import os, shutil, signal, sys
    import numpy as np
    import shared
    from shared import checkpoint
    from shared.checkpoint import CheckpointError
    from shared.training import checkpoints, find_checkpoint, load_checkpoint, save_checkpoint
    from tests.training.test_checkpoints import made, numbers

    folder, again = sys.argv[1], int(sys.argv[2])
    checkpoint.ABANDONED_AFTER = -1
    os.fsync = lambda handle: None  # a killed process loses nothing that it wrote; without it this is quick
    made_once = {seed: made(seed) for seed in range(4)}

    def save(step):
        # Step `step` has the model of that seed, and value -step: the newest is the best too.
        model, optimizer = made_once[step % 4]
        save_checkpoint(folder, model, optimizer, step if step != 3 else again, value=-step, keep_last=1)

    def prepare():
        shutil.rmtree(folder, ignore_errors=True)
        for step in (1, 2):
            save(step)

    count = 0
    def counting(function, kill_at):
        def counted(*args, **options):
            global count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)
        return counted

    def doomed(kill_at):
        for name in ("mkdir", "rename", "fsync", "unlink", "rmdir"):
            setattr(os, name, counting(getattr(os, name), kill_at))
        checkpoints._Hashing.write = counting(checkpoints._Hashing.write, kill_at)
        save(3)

    def whole(path, step):
        model, optimizer = made(0)
        assert load_checkpoint(path, model, optimizer) == step
        assert numbers(model.state_dict()) in [numbers(m.state_dict()) for m, o in made_once.values()]

    kill_at, seen, hidden = 0, set(), set()
    while True:
        kill_at += 1
        prepare()
        child = os.fork()
        if child == 0:
            doomed(kill_at)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        left = os.listdir(folder)
        hidden |= {name.rpartition(".")[2] for name in left if name.startswith(".")}
        for name in left:
            if name.startswith("step-"):
                whole(os.path.join(folder, name), int(name[5:]))
        model, optimizer = made(0)
        step = load_checkpoint(folder, model, optimizer)
        weights = numbers(model.state_dict())
        is_new = weights == numbers(made_once[3][0].state_dict())
        assert is_new or weights == numbers(made_once[2][0].state_dict()), "neither the old nor the new one"
        assert step == (again if is_new else 2)
        seen.add(is_new)
        save(5)
        assert sorted(os.listdir(folder)) == ["step-00000005"], "a later save cleans up"
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    print(kill_at - 1, sorted(seen), sorted(hidden))
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes as POSIX does")
@pytest.mark.parametrize("again", [3, 2], ids=["a new step", "the same step again"])
def test_a_save_killed_before_whatever_it_does_leaves_whole_checkpoints(tmp_path, again):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(again)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    moments, rest = result.stdout.split(" ", 1)
    assert int(moments) > 20, "it hardly did anything"
    expected = ["old", "replaced", "tmp"] if again == 2 else ["old", "tmp"]
    assert rest.strip() == f"[False, True] {expected}", "kills before and after the new one counted, and in between"


SLOW = textwrap.dedent(
    """
    import sys, time
    from shared.training import checkpoints, save_checkpoint
    from tests.training.test_checkpoints import made

    write = checkpoints._Hashing.write
    def slowly(self, data):
        write(self, data)
        if self.file.name.endswith("training.safetensors") and self.bytes == len(data):
            print("writing", flush=True)
            sys.stdin.readline()
    checkpoints._Hashing.write = slowly
    print(save_checkpoint(sys.argv[1], *made(), 7).name)
    """
)


@pytest.mark.skipif(signal.__dict__.get("SIGKILL") is None, reason="locks are POSIX's")
def test_a_save_that_is_under_way_elsewhere_is_not_taken_for_abandoned(tmp_path, monkeypatch):
    monkeypatch.setattr(shared.checkpoint, "ABANDONED_AFTER", -1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SLOW, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "writing\n"
        save_values(tmp_path, [1, 2])
        assert process.communicate("\n", timeout=60)[0] == "step-00000007\n"
    assert load_checkpoint(tmp_path / "step-00000007", made()[0]) == 7


# ---------------------------------------------------------------- a place within a pass


LOADERS = {
    "default generator": lambda: StatefulDataLoader(range(10), batch_size=3, shuffle=True),
    "own generator": lambda: StatefulDataLoader(
        range(10), batch_size=3, shuffle=True, generator=shared.Generator().manual_seed(4)
    ),
    "in order": lambda: StatefulDataLoader(range(10), batch_size=3),
    "workers": lambda: StatefulDataLoader(range(10), batch_size=3, shuffle=True, num_workers=1),
}


@pytest.mark.parametrize("batches", [0, 1, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_goes_on_within_a_pass(tmp_path, loader, batches):
    """After any number of batches, with draws in between, as dropout makes them; four batches are a pass."""
    if loader == "workers" and batches not in (1, 5):
        pytest.skip("each start of a worker takes a second")

    def endless(data):
        while True:
            yield from data

    def draw(stream, count):
        return [(next(stream).tolist(), shared.rand(1).item()) for _ in range(count)]

    shared.manual_seed(3)
    first, model = LOADERS[loader](), nn.Linear(1, 1)
    optimizer = shared.optim.SGD(model.parameters())
    stream = endless(first)
    before = draw(stream, batches)
    save_checkpoint(tmp_path, model, optimizer, 1, data=[first])
    expected = draw(stream, 9)
    shared.manual_seed(77)
    second = LOADERS[loader]()
    load_checkpoint(tmp_path, model, optimizer, data=[second])
    assert draw(endless(second), 9) == expected != before
