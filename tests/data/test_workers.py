"""The DataLoader with worker processes: the same batches, errors with traceback, nothing left behind."""

import contextlib
import gc
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

import shared
from shared.data import DataLoader, pool, worker
from shared.data.worker import RemoteError
from tests.data.samples import (
    BreaksWhenRead,
    Draws,
    Fails,
    Numbers,
    Point,
    Ragged,
    Slow,
    Stream,
    Who,
    as_points,
    fail_to_start,
    seed_by_worker,
)

linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc to see what is left behind")


def left_behind(pid: int) -> list[str]:
    """Shared-memory blocks that process `pid` made and that still exist."""
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"course_{pid}_")]


def alive(pids) -> list[int]:
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}") and _state(pid) != "Z"]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def pids(loader_iterator) -> list[int]:
    return [worker.process.pid for worker in loader_iterator.pool.workers]


def plain(loader):
    return [(x.tolist(), y.tolist()) for x, y in loader]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_and_their_order_are_those_without_workers(workers):
    def epochs(num_workers):
        shared.manual_seed(7)
        loader = DataLoader(Numbers(23), batch_size=4, shuffle=True, num_workers=num_workers)
        return [plain(loader), plain(loader)]

    assert epochs(workers) == epochs(0)


def test_every_worker_makes_its_share_and_knows_who_it_is():
    batches = list(DataLoader(Who(16), batch_size=2, num_workers=2))
    assert [set(b[1].tolist()) for b in batches] == [{0}, {1}] * 4
    assert all(set(b[3].tolist()) == {2} for b in batches)
    processes = {pid for b in batches for pid in b[2].tolist()}
    assert len(processes) == 2 and os.getpid() not in processes


def test_any_structure_comes_through_and_can_be_written_to():
    batch = next(iter(DataLoader(Numbers(), batch_size=3, num_workers=1, collate_fn=as_points)))
    assert isinstance(batch, Point) and batch.y == ["number 0", "number 1", "number 2"]
    batch.x[2] += 1
    assert batch.x[2].tolist() == [3, 3, 3, 3]


def test_a_batch_keeps_its_values_when_its_block_is_used_again():
    batches = list(DataLoader(Numbers(40), batch_size=1, num_workers=2))
    assert [b[0].tolist() for b in batches] == [[[i] * 4] for i in range(40)]


def test_batches_that_outgrow_their_block():
    means = [b.mean().item() for b in DataLoader(Ragged(8), batch_size=1, num_workers=2)]
    assert means == list(range(8))


@pytest.mark.parametrize("batch_size, expected", [(4, [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10], [9]]), (None, None)])
def test_streams_are_shared_out(batch_size, expected):
    out = [np.asarray(b).tolist() for b in DataLoader(Stream(11), batch_size=batch_size, num_workers=2)]
    if expected is None:
        assert out == list(range(11))
    else:
        assert out == expected


def test_a_stream_that_ends_in_one_worker_goes_on_in_the_other():
    uneven = Stream(3)  # with 2 workers: 0, 2 and 1
    out = [b.tolist() for b in DataLoader(uneven, batch_size=1, num_workers=2, prefetch_factor=3)]
    assert out == [[0], [1], [2]]


def test_manual_seed_fixes_what_workers_draw_and_no_two_draw_the_same():
    def draws():
        shared.manual_seed(11)
        loader = DataLoader(Draws(8), batch_size=2, num_workers=2)
        return [[t.tolist() for t in batch] for _ in range(2) for batch in loader]

    first = draws()
    assert draws() == first
    numbers = [number for batch in first for column in batch for number in column]
    assert len(set(numbers)) == len(numbers)


def test_persistent_workers_stay_and_draw_anew_each_epoch():
    def epochs():
        shared.manual_seed(12)
        loader = DataLoader(Draws(6), batch_size=2, num_workers=2, persistent_workers=True)
        return [[t.tolist() for t in batch] for _ in range(3) for batch in loader]

    first = epochs()
    numbers = [number for batch in first for column in batch for number in column]
    assert epochs() == first and len(set(numbers)) == len(numbers)
    loader = DataLoader(Who(8), batch_size=2, num_workers=2, persistent_workers=True)
    processes = [{pid for b in loader for pid in b[2].tolist()} for _ in range(2)]
    assert processes[0] == processes[1]


def test_an_epoch_left_early_does_not_leak_into_the_next():
    loader = DataLoader(Numbers(40), batch_size=2, num_workers=2, persistent_workers=True)
    for _ in range(3):
        for _ in zip(range(3), loader, strict=False):
            pass
    assert [y for _, batch in plain(loader) for y in batch] == list(range(40))


