"""Datasets by name: images, tables and texts as Dataset objects."""

from __future__ import annotations

import gzip
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shared.data import catalog
from shared.data.dataset import Dataset
from shared.data.transforms import ToTensor
from shared.tensor import Tensor

FALLBACKS = {"images": "digits", "text": "python-reference"}


class ImageDataset(Dataset[tuple]):
    """Grey images with a class each; sample `i` is `(image, label)`.

    `data`: uint8 Tensor (N, H, W). `targets`: int64 Tensor (N,). `classes`: the names of the labels.
    An image is handed to `transform` as a uint8 array (H, W), a label to `target_transform` as an int.

    >>> dataset = ImageDataset(np.zeros((2, 8, 8), np.uint8), np.array([1, 0]), ["cat", "dog"], ToTensor())
    >>> dataset[0][0].shape, dataset[0][1]
    (Size([1, 8, 8]), 1)
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: list[str],
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        name: str = "images",
    ):
        self.images = images
        self.labels = labels
        self.classes = classes
        self.transform = transform
        self.target_transform = target_transform
        self.name = name

    @property
    def data(self) -> Tensor:
        """All images: uint8 Tensor (N, H, W), sharing memory with the dataset."""
        return Tensor(self.images)

    @property
    def targets(self) -> Tensor:
        """All labels: int64 Tensor (N,), sharing memory with the dataset."""
        return Tensor(self.labels)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class name."""
        return {name: i for i, name in enumerate(self.classes)}

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.images[index], int(self.labels[index])
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return image, label

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        height, width = self.images.shape[1:3]
        return f"{self.name}: {len(self):,} images of {height}×{width}, {len(self.classes)} classes"


class TableDataset(Dataset[tuple]):
    """Rows of numbers with a class each; sample `i` is `(features, label)`.

    `data`: float32 Tensor (N, F). `targets`: int64 Tensor (N,). `feature_names` and `classes`: their names.

    >>> train, _ = load("iris")
    >>> train.data.shape, len(train.classes)
    (Size([120, 4]), 3)
    """

    def __init__(
        self,
        rows: np.ndarray,
        labels: np.ndarray,
        feature_names: list[str],
        classes: list[str],
        name: str = "table",
    ):
        self.rows = rows
        self.labels = labels
        self.feature_names = feature_names
        self.classes = classes
        self.name = name

    @property
    def data(self) -> Tensor:
        """All rows: float32 Tensor (N, F), sharing memory with the dataset."""
        return Tensor(self.rows)

    @property
    def targets(self) -> Tensor:
        """All labels: int64 Tensor (N,), sharing memory with the dataset."""
        return Tensor(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return Tensor(self.rows[index]), int(self.labels[index])

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"{self.name}: {len(self):,} rows of {self.rows.shape[1]} features, {len(self.classes)} classes"


class CharDataset(Dataset[tuple]):
    """Windows of a text as character ids; sample `i` is `(x, y)`, int64 (block_size,), `y` one step ahead.

    `text`: the string. `chars`: the vocabulary, sorted; `vocab_size` its length. `data`: all ids, Tensor
    (len(text),). `encode(string)` gives a list of ids, `decode(ids)` the string.

    >>> dataset = CharDataset("hello", block_size=3)
    >>> dataset.decode(dataset[0][1])
    'ell'
    """

    def __init__(self, text: str, block_size: int = 64, chars: list[str] | None = None, name: str = "text"):
        if not 1 <= block_size < len(text):
            raise ValueError(f"block_size must be between 1 and {len(text) - 1}, but got {block_size}")
        self.text = text
        self.block_size = block_size
        self.chars = sorted(set(text)) if chars is None else chars
        self.name = name
        self._id = {char: i for i, char in enumerate(self.chars)}
        self.ids = np.array(self.encode(text), dtype=np.int64)

    @property
    def vocab_size(self) -> int:
        """How many distinct characters there are."""
        return len(self.chars)

    @property
    def data(self) -> Tensor:
        """All ids: int64 Tensor (len(text),), sharing memory with the dataset."""
        return Tensor(self.ids)

    def encode(self, string: str) -> list[int]:
        """The ids of the characters; ValueError names one that is not in the vocabulary."""
        try:
            return [self._id[char] for char in string]
        except KeyError as error:
            raise ValueError(f"the character {error.args[0]!r} is not among the {self.vocab_size} known") from None

    def decode(self, ids: Any) -> str:
        """The string that `encode` turned into `ids` (a sequence, array or tensor of integers)."""
        return "".join(self.chars[int(i)] for i in ids)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        start = range(len(self))[index]
        stop = start + self.block_size
        return Tensor(self.ids[start:stop]), Tensor(self.ids[start + 1 : stop + 1])

    def __len__(self) -> int:
        return len(self.ids) - self.block_size

    def __repr__(self) -> str:
        size = f"{len(self.text):,} characters, {self.vocab_size} distinct"
        return f"{self.name}: {size}, windows of {self.block_size}"


def parse_idx(raw: bytes, source: str = "the idx file") -> np.ndarray:
    """The uint8 array in an idx file (the format of MNIST), gzipped or not.

    Header: two zero bytes, a type code (8: uint8), the number of dimensions, then each as a big-endian uint32.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9])).tolist()
    [7, 9]
    """
    try:
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (EOFError, OSError) as error:
        raise ValueError(f"{source} is truncated or damaged: {error}") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{source} is not an idx file of uint8: it starts with {raw[:4].hex()}")
    ndim = raw[3]
    if len(raw) < 4 + 4 * ndim:
        raise ValueError(f"{source} is truncated: it ends within its header")
    shape = tuple(np.frombuffer(raw, dtype=">u4", count=ndim, offset=4).tolist())
    body = len(raw) - 4 - 4 * ndim
    if body != math.prod(shape):
        raise ValueError(f"{source} is truncated: its header promises shape {shape}, {body} bytes follow")
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * ndim).reshape(shape).copy()


