"""Word vectors of TinyShakespeare: the training, what the scores become, neighbours and analogies on fixed lists.

python sprints/05_embeddings_and_positional_encoding/results/skipgram.py      # about 3 minutes on one core
"""

from __future__ import annotations

import argparse
import time

import matplotlib.pyplot as plt
import numpy as np
from word_vectors import (
    GROUPS,
    RELATIONS,
    Settings,
    Text,
    associations,
    counted_vectors,
    frequency_loss,
    group_hits,
    held_out_loss,
    relation_hits,
    relation_questions,
    shakespeare,
    train,
    words_of,
)

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, optim
from shared.arrays.kernels import embedding as kernels
from shared.text import (
    NegativeSampler,
    SkipGram,
    cosine_similarities,
    keep_probability,
    nearest,
    skip_gram_pairs,
    unit_rows,
)

VARIANTS = {
    "base": {},
    "window_5": {"window": 5},
    "subsampled": {"threshold": 1e-3},
    "window_5_subsampled": {"window": 5, "threshold": 1e-3},
    "power_0": {"power": 0.0},
    "power_1": {"power": 1.0},
}
RANDOM = 30  # tables of random vectors: one alone may be twice as good as chance, or half
ASKED = "father hand king three shall thou romeo rome love death".split()
QUESTIONS = "man woman king, man woman father, man woman he, you thou your, you thou have, day days eye, come came see"
CLASSES = {"5 to 9": (5, 10), "10 to 49": (10, 50), "50 to 499": (50, 500), "500 or more": (500, 10**9)}


def mean_hits(vectors: Tensor, text: Text) -> float:
    """The mean over the groups of the share of ten neighbours that belong to the group."""
    return float(np.mean([hits for hits, _ in group_hits(vectors, text.vocabulary).values()]))


def all_analogies(vectors: Tensor, text: Text, k: int) -> dict[str, float]:
    """Mean over the relations of the share of right answers among the k best, by analogy and by nearness to c."""
    found = [relation_hits(vectors, relation_questions(text.vocabulary, name), k) for name in RELATIONS]
    return {way: float(np.mean([hits[way] for hits in found])) for way in ("analogy", "nearest")}


# ---------------------------------------------------------------- training


def base_runs(text: Text, seeds: int, results: Results) -> list[SkipGram]:
    """The base settings once per seed, with the losses and the hits of every epoch as a figure."""
    models, curves, seconds = [], [], []
    for seed in range(seeds):
        settings, rows = Settings(seed=seed), []

        def look(model, history, settings=settings, rows=rows):
            begin = time.process_time()
            hits = mean_hits(words_of(model, text).vectors, text)
            rows.append((history[-1], held_out_loss(model, text, settings), hits))
            seconds[-1] -= time.process_time() - begin

        seconds.append(-time.process_time())
        models.append(train(text, settings, look)[0])
        seconds[-1] += time.process_time()
        curves.append(rows)
        print(f"base, seed {seed}: {seconds[-1]:.1f} s, (training, held-out, hits) {rows[-1]}", flush=True)
    curves = np.array(curves)  # (seeds, epochs, 3)
    mean = curves.mean(axis=0)
    results.metric("train_loss_first_epoch", mean[0, 0], unit="nats")
    results.metric("train_loss", mean[-1, 0], unit="nats")
    results.metric("held_out_loss", mean[-1, 1], unit="nats")
    results.metric("held_out_loss_lowest", mean[:, 1].min(), unit="nats")
    for i in range(len(mean)):
        results.metric(f"held_out_epoch_{i + 1}", mean[i, 1], unit="nats")
        results.metric(f"groups_epoch_{i + 1}", mean[i, 2])
    results.metric("held_out_best_epochs", ", ".join(str(run[:, 1].argmin() + 1) for run in curves))
    results.metric("held_out_seeds_apart", float(np.ptp(curves[:, :2, 1], axis=0).max()), unit="nats")
    frequency = frequency_loss(text, Settings())
    results.metric("frequency_loss", frequency[0], unit="nats")
    results.metric("frequency_loss_held_out", frequency[1], unit="nats")
    print(f"by frequency alone: {frequency}; held out, each seed and epoch:\n{curves[:, :, 1].round(4)}", flush=True)
    results.metric("base_cpu_seconds", min(seconds), unit="s")
    results.metric("guessing_loss", 6 * np.log(2), unit="nats")
    results.figure(
        draw_training(curves, frequency[0]),
        "skipgram_training",
        alt="Left: the training loss falls from epoch to epoch; the held-out loss hardly changes from the first to the "
        "second and then rises towards a dotted line that marks what word frequencies alone achieve. "
        "Right: the share of neighbours that belong to a word's group rises quickly and then levels off.",
    )
    return models


