"""PCA, t-SNE and UMAP side by side: of the word vectors, of the digits, and of points whose truth is known.

python sprints/05_embeddings_and_positional_encoding/results/projections.py      # about 3 minutes on one core
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from word_vectors import GROUPS, Settings, nearest_points, neighbours_kept, shakespeare, train, words_of

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.text import unit_rows

SHOWN = ("family", "body", "numbers", "may, must", "thou", "Romeo")  # the groups of words that are coloured


# ---------------------------------------------------------------- the three ways down


def pca(points: np.ndarray, dimensions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(coordinates on the directions of largest variance (N, dimensions), share of the variance of every direction)."""
    centred = points - points.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:dimensions].T, singular**2 / (singular**2).sum()


def tsne(points: np.ndarray, perplexity: float = 30, seed: int = 0, init: str = "pca") -> np.ndarray:
    """scikit-learn's t-SNE, (N, 2)."""
    from sklearn.manifold import TSNE

    return TSNE(perplexity=perplexity, random_state=seed, init=init, learning_rate="auto").fit_transform(points)


def umap(points: np.ndarray, neighbours: int = 15, seed: int = 0) -> np.ndarray:
    """umap-learn's UMAP, (N, 2)."""
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(points)


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"PCA": lambda x: pca(x)[0], "t-SNE": tsne, "UMAP": umap}


def distances(points: np.ndarray) -> np.ndarray:
    """Euclidean distances of all pairs of points, once each."""
    squares = (points**2).sum(axis=1)
    square = squares[:, None] + squares - 2 * points @ points.T
    return np.sqrt(np.maximum(square[np.triu_indices(len(points), 1)], 0))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: the correlation of the places in the order, which does not ask for proportion."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def judge(points: np.ndarray, flat: np.ndarray, name: str, results: Results) -> None:
    """How much of the near and of the far is kept: ten neighbours, and the order of the distances of 600 points."""
    chosen = np.random.default_rng(0).permutation(len(points))[:600]
    kept = neighbours_kept(points, flat, 10)
    order = rank_correlation(distances(points[chosen]), distances(flat[chosen]))
    results.metric(f"{name}_neighbours_kept", kept)
    results.metric(f"{name}_distance_correlation", order)
    print(f"{name:24} neighbours kept {kept:.3f}, order of distances {order:.3f}", flush=True)


# ---------------------------------------------------------------- words and digits


def word_points() -> tuple[np.ndarray, list[str]]:
    """Unit vectors of the 400 most frequent words and of all words of the groups, and the words."""
    text = shakespeare()
    model, _ = train(text, Settings())
    frequent = text.vocabulary.itos[:400]
    listed = sorted({word for words in GROUPS.values() for word in words.split() if word in text.vocabulary})
    words = frequent + [word for word in listed if word not in set(frequent)]
    vectors = unit_rows(words_of(model, text).vectors).numpy()
    return vectors[[text.vocabulary[word] for word in words]], words


def digit_points() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, (1797, 64) in 0 … 1, and their classes."""
    parts = shared.data.load("digits")
    images = np.concatenate([part.data.numpy() for part in parts]).reshape(-1, 64) / 255
    return images.astype(np.float32), np.concatenate([part.targets.numpy() for part in parts])


def same_class(points: np.ndarray, labels: np.ndarray) -> float:
    """Share of the ten nearest points that have the same label."""
    return float((labels[nearest_points(points, 10)] == labels[:, None]).mean())


def bare(axis: plt.Axes, title: str = "") -> None:
    """A map: without ticks, since its coordinates mean nothing."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set(visible=True, color="0.8")
    axis.set_title(title, fontsize=10)


def draw_words(axis: plt.Axes, flat: np.ndarray, words: list[str]) -> None:
    """All words grey, those of some groups coloured."""
    axis.plot(*flat.T, ".", color="0.85", markersize=3)
    place = {word: i for i, word in enumerate(words)}
    for color, name in zip(COLORS, SHOWN, strict=False):
        chosen = [word for word in GROUPS[name].split() if word in place]
        axis.plot(*flat[[place[word] for word in chosen]].T, ".", color=color, markersize=6, label=name)