def test_a_pass_that_was_overtaken_says_so():
    loader = DataLoader(Numbers(40), batch_size=2, num_workers=1, persistent_workers=True)
    old = iter(loader)
    next(old)
    iter(loader)
    with pytest.raises(RuntimeError, match="another pass"):
        next(old)


def test_worker_init_fn_runs_in_each_worker():
    loader = DataLoader(Draws(4), batch_size=2, num_workers=2, worker_init_fn=seed_by_worker)
    expected = [np.random.RandomState(100 + i).rand(2).tolist() for i in range(2)]
    assert [batch[2].tolist() for batch in loader] == expected


def test_out_of_order_gives_every_batch_once():
    loader = DataLoader(Numbers(21), batch_size=2, num_workers=2, in_order=False)
    assert sorted(y for _, batch in plain(loader) for y in batch) == list(range(21))


def test_spawn_works_too():
    loader = DataLoader(Numbers(4), batch_size=2, num_workers=1, multiprocessing_context="spawn")
    assert [y for _, y in plain(loader)] == [[0, 1], [2, 3]]


# ----------------------------------------------------------------------------------------------------- errors


def test_an_exception_arrives_with_its_class_message_and_traceback():
    with pytest.raises(ValueError, match="sample five is broken") as caught:
        list(DataLoader(Fails(), batch_size=2, num_workers=2))
    text = str(caught.value)
    assert "Caught ValueError in DataLoader worker process 0" in text
    assert "Original Traceback (most recent call last)" in text
    assert "samples.py" in text and 'raise ValueError("sample five is broken")' in text


@pytest.mark.parametrize("error", [ValueError("v"), KeyError("k"), UnicodeDecodeError("utf-8", b"", 0, 1, "u")])
def test_class_and_message_are_those_of_pytorchs_wrapper(error):
    utils = pytest.importorskip("torch._utils")
    where = "DataLoader worker process 0"
    try:
        raise error
    except Exception as caught:
        ours = RemoteError(caught, where).exception()
        theirs = utils.ExceptionWrapper(where=f"in {where}")
    with pytest.raises(Exception) as reraised:  # noqa: B017 (which class it is, is the question)
        theirs.reraise()
    assert type(ours) is reraised.type and str(ours) == str(reraised.value)


def test_batches_before_the_error_were_handed_out():
    seen = []
    with pytest.raises(ValueError):
        for _, y in DataLoader(Fails(), batch_size=2, num_workers=2):
            seen.append(y.tolist())
    assert seen == [[0, 1], [2, 3]]


def test_a_key_error_is_readable():
    with pytest.raises(KeyError) as caught:
        list(DataLoader(Fails("key"), batch_size=2, num_workers=1))
    assert "\nOriginal Traceback" in str(caught.value)


def test_an_exception_that_takes_no_message_becomes_a_runtime_error():
    with pytest.raises(RuntimeError, match="Caught Strict in DataLoader worker"):
        list(DataLoader(Fails("strict"), batch_size=2, num_workers=1))


def test_a_worker_that_dies_is_reported():
    with pytest.raises(RuntimeError, match=r"DataLoader worker 0 \(pid \d+\) exited unexpectedly with exit code 3"):
        list(DataLoader(Fails("exit"), batch_size=2, num_workers=2))


@linux
def test_a_worker_that_is_killed_is_reported():
    batches = iter(DataLoader(Slow(40, 0.02), batch_size=1, num_workers=2))
    next(batches)
    os.kill(pids(batches)[1], 9)
    with pytest.raises(RuntimeError, match="killed by signal SIGKILL.*memory"):
        list(batches)


def test_a_failing_worker_init_fn_is_reported():
    with pytest.raises(RuntimeError, match="worker 0 has no licence"):
        list(DataLoader(Numbers(), num_workers=1, worker_init_fn=fail_to_start))


def test_a_dataset_that_cannot_be_read_back_is_reported():
    with pytest.raises(OSError, match="the file behind it is gone"):
        list(DataLoader(BreaksWhenRead(), num_workers=1))


def test_what_cannot_be_pickled_is_named_with_the_remedy():
    with pytest.raises(RuntimeError, match="collate_fn cannot be sent to worker processes.*top level of a file"):
        iter(DataLoader(Numbers(), num_workers=1, collate_fn=lambda samples: samples))

    class Local(Numbers):
        pass

    with pytest.raises(RuntimeError, match="The dataset cannot be sent.*no local class.*num_workers=0"):
        iter(DataLoader(Local(), num_workers=1))


def test_a_slow_batch_times_out():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="timed out after 0.3 seconds"):
        next(iter(DataLoader(Slow(4, 60.0), num_workers=1, timeout=0.3)))
    assert time.monotonic() - start < 30, "the batch was waited for"


# ---------------------------------------------------------------------------------------- nothing left behind


