"""Notes 01 and 02: tables by vocabulary, padding by batch, a lookup and its gradient timed, and what lost repeats do.

python sprints/05_embeddings_and_positional_encoding/results/lookup.py     TinyShakespeare, under a minute on one core
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator
from sentence import DOG_BITES, TABLE, WORDS, canvas, ids, table, write_grid

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn, optim
from shared.arrays.kernels import embedding as kernels
from shared.arrays.kernels.embedding import reference
from shared.nn import functional as F
from shared.text import BucketBatchSampler, CharVocabulary, WordVocabulary, keep_frequent, split_words

GRADIENT = (
    (1.0, 0.0, 2.0, -1.0),
    (0.0, 1.0, 0.0, 1.0),
    (2.0, 0.0, 0.0, 1.0),
    (3.0, -1.0, 0.0, 1.0),
    (0.0, 0.0, 1.0, 0.0),
)
GREEN, BLUE, RED = COLORS["green"], COLORS["blue"], COLORS["vermillion"]


def load() -> tuple[str, str]:
    """(training text, held-out text): TinyShakespeare's first nine tenths and its last."""
    train, test = shared.data.load("tinyshakespeare", fallback=True)
    return train.text, test.text


# ---------------------------------------------------------------- drawings


def labels(axis: plt.Axes, words: list[str], at: tuple[float, float]) -> None:
    for r, word in enumerate(words):
        axis.text(at[0] - 0.2, at[1] + r + 0.52, word, ha="right", va="center", fontsize=11)


def one_hot_product() -> plt.Figure:
    """The one-hot rows of the sentence, times the table, is the table's rows in the order of the sentence."""
    words, chosen = DOG_BITES.split(), ids().tolist()
    one_hot = F.one_hot(ids(), 4).tolist()
    figure, axis = plt.subplots(figsize=(9.2, 3.4))
    canvas(axis, 19.4, 6.2)
    shade = {word: colour for word, colour in zip(WORDS, ("0.75", BLUE, COLORS["orange"], GREEN), strict=True)}
    for at, rows, names in (
        ((1.6, 1.0), one_hot, words),
        ((8.2, 1.5), [list(row) for row in TABLE], list(WORDS)),
        ((14.8, 1.0), [TABLE[i] for i in chosen], words),
    ):
        for r, (row, name) in enumerate(zip(rows, names, strict=True)):
            filled = [1.0] * 4 if at[0] > 2 else [float(v) for v in row]
            write_grid(axis, [list(row)], (at[0], at[1] + r), [filled], strong=shade[name])
        labels(axis, names, at)
    for x, text in ((6.2, "·"), (12.9, "=")):
        axis.text(x, 3.5, text, ha="center", va="center", fontsize=20)
    for x, text in ((3.6, "one-hot rows O (5, 4)"), (10.2, "table E (4, 4)"), (16.8, "vectors OE (5, 4)")):
        axis.text(x, 0.4, text, ha="center", va="center", fontsize=11, weight="bold")
    return figure


def scatter() -> plt.Figure:
    """Five gradients on their way to four rows; the two of "the" meet."""
    words, chosen = DOG_BITES.split(), ids().tolist()
    sums = reference.embedding_weight(np.array(GRADIENT), np.array(chosen), 4)
    figure, axis = plt.subplots(figsize=(8.4, 3.6))
    canvas(axis, 15.2, 6.2)
    left, right = (1.6, 1.0), (10.4, 1.5)
    for r, word in enumerate(words):
        strong = RED if word == "the" else "0.8"
        write_grid(axis, [GRADIENT[r]], (left[0], left[1] + r), [[1.0] * 4], strong=strong)
    for r, word in enumerate(WORDS):
        strong = RED if word == "the" else "0.8"
        write_grid(axis, [sums[r].tolist()], (right[0], right[1] + r), [[1.0] * 4], strong=strong)
    labels(axis, words, left)
    for r, word in enumerate(WORDS):
        axis.text(right[0] + 4.2, right[1] + r + 0.52, word, ha="left", va="center", fontsize=11)
    for place, row in enumerate(chosen):
        start, end = (left[0] + 4.1, left[1] + place + 0.5), (right[0] - 0.1, right[1] + row + 0.5)
        colour, width = (RED, 2.2) if row == 0 else ("0.55", 1.2)
        axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=colour, linewidth=width))
    axis.text(left[0] + 2, 0.4, "∂L/∂Y (5, 4)", ha="center", va="center", fontsize=11, weight="bold")
    axis.text(right[0] + 2, 0.4, "∂L/∂E (4, 4)", ha="center", va="center", fontsize=11, weight="bold")
    return figure


