"""Datasets by name: what `load` returns, the torchvision-like classes, the idx format, texts as windows."""

import gzip
import hashlib
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared
from shared.data import (
    MNIST,
    CharDataset,
    DataLoader,
    DatasetUnavailable,
    FashionMNIST,
    TinyShakespeare,
    WikiText2,
    catalog,
    load,
)
from shared.data.datasets import parse_idx, stratified_split
from shared.data.transforms import Compose, Normalize, ToTensor

quick = settings(max_examples=50)
real_data = pytest.mark.skipif(not os.environ.get("COURSE_DATA"), reason="$COURSE_DATA is not set")


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


# --------------------------------------------------------------------------------------------------- embedded


def test_digits_are_scikit_learns_split_by_class():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    train, test = load("digits", transform=None)
    assert len(train) + len(test) == len(bunch.images)
    ours = sorted(image.tobytes() for part in (train, test) for image in part.images)
    assert ours == sorted(np.round(image * 255 / 16).astype(np.uint8).tobytes() for image in bunch.images)
    share = np.bincount(test.labels) / np.bincount(bunch.target)
    assert (np.abs(share - 0.2) < 0.01).all()


def test_a_sample_is_an_image_in_0_to_1_and_an_int():
    train, _ = load("digits")
    image, label = train[3]
    assert image.shape == (1, 8, 8) and image.dtype == shared.float32 and 0 <= image.min().item()
    assert image.max().item() <= 1 and type(label) is int and label == train.targets[3].item()


def test_transforms_change_what_a_sample_is():
    train, test = load("digits", transform=None, target_transform=lambda label: label % 2)
    image, label = test[0]
    assert image.dtype == np.uint8 and image.shape == (8, 8) and label in (0, 1)
    normal, _ = load("digits", transform=Compose([ToTensor(), Normalize((0.3,), (0.4,))]))
    np.testing.assert_allclose(normal[0][0].numpy()[0], (train.images[0] / 255 - 0.3) / 0.4, rtol=1e-5)


def test_attributes_of_an_image_dataset():
    train, _ = load("digits")
    assert train.data.shape == (1442, 8, 8) and train.data.dtype == shared.uint8
    assert train.targets.dtype == shared.int64 and train.classes == list("0123456789")
    assert train.class_to_idx["7"] == 7 and repr(train) == "Digits, train: 1,442 images of 8×8, 10 classes"
    with pytest.raises(IndexError):
        train[len(train)]


def test_loading_twice_gives_the_same_split():
    first, second = load("digits"), load("digits")
    assert all(
        (a.images == b.images).all() and (a.labels == b.labels).all() for a, b in zip(first, second, strict=True)
    )


@quick
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_the_split_takes_every_fifth_of_each_class_and_loses_nothing(labels):
    labels = np.array(labels)
    train, test = stratified_split(labels)
    assert sorted([*train, *test]) == list(range(len(labels)))
    for label in range(4):
        assert (labels[test] == label).sum() == (labels == label).sum() // 5


def test_iris_is_a_table():
    train, test = load("iris")
    features, label = train[0]
    assert features.shape == (4,) and features.dtype == shared.float32 and type(label) is int
    assert train.data.shape == (120, 4) and test.targets.shape == (30,)
    assert train.feature_names[0] == "sepal length (cm)" and train.classes == [
        "setosa",
        "versicolor",
        "virginica",
    ]
    batch, labels = next(iter(DataLoader(train, batch_size=16, shuffle=True)))
    assert batch.shape == (16, 4) and labels.dtype == shared.int64
    assert repr(train) == "Iris, train: 120 rows of 4 features, 3 classes"


def test_datasets_cross_to_worker_processes():
    train, _ = load("digits")
    loader = DataLoader(train, batch_size=500, num_workers=2)
    images, labels = next(iter(loader))
    assert images.shape == (500, 1, 8, 8) and labels.tolist() == train.targets[:500].tolist()
    assert len(pickle.loads(pickle.dumps(load("python-reference")[1]))) > 0


# ------------------------------------------------------------------------------------------------------- text


