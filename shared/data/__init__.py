"""Data: datasets by name, samplers, the DataLoader, transforms; this framework's `torch.utils.data`.

Getting a dataset:

    train, test = shared.data.load("mnist-5k")          # 4,000 and 1,000 real MNIST digits
    train, test = shared.data.load("mnist-5k", fallback=True)   # scikit-learn's digits where there is no network
    image, label = train[0]                             # float32 Tensor (1, 28, 28) in [0, 1], int
    loader = shared.data.DataLoader(train, batch_size=64, shuffle=True)
    for images, labels in loader: ...                   # (64, 1, 28, 28) float32, (64,) int64

`load(name)` always returns the pair (train, test) of Dataset objects. Names and what the samples are:

    "mnist-5k" "mnist" "fashion-mnist" "digits"   images: (image, label)
    "iris"                                        table: (float32 Tensor (4,), label)
    "tinyshakespeare" "wikitext-2" "python-reference"
                                                  text: (x, y), int64 Tensors (block_size,), y one character ahead

Images have `.data` (uint8 Tensor (N, H, W)), `.targets` (int64 Tensor (N,)), `.classes`; give
`transform=Compose([...])` to change what a sample is, `transform=None` for the raw uint8 array (H, W).
Tables have `.data` (float32 Tensor (N, F)), `.targets`, `.feature_names`, `.classes`. Texts have `.text` (the
string), `.chars`, `.vocab_size`, `.encode(string)`, `.decode(ids)`, `.data` (all ids, int64); give
`block_size=128`.
"""

from shared.data import catalog, transforms
from shared.data.catalog import DatasetUnavailable
from shared.data.collate import default_collate, default_convert
from shared.data.dataset import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, random_split
from shared.data.datasets import (
    MNIST,
    CharDataset,
    FashionMNIST,
    ImageDataset,
    TableDataset,
    TinyShakespeare,
    WikiText2,
    load,
)
from shared.data.loader import DataLoader
from shared.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from shared.data.stateful import StatefulDataLoader
from shared.data.statistics import RunningStatistics, channel_statistics
from shared.data.tokens import RandomWindows, TokenStream, random_windows, sequential_windows, write_tokens
from shared.data.worker import WorkerInfo, get_worker_info

__all__ = [
    "MNIST",
    "BatchSampler",
    "CharDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DatasetUnavailable",
    "FashionMNIST",
    "ImageDataset",
    "IterableDataset",
    "RandomSampler",
    "RandomWindows",
    "RunningStatistics",
    "Sampler",
    "SequentialSampler",
    "StatefulDataLoader",
    "Subset",
    "SubsetRandomSampler",
    "TableDataset",
    "TensorDataset",
    "TinyShakespeare",
    "TokenStream",
    "WeightedRandomSampler",
    "WikiText2",
    "WorkerInfo",
    "catalog",
    "channel_statistics",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "load",
    "random_split",
    "random_windows",
    "sequential_windows",
    "transforms",
    "write_tokens",
]
