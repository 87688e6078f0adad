"""safetensors files as views of the file: values, copy on write, odd addresses, damaged headers, what is written."""

from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest

from shared.arrays import dtypes
from shared.checkpoint import CheckpointError
from shared.models.tensor_file import ALIGNMENT, map_tensors, read_places, write_tensors

safetensors = pytest.importorskip("safetensors.numpy")
RNG = np.random.default_rng(0)
ARRAYS = {
    "weight": RNG.normal(size=(5, 7)).astype("float32"),
    "turned": RNG.normal(size=(6, 4)).astype("float32").T,
    "double": RNG.normal(size=3),
    "half": RNG.normal(size=(2, 3)).astype("float16"),
    "ids": np.arange(5),
    "flags": np.array([True, False, True]),
    "nothing": np.empty((0, 4), "float32"),
    "number": np.float32(3.5).reshape(()),
}


def same(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def base_of(array):
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def with_header_of(path, length, arrays):
    """A safetensors file whose header has this length, filled up with spaces."""
    content = safetensors.save(arrays)
    (old,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + old].rstrip(b" ").ljust(length)
    assert len(header) == length
    path.write_bytes(struct.pack("<Q", length) + header + content[8 + old :])


def test_what_is_written_comes_back_here_and_with_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, ARRAYS)
    same(map_tensors(path), ARRAYS)
    same(safetensors.load_file(path), ARRAYS)
    with __import__("safetensors").safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_safetensors_writes_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {name: np.ascontiguousarray(array) for name, array in ARRAYS.items() if array.ndim}
    safetensors.save_file(arrays, path)
    same(map_tensors(path), arrays)


def test_bfloat16_keeps_its_bits(tmp_path):
    array = np.array([1.0, -2.5, 3e38], dtypes.bfloat16)
    write_tensors(tmp_path / "a", {"x": array})
    same(map_tensors(tmp_path / "a"), {"x": array})


def test_the_same_arrays_give_the_same_bytes_whatever_their_order(tmp_path):
    write_tensors(tmp_path / "a", ARRAYS)
    write_tensors(tmp_path / "b", dict(reversed(ARRAYS.items())))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert min(place.start for place in read_places(tmp_path / "a").values()) % ALIGNMENT == 0


def test_arrays_are_views_of_the_file_and_changes_stay_in_memory(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, ARRAYS)
    before, found = digest(path), map_tensors(path)
    for name, array in found.items():
        assert type(array) is np.ndarray and array.flags.writeable and array.flags.aligned
        assert array.size == 0 or isinstance(base_of(array), memoryview), name  # of the map, not of memory of its own
    assert not any(isinstance(base_of(array), memoryview) for array in map_tensors(path, mapped=False).values())
    same(map_tensors(path, mapped=False), ARRAYS)
    found["weight"] += 1
    np.testing.assert_array_equal(found["weight"], ARRAYS["weight"] + 1)
    assert digest(path) == before
    same(map_tensors(path), ARRAYS)


def test_a_file_that_is_replaced_leaves_those_who_read_the_old_one_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, ARRAYS)
    found = map_tensors(path)
    write_tensors(tmp_path / "new", {"weight": np.zeros((5, 7), "float32")})
    (tmp_path / "new").replace(path)
    same(found, ARRAYS)


@pytest.mark.parametrize("rest", range(8))
def test_tensors_at_odd_addresses_are_read_into_memory_of_their_own(tmp_path, rest):
    """As in GPT-2's own file, whose header is 14,283 bytes long."""
    path = tmp_path / "a.safetensors"
    arrays = {"double": ARRAYS["double"], "weight": ARRAYS["weight"], "flags": ARRAYS["flags"]}
    with_header_of(path, 400 + rest, arrays)
    found = map_tensors(path)
    same(found, arrays)
    assert all(array.flags.aligned and array.flags.writeable for array in found.values())
    views = {name for name, array in found.items() if isinstance(base_of(array), memoryview)}
    assert views == {name for name, size in (("double", 8), ("weight", 4), ("flags", 1)) if rest % size == 0}
    found["weight"] += 1
    same(map_tensors(path), arrays)


def test_only_what_is_wanted_is_there(tmp_path):
    write_tensors(tmp_path / "a", ARRAYS)
    assert set(map_tensors(tmp_path / "a", wanted=lambda name: name.startswith("n"))) == {"nothing", "number"}


def changed_header(content, change):
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def shift(header):
    header["weight"]["data_offsets"] = [n + 4 for n in header["weight"]["data_offsets"]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: b"",
        lambda c: c[:5],
        lambda c: c[:100],
        lambda c: c[:-1],
        lambda c: c + b"\0",
        lambda c: struct.pack("<Q", 1 << 60) + c[8:],
        lambda c: b"\x80\x04" + c,
        lambda c: b"PK\3\4" + c,
        lambda c: b"<html>not found</html>",
        lambda c: struct.pack("<Q", 2) + b"[]",
        lambda c: struct.pack("<Q", 8) + b'{"a": 1}',
        lambda c: changed_header(c, shift),
        lambda c: changed_header(c, lambda h: h["weight"].update(shape=[5, 8])),
        lambda c: changed_header(c, lambda h: h["weight"].update(shape=[-5, -7])),
        lambda c: changed_header(c, lambda h: h["weight"].update(shape=[5.0, 7])),
        lambda c: changed_header(c, lambda h: h["weight"].update(dtype="F8_E4M3")),
        lambda c: changed_header(c, lambda h: h["weight"].update(data_offsets=[0])),
        lambda c: changed_header(c, lambda h: h["weight"].update(data_offsets=[0.0, 140.0])),
        lambda c: changed_header(c, lambda h: h["weight"].update(data_offsets=[False, 140])),
        lambda c: changed_header(c, lambda h: h["weight"].update(data_offsets=[0, 140, 7])),
        lambda c: changed_header(c, lambda h: h["weight"].pop("shape")),
        lambda c: changed_header(c, lambda h: h.pop("weight")),
    ],
)
def test_damaged_and_foreign_files_are_errors_that_name_the_file(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"weight": ARRAYS["weight"], "flags": ARRAYS["flags"]})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"cannot load .*a\.safetensors: "):
        map_tensors(path)


def test_a_dtype_that_is_not_read_is_named_and_no_damage(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"flags": ARRAYS["flags"]})
    path.write_bytes(changed_header(path.read_bytes(), lambda h: h["flags"].update(dtype="F8_E4M3")))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: flags has the dtype F8_E4M3; .*F16, BF16") as caught:
        read_places(path)
    assert "corrupted" not in str(caught.value)


def test_what_no_file_can_hold_is_told_before_an_old_file_is_touched(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"flags": ARRAYS["flags"]})
    before = digest(path)
    with pytest.raises(CheckpointError, match="cannot save .*a.safetensors: wide has the dtype complex128"):
        write_tensors(path, {"wide": np.zeros(2, "complex128")})
    assert digest(path) == before


def test_numbers_are_little_endian_in_the_file_whatever_they_are_in_memory(tmp_path):
    wanted = ARRAYS["weight"]
    write_tensors(tmp_path / "a", {"weight": wanted.astype(">f4"), "double": ARRAYS["double"].astype(">f8")})
    same(map_tensors(tmp_path / "a"), {"weight": wanted, "double": ARRAYS["double"]})


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        map_tensors(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        map_tensors(tmp_path)
