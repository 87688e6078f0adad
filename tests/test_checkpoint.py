"""save and load: everything comes back bit for bit, bad files are refused, and no save ever leaves half a file."""

import errno
import io
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared import checkpoint, nn
from shared.arrays import dtypes
from shared.checkpoint import CheckpointError, load, save

ROOT = Path(__file__).resolve().parents[1]


def through(value):
    file = io.BytesIO()
    save(value, file)
    return load(file)


def bits(tensor):
    array = tensor.array if isinstance(tensor, shared.Tensor) else tensor
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).tolist()


# ---------------------------------------------------------------- what comes back

VALUES = [
    None,
    True,
    0,
    -(2**80),
    1.5,
    0.1 + 0.2,
    5e-324,
    -0.0,
    math.inf,
    -math.inf,
    "",
    "näh\n\ud800'\"\\",
    b"\x00\xff",
    [],
    (),
    {},
    (1, (2,), [3, (4,)]),
    [True, 1, 1.0, "1"],
    {"a": 1, 1: "a", None: 2, (1, "x"): 3, 1.5: 4},
    OrderedDict(b=1, a=2),
    Counter([1, 1, 2]),
    shared.float32,
    shared.bfloat16,
    shared.device("cuda:1"),
    {"tensor": "not a tensor", "dict": [1]},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_with_their_types(value):
    found = through(value)
    assert found == value and type(found) is type(value) and repr(found) == repr(value)


def test_nan_comes_back():
    assert math.isnan(through(math.nan))


def test_the_order_of_keys_is_kept():
    assert list(through({"b": 1, "a": 2, 3: 0})) == ["b", "a", 3]


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)], ids=str)
def test_tensors_come_back_bit_for_bit(dtype, shape):
    raw = np.random.default_rng(0).integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
    array = (raw % 2 if dtype == dtypes.bool_ else raw).view(dtype).reshape(shape)  # NaNs with payloads among them
    found = through({"x": shared.Tensor(array.copy())})["x"]
    assert type(found) is shared.Tensor and found.dtype == dtype and found.shape == shape
    assert bits(found) == bits(array) and not found.requires_grad and found.array.flags.writeable


def test_strided_and_foreign_ordered_arrays_come_back_by_value():
    array = np.arange(24.0).reshape(4, 6)
    found = through(
        [shared.from_numpy(array.T), shared.from_numpy(array[::2, ::-3].copy()), array.T, array.astype(">f4")]
    )
    assert (found[0].numpy() == array.T).all() and (found[2] == array.T).all() and (found[3] == array).all()
    assert found[3].dtype == np.float32


def test_arrays_and_scalars_of_numpy_stay_what_they_are():
    found = through({"a": np.arange(3), "s": np.float32(1.1), "b": np.bool_(True), "u": np.uint16([7])})
    assert type(found["a"]) is np.ndarray and type(found["s"]) is np.float32 and found["s"] == np.float32(1.1)
    assert type(found["b"]) is np.bool_ and found["u"].dtype == np.uint16


def test_parameters_and_gradient_flags_come_back():
    leaf = shared.ones(2, requires_grad=True)
    found = through(
        {
            "p": nn.Parameter(shared.ones(2)),
            "f": nn.Parameter(shared.ones(2), requires_grad=False),
            "t": leaf,
            "r": leaf * 2,
        }
    )
    assert type(found["p"]) is nn.Parameter and found["p"].requires_grad
    assert type(found["f"]) is nn.Parameter and not found["f"].requires_grad
    assert type(found["t"]) is shared.Tensor and found["t"].requires_grad and found["r"].is_leaf


def test_one_tensor_in_two_places_is_one_tensor_again():
    w = nn.Parameter(shared.ones(2))
    found = through({"a": w, "b": [w]})
    assert found["a"] is found["b"][0]


def test_tied_memory_is_written_once_and_comes_back_tied():
    w = shared.ones(1000)
    file = io.BytesIO()
    save({"encoder": w, "decoder": w.detach(), "other": w.clone()}, file)
    found = load(file)
    assert len(file.getvalue()) < 2 * 4000 + 1000
    found["encoder"][0] = 5.0
    assert found["decoder"][0].item() == 5.0 and found["other"][0].item() == 1.0