def draw_training(curves: np.ndarray, frequency: float) -> plt.Figure:
    """Losses and hits against the epoch, one line per seed; the loss that word frequencies alone reach, as a line."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    epochs = range(1, curves.shape[1] + 1)
    for i, run in enumerate(curves):
        left.plot(epochs, run[:, 0], color=COLORS["blue"], label=None if i else "training text, mean of the epoch")
        left.plot(epochs, run[:, 1], "--", color=COLORS["vermillion"], label=None if i else "held-out text")
        right.plot(epochs, 100 * run[:, 2], color=COLORS["green"])
    left.axhline(frequency, linestyle=":", color=COLORS["black"], label="word frequency alone")
    left.set(title="Loss", xlabel="epoch", ylabel="loss (nats per pair)", xticks=epochs)
    left.legend(loc="lower left")
    right.set(title="Neighbours in the same group", xlabel="epoch", ylabel="of ten neighbours (%)", xticks=epochs)
    right.set_ylim(0)
    return figure


def variants(text: Text, seeds: int, base: list[SkipGram], results: Results) -> None:
    """Every variant over the seeds, and vectors by counting, judged by both lists."""
    for name, changes in VARIANTS.items():
        models = base if name == "base" else [train(text, Settings(seed=s, **changes))[0] for s in range(seeds)]
        record(name, [words_of(model, text).vectors for model in models], text, results)
    width = Settings().width
    for window in (2, 5):
        record(
            f"counted_window_{window}", [counted_vectors(text, window, width, s) for s in range(seeds)], text, results
        )
    shared.manual_seed(0)
    record("random", [shared.randn(len(text.vocabulary), width) for _ in range(RANDOM)], text, results)
    results.metric("random_draws", RANDOM, unit="draws")


def record(name: str, tables: list[Tensor], text: Text, results: Results) -> None:
    """Hits of one way to make vectors: mean, lowest and highest over its tables."""
    groups = [mean_hits(vectors, text) for vectors in tables]
    one, ten = ([all_analogies(vectors, text, k)["analogy"] for vectors in tables] for k in (1, 10))
    for kind, values in (("groups", groups), ("analogies", one), ("analogies_ten", ten)):
        results.metric(f"{name}_{kind}", float(np.mean(values)))
        results.metric(f"{name}_{kind}_lowest", min(values))
        results.metric(f"{name}_{kind}_highest", max(values))
    print(
        f"{name:22} groups {np.round(groups, 3)}, analogies {np.round(one, 3)}, of ten {np.round(ten, 3)}", flush=True
    )


# ---------------------------------------------------------------- what the scores become


def scores_against_counts(model: SkipGram, text: Text, results: Results) -> plt.Figure:
    """Scores of the model against the logarithm of how much more often a pair occurs than by chance."""
    settings = Settings()
    pairs, log_ratio = associations(text, settings.window)
    center, context = np.nonzero(pairs >= 20)
    wanted = log_ratio[center, context] - np.log(settings.negatives)
    u, v = (table.weight.detach().numpy() for table in (model.center, model.context))
    scores = (u[center] * v[context]).sum(axis=1)
    correlation = float(np.corrcoef(wanted, scores)[0, 1])
    results.metric("score_pairs", len(scores), unit="pairs")
    results.metric("score_correlation", correlation)
    results.metric("score_difference", float(np.mean(scores - wanted)))
    results.metric("pairs_that_occur", float((pairs > 0).mean()))
    figure, axis = plt.subplots(figsize=(5.6, 4.4))
    axis.plot(wanted, scores, ".", markersize=3, alpha=0.5, color=COLORS["blue"])
    ends = [wanted.min(), wanted.max()]
    axis.plot(ends, ends, "--", color=COLORS["black"], linewidth=1)
    axis.text(ends[1], ends[1], "equal", ha="right", va="bottom")
    axis.set(
        title=f"{len(scores):,} pairs that occur 20 times or more",
        xlabel="log(share of the pair / share by chance) − log K",
        ylabel="score of the model, context · center",
    )
    print(f"scores against counts: correlation {correlation:.3f}, mean difference {np.mean(scores - wanted):.3f}")
    return figure


# ---------------------------------------------------------------- neighbours and analogies


def tell_neighbours(model: SkipGram, text: Text, results: Results) -> None:
    """The five neighbours of each of the words asked about, and answers to some analogies, as they are."""
    words = words_of(model, text)
    for word in ASKED:
        told = ", ".join(f"{other} {cosine:.2f}" for other, cosine in words.neighbours(word, 5))
        results.metric(f"neighbours_{word}", told)
        print(f"  {word}: {told}")
    for question in QUESTIONS.split(", "):
        told = ", ".join(f"{other} {cosine:.2f}" for other, cosine in words.analogy(*question.split(), 4))
        results.metric(f"answers_{question.replace(' ', '_')}", told)
        print(f"  {question}: {told}")


def groups_and_relations(models: list[SkipGram], text: Text, results: Results) -> plt.Figure:
    """Each group and each relation, mean over the seeds, with chance; the groups as a figure beside counting."""
    tables = [words_of(model, text).vectors for model in models]
    size = len(text.vocabulary)
    hits = [group_hits(vectors, text.vocabulary) for vectors in tables]
    counted = group_hits(counted_vectors(text, Settings().window, Settings().width), text.vocabulary)
    for name in GROUPS:
        key = name.replace(", ", "_").replace(" ", "_")
        results.metric(f"group_{key}", float(np.mean([found[name][0] for found in hits])))
        results.metric(f"group_{key}_counted", counted[name][0])
        results.metric(f"group_{key}_chance", hits[0][name][1])
    ahead = sum(counted[name][0] > np.mean([found[name][0] for found in hits]) + 1e-6 for name in GROUPS)
    results.metric("groups_where_counting_leads", int(ahead), unit="groups")
    results.metric("groups_chance", float(np.mean([chance for _, chance in hits[0].values()])))
    for name in RELATIONS:
        key = name.replace(", ", "_")
        questions = relation_questions(text.vocabulary, name)
        results.metric(f"relation_{key}_questions", len(questions), unit="questions")
        for k, way in ((1, "analogy"), (1, "nearest"), (10, "analogy"), (10, "nearest")):
            found = float(np.mean([relation_hits(vectors, questions, k)[way] for vectors in tables]))
            results.metric(f"relation_{key}_{way}_{k}", found)
            print(f"  {name:12} {len(questions)} questions, {way} among {k}: {found:.3f}")
    results.metric("analogy_chance_1", 1 / (size - 3))
    results.metric("analogy_chance_10", 10 / (size - 3))
    figure, axis = plt.subplots(figsize=(8, 4.2))
    names = sorted(GROUPS, key=lambda name: np.mean([found[name][0] for found in hits]))
    offsets = 0.22 * (np.arange(len(hits)) - (len(hits) - 1) / 2)  # so that equal seeds do not hide each other
    for place, name in enumerate(names):
        values = [100 * found[name][0] for found in hits]
        label = None if place else f"skip-gram, each of {len(hits)} seeds"
        axis.plot(values, place + offsets, "o", color=COLORS["blue"], markersize=5, label=label, zorder=3)
        axis.plot(100 * counted[name][0], place, "D", color=COLORS["orange"], label=None if place else "counting")
        axis.plot(100 * hits[0][name][1], place, "|", color=COLORS["black"], ms=14, label=None if place else "chance")
    axis.set(title="Ten nearest neighbours: how many are of the same group", xlabel="of ten neighbours (%)")
    axis.set_yticks(range(len(names)), [f"{name} ({hits_count(text, name)})" for name in names])
    axis.legend(loc="lower right")
    return figure


def hits_count(text: Text, name: str) -> int:
    """How many words of a group the vocabulary has."""
    return sum(word in text.vocabulary for word in GROUPS[name].split())


def stability(models: list[SkipGram], text: Text, results: Results) -> None:
    """How many of ten neighbours two seeds agree on, and how long the vectors are, by the words' frequency."""
    counts = shared.bincount(text.train, minlength=len(text.vocabulary)).numpy()
    tables = [unit_rows(words_of(model, text).vectors) for model in models]
    lengths = np.linalg.norm(words_of(models[0], text).vectors.numpy(), axis=1)
    for name, (least, below) in CLASSES.items():
        ids = np.flatnonzero((counts >= least) & (counts < below))
        found = [nearest(table, table[ids], 10, exclude=ids[:, None]).indices.numpy() for table in tables]
        shares = [
            np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found[i], found[j], strict=True)])
            for i in range(len(found))
            for j in range(i)
        ]
        key = name.replace(" ", "_")
        results.metric(f"agree_{key}", float(np.mean(shares)))
        results.metric(f"agree_{key}_words", len(ids), unit="words")
        results.metric(f"length_{key}", float(lengths[ids].mean()))
        print(
            f"  words that occur {name} times ({len(ids)}): two seeds agree on {np.mean(shares):.2f} of ten neighbours"
        )


