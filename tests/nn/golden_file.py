"""Many small arrays in one small file: their numbers one after the other, and an index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def save(path: Path, texts: dict, arrays: dict[str, np.ndarray]) -> None:
    index, start = {}, 0
    for name, array in arrays.items():
        index[name] = [start, list(array.shape)]
        start += array.size
    values = np.concatenate([np.asarray(a, dtype="float64").reshape(-1) for a in arrays.values()])
    header = json.dumps({"texts": texts, "index": index})
    np.savez_compressed(path, values=values, header=np.array(header))


def load(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    with np.load(path) as file:
        values, header = file["values"], json.loads(str(file["header"]))
    arrays = {}
    for name, (start, shape) in header["index"].items():
        arrays[name] = values[start : start + int(np.prod(shape))].reshape(shape)
    return header["texts"], arrays
