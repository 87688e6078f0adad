"""Saves of checkpoints that fail or are killed: a full disk, no permission, SIGKILL before anything they do to the disk."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

import shared
from shared.checkpoint import CheckpointError
from shared.training import History, checkpoints, load_checkpoint, save_checkpoint
from tests.training.test_checkpoints import made, save_values, steps

ROOT = Path(shared.__file__).resolve().parents[1]


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
        assert process.communicate("\n", timeout=300)[0] == "step-00000007\n"
    assert load_checkpoint(tmp_path / "step-00000007", made()[0]) == 7