@linux
@pytest.mark.parametrize("persistent", [False, True])
def test_an_abandoned_iterator_leaves_no_process_and_no_memory(persistent):
    loader = DataLoader(Numbers(100), batch_size=2, num_workers=2, persistent_workers=persistent)
    batches = iter(loader)
    next(batches)
    workers = pids(batches)
    assert len(alive(workers)) == 2 and left_behind(os.getpid())
    del batches, loader
    gc.collect()
    assert alive(workers) == [] and left_behind(os.getpid()) == []


@linux
def test_a_finished_pass_leaves_no_process_and_no_memory():
    batches = iter(DataLoader(Numbers(8), batch_size=2, num_workers=2))
    workers = pids(batches)
    assert len(list(batches)) == 4
    assert alive(workers) == [] and left_behind(os.getpid()) == []


@linux
def test_an_exception_leaves_no_process_and_no_memory_even_while_it_is_held():
    batches = iter(DataLoader(Fails(), batch_size=2, num_workers=2))
    workers = pids(batches)
    with pytest.raises(ValueError) as held:
        list(batches)
    assert held is not None and alive(workers) == [] and left_behind(os.getpid()) == []
    assert list(batches) == []


@linux
def test_a_busy_worker_is_not_waited_for():
    batches = iter(DataLoader(Slow(10, 60.0), num_workers=1))
    workers = pids(batches)
    start = time.monotonic()
    del batches
    assert time.monotonic() - start < 30 and alive(workers) == []


SCRIPT = """
import sys, time
from shared.data import DataLoader
from tests.data.samples import Slow

if __name__ == "__main__":
    loader = DataLoader(Slow(10_000, 0.01), batch_size=2, num_workers=2)
    for i, batch in enumerate(loader):
        if i == 2:
            print("running", flush=True)
            {action}
"""


def run(tmp_path, script: str) -> subprocess.Popen:
    file = tmp_path / "script.py"
    file.write_text(script)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, str(file)],
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        start_new_session=True,
    )


def session_is_empty(session: int, seconds: float = 60.0) -> bool:
    """True once no process of the session is left (the fork server goes a moment after the main process)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        fields = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # a process that ends just now
                fields.append(path.read_text().rpartition(")")[2].split())
        if not any(int(f[3]) == session and f[0] != "Z" for f in fields):
            return True
        time.sleep(0.05)
    return False


@linux
@pytest.mark.parametrize("who", ["group", "main"])
def test_ctrl_c_ends_everything(tmp_path, who):
    process = run(tmp_path, SCRIPT.format(action="pass"))
    assert process.stdout.readline() == "running\n"
    (os.killpg if who == "group" else os.kill)(process.pid, 2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1, errors  # the main process's own, none of a worker
    assert session_is_empty(process.pid) and left_behind(process.pid) == []


@linux
def test_a_main_process_that_is_killed_takes_its_workers_along(tmp_path):
    process = run(tmp_path, SCRIPT.format(action="pass"))
    assert process.stdout.readline() == "running\n"
    process.kill()
    process.communicate(timeout=120)
    assert session_is_empty(process.pid) and left_behind(process.pid) == []


@linux
@pytest.mark.parametrize("action", ["break", "sys.exit()"])
def test_a_script_that_ends_in_the_middle_leaves_nothing(tmp_path, action):
    process = run(tmp_path, SCRIPT.format(action=action))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and errors == ""
    assert session_is_empty(process.pid) and left_behind(process.pid) == []


@linux
def test_an_iterator_alive_at_exit_is_cleaned_up(tmp_path):
    script = SCRIPT.replace("enumerate(loader)", "enumerate(batches := iter(loader))").format(action="break")
    process = run(tmp_path, script)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and errors == ""
    assert session_is_empty(process.pid) and left_behind(process.pid) == []


def test_a_missing_guard_is_explained(tmp_path):
    script = SCRIPT.replace('if __name__ == "__main__":', "if True:").format(action="break")
    process = run(tmp_path, script)
    output, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and output == ""
    last = errors[errors.rindex("RuntimeError: ") :]
    assert "exit code 1" in last and "if __name__ == '__main__'" in last


def test_a_dataset_from_the_prompt_is_explained(tmp_path):
    code = """
from shared.data import DataLoader, Dataset
class Mine(Dataset):
    def __len__(self): return 3
    def __getitem__(self, i): return i
