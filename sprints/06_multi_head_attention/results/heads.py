"""Note 04: two heads by hand, a task that one head cannot do, what four heads learnt, and what a cache saves.

python sprints/06_multi_head_attention/results/heads.py          about two minutes on one core
"""

from __future__ import annotations

import argparse
import time

import matplotlib.pyplot as plt
import numpy as np
import tasks
from sentence import BIT, DOG_BIT_MAN, canvas, in_proj_weight, label_columns, label_rows, sentence, words, write_grid

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn

WIDTH, HEADS = 128, 4  # of the layer whose cache is measured
PLACES = (1, 16, 64, 128, 256, 512, 1024)


# ---------------------------------------------------------------- by hand


def attend(num_heads: int) -> tuple[Tensor, Tensor]:
    """(result before the output projection (5, 4), weights (heads, 5, 5)) for "the dog bit the man"."""
    layer = nn.MultiHeadAttention(4, num_heads, bias=False)
    layer.in_proj.weight.data.copy_(in_proj_weight())
    layer.out_proj.weight.data.copy_(shared.eye(4))
    with shared.no_grad():
        out, weights = layer(sentence()[None], need_weights=True)
    return out[0], weights[0]


def draw_by_hand(results: Results) -> plt.Figure:
    """The weights of one head of width 4, and of two of width 2."""
    (one, weights), (two, both) = attend(1), attend(2)
    figure, axis = plt.subplots(figsize=(10.6, 3.5))
    canvas(axis, 23, 7.4)
    titles = ("one head of width 4", "two heads of width 2: the first", "the second")
    for i, (title, table) in enumerate(zip(titles, (weights[0], both[0], both[1]), strict=True)):
        at = (1.6 + 7.6 * i, 1.8)
        axis.text(at[0], 0.5, title, fontsize=11, weight="bold")
        label_columns(axis, words(), at)
        label_rows(axis, words(), at)
        write_grid(axis, table.tolist(), at, shade=table.tolist(), size=8.5, places=2)
    for name, out in (("one", one), ("two", two)):
        for i, value in enumerate(out[BIT].tolist()):
            results.metric(f"by_hand_{name}_{i}", round(value, 4))
    for head in (0, 1):
        for token, name in ((1, "dog"), (4, "man"), (0, "the")):
            results.metric(f"by_hand_head_{head}_{name}", round(both[head, BIT, token].item(), 4))
    print("bit gets", one[BIT].tolist(), "from one head,", two[BIT].tolist(), "from two", DOG_BIT_MAN)
    return figure


# ---------------------------------------------------------------- two things to look up


def pairs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sequences (N, T), and two answers for each place (N, T, 2): the symbol at the mirrored place, the one before."""
    tokens, mirrored = tasks.sequences(count, seed)
    before = shared.cat([tokens[:, :1], tokens[:, :-1]], 1)
    return tokens, shared.stack([mirrored, before], 2)


def train_pairs(num_heads: int, seed: int, steps: int = 300) -> tuple[tasks.Reverser, float]:
    """A model with two answers for each place, and the part of them that it gets right."""
    shared.manual_seed(seed)
    model = tasks.Reverser("attention", num_heads=num_heads, answers=2)
    x, y = pairs(64 * steps, 1000 + seed)
    test_x, test_y = pairs(500, 5000 + seed)

    def batch(i: int) -> tuple[Tensor, Tensor]:
        rows = slice(64 * i, 64 * i + 64)
        return model(x[rows]).reshape(64, -1, 2, tasks.SYMBOLS), y[rows]

    tasks.fit(model, batch, steps, 0.01)
    with shared.no_grad():
        guesses = model(test_x).reshape(*test_y.shape, tasks.SYMBOLS).argmax(-1)
    return model, (guesses == test_y).float().mean().item()


def draw_map(axis: plt.Axes, weights: np.ndarray, title: str) -> None:
    axis.imshow(weights, vmin=0, vmax=1, cmap="Blues")
    axis.set_title(title, fontsize=10)
    axis.set(xticks=range(0, len(weights), 3), yticks=range(0, len(weights), 3))
    axis.grid(False)


def draw_pairs(results: Results, seeds: int) -> plt.Figure:
    """Accuracy with one, two and four heads; the maps of one head and of two, seed 0."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.1), width_ratios=(1.3, 1, 1, 1))
    maps = []
    for i, heads in enumerate((1, 2, 4)):
        runs = [train_pairs(heads, seed) for seed in range(seeds)]
        right = [100 * accuracy for _, accuracy in runs]
        axes[0].scatter([i + (n - seeds / 2) / 60 for n in range(seeds)], right, 14, color=COLORS[i], zorder=3)
        results.metric(f"pairs_{heads}_all_right", sum(r > 99.9 for r in right), unit="seeds")
        for name, value in (("mean", np.mean(right)), ("lowest", min(right)), ("highest", max(right))):
            results.metric(f"pairs_{heads}_{name}", round(float(value), 1), unit="%")
        if heads < 4:
            x, _ = pairs(200, 7000)
            maps += list(runs[0][0].weights(x).numpy().mean(0))
        print(f"two lookups, {heads} heads: {[round(r, 1) for r in right]}")
    results.metric("pairs_seeds", seeds, unit="seeds")
    axes[0].set_xticks(range(3), ["1", "2", "4"])
    axes[0].set(xlabel="number of heads", ylabel="answers right, %", ylim=(0, 104), title="Two things to look up")
    for axis, weights, title in zip(axes[1:], maps, ("the only head", "first of two", "second of two"), strict=True):
        draw_map(axis, weights, title)
    axes[1].set(ylabel="place that asks", xlabel="place looked at")
    return figure


