"""Notes 01 and 02: where padding is left when speeches come from buckets, and how many words of a batch are repeats.

python sprints/05_embeddings_and_positional_encoding/results/batches.py     TinyShakespeare, seconds
"""

from __future__ import annotations

import argparse

import numpy as np
from lookup import load, padded, word_ids

import shared
from course.results import Results
from shared.text import BucketBatchSampler, CharVocabulary, split_words


def what_is_left(text: str, batch_size: int, pool: int, seed: int, results: Results) -> None:
    """The share of padding in the middle batch, and how much of all padding is in the worst tenth of the batches."""
    lengths = np.array([len(split_words(speech)) for speech in text.split("\n\n")])
    shared.manual_seed(seed)
    batches = list(BucketBatchSampler(lengths.tolist(), batch_size, pool=pool))
    shares = sorted(padded(lengths[batch], [list(range(len(batch)))]) for batch in batches)
    wasted = np.sort([len(batch) * lengths[batch].max() - lengths[batch].sum() for batch in batches])
    tenth = wasted[-(len(wasted) // 10) :].sum() / wasted.sum()
    results.metric(f"padding_pool_{pool}_middle", round(100 * float(shares[len(shares) // 2]), 1), unit="%")
    results.metric(f"padding_pool_{pool}_worst_tenth", round(100 * float(tenth), 1), unit="%")
    print(f"pool={pool}: {shares[len(shares) // 2]:.3f} of the middle batch is padding, and {tenth:.3f} of all padding")
    print("lies in the tenth of the batches that has most of it")


def repeats(name: str, sequence: np.ndarray, seed: int, results: Results) -> None:
    """Of 1,024 places drawn at random, the share whose word or character is that of another, later one as well."""
    places = np.random.default_rng(seed).integers(0, len(sequence), (200, 1024))
    share = np.mean([1 - len(np.unique(sequence[at])) / 1024 for at in places])
    results.metric(f"repeats_share_drawn_{name}", round(100 * float(share), 1), unit="%")
    print(f"repeats among 1,024 {name} drawn at random: {share:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32, help="of the speeches (default: %(default)s)")
    parser.add_argument("--pool", type=int, default=100, help="batches sorted at a time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    args = parser.parse_args()
    results = Results(__file__, seed=args.seed)
    train, held = load()
    what_is_left(train + held, args.batch_size, args.pool, args.seed, results)
    repeats("words", word_ids(train), args.seed, results)
    repeats("characters", np.array(CharVocabulary.from_text(train).encode(train)), args.seed, results)
    results.save()


if __name__ == "__main__":
    main()