list(DataLoader(Mine(), num_workers=1))
"""
    root = str(Path(__file__).parents[2])
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "move it into a .py file and import it, or use num_workers=0" in result.stderr


# ------------------------------------------------------------------------ the worker, message by message


@pytest.fixture
def conversation(monkeypatch):
    """A worker in a thread of this process: `tell(message)`, `hear()`, and a block of 4,096 bytes to answer in."""
    monkeypatch.setattr(worker, "_one_thread", lambda: None)
    monkeypatch.setattr(worker, "_info", None)
    states = random.getstate(), np.random.get_state(), shared.get_rng_state()
    ours, theirs = multiprocessing.Pipe()
    block = SharedMemory(create=True, size=4096)

    def start(recipe):
        thread.start()
        ours.send({})
        ours.send_bytes(pickle.dumps(recipe))
        return ours, block

    def live():
        with contextlib.suppress(EOFError):
            worker._Worker(0, 1, theirs).run()

    thread = threading.Thread(target=live, daemon=True)
    yield start
    ours.close()
    thread.join(10)
    assert not thread.is_alive()
    block.close()
    block.unlink()
    random.setstate(states[0])
    np.random.set_state(states[1])
    shared.set_rng_state(states[2])


def hear(connection):
    assert connection.poll(10)
    return connection.recv()


def test_a_worker_answers_a_task_in_its_block(conversation):
    connection, block = conversation(worker.Recipe(Numbers(), shared.data.default_collate, True, False))
    connection.send(("epoch", 3))
    connection.send(("task", 7, [4, 5], 0, block.name))
    kind, number, sizes = hear(connection)
    rows, labels = worker.read_parts(sizes, block.buf)
    assert (kind, number) == ("done", 7) and rows.tolist() == [[4] * 4, [5] * 4] and labels.tolist() == [4, 5]
    assert worker.get_worker_info().seed == 3


def test_a_worker_asks_for_a_larger_block_and_keeps_the_tasks_that_come_meanwhile(conversation):
    connection, block = conversation(worker.Recipe(Numbers(), shared.data.default_collate, True, False))
    connection.send(("epoch", 0))
    connection.send(("task", 0, [0] * 300, 0, block.name))
    connection.send(("task", 1, [1], 1, block.name))
    kind, number, size = hear(connection)
    assert (kind, number) == ("need", 0) and size > 4096
    larger = SharedMemory(create=True, size=size)
    connection.send(("block", larger.name))
    kind, number, sizes = hear(connection)
    assert (kind, number) == ("done", 0) and worker.read_parts(sizes, larger.buf)[1].tolist() == [0] * 300
    kind, number, sizes = hear(connection)
    assert (kind, number) == ("done", 1) and worker.read_parts(sizes, block.buf)[1].tolist() == [1]
    connection.send(("task", 2, [0] * 300, 0, block.name))
    assert hear(connection)[:2] == ("need", 2)
    connection.send(("block", None))  # nobody wants this batch any more
    connection.send(("task", 3, [9], 0, block.name))
    assert hear(connection)[:2] == ("done", 3)
    larger.close()
    larger.unlink()


def test_a_worker_sends_errors_and_ends(conversation):
    connection, block = conversation(worker.Recipe(Stream(1), shared.data.default_collate, True, False))
    connection.send(("epoch", 0))
    connection.send(("task", 0, [None], 0, block.name))
    connection.send(("task", 1, [None], 0, block.name))
    assert [hear(connection)[:2] for _ in range(2)] == [("done", 0), ("end", 1)]


def test_a_worker_that_cannot_start_an_epoch_answers_every_task_with_the_reason(conversation):
    recipe = worker.Recipe(Numbers(), shared.data.default_collate, True, False, fail_to_start)
    connection, block = conversation(recipe)
    connection.send(("epoch", 0))
    for number in range(2):
        connection.send(("task", number, [0], 0, block.name))
        kind, answered, error = hear(connection)
        assert (kind, answered) == ("error", number)
        assert "worker 0 has no licence" in str(error.exception())


def test_a_worker_that_cannot_read_the_dataset_says_so_before_any_task(conversation):
    connection, _ = conversation(worker.Recipe(BreaksWhenRead(), list, True, False))
    kind, number, error = hear(connection)
    assert (kind, number) == ("error", None) and isinstance(error.exception(), OSError)


def test_full_shared_memory_is_an_error_before_it_is_a_crash(monkeypatch):
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no /dev/shm here")
    usage = pool.shutil.disk_usage("/dev/shm")
    monkeypatch.setattr(pool.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(RuntimeError, match="needs 1,048,576 bytes of shared memory and /dev/shm has less.*--shm-size"):
        iter(DataLoader(Numbers(), num_workers=1))
    assert multiprocessing.active_children() == []


def test_a_sampler_that_fails_ends_the_workers():
    def broken():
        yield 0
        raise LookupError("no such order")

    with pytest.raises(LookupError, match="no such order"):
        iter(DataLoader(Numbers(), sampler=broken(), num_workers=1))
    assert multiprocessing.active_children() == []
