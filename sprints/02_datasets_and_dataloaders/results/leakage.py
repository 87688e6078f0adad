"""A hungry statistic: selecting features on all examples makes noise look learnable.

python sprints/02_datasets_and_dataloaders/results/leakage.py
"""

from __future__ import annotations

import argparse

import numpy as np

from course.results import Results


def accuracy(x: np.ndarray, y: np.ndarray, features: int, peek: bool, rng: np.random.Generator) -> float:
    """Share right on the test half, of the nearest class mean over the features that correlate best with y.

    x: (N, D). y: (N,) of 0 and 1. With `peek` features are selected on all N, else on the training half.
    """
    order = rng.permutation(len(y))
    train, test = order[: len(y) // 2], order[len(y) // 2 :]
    seen = order if peek else train
    centred = (x[seen] - x[seen].mean(axis=0)) / x[seen].std(axis=0)
    correlation = np.abs(centred.T @ (y[seen] - y[seen].mean()))
    best = np.argsort(correlation)[-features:]
    means = np.stack([x[train][y[train] == k][:, best].mean(axis=0) for k in (0, 1)])  # (2, features)
    distance = ((x[test][:, None, best] - means) ** 2).sum(axis=2)
    return float((distance.argmin(axis=1) == y[test]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--noise", type=int, default=2000, help="random features per example")
    parser.add_argument("--features", type=int, default=20, help="how many are selected")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    rng = np.random.default_rng(arguments.seed)
    scores = {True: [], False: []}
    for _ in range(arguments.repeats):
        x = rng.standard_normal((arguments.examples, arguments.noise))
        y = rng.integers(0, 2, arguments.examples)
        for peek in scores:
            scores[peek].append(accuracy(x, y, arguments.features, peek, rng))
    results = Results(__file__, seed=arguments.seed)
    results.metric("noise_accuracy_leaked", 100 * np.mean(scores[True]), unit="%")
    results.metric("noise_accuracy_honest", 100 * np.mean(scores[False]), unit="%")
    results.save()
    print(f"features selected on all examples:     {100 * np.mean(scores[True]):.1f} % right on the test half")
    print(f"features selected on the training half: {100 * np.mean(scores[False]):.1f} % right on the test half")


if __name__ == "__main__":
    main()