def test_windows_of_a_text_are_one_character_apart():
    dataset = CharDataset("hello world", block_size=4)
    assert len(dataset) == 7 and dataset.vocab_size == 8 and dataset.chars == sorted(set("hello world"))
    x, y = dataset[1]
    assert dataset.decode(x) == "ello" and dataset.decode(y) == "llo " and x.dtype == shared.int64
    assert dataset.decode(dataset[-1][1]) == "orld"
    with pytest.raises(IndexError):
        dataset[7]


@quick
@given(st.text(min_size=2, max_size=40))
def test_encoding_and_decoding_undo_each_other(text):
    dataset = CharDataset(text, block_size=1)
    assert dataset.decode(dataset.encode(text)) == text == dataset.decode(dataset.data)


def test_an_unknown_character_is_named():
    with pytest.raises(ValueError, match="'z' is not among the 3 known"):
        CharDataset("abc", block_size=1).encode("az")


@pytest.mark.parametrize("size", [0, 3, 4])
def test_a_window_must_fit(size):
    with pytest.raises(ValueError, match="between 1 and 2"):
        CharDataset("abc", block_size=size)


def test_the_reference_text_is_one_text_in_two_parts():
    train, test = load("python-reference", block_size=16)
    assert train.chars == test.chars and abs(len(test.text) / (len(train.text) + len(test.text)) - 0.1) < 0.001
    assert "assert" in train.text and train[0][0].shape == (16,)


# -------------------------------------------------------------------------------------------------------- idx


@quick
@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.booleans())
def test_idx_files_are_read_back(shape, zipped):
    array = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    raw = idx(array)
    parsed = parse_idx(gzip.compress(raw) if zipped else raw)
    assert parsed.shape == array.shape and (parsed == array).all() and parsed.flags.writeable


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "not an idx file"),
        (b"PK\x03\x04 zip", "not an idx file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "not an idx file of uint8"),
        (
            idx(np.zeros((3, 4), np.uint8))[:-1],
            r"truncated: its header promises shape \(3, 4\), 11 bytes follow",
        ),
        (idx(np.zeros((3, 4), np.uint8))[:6], "truncated"),
        (gzip.compress(idx(np.zeros(99, np.uint8)), mtime=0)[:-9], "truncated or damaged"),
    ],
)
def test_what_is_no_whole_idx_file_is_refused_by_name(raw, message):
    with pytest.raises(ValueError, match=f"numbers.gz is {message}"):
        parse_idx(raw, "numbers.gz")