class MNIST(ImageDataset):
    """MNIST as torchvision has it: 60,000 images for training, 10,000 for testing, 28×28.

    Looks in `root` (directly, in root/mnist and in root/MNIST/raw), then $COURSE_DATA, then the cache;
    with `download=True` fetches what is missing (into `root` if given). `transform` gets a uint8 array (28, 28).
    """

    catalog_name = "mnist"
    names = [str(i) for i in range(10)]

    def __init__(
        self,
        root: str | Path | None = None,
        train: bool = True,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        download: bool = False,
        progress: bool = True,
    ):
        prefix = "train" if train else "t10k"
        wanted = [f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"]
        images, labels = (parse_idx(p.read_bytes(), str(p)) for p in self._paths(wanted, root, download, progress))
        self.train = train
        name = f"{catalog.entry(self.catalog_name).title}, {'train' if train else 'test'}"
        super().__init__(images, labels.astype(np.int64), self.names, transform, target_transform, name)

    @classmethod
    def _paths(cls, wanted: list[str], root: str | Path | None, download: bool, progress: bool) -> list[Path]:
        folders: list[Path | None] = [None]
        if root:
            folders = [Path(root), Path(root) / cls.catalog_name, Path(root) / cls.__name__ / "raw"]
        files = {file.name: file for file in catalog.entry(cls.catalog_name).files}
        found = []
        for name in wanted:
            here = (catalog.locate(cls.catalog_name, files[name], folder) for folder in folders)
            path = next((path for path in here if path is not None), None)
            if path is None and not download:
                raise RuntimeError(f"Dataset not found: {name} is not there. You can use download=True to download it")
            found.append(path or catalog.fetch_file(cls.catalog_name, files[name], progress, folders[-1]))
        return found


class FashionMNIST(MNIST):
    """Fashion-MNIST, arguments as for MNIST: 28×28 pictures of clothes in ten classes."""

    catalog_name = "fashion-mnist"
    names = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]


class TinyShakespeare(CharDataset):
    """The first 90% (train) or last 10% of TinyShakespeare as windows; both know all 65 characters."""

    def __init__(self, train: bool = True, block_size: int = 64, progress: bool = True):
        path = catalog.fetch("tinyshakespeare", progress)["input.txt"]
        part, chars = _split_text(path.read_text(encoding="utf-8"), train)
        super().__init__(part, block_size, chars, f"TinyShakespeare, {'train' if train else 'test'}")


class WikiText2(CharDataset):
    """One part of WikiText-2, "train", "valid" or "test", as windows of characters; all parts know the same ones.

    The text has its words and punctuation marks set apart by spaces; "<unk>" stands for every word that "train"
    has fewer than three times. `tokens()` gives the words, as models of words count them.
    Source: Merity, Xiong, Bradbury and Socher, "Pointer sentinel mixture models", 2016, section 4.
    """

    def __init__(self, split: str = "train", block_size: int = 64, progress: bool = True):
        if split not in ("train", "valid", "test"):
            raise ValueError(f"WikiText2: expected split to be 'train', 'valid' or 'test', but got {split!r}")
        paths = catalog.fetch("wikitext-2", progress)
        texts = {part: paths[f"{part}.txt"].read_text(encoding="utf-8") for part in ("train", "valid", "test")}
        chars = sorted(set().union(*texts.values()))
        super().__init__(texts[split], block_size, chars, f"WikiText-2, {split}")

    def tokens(self) -> list[str]:
        """The words in order, with "<eos>" at the end of each line: 2,088,628 of them in "train"."""
        return self.text.replace("\n", " <eos> ").split()