def test_a_tied_model_keeps_its_tie_through_its_state_dict():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    found = through(model.state_dict())
    assert np.shares_memory(found["0.weight"].array, found["1.weight"].array)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(json_like)
def test_any_nesting_comes_back(value):
    found = through(value)
    assert repr(found) == repr(value)


def test_names_in_the_file_are_those_of_a_state_dict(tmp_path):
    from safetensors.numpy import load_file

    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    save(model.state_dict(), tmp_path / "m.safetensors")
    found = load_file(tmp_path / "m.safetensors")
    assert set(found) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert (found["0.weight"] == model[0].weight.numpy(force=True)).all()


def test_names_that_would_clash_are_told_apart():
    found = through({"a.b": shared.zeros(1), "a": {"b": shared.ones(1), 0: shared.ones(2)}, "a.0": shared.ones(3)})
    assert found["a.b"].item() == 0 and found["a"]["b"].item() == 1
    assert len(found["a"][0]) == 2 and len(found["a.0"]) == 3


def test_a_safetensors_file_from_elsewhere_is_a_dict_of_tensors(tmp_path):
    from safetensors.numpy import save_file

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"b": array, "a": array.astype(dtypes.bfloat16)}, tmp_path / "x", metadata={"format": "pt"})
    for source in (tmp_path / "x", io.BytesIO((tmp_path / "x").read_bytes())):
        found = load(source)
        assert list(found) == ["a", "b"] and found["a"].dtype == shared.bfloat16
        assert (found["b"].numpy() == array).all()


def test_random_states_come_back():
    shared.manual_seed(3)
    shared.randn(5)
    state = through({"rng": shared.get_rng_state(), "numpy": np.random.default_rng(1).bit_generator.state})
    expected = shared.randn(4).tolist()
    shared.set_rng_state(state["rng"])
    assert shared.randn(4).tolist() == expected
    generator = np.random.default_rng(0)
    generator.bit_generator.state = state["numpy"]
    assert generator.random() == np.random.default_rng(1).random()


def test_training_resumes_bit_for_bit(tmp_path):
    def make():
        shared.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = shared.optim.AdamW(model.parameters(), lr=0.05, amsgrad=True)
        return model, optimizer, shared.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def train(model, optimizer, scheduler, steps):
        losses = []
        for _ in range(steps):
            x = shared.randn(6, 4)
            optimizer.zero_grad()
            loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        return losses

    parts = make()
    train(*parts, 5)
    save({"parts": [p.state_dict() for p in parts], "rng": shared.get_rng_state()}, tmp_path / "c")
    expected = train(*parts, 5)
    parts = make()
    state = load(tmp_path / "c")
    for part, saved in zip(parts, state["parts"], strict=True):
        part.load_state_dict(saved)
    shared.set_rng_state(state["rng"])
    assert train(*parts, 5) == expected


def test_map_location(tmp_path):
    save(shared.ones(2), tmp_path / "x")
    assert load(tmp_path / "x", map_location="cpu").device == "cpu"
    assert load(tmp_path / "x", map_location=shared.device("cpu")).tolist() == [1, 1]
    with pytest.raises(TypeError, match="map_location must be a device such as 'cpu', but got dict"):
        load(tmp_path / "x", map_location={"cuda": "cpu"})


def test_a_gpu_that_is_not_there_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "cuda_is_available", lambda: False)
    save(shared.ones(2), tmp_path / "x")
    with pytest.raises(CheckpointError, match=r"asks for device 'cuda', but no GPU .* map_location='cpu'"):
        load(tmp_path / "x", map_location="cuda")


# ---------------------------------------------------------------- what cannot be saved


class Odd:
    pass


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def circular():
    value = {"a": []}
    value["a"].append(value)
    return value