# ------------------------------------------------------------------------------------------------ MNIST class


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A catalog whose MNIST has 12 and 4 random images, no mirror, and no other source; returns the files."""
    rng = np.random.RandomState(0)
    arrays = {}
    for prefix, size in (("train", 12), ("t10k", 4)):
        arrays[f"{prefix}-images-idx3-ubyte.gz"] = rng.randint(0, 256, (size, 28, 28)).astype(np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte.gz"] = rng.randint(0, 10, size).astype(np.uint8)
    files = {name: gzip.compress(idx(array), mtime=0) for name, array in arrays.items()}
    text = '[mnist]\ntitle = "MNIST"\nkind = "images"\ndescription = ""\nlicense = ""\ncitation = ""\n'
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        text += f'[[mnist.files]]\nname = "{name}"\nbytes = {len(data)}\nsha256 = "{digest}"\n'
        text += 'mirrors = ["http://127.0.0.1:9/x"]\n'
    (tmp_path / "catalog.toml").write_text(text)
    monkeypatch.setattr(catalog, "catalog_path", lambda: tmp_path / "catalog.toml")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return files, arrays


def put(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("layout", [".", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("train", [True, False])
def test_mnist_reads_the_files_under_its_root(small_mnist, tmp_path, layout, train):
    files, arrays = small_mnist
    put(tmp_path / "root" / layout, files)
    dataset = MNIST(tmp_path / "root", train=train)
    prefix = "train" if train else "t10k"
    assert (dataset.images == arrays[f"{prefix}-images-idx3-ubyte.gz"]).all()
    assert (dataset.labels == arrays[f"{prefix}-labels-idx1-ubyte.gz"]).all()
    image, label = dataset[0]
    assert image.shape == (28, 28) and image.dtype == np.uint8 and label == dataset.targets[0].item()


def test_mnist_applies_its_transforms(small_mnist, tmp_path):
    put(tmp_path / "root", small_mnist[0])
    dataset = MNIST(tmp_path / "root", transform=ToTensor(), target_transform=str)
    assert dataset[0][0].shape == (1, 28, 28) and isinstance(dataset[0][1], str)


def test_mnist_is_not_downloaded_unless_asked(small_mnist, tmp_path):
    with pytest.raises(RuntimeError, match="You can use download=True to download it"):
        MNIST(tmp_path / "root")
    assert not (tmp_path / "root").exists()
    with pytest.raises(DatasetUnavailable, match="'mnist' is not on this machine"):
        MNIST(tmp_path / "root", download=True)


def test_mnist_names_a_damaged_file_and_does_not_use_it(small_mnist, tmp_path):
    files = dict(small_mnist[0])
    files["train-labels-idx1-ubyte.gz"] = files["train-labels-idx1-ubyte.gz"][:-1] + b"x"
    put(tmp_path / "root", files)
    with (
        pytest.warns(UserWarning, match="train-labels-idx1-ubyte.gz is damaged"),
        pytest.raises(RuntimeError),
    ):
        MNIST(tmp_path / "root")


def test_fashion_mnist_names_its_classes():
    assert FashionMNIST.names[9] == "Ankle boot" and FashionMNIST.catalog_name == "fashion-mnist"


# ------------------------------------------------------------------------------------------------- real files


@real_data
def test_mnist_is_what_its_authors_describe():
    if catalog.status("mnist") != "course-data":
        pytest.skip("$COURSE_DATA has no mnist")
    train, test = load("mnist")
    assert train.data.shape == (60000, 28, 28) and len(test) == 10000
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs((train.images / 255).mean() - 0.1307) < 5e-5  # the constant that PyTorch's examples normalise with
    assert [MNIST(None, part).labels.tolist() for part in (True, False)] == [
        train.labels.tolist(),
        test.labels.tolist(),
    ]


@real_data
def test_tinyshakespeare_is_whole():
    if catalog.status("tinyshakespeare") != "course-data":
        pytest.skip("$COURSE_DATA has no tinyshakespeare")
    train, test = load("tinyshakespeare", block_size=8)
    assert len(train.text) + len(test.text) == 1_115_394 and train.vocab_size == test.vocab_size == 65
    assert train.text.startswith("First Citizen:\nBefore we proceed") and len(train.text) == 1_003_854
    assert len(TinyShakespeare(train=False, block_size=100)) == len(test.text) - 100


@real_data
def test_wikitext_2_is_whole():
    if catalog.status("wikitext-2") != "course-data":
        pytest.skip("$COURSE_DATA has no wikitext-2")
    train, test = load("wikitext-2", block_size=8)
    valid = WikiText2("valid")
    assert [len(part.tokens()) for part in (train, valid, test)] == [2_088_628, 217_646, 245_569]
    assert len(set(train.tokens())) == 33_278 and set(valid.tokens()) | set(test.tokens()) <= set(train.tokens())
    assert train.chars == valid.chars == test.chars and valid.text.startswith(" \n = Homarus gammarus = \n")
    assert train.decode(train[1][1]) == train.text[2:10]


def test_wikitext_2_names_its_splits():
    with pytest.raises(ValueError, match="'train', 'valid' or 'test', but got 'validation'"):
        WikiText2("validation")


def test_mnist_5k_is_balanced_and_distinct():
    try:
        train, test = load("mnist-5k", progress=False)
    except DatasetUnavailable as error:
        pytest.skip(f"mnist-5k cannot be had here: {error.attempts}")
    assert np.bincount(train.labels).tolist() == [400] * 10 and np.bincount(test.labels).tolist() == [100] * 10
    assert len({image.tobytes() for part in (train, test) for image in part.images}) == 5000