# ---------------------------------------------------------------- note 01: vocabularies and padding


def vocabularies(train: str, held: str, results: Results) -> None:
    """How large a vocabulary is, and what share of unseen text it does not know."""
    counts, unseen = Counter(split_words(train.lower())), split_words(held.lower())
    characters = CharVocabulary.from_text(train)
    results.metric("characters_train", len(train), unit="characters")
    results.metric("characters_vocabulary", len(characters))
    results.metric("words_train", sum(counts.values()), unit="words")
    results.metric("words_once", sum(count == 1 for count in counts.values()))
    results.metric("words_distinct", len(counts))
    for least in (1, 2, 5, 20):
        words = WordVocabulary(keep_frequent(counts, least))
        unknown = sum(i == words.unk_id for i in words.encode(unseen)) / len(unseen)
        results.metric(f"words_min_{least}", len(words))
        results.metric(f"unknown_min_{least}", round(100 * unknown, 2), unit="%")
        print(
            f"words seen at least {least:2} times: {len(words):6,} rows, {100 * unknown:5.2f}% of unseen text unknown"
        )


def padded(lengths: np.ndarray, batches: list[list[int]]) -> float:
    """Which share of all places in these batches is filled up."""
    places = sum(len(batch) * lengths[batch].max() for batch in batches)
    return 1 - lengths.sum() / places