def mean_cosine(vectors: Tensor) -> tuple[float, float]:
    """(mean, standard deviation) of the cosine of two words, over all pairs of the first thousand."""
    cosines = cosine_similarities(vectors[:1000], vectors[:1000]).numpy()
    values = cosines[np.triu_indices(len(cosines), 1)]
    return float(values.mean()), float(values.std())


def without_negatives(text: Text, results: Results) -> None:
    """One epoch in which nothing is drawn at random: the loss nearly vanishes, and all words become alike."""
    model, history = train(text, Settings(negatives=0, epochs=1))
    mean, _ = mean_cosine(words_of(model, text).vectors)
    results.metric("no_negatives_loss", held_out_loss(model, text, Settings(negatives=0)), unit="nats")
    results.metric("no_negatives_cosine", mean)
    results.metric("no_negatives_groups", mean_hits(words_of(model, text).vectors, text))
    print(f"without negatives: loss {history[-1]:.4f}, mean cosine {mean:.3f}")


def slow_embedding_weight(grad: np.ndarray, indices: np.ndarray, size: int, padding_idx: int | None) -> np.ndarray:
    """The gradient of a lookup by a loop over the places, as exercise 3 may begin."""
    out = np.zeros((size, grad.shape[-1]), grad.dtype)
    for row, slope in zip(indices.reshape(-1), grad.reshape(-1, grad.shape[-1]), strict=True):
        out[row] += slope
    if padding_idx is not None:
        out[padding_idx] = 0
    return out