def _split_text(text: str, train: bool) -> tuple[str, list[str]]:
    """The part wanted (first 90% or the rest) and the characters of the whole."""
    cut = int(0.9 * len(text))
    return (text[:cut] if train else text[cut:]), sorted(set(text))


def stratified_split(labels: np.ndarray, every: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Fixed train and test indices: every fifth sample of each class is for testing; both parts are shuffled.

    Uses NumPy's RandomState, whose stream never changes between versions.

    >>> train, test = stratified_split(np.repeat([0, 1], 10))
    >>> len(train), sorted(test.tolist())
    (16, [4, 9, 14, 19])
    """
    rank = np.empty(len(labels), dtype=np.int64)  # the how-many-th of its class each sample is
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        rank[members] = np.arange(len(members))
    order = np.random.RandomState(0).permutation(len(labels))
    chosen = rank[order] % every == every - 1
    return order[~chosen], order[chosen]


def _arrays(name: str, progress: bool) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Images or rows, labels, and their names, of the sets that have no class of their own."""
    if name == "mnist-5k":
        path = catalog.fetch(name, progress)["mnist_5k.csv.gz"]
        table = np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())), delimiter=",", dtype=np.uint8)
        images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
        return images, labels, {"classes": [str(i) for i in range(10)]}
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    labels = bunch.target.astype(np.int64)
    if name == "digits":  # 0 … 16, stretched to 0 … 255 so that the transforms for MNIST serve here too
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
        return images, labels, {"classes": [str(i) for i in range(10)]}
    names = {"classes": [str(n) for n in bunch.target_names], "feature_names": list(bunch.feature_names)}
    return bunch.data.astype(np.float32), labels, names


def _reference_text() -> str:
    """The text behind Python's help(), topics in alphabetical order."""
    from pydoc_data.topics import topics

    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(topics[name] for name in sorted(topics)))


def _pair(name: str, transform: Any, target_transform: Any, progress: bool, block_size: int) -> tuple[Any, Any]:
    kind, title = catalog.entry(name).kind, catalog.entry(name).title
    if kind == "questions":
        raise ValueError(f"{name!r} has stories and questions, one set for each task: shared.text.{name}.load(task)")
    if kind in ("tokenizer", "model"):
        raise ValueError(
            f"{name!r} is a {kind}, no data set: shared.data.catalog.fetch({name!r}) has the paths of its files"
        )
    if name in ("mnist", "fashion-mnist"):
        cls = MNIST if name == "mnist" else FashionMNIST
        return tuple(cls(None, train, transform, target_transform, True, progress) for train in (True, False))
    if name == "tinyshakespeare":
        return tuple(TinyShakespeare(train, block_size, progress) for train in (True, False))
    if name == "wikitext-2":
        return tuple(WikiText2(split, block_size, progress) for split in ("train", "test"))
    if kind == "text":
        text = _reference_text()
        parts = ((*_split_text(text, train), f"{title}, {'train' if train else 'test'}") for train in (True, False))
        return tuple(CharDataset(part, block_size, chars, label) for part, chars, label in parts)
    data, labels, names = _arrays(name, progress)
    halves = zip(stratified_split(labels), (f"{title}, train", f"{title}, test"), strict=True)
    if kind == "table":
        return tuple(TableDataset(data[i], labels[i], **names, name=label) for i, label in halves)
    options = {"transform": transform, "target_transform": target_transform, **names}
    return tuple(ImageDataset(data[i], labels[i], **options, name=label) for i, label in halves)


def load(
    name: str,
    *,
    transform: Callable | None = ToTensor(),  # noqa: B008 (it has no state)
    target_transform: Callable | None = None,
    fallback: bool = False,
    progress: bool = True,
    block_size: int = 64,
) -> tuple[Any, Any]:
    """`(train, test)` of the dataset called `name`: see the top of `shared.data` for what they are.

    Finds the files in $COURSE_DATA or the cache, else downloads them into the cache (`progress` shows a bar).
    `transform` and `target_transform` are for images: by default an image arrives as a float32 Tensor
    (1, H, W) in [0, 1]; `transform=None` gives the uint8 array (H, W). `block_size` is for texts.
    Where the data cannot be had: DatasetUnavailable; with `fallback=True` instead scikit-learn's digits
    (images) or Python's reference text (text), and one printed sentence that says so.

    >>> train, test = load("digits")
    >>> len(train), len(test), train[0][0].shape[0]
    (1442, 355, 1)
    """
    options = (transform, target_transform, progress, block_size)
    try:
        return _pair(name, *options)
    except catalog.DatasetUnavailable:
        substitute = FALLBACKS.get(catalog.entry(name).kind)
        if not fallback or substitute is None:
            raise
        train, test = _pair(substitute, *options)
        title = catalog.entry(substitute).title
        print(f"{name} could not be had here; using {title} instead ({len(train):,} train, {len(test):,} test).")
        return train, test