REFUSED = [
    (
        {"optimizer": {"fn": lambda: 0}},
        r"state\['optimizer'\]\['fn'\] is the function .*Take it out, and set it again",
    ),
    ([0, (print,)], r"state\[1\]\[0\] is the builtin_function_or_method print"),
    ({"model": nn.Linear(1, 1)}, r"state\['model'\] is of type shared\.nn.*Save its state_dict\(\) instead"),
    ({3: {1, 2}}, r"state\[3\] is of type builtins.set.*sorted"),
    ([Odd()], r"state\[0\] is of type .*Odd, which cannot be saved"),
    ({"a": {b"k": 1}}, r"state\['a'\] has the key b'k'"),
    ({(1, Odd): 1}, r"the key .* of state\[1\] is the type"),
    (np.array(["a"]), r"state is an array of dtype <U1"),
    ([np.array([None])], r"state\[0\] is an array of dtype object"),
    (1j, "state is of type builtins.complex"),
    (circular(), r"state\['a'\]\[0\] contains itself"),
    (nested(250), "is nested more than 200 levels deep"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[m[:30] for _, m in REFUSED])
def test_a_value_that_cannot_be_saved_is_named_by_its_place(value, message, tmp_path):
    save("old", tmp_path / "x")
    with pytest.raises(CheckpointError, match=message):
        save(value, tmp_path / "x")
    assert load(tmp_path / "x") == "old" and os.listdir(tmp_path) == ["x"]


def test_a_header_that_readers_would_refuse_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_HEADER_LIMIT", 1000)
    with pytest.raises(CheckpointError, match="Turn long lists of numbers into Tensors"):
        save(list(range(1000)), tmp_path / "x")
    assert not (tmp_path / "x").exists()


# ---------------------------------------------------------------- bad files


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "x"
    save({"w": shared.randn(20), "n": 3}, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=rf"cannot load {path}: it is .*Load an earlier checkpoint"):
            load(path)


def test_every_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "x"
    save({"w": shared.randn(20), "n": 3}, path)
    whole, rng = path.read_bytes(), random.Random(0)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=str(path)):
            load(path)


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return file.getvalue()


FOREIGN = [
    (b"", "it is empty"),
    (zipped(), "it is a zip archive, perhaps a PyTorch"),
    (b"\x80\x04\x95" + b"x" * 20, "it is a pickle"),
    (b"GGUF\x03" + bytes(30), "it is a GGUF file"),
    (b'{"a": 1}' + b" " * 20, "it is JSON or text"),
    (b"<!DOCTYPE html><html>Not found</html>", "an error page instead of the download"),
    (b"\x1f\x8b\x08" + bytes(30), "compressed with gzip"),
    (b"some text or other", "it is not a safetensors file"),
    (bytes(100), "it is not a safetensors file"),
    (b"\xff" * 100, "it is not a safetensors file"),
]


@pytest.mark.parametrize(("content", "message"), FOREIGN, ids=[m for _, m in FOREIGN])
def test_a_foreign_file_is_named_for_what_it_is(content, message, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"cannot load {tmp_path / 'x'}: .*{message}"):
        load(tmp_path / "x")
    with pytest.raises(CheckpointError, match=f"cannot load the open file: .*{message}"):
        load(io.BytesIO(content))


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file.*nothing"):
        load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError, match="this is a folder, not a checkpoint file"):
        load(tmp_path)
    with pytest.raises(IsADirectoryError, match="this is a folder; add a file name"):
        save(1, tmp_path)
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path / 'no'}; make it first"):
        save(1, tmp_path / "no" / "x")


def test_a_file_of_a_newer_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint._Encoder, "encode", lambda self, *args: {"quaternion": 1})
    save(1, tmp_path / "x")
    with pytest.raises(CheckpointError, match="unknown kind 'quaternion': a newer version wrote it"):
        load(tmp_path / "x")


# ---------------------------------------------------------------- saves that fail


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EACCES, "no permission to write in the folder"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "Input/output error"),
    ],
    ids=["full", "permission", "read-only", "other"],
)
def test_a_failed_save_says_why_and_keeps_the_old_file(number, message, tmp_path, monkeypatch):
    path = tmp_path / "x"
    save("old", path)

    def fail(file, header, arrays):
        file.write(header[:10])
        raise OSError(number, "")

    monkeypatch.setattr(checkpoint, "_write", fail)
    with pytest.raises(OSError, match=f"{message}.*the file that was there before is unchanged.*{path}") as e:
        save("new", path)
    assert e.value.errno == number
    assert load(path) == "old" and os.listdir(tmp_path) == ["x"]


