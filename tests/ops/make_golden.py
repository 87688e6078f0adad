"""Writes the numbers that the tests compare with where PyTorch is not installed: python -m tests.ops.make_golden."""

import hashlib
import json
from pathlib import Path

import numpy as np

from tests.ops.cases import EXAMPLES, example_id

FOLDER = Path(__file__).parent / "golden"
SOURCE = Path(__file__).parent / "cases.py"


def source_hash() -> str:
    """Which table of cases the numbers belong to."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def main() -> None:
    import torch

    from tests.ops import test_dtypes
    from tests.ops.running import numpy_of, run_torch

    numbers, entries = [], {}
    for case, place in EXAMPLES:
        outputs, grads = run_torch(case, case.arrays(place))
        arrays = [None if x is None else numpy_of(x) for x in (*outputs, *grads)]
        shapes = [None if a is None else [a.dtype.name, *a.shape] for a in arrays]
        entries[example_id((case, place))] = [len(outputs), shapes]
        numbers += [a.astype(np.float64).reshape(-1) for a in arrays if a is not None]
    entry_text = json.dumps({"source": source_hash(), "torch": torch.__version__, "entries": entries})
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "cases.npz", numbers=np.concatenate(numbers), index=np.array(entry_text))
    answers = {" | ".join(q): test_dtypes.dtype_of(torch, *q) for q in test_dtypes.questions()}
    (FOLDER / "promotion.json").write_text(json.dumps(answers, indent=0, sort_keys=True) + "\n")
    print(f"{len(entries)} examples, {sum(map(len, numbers))} numbers, {len(answers)} promotions")


if __name__ == "__main__":
    main()