def padding(text: str, batch_size: int, seed: int, results: Results) -> plt.Figure:
    """Speeches in batches: one batch of each kind, and the share that is padding against the size of the pool."""
    lengths = np.array([len(split_words(speech)) for speech in text.split("\n\n")])
    results.metric("speeches", len(lengths))
    results.metric("speech_median", float(np.median(lengths)), unit="words")
    results.metric("speech_longest", int(lengths.max()), unit="words")
    results.metric("padding_batch_size", batch_size)
    pools = [1, 2, 5, 10, 20, 50, 100, 226]
    shares, kept = [], {}
    for pool in pools:
        shared.manual_seed(seed)
        kept[pool] = list(BucketBatchSampler(lengths.tolist(), batch_size, pool=pool))
        shares.append(100 * padded(lengths, kept[pool]))
        results.metric(f"padding_pool_{pool}", round(shares[-1], 1), unit="%")
    print("share of padding by pool:", dict(zip(pools, np.round(shares, 1).tolist(), strict=True)))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.4, 3.4), width_ratios=(1, 1, 1.25))
    for axis, pool, title in ((left, 1, "Drawn at random"), (middle, 100, "From buckets")):
        # The batch whose share of padding is the median of its kind, so that neither is a lucky one.
        batch = sorted(kept[pool], key=lambda b: padded(lengths[b], [list(range(len(b)))]))[len(kept[pool]) // 2]
        here = lengths[batch]
        axis.barh(range(len(here)), here, color=BLUE, height=0.9, label="words")
        axis.barh(range(len(here)), here.max() - here, left=here, color="0.85", height=0.9, label="padding")
        axis.set(title=title, xlabel="place in the sequence (words)", ylabel="sequence in the batch", yticks=[])
        axis.grid(False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(loc="lower right", fontsize=9, frameon=True, framealpha=1)
    right.semilogx(pools, shares, marker="o", markersize=4)
    right.set(
        title="Share of padding", xlabel="batches sorted at a time (pool)", ylabel="places filled up (%)", ylim=(0, 100)
    )
    return figure


# ---------------------------------------------------------------- note 02: what it costs


def fastest(function: Callable[[], object], seconds: float = 0.25, least: int = 3) -> float:
    """The fastest of several calls, in ms: other work on the machine makes calls slower, never faster."""
    function()
    times, end = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def cost(seed: int, results: Results) -> plt.Figure:
    """A lookup of 1,024 tokens in tables of width 64, forwards and backwards, against the number of rows."""
    rng, tokens, width = np.random.default_rng(seed), 1024, 64
    sizes = [64, 256, 1024, 4096, 16384]
    forward: dict[str, list[float]] = {"one-hot · E": [], "E[ids]": []}
    backward: dict[str, list[float]] = {
        "one-hotᵀ · G": [],
        "np.add.at": [],
        "sorted and summed": [],
        "compiled loop": [],
    }
    for size in sizes:
        weight = rng.standard_normal((size, width), dtype=np.float32)
        grad = rng.standard_normal((tokens, width), dtype=np.float32)
        chosen = rng.integers(0, size, tokens)
        one_hot = np.zeros((tokens, size), np.float32)
        one_hot[np.arange(tokens), chosen] = 1

        def add_at(
            shape: tuple[int, int] = weight.shape, chosen: np.ndarray = chosen, grad: np.ndarray = grad
        ) -> np.ndarray:
            out = np.zeros(shape, np.float32)
            np.add.at(out, chosen, grad)
            return out

        right = one_hot.T @ grad
        ways = {
            "one-hotᵀ · G": lambda o=one_hot, g=grad: o.T @ g,
            "np.add.at": add_at,
            "sorted and summed": lambda g=grad, c=chosen, n=size: reference.embedding_weight(g, c, n),
            "compiled loop": lambda g=grad, c=chosen, n=size: kernels.embedding_weight(g, c, n),
        }
        for name, way in ways.items():
            assert np.allclose(way(), right, atol=1e-4), name
            backward[name].append(fastest(way))
        assert np.array_equal(one_hot @ weight, kernels.embedding(weight, chosen))
        forward["one-hot · E"].append(fastest(lambda o=one_hot, w=weight: o @ w))
        forward["E[ids]"].append(fastest(lambda w=weight, c=chosen: kernels.embedding(w, c)))
        results.metric(f"one_hot_{size}_mb", round(one_hot.nbytes / 1e6, 1), unit="MB")
    results.metric("cost_tokens", tokens)
    keys = {"one-hot · E": "forward_one_hot", "E[ids]": "forward_lookup", "one-hotᵀ · G": "backward_one_hot"}
    keys |= {"np.add.at": "backward_add_at", "sorted and summed": "backward_sorted", "compiled loop": "backward_kernel"}
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
    for axis, curves, title in zip(axes, (forward, backward), ("Forwards", "Backwards"), strict=True):
        for (name, values), marker in zip(curves.items(), "osD^", strict=False):
            axis.loglog(sizes, values, marker=marker, markersize=5, label=name)
            for size, value in zip(sizes, values, strict=True):
                results.metric(f"{keys[name]}_{size}_ms", float(f"{value:.3g}"), unit="ms")
            print(f"{name:18} {np.round(values, 3).tolist()} ms")
        axis.set(title=title, xlabel="rows of the table", xticks=sizes, xticklabels=[f"{s:,}" for s in sizes])
        axis.minorticks_off()
        axis.legend(fontsize=9)
    axes[0].set_ylabel("time for 1,024 tokens (ms)")
    for way in ("one_hot", "add_at", "sorted"):
        name = keys[{"one_hot": "one-hotᵀ · G", "add_at": "np.add.at", "sorted": "sorted and summed"}[way]]
        label = next(k for k, v in keys.items() if v == name)
        ratios = np.array(backward[label]) / np.array(backward["compiled loop"])
        results.metric(f"kernel_gain_over_{way}_16384", round(float(ratios[-1]), 1))
    return figure


def adam_cost(rows: int, width: int, used: int, results: Results) -> None:
    """A step of Adam over a whole table, and over as many rows as a batch uses."""
    for name, count in (("dense", rows), ("used", used)):
        weight = nn.Parameter(shared.zeros(count, width))
        weight.grad = shared.ones(count, width)
        optimizer = optim.Adam([weight], lr=1e-3)
        took = fastest(optimizer.step)
        results.metric(f"adam_{name}_ms", float(f"{took:.3g}"), unit="ms")
        results.metric(f"adam_{name}_rows", count)
        print(f"Adam over {count:,} rows of {width}: {took:.3f} ms")
    results.metric("adam_width", width)


# ---------------------------------------------------------------- note 02: lost repeats


def keep_last(grad: np.ndarray, indices: np.ndarray, rows: int) -> np.ndarray:
    """The classic mistake: of several gradients for one row, the last is kept."""
    out = np.zeros((rows, grad.shape[1]), grad.dtype)
    out[indices] += grad
    return out


def next_character(
    characters: tuple[np.ndarray, np.ndarray], batch: int, optimizer: str, lr: float, gather: Callable, seed: int
) -> float:
    """Held-out loss in nats after 300 steps of a table whose row c is the logits of the character that follows c."""
    train, held = characters
    rows = int(train.max()) + 1
    weight, rng = nn.Parameter(shared.zeros(rows, rows)), np.random.default_rng(seed)
    algorithm = getattr(optim, optimizer)([weight], lr=lr)
    for _ in range(300):
        places = rng.integers(0, len(train) - 1, batch)
        logits = shared.from_numpy(kernels.embedding(weight.detach().numpy(), train[places])).requires_grad_()
        F.cross_entropy(logits, shared.from_numpy(train[places + 1])).backward()
        weight.grad = shared.from_numpy(gather(logits.grad.numpy(), train[places], rows))
        algorithm.step()
    with shared.no_grad():
        return F.cross_entropy(F.embedding(shared.from_numpy(held[:-1]), weight), shared.from_numpy(held[1:])).item()


def lost_repeats(train: str, held: str, seeds: list[int], results: Results) -> plt.Figure:
    """Held-out loss against the batch size, with all repeats summed and with the last one kept."""
    vocabulary = CharVocabulary.from_text(train + held)
    characters = (np.array(vocabulary.encode(train)), np.array(vocabulary.encode(held)))
    batches = [32, 128, 512, 2048]
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.6), sharey=True)
    for axis, (optimizer, lr) in zip(axes, (("SGD", 10.0), ("Adam", 0.1)), strict=True):
        for name, gather, colour, marker in (
            ("right", kernels.embedding_weight, BLUE, "o"),
            ("lost", keep_last, RED, "s"),
        ):
            losses = np.array(
                [[next_character(characters, b, optimizer, lr, gather, s) for s in seeds] for b in batches]
            )
            label = "repeats summed" if name == "right" else "last one kept"
            axis.semilogx(batches, losses.mean(1), marker=marker, markersize=5, color=colour, label=label)
            axis.fill_between(batches, losses.min(1), losses.max(1), color=colour, alpha=0.2)
            for batch, row in zip(batches, losses, strict=True):
                results.metric(f"repeats_{optimizer.lower()}_{name}_{batch}", round(float(row.mean()), 3), unit="nats")
            print(f"{optimizer}, {label}: {dict(zip(batches, losses.mean(1).round(3).tolist(), strict=True))} nats")
        axis.set(title=f"{optimizer}, rate {lr:g}", xlabel="characters in a batch", xticks=batches, xticklabels=batches)
        axis.minorticks_off()
        axis.legend()
    axes[0].set_ylabel("held-out loss after 300 steps (nats)")
    results.metric("repeats_seeds", len(seeds))
    results.metric("repeats_uniform", round(float(np.log(len(vocabulary))), 3), unit="nats")
    for name, sequence in (("characters", characters[0]), ("words", word_ids(train))):
        here = np.random.default_rng(0).integers(0, len(sequence) - 1024, 200)
        lost = np.mean([1 - len(np.unique(sequence[i : i + 1024])) / 1024 for i in here])
        results.metric(f"repeats_share_{name}", round(100 * float(lost), 1), unit="%")
    return figure