def write_words(axis: plt.Axes, flat: np.ndarray, words: list[str], size: float = 6.5) -> None:
    """The first three words of each coloured group, each near its dot where it hides nothing; with a line if far."""
    axis.figure.draw_without_rendering()  # before that, nobody knows where on the page a place of the map is
    points = 72 / axis.figure.dpi
    place = {word: i for i, word in enumerate(words)}
    coloured = [place[word] for name in SHOWN for word in GROUPS[name].split() if word in place]
    taken = [(x - 2.5, y - 2.5, x + 2.5, y + 2.5) for x, y in axis.transData.transform(flat[coloured]) * points]
    left, bottom, right, top = axis.get_window_extent().extents * points
    legend = axis.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent().extents * points)
    away = [(r * np.cos(a), r * np.sin(a)) for r in (5, 11, 18, 26) for a in np.arange(0, 2 * np.pi, np.pi / 6)]
    for color, name in zip(COLORS, SHOWN, strict=False):
        for word in [word for word in GROUPS[name].split() if word in place][:3]:
            at = axis.transData.transform(flat[place[word]]) * points
            width, height = 0.56 * size * len(word), 1.1 * size
            for dx, dy in away:
                x, y = at[0] + dx - (width if dx < 0 else 0), at[1] + dy - height / 2
                box = (x, y, x + width, y + height)
                inside = left < box[0] and box[2] < right and bottom < box[1] and box[3] < top
                if inside and not any(
                    box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken
                ):
                    break
            taken.append(box)
            line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
            axis.annotate(
                word,
                flat[place[word]],
                (dx, dy),
                textcoords="offset points",
                fontsize=size,
                color=color,
                ha="right" if dx < 0 else "left",
                va="center",
                arrowprops=line if np.hypot(dx, dy) > 8 else None,
            )


def draw_digits(axis: plt.Axes, flat: np.ndarray, classes: np.ndarray) -> None:
    """Every digit a dot, its class by colour, and the number written where the middle of its class is."""
    palette = [*COLORS, "#888888", "#8C510A"]
    for digit in range(10):
        mine = flat[classes == digit]
        axis.plot(*mine.T, ".", color=palette[digit], markersize=2)
        white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
        axis.text(*np.median(mine, axis=0), str(digit), weight="bold", ha="center", va="center", bbox=white)


