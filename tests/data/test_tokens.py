"""Token files and windows: what is refused, where windows may lie, and that each token is predicted once."""

import os

import numpy as np
import pytest

import shared
from shared.data import RandomWindows, TokenStream, random_windows, sequential_windows, write_tokens
from shared.data.tokens import check_ids, token_dtype


def seeded(seed=0):
    return shared.Generator().manual_seed(seed)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "train.npy"
    write_tokens(path, np.arange(1000) % 300, vocab_size=300)
    return path


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize(("vocab_size", "width"), [(2, 2), (50257, 2), (65536, 2), (65537, 4), (200_000, 4)])
def test_ids_come_back_in_as_few_bytes_as_the_vocabulary_allows(tmp_path, vocab_size, width):
    ids = np.array([0, 1, vocab_size - 1, 0], dtype=np.int64)
    write_tokens(tmp_path / "x.npy", ids, vocab_size)
    stream = TokenStream(tmp_path / "x.npy", vocab_size=vocab_size)
    assert stream[:].tolist() == ids.tolist() and stream[:].dtype.itemsize == width
    assert len(stream) == 4 and stream[2] == vocab_size - 1


def test_lists_and_tensors_are_written_too(tmp_path):
    for ids in ([3, 1, 2], shared.tensor([3, 1, 2]), range(3)):
        write_tokens(tmp_path / "x.npy", ids, 5)
        assert TokenStream(tmp_path / "x.npy")[:].tolist() == [int(i) for i in ids]


def test_the_file_is_mapped_not_read(path):
    ids = TokenStream(path).ids
    while isinstance(ids.base, np.ndarray):
        ids = ids.base
    assert isinstance(ids, np.memmap) and ids.mode == "r"
    with pytest.raises(ValueError, match="read-only"):
        TokenStream(path)[:][0] = 1


@pytest.mark.parametrize("bad", [300, -1])
def test_an_id_outside_the_vocabulary_is_named_and_nothing_is_written(path, bad):
    before = path.read_bytes()
    ids = np.arange(20)
    ids[7] = bad
    with pytest.raises(ValueError, match=f"id {bad} at place 7 is not among the 300 of the vocabulary"):
        write_tokens(path, ids, 300)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_ids_are_checked_beyond_the_first_piece(monkeypatch):
    monkeypatch.setattr("shared.data.tokens._CHUNK", 4)
    ids = np.array([0, 1, 2, 3, 4, 9, 1])
    with pytest.raises(ValueError, match="id 9 at place 5"):
        check_ids(ids, 9, "x")
    check_ids(ids, 10, "x")