def word_ids(text: str) -> np.ndarray:
    vocabulary = WordVocabulary.from_text(text, lower=True)
    return np.array(vocabulary.encode(text))


# ---------------------------------------------------------------- note 02: a row that is used once


def used_once(optimizer: optim.Optimizer, weight: Tensor, before: int, after: int) -> np.ndarray:
    """Where a weight is after each step, in units of the rate: one gradient of 1 after `before` steps without any."""
    path = []
    for step in range(before + after):
        weight.grad = shared.ones(1) * float(step == before)
        optimizer.step()
        path.append(-weight.item())
    return np.array(path[before - 1 :] if before else [0.0, *path])


def rare_row(results: Results) -> plt.Figure:
    """How far one use of a row moves it, by optimizer, in units of the learning rate."""
    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    cases = (
        ("sgd", "SGD", optim.SGD, {}, 0, "-"),
        ("momentum", "SGD, momentum 0.9", optim.SGD, {"momentum": 0.9}, 0, "--"),
        ("adam_first", "Adam, used in step 1", optim.Adam, {}, 0, "-."),
        ("adam_late", "Adam, used in step 1,000", optim.Adam, {}, 999, "-"),
    )
    for (key, name, kind, options, before, style), colour in zip(cases, COLORS, strict=False):
        weight = nn.Parameter(shared.zeros(1, dtype=shared.float64))
        path = used_once(kind([weight], lr=1.0, **options), weight, before, 60)
        axis.plot(path, style, color=colour, label=name)
        results.metric(f"used_once_{key}_in_the_step", round(float(path[1]), 2))
        results.metric(f"used_once_{key}_60_steps", round(float(path[-1]), 2))
        print(f"{name:26} moves {path[1]:.2f} rates in the step, {path[-1]:.2f} within 60")
    axis.set(
        title="One gradient of 1, then zeros",
        xlabel="steps, the first of which has the gradient",
        ylabel="moved by (learning rates)",
    )
    axis.legend(loc="center right", bbox_to_anchor=(1, 0.62))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32, help="of the speeches (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings (default: 0 1 2)")
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seeds[0])
    assert (F.embedding(ids(), table()) == F.one_hot(ids(), 4).float() @ table()).all()
    results.figure(
        one_hot_product(),
        "one_hot_product",
        alt="Five one-hot rows for the dog bit the man, times the table with a row for each of four words, are five "
        "rows: the two of the are equal.",
    )
    results.figure(
        scatter(),
        "gradient_scatter",
        alt="Five gradient rows, one for each place of the sentence, with arrows to the four rows of the table's "
        "gradient. The two rows of the, places 0 and 3, both point to its row, where their sum 4, −1, 2, 0 stands.",
    )
    train, held = load()
    vocabularies(train, held, results)
    results.figure(
        padding(train + held, args.batch_size, args.seeds[0], results),
        "padding",
        alt="Two batches of speeches as bars filled up to the longest: of the one drawn at random most is padding, of "
        "the one from buckets little. Right: the share of padding falls as more batches are sorted at a time.",
    )
    results.figure(
        cost(args.seeds[0], results),
        "lookup_cost",
        alt="Time against the rows of the table, both axes logarithmic. The products with one-hot rows grow with the "
        "table, forwards and backwards; the lookup hardly does, and of the sums the compiled loop is the fastest.",
    )
    adam_cost(50_257, 64, 1024, results)
    results.figure(
        lost_repeats(train, held, args.seeds, results),
        "lost_repeats",
        alt="Held-out loss against batch size. With repeats summed it falls a little as batches grow. With only the "
        "last repeat kept it rises steeply under SGD; under Adam the two are close together.",
    )
    results.figure(
        rare_row(results),
        "rare_row",
        alt="How far a weight has moved after a single gradient, against steps: once and no more under SGD, up to ten "
        "rates with momentum, some rates under Adam at the start, and far more under Adam after 1,000 steps.",
    )
    results.save()


if __name__ == "__main__":
    main()