def side_by_side(results: Results, words: tuple[np.ndarray, list[str]], digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Both sets under all three, drawn and judged."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 7.4))
    maps = {}
    for row, (kind, points) in enumerate((("words", words[0]), ("digits", digits[0]))):
        shares = pca(points)[1]
        results.metric(f"{kind}_variance_two", float(shares[:2].sum()))
        results.metric(f"{kind}_variance_ten", float(shares[:10].sum()))
        results.metric(f"{kind}_points", len(points), unit="points")
        results.metric(f"{kind}_neighbours_chance", 10 / (len(points) - 1))
        for axis, (way, project) in zip(axes[row], WAYS.items(), strict=True):
            begin = time.process_time()
            flat = project(points)
            key = f"{kind}_{way.lower().replace('-', '')}"
            results.metric(f"{key}_seconds", time.process_time() - begin, unit="s")
            judge(points, flat, key, results)
            bare(axis, f"{kind}: {way}")
            if kind == "words":
                draw_words(axis, flat, words[1])
                maps[axis] = flat
            else:
                draw_digits(axis, flat, digits[1])
                results.metric(f"{key}_same_class", same_class(flat, digits[1]))
                results.metric(f"{key}_centres", centres(points, flat, digits[1]))
    results.metric("digits_same_class", same_class(*digits))
    axes[0, 0].legend(fontsize=7, markerscale=1.2, loc="best")
    for axis, flat in maps.items():
        write_words(axis, flat, words[1])
    results.figure(
        figure,
        "side_by_side",
        alt="Word vectors above and digits below, each by PCA, t-SNE and UMAP: PCA shows clouds that overlap, t-SNE "
        "and UMAP show ten islands of digits, and for the words one cloud with small groups in it.",
        ext="png",
    )


def round_cloud(count: int, width: int, draws: int, results: Results) -> None:
    """Which shares of their variance two and ten directions hold of points that were drawn from a round cloud."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        points = rng.normal(size=(count, width))
        shares = pca(points / np.linalg.norm(points, axis=1, keepdims=True))[1]
        found.append((shares[:2].sum(), shares[:10].sum()))
    two, ten = np.mean(found, axis=0)
    results.metric("round_variance_two", two)
    results.metric("round_variance_ten", ten)
    results.metric("round_draws", draws, unit="draws")
    print(f"{count} points of a round cloud: two directions hold {two:.3f}, ten {ten:.3f}", flush=True)


def centres(points: np.ndarray, flat: np.ndarray, classes: np.ndarray) -> float:
    """Rank correlation of the distances between the ten class means, before and after."""
    before, after = (np.array([p[classes == k].mean(axis=0) for k in range(10)]) for p in (points, flat))
    return rank_correlation(distances(before), distances(after))


# ---------------------------------------------------------------- settings, and seeds


def perplexities(results: Results, words: tuple[np.ndarray, list[str]]) -> None:
    """The same words under t-SNE with three perplexities, and with two random starts each."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.4))
    maps = []
    for column, perplexity in enumerate((5, 30, 100)):
        runs = [tsne(words[0], perplexity, seed, init="random") for seed in (0, 1)]
        for axis, flat, seed in zip(axes[:, column], runs, (0, 1), strict=True):
            draw_words(axis, flat, words[1])
            maps.append(flat)
            bare(axis, f"perplexity {perplexity}, seed {seed}")
        judge(words[0], runs[0], f"words_perplexity_{perplexity}", results)
        results.metric(f"words_perplexity_{perplexity}_seeds_neighbours", neighbours_kept(*runs, 10))
        results.metric(f"words_perplexity_{perplexity}_seeds_distances", rank_correlation(*map(distances, runs)))
    together(maps, words[1], results)
    axes[0, 0].legend(fontsize=7)
    results.figure(
        figure,
        "perplexities",
        alt="Six maps of the same words by t-SNE: with perplexity 5 many small clumps, with 30 fewer, with 100 one "
        "cloud; the second seed turns and moves everything. Most dots of a colour lie together, some apart.",
        ext="png",
    )


def together(maps: list[np.ndarray], words: list[str], results: Results) -> None:
    """In how many maps a group's words all lie within a tenth of the map of its middle, and which never do."""
    place = {word: i for i, word in enumerate(words)}
    for name in SHOWN:
        chosen = [word for word in GROUPS[name].split() if word in place]
        apart = []
        for flat in maps:
            mine = flat[[place[word] for word in chosen]]
            far = np.linalg.norm(mine - np.median(mine, axis=0), axis=1) > 0.1 * np.ptp(flat, axis=0).max()
            apart.append({word for word, is_far in zip(chosen, far, strict=True) if is_far})
        key, always = name.replace(", ", "_"), sorted(set.intersection(*apart))
        results.metric(f"together_{key}", sum(not words for words in apart), unit="maps")
        results.metric(f"together_{key}_share", 1 - np.mean([len(words) / len(chosen) for words in apart]))
        results.metric(f"together_{key}_apart_in_all", ", ".join(always))
        print(
            f"{name}: all together in {sum(not words for words in apart)} of {len(maps)} maps, never: {always}; {apart}"
        )


def known_truth(results: Results) -> None:
    """Three sets of points in ten dimensions whose truth is known, under all three."""
    rng = np.random.default_rng(0)
    steps = np.eye(10)[0]
    sets = {
        "two sizes": ([rng.normal(size=(100, 10)), rng.normal(size=(100, 10)) * 0.1 + 8 * steps]),
        "near and far": ([rng.normal(size=(70, 10)) + place * steps for place in (0, 10, 60)]),
        "nothing": ([rng.normal(size=(200, 10))]),
    }
    low = {"t-SNE": lambda x: tsne(x, 5), "UMAP": lambda x: umap(x, 5)}
    figure, axes = plt.subplots(3, 3, figsize=(9, 8.4))
    for row, (name, parts) in enumerate(sets.items()):
        points = np.concatenate(parts).astype(np.float32)
        label = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        ways = WAYS | low if name == "nothing" else WAYS
        for axis, (way, project) in zip(axes[row], ways.items(), strict=True):
            flat = project(points)
            for i in range(len(parts)):
                axis.plot(*flat[label == i].T, ".", markersize=4, color=COLORS[i])
            few = " (5 neighbours)" if name == "nothing" and way != "PCA" else ""
            bare(axis, f"{name}: {way}{few}")
            axis.set_aspect("equal", "datalim")
            tell(name, way, points, flat, label, results)
        tell(name, "truth", points, points, label, results)
    results.figure(
        figure,
        "known_truth",
        alt="Clusters of two sizes, clusters at two distances, and noise. PCA shows sizes and distances; t-SNE and "
        "UMAP make the clusters alike in size and evenly spaced, and with five neighbours they break up the noise.",
        ext="png",
    )


def tell(name: str, way: str, points: np.ndarray, flat: np.ndarray, label: np.ndarray, results: Results) -> None:
    """Ratio of sizes, ratio of distances, or the clumps that an eye would see, of one map."""
    key = f"{name.replace(' ', '_')}_{way.lower().replace('-', '')}"
    middle = [flat[label == i].mean(axis=0) for i in range(label.max() + 1)]
    if name == "two sizes":
        spread = [np.sqrt(((flat[label == i] - middle[i]) ** 2).sum(axis=1).mean()) for i in (0, 1)]
        value = spread[0] / spread[1]
    elif name == "near and far":
        value = np.linalg.norm(middle[2] - middle[1]) / np.linalg.norm(middle[1] - middle[0])
    else:
        value = neighbours_kept(points, flat, 10)
    results.metric(f"truth_{key}", float(value))
    print(f"{name}, {way}: {value:.2f}")


# ---------------------------------------------------------------- PCA by hand


def by_hand(results: Results) -> None:
    """Four points of the plane on their first direction."""
    points = np.array([[7.0, 3.0], [5.0, 5.0], [1.0, 1.0], [3.0, -1.0]])
    mean = points.mean(axis=0)
    direction = np.array([1.0, 1.0]) / np.sqrt(2)
    feet = mean + ((points - mean) @ direction)[:, None] * direction
    figure, axis = plt.subplots(figsize=(5.2, 4.6))
    line = np.array([[-4.5], [4.5]]) * direction + mean
    axis.plot(*line.T, color=COLORS["vermillion"], label="first direction, variance 8")
    other = np.array([[-2.2], [2.2]]) * direction * [1, -1] + mean
    axis.plot(*other.T, color=COLORS["orange"], label="second direction, variance 2")
    for point, foot in zip(points, feet, strict=True):
        axis.plot(*np.array([point, foot]).T, ":", color="0.4", linewidth=1.2)
        above = (point - mean) @ [-1, 1] > 0
        where = {"xytext": (-7, 6) if above else (7, -12), "ha": "right" if above else "left"}
        name = f"({point[0]:.0f}, {point[1]:.0f})".replace("-", "−")
        axis.annotate(name, point, textcoords="offset points", **where)
    axis.plot(*points.T, "o", color=COLORS["blue"], label="the points")
    axis.plot(*feet.T, "s", color=COLORS["vermillion"], markersize=5, label="where they fall")
    axis.plot(*mean, "+", color=COLORS["black"], markersize=10, label="their mean")
    axis.set(title="Four points on a line", xlabel="first number", ylabel="second number", xlim=(-0.8, 9), ylim=(-2, 7))
    axis.set_aspect("equal")
    axis.legend(fontsize=7.5, loc="upper left")
    results.metric("by_hand_share", float(pca(points)[1][0]))
    results.figure(
        figure,
        "pca_by_hand",
        alt="Four points around the mean (4, 2); the first direction rises at 45 degrees, and two points each fall on "
        "the same place of it.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    by_hand(results)
    known_truth(results)
    words, digits = word_points(), digit_points()
    round_cloud(*words[0].shape, 20, results)
    side_by_side(results, words, digits)
    perplexities(results, words)
    results.save()


if __name__ == "__main__":
    main()