# ---------------------------------------------------------------- what four heads learnt


def without(model: tasks.Reverser, head: int, x: Tensor, y: Tensor) -> float:
    """Accuracy when what one head found is replaced by zeros."""
    layer = model.mix
    width = layer.d_model // layer.num_heads
    columns = layer.out_proj.weight.data[:, head * width : (head + 1) * width]
    kept = columns.clone()
    columns.copy_(shared.zeros_like(kept))
    with shared.no_grad():
        right = (model(x).argmax(-1) == y).float().mean().item()
    columns.copy_(kept)
    return right


def draw_four(results: Results, seeds: int) -> plt.Figure:
    """The four heads of three models that reverse sequences, and what each is worth."""
    figure, axes = plt.subplots(3, 4, figsize=(8.6, 7), sharex=True, sharey=True)
    x, y = tasks.sequences(500, 7000)
    worth, sharpest = [], []
    for seed in range(seeds):
        run = tasks.train_reversal("attention", seed, num_heads=4)
        weights = run.model.weights(x).numpy()
        mirrored = weights[:, :, range(tasks.LENGTH), range(tasks.LENGTH - 1, -1, -1)].mean((0, 2))
        left = [100 * without(run.model, head, x, y) for head in range(4)]
        worth.append(left)
        sharpest.append(mirrored)
        for head in range(4) if seed < 3 else ():
            title = f"{mirrored[head]:.2f}, without {left[head]:.0f}%"
            draw_map(axes[seed, head], weights.mean(0)[head], title)
            results.metric(f"four_{seed}_{head}_weight", round(float(mirrored[head]), 2))
            results.metric(f"four_{seed}_{head}_without", round(left[head]), unit="%")
        print(f"four heads, seed {seed}: {run.accuracy:.3f}; weight {mirrored.round(2)}, without {np.round(left)}")
    results.metric("four_seeds", seeds, unit="seeds")
    results.metric("four_without_lowest", round(float(np.min(worth)), 1), unit="%")
    results.metric("four_without_highest", round(float(np.max(worth)), 1), unit="%")
    results.metric("four_weight_lowest", round(float(np.min(sharpest)), 2))
    results.metric("four_weight_highest", round(float(np.max(sharpest)), 2))
    for row in range(3):
        axes[row, 0].set_ylabel(f"seed {row}\nplace that asks")
    for axis in axes[2]:
        axis.set_xlabel("place looked at")
    return figure


# ---------------------------------------------------------------- a cache


def step_times(repeats: int) -> dict[str, list[float]]:
    """Milliseconds for the last of n tokens, n in PLACES, with all tokens anew and with a cache."""
    shared.manual_seed(0)
    layer = nn.MultiHeadAttention(WIDTH, HEADS)
    tokens = shared.randn(1, max(PLACES), WIDTH)
    times: dict[str, list[float]] = {"anew": [], "cache": []}
    with shared.no_grad():
        for n in PLACES:
            cache = nn.KVCache()
            if n > 1:
                layer(tokens[:, : n - 1], is_causal=True, cache=cache)
            past = cache.keys, cache.values
            best = {"anew": np.inf, "cache": np.inf}
            for _ in range(repeats):
                cache.keys, cache.values = past
                start = time.process_time()
                last = layer(tokens[:, n - 1 : n], is_causal=True, cache=cache)
                best["cache"] = min(best["cache"], time.process_time() - start)
                start = time.process_time()
                whole = layer(tokens[:, :n], is_causal=True)
                best["anew"] = min(best["anew"], time.process_time() - start)
            assert shared.allclose(last, whole[:, -1:], atol=1e-5)
            for name, value in best.items():
                times[name].append(1000 * value)
    return times


def draw_cache(results: Results, repeats: int) -> plt.Figure:
    """Time of one more token against its place."""
    times = step_times(repeats)
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    for name, label, colour in (("anew", "all tokens anew", 3), ("cache", "with a cache", 0)):
        axis.plot(PLACES, times[name], "o-", color=COLORS[colour], label=label)
        for n, value in zip(PLACES, times[name], strict=True):
            results.metric(f"{name}_{n}", float(f"{value:.3g}"), unit="ms")
    axis.set(xscale="log", yscale="log", xlabel="place of the token", ylabel="ms of CPU time for it")
    axis.set_title("One more token")
    axis.legend()
    for n, a, b in zip(PLACES, times["anew"], times["cache"], strict=True):
        print(f"token {n:5}: anew {a:7.3f} ms, with a cache {b:6.3f} ms")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each training (at least 3)")
    parser.add_argument("--pairs", type=int, default=20, help="seeds of the task with two lookups")
    parser.add_argument("--repeats", type=int, default=15, help="of which the fastest counts")
    options = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    results.figure(
        draw_by_hand(results),
        "two_heads",
        alt="Three tables of attention weights for the dog bit the man. With one head bit looks mostly at dog; "
        "with two, the first head looks at dog and man alike, the second at dog and away from man.",
    )
    results.figure(
        draw_pairs(results, options.pairs),
        "two_lookups",
        alt="Accuracy with one, two and four heads on a task with two answers for each place, and attention maps: the "
        "only head shares itself between the mirrored place and the place before, of two heads each takes one.",
    )
    results.figure(
        draw_four(results, options.seeds),
        "four_heads",
        alt="Attention maps of four heads in three models that reverse sequences; all lie on the diagonal from the "
        "lower left to the upper right, some sharp, some faint or broken.",
    )
    results.figure(
        draw_cache(results, options.repeats),
        "cache",
        alt="Time of one more token against its place: computed anew it grows with the length, with a cache hardly.",
    )
    results.save()


if __name__ == "__main__":
    main()