def cost(text: Text, results: Results) -> None:
    """CPU time of an epoch, with the compiled gradient of the lookup and with a loop; Adam's share of a step."""
    train(text, Settings(epochs=1))
    for name in ("", "_loop"):
        compiled = kernels.embedding_weight
        if name:
            kernels.embedding_weight = slow_embedding_weight
        try:
            begin = time.process_time()
            train(text, Settings(epochs=1))
            seconds = time.process_time() - begin
        finally:
            kernels.embedding_weight = compiled
        results.metric(f"epoch{name}_cpu_seconds", seconds, unit="s")
        print(f"an epoch{name.replace('_', ' by a ')}: {seconds:.1f} s of CPU", flush=True)
    s, size = Settings(), len(text.vocabulary)
    noise = NegativeSampler(shared.bincount(text.train, minlength=size), s.power)
    model = SkipGram(size, s.width)
    optimizer = optim.Adam(model.parameters(), lr=s.lr)
    centers, contexts = (row[: s.batch] for row in skip_gram_pairs(text.train, s.window))
    spent = []
    for _ in range(50):
        begin = time.process_time()
        loss = model(centers, contexts, noise((s.batch, s.negatives)))
        optimizer.zero_grad()
        loss.backward()
        middle = time.process_time()
        optimizer.step()
        spent.append((time.process_time() - begin, time.process_time() - middle))
    step, adam = np.median(spent, axis=0)
    results.metric("step_cpu_ms", 1000 * step, unit="ms")
    results.metric("step_adam_share", adam / step)
    print(f"a step: {1000 * step:.2f} ms of CPU, Adam {adam / step:.1%} of it", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each variant (default: %(default)s)")
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    text = shakespeare()
    settings = Settings()
    size = len(text.vocabulary)
    pairs = len(skip_gram_pairs(text.train, settings.window)[0])
    for name, value, unit in (
        ("vocabulary", size, "words"),
        ("train_words", len(text.train), "words"),
        ("held_out_words", len(text.held_out), "words"),
        ("skipgram_pairs", pairs, "pairs"),
        ("skipgram_parameters", 2 * size * settings.width, "parameters"),
        ("skipgram_steps", -(-pairs // settings.batch), "steps"),
    ):
        results.metric(name, value, unit=unit)
    counts = shared.bincount(text.train, minlength=size).numpy()
    results.metric("subsampled_share", float((keep_probability(counts, 1e-3).numpy() * counts).sum() / counts.sum()))
    results.metric("the_share", float(counts.max() / counts.sum()))
    results.metric("rare_words", float((counts < 10).mean()))
    models = base_runs(text, args.seeds, results)
    tell_neighbours(models[0], text, results)
    results.figure(
        groups_and_relations(models, text, results),
        "neighbour_groups",
        alt="For eleven groups of words the share of the ten nearest neighbours that belong to the group, by skip-gram "
        "and by counting, far above chance for some groups and near it for others.",
    )
    results.figure(
        scores_against_counts(models[0], text, results),
        "scores_and_counts",
        alt="The model's scores against the logarithm of the ratio of counts, less log K: a cloud along a line.",
        ext="png",
    )
    stability(models, text, results)
    mean, deviation = mean_cosine(words_of(models[0], text).vectors)
    results.metric("cosine_mean", mean)
    results.metric("cosine_deviation", deviation)
    print(f"cosine of two words: {mean:.3f} ± {deviation:.3f}")
    without_negatives(text, results)
    cost(text, results)
    variants(text, args.seeds, models, results)
    results.save()


if __name__ == "__main__":
    main()