def test_a_reader_with_a_smaller_vocabulary_is_told(path):
    with pytest.raises(ValueError, match=r"train.npy: id 65 at place 65 is not among the 65 .*another tokenizer"):
        TokenStream(path, vocab_size=65)
    TokenStream(path, vocab_size=300)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "truncated or damaged"),
        (lambda b: b[:40], "truncated or damaged"),
        (lambda b: b"", "it is empty"),
        (lambda b: b"First Citizen:\nBefore we proceed", "it is not a .npy file"),
        (lambda b: b[128:], "it is not a .npy file"),
        (lambda b: b"PK\x03\x04" + b, "it is not a .npy file"),
        (lambda b: b + b"\0\0", "has bytes behind its 1000 ids"),
    ],
    ids=["last byte gone", "in the header", "empty", "text", "no header", "zip", "longer"],
)
def test_a_damaged_or_foreign_file_is_named(path, damage, message):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        TokenStream(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("array", [np.zeros(5), np.zeros((2, 3), np.uint16), np.zeros(4, np.int64), np.array("a")])
def test_an_array_of_another_kind_is_named(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match="not token ids: one row of uint16 or uint32"):
        TokenStream(tmp_path / "x.npy")


def test_a_file_with_a_pickle_is_not_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as tokens"):
        TokenStream(tmp_path / "x.npy")


def test_missing_files_folders_and_other_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file of tokens"):
        TokenStream(tmp_path / "x.npy")
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        TokenStream(tmp_path)
    with pytest.raises(ValueError, match="kept in a .npy file"):
        write_tokens(tmp_path / "x.bin", [1], 2)
    with pytest.raises(OSError, match="cannot write the tokens: No such file or directory"):
        write_tokens(tmp_path / "absent" / "x.npy", [1], 2)


def test_a_disk_that_takes_no_more_keeps_the_old_file(path):
    resource = pytest.importorskip("resource", reason="limits of processes need POSIX")
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot write the tokens"):
            write_tokens(path, np.zeros(100_000, np.int64), 300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("ids", [[0.5, 1.0], [[1, 2]], "text", []])
def test_what_is_no_row_of_ids_is_refused(tmp_path, ids):
    with pytest.raises(ValueError, match="integers in one row|no tokens"):
        write_tokens(tmp_path / "x.npy", ids, 5)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("vocab_size", [0, -3, 2**32 + 1])
def test_vocabularies_that_no_dtype_holds(vocab_size):
    with pytest.raises(ValueError, match="vocab_size should be between 1 and 2"):
        token_dtype(vocab_size)


# ---------------------------------------------------------------- random windows


def test_targets_are_the_inputs_one_token_later(path):
    for tokens in (path, TokenStream(path), TokenStream(path)[:], list(range(300))):
        inputs, targets = random_windows(tokens, 5, 16, seeded())
        assert inputs.shape == targets.shape == (5, 16) and inputs.dtype == targets.dtype == shared.int64
        assert (inputs[:, 1:] == targets[:, :-1]).all()
        assert ((inputs + 1) % 300 == targets).all()  # in this text each token is followed by the next number
        assert inputs.array.flags.c_contiguous and targets.array.flags.c_contiguous


def test_windows_reach_both_ends_and_never_cross_the_end():
    starts = np.concatenate([random_windows(np.arange(12), 50, 4, seeded(s))[0][:, 0].numpy() for s in range(20)])
    count = np.bincount(starts, minlength=8)
    assert len(count) == 8, "12 tokens have eight windows of 4 with a target each: 0 … 7"
    # 1,000 draws from 8 places: 125 each, standard deviation 10.5
    assert count.min() > 75 and count.max() < 175


def test_a_window_as_long_as_the_text_allows():
    inputs, targets = random_windows(np.arange(9), 3, 8, seeded())
    assert inputs.tolist() == [list(range(8))] * 3 and targets.tolist() == [list(range(1, 9))] * 3
    with pytest.raises(ValueError, match="a window of 9 tokens and the token after it take 10, but there are 9"):
        random_windows(np.arange(9), 3, 9)
    with pytest.raises(ValueError, match="at least one token"):
        random_windows(np.arange(9), 3, 0)


def test_the_generator_alone_decides():
    shared.manual_seed(0)
    before = shared.get_rng_state()
    first = random_windows(np.arange(100), 4, 8, seeded(3))[0].tolist()
    assert random_windows(np.arange(100), 4, 8, seeded(3))[0].tolist() == first
    assert random_windows(np.arange(100), 4, 8, seeded(4))[0].tolist() != first
    assert (np.asarray(shared.get_rng_state()) == np.asarray(before)).all()
    by_default = random_windows(np.arange(100), 4, 8)[0].tolist()
    shared.manual_seed(0)
    assert random_windows(np.arange(100), 4, 8)[0].tolist() == by_default


def test_the_sampler_goes_on_where_it_was():
    windows = RandomWindows(np.arange(500), batch=3, length=7, seed=2)
    for _ in range(4):
        next(windows)
    state = windows.state_dict()
    coming = [next(windows)[0].tolist() for _ in range(3)]
    other = RandomWindows(np.arange(500), batch=3, length=7, seed=99)
    other.load_state_dict(state)
    assert [next(other)[0].tolist() for _ in range(3)] == coming
    with pytest.raises(ValueError, match="but there are 5"):
        RandomWindows(np.arange(5), batch=3, length=7)


# ---------------------------------------------------------------- sequential windows


@pytest.mark.parametrize("tokens", [2, 3, 8, 9, 10, 23, 24, 25, 26])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_token_but_the_first_is_a_target_once_and_in_order(tokens, batch):
    targets, sizes = [], []
    for inputs, after in sequential_windows(np.arange(tokens), batch, 4):
        assert (inputs + 1 == after).all() and inputs.shape == after.shape
        assert inputs.shape[0] <= batch and inputs.shape[1] <= 4
        targets += after.flatten().tolist()
        sizes.append(inputs.shape)
    assert targets == list(range(1, tokens))
    assert all(shape[1] == 4 for shape in sizes[:-1]), "only the last window may be shorter"


def test_one_token_has_nothing_to_predict():
    with pytest.raises(ValueError, match="but there are 1"):
        list(sequential_windows([5], 1, 4))