def test_a_disk_that_takes_no_more_keeps_the_old_file(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of processes need POSIX")
    path = tmp_path / "x"
    save("old", path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="larger than this file system or its limits allow"):
            save(shared.zeros(1_000_000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load(path) == "old" and os.listdir(tmp_path) == ["x"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in read-only folders")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=f"no permission to write in the folder {tmp_path}"):
            save(1, tmp_path / "x")
    finally:
        tmp_path.chmod(0o700)


def test_the_file_is_on_the_disk_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def record(name, function):
        def recorded(*args):
            calls.append((name, os.path.isdir(f"/proc/self/fd/{args[0]}") if name == "fsync" else None))
            return function(*args)

        return recorded

    monkeypatch.setattr(os, "fsync", record("fsync", fsync))
    monkeypatch.setattr(os, "replace", record("replace", replace))
    save(1, tmp_path / "x")
    assert calls == [("fsync", False), ("replace", None), ("fsync", True)]


def test_a_symbolic_link_stays_one(tmp_path):
    save("old", tmp_path / "target")
    (tmp_path / "link").symlink_to("target")
    save("new", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and load(tmp_path / "target") == "new"


def test_what_killed_saves_left_is_removed_in_time(tmp_path):
    old, fresh, other = (tmp_path / name for name in (".x.0123abcd.tmp", ".x.4567abcd.tmp", ".y.0123abcd.tmp"))
    for path in (old, fresh, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (0, 0))
    save(1, tmp_path / "x")
    assert not old.exists() and fresh.exists() and other.exists()


# ---------------------------------------------------------------- saves that are killed

KILLED = textwrap.dedent(
    """
    import os, random, signal, sys, time
    import numpy as np
    import shared
    from shared import checkpoint

    path, mode = sys.argv[1], sys.argv[2]
    size = 500_000

    def state(n):
        w, v = (shared.Tensor(np.full(size, n, dtype)) for dtype in (np.int32, np.float32))
        return {"n": n, "w": w, "v": [v]}

    def die(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    def save_and_die(n, moment):
        write, fsync, replace = checkpoint._write, os.fsync, os.replace
        if moment == "while writing":
            checkpoint._write = lambda f, header, arrays: (f.write(header), f.flush(), die())
        elif moment == "before the data is on the disk":
            os.fsync = die
        elif moment == "before it gets its name":
            os.replace = die
        elif moment == "after it has its name":
            os.replace = lambda a, b: (replace(a, b), die())
        else:
            raise AssertionError(moment)
        checkpoint.save(state(n), path)

    checkpoint.save(state(0), path)
    if mode != "random":
        save_and_die(1, mode)
    rng, seen, longest = random.Random(0), {0}, 0.06
    for kill in range(int(sys.argv[3])):
        child = os.fork()
        if child == 0:
            n = checkpoint.load(path)["n"]
            while True:
                n += 1
                checkpoint.save(state(n), path)
        time.sleep(rng.uniform(0.001, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = checkpoint.load(path)
        assert (found["w"].array == found["n"]).all() and (found["v"][0].array == found["n"]).all()
        if found["n"] in seen:
            longest = min(1.0, 1.5 * longest)  # a busy machine: let it get to a save
        seen.add(found["n"])
    leftovers = [e for e in os.listdir(os.path.dirname(path)) if e.endswith(".tmp")]
    print(len(seen), len(leftovers))
    """
)


def run_killed(path, *args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(path), *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("while writing", 0),
        ("before the data is on the disk", 0),
        ("before it gets its name", 0),
        ("after it has its name", 1),
    ],
)
def test_a_save_killed_at_a_certain_moment_leaves_the_old_or_the_new_file(moment, expected, tmp_path):
    result = run_killed(tmp_path / "x", moment)
    assert result.returncode == -signal.SIGKILL, result.stderr
    found = load(tmp_path / "x")
    assert found["n"] == expected and (found["w"].array == expected).all()


@pytest.mark.parametrize("kills", [40, pytest.param(400, marks=pytest.mark.stress)])
def test_saves_killed_at_random_moments_leave_the_old_or_the_new_file(tmp_path, kills):
    result = run_killed(tmp_path / "x", "random", str(kills))
    assert result.returncode == 0, result.stderr
    files, leftovers = map(int, result.stdout.split())
    assert files > 3, "the kills came before anything was saved"
    assert leftovers > 0, "no kill came in the middle of a save"
