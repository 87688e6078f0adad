"""Note 05: reversal and bAbI with attention and without, two tasks learnt together, and the maps of what was learnt.

python sprints/06_multi_head_attention/results/needed.py          about five minutes of one core
python sprints/06_multi_head_attention/results/needed.py --full   the published files, and three tasks together
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
from tasks import (
    KINDS,
    LENGTH,
    SYMBOLS,
    Answerer,
    Run,
    Stories,
    accuracy,
    sequences,
    stories,
    together,
    train_babi,
    train_reversal,
)

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.data import DatasetUnavailable

NAMES = {"attention": "attention", "feed-forward": "feed-forward", "mean": "mean", "convolution": "convolution"}
HOPS = {1: 1, 2: 3, 3: 3, 20: 1}
TOGETHER = {"hops": 2, "tied": True, "width": 64, "lr": 0.005, "batch_size": 64}


def record(results: Results, name: str, runs: list[Run]) -> list[float]:
    """Mean, lowest and highest accuracy in percent, and the longest time."""
    right = [100 * run.accuracy for run in runs]
    for what, value in (("mean", np.mean(right)), ("lowest", min(right)), ("highest", max(right))):
        results.metric(f"{name}_{what}", round(float(value), 1), unit="%")
    results.metric(f"{name}_seconds", round(max(run.seconds for run in runs), 1), unit="s")
    print(f"{name:28} {[round(r, 1) for r in right]}, at most {max(run.seconds for run in runs):.1f} s", flush=True)
    return right


def guess(data: Stories) -> float:
    """Accuracy of the answer that is most frequent in the training part, %."""
    most = np.bincount(data.train.answers).argmax()
    return 100 * float((data.test.answers == most).mean())


def compare(results: Results, seeds: int) -> tuple[dict[str, dict[str, list[float]]], dict[str, Run]]:
    """{task: {kind: accuracies}}, and the runs with attention of seed 0."""
    found: dict[str, dict[str, list[float]]] = {"reversal": {}}
    kept = {}
    for kind in KINDS:
        runs = [train_reversal(kind, seed) for seed in range(seeds)]
        found["reversal"][kind] = record(results, f"reversal_{key(kind)}", runs)
        results.metric(f"reversal_{key(kind)}_parameters", parameters(runs[0].model.mix))
        if kind == "attention":
            kept["reversal"] = runs[0]
    for task, hops in HOPS.items():
        name, found[f"task {task}"] = f"task {task}", {}
        count = min(seeds, 3) if hops > 1 else seeds  # long stories take long
        data = [stories(task, seed=seed) for seed in range(count)]
        results.metric(f"task_{task}_guess", round(float(np.mean([guess(d) for d in data])), 1), unit="%")
        for kind in KINDS:
            runs = [train_babi(data[seed], kind, seed, hops=hops) for seed in range(count)]
            found[name][kind] = record(results, f"task_{task}_{key(kind)}", runs)
            seen = [100 * accuracy(run.model, data[seed].train) for seed, run in enumerate(runs)]
            results.metric(f"task_{task}_{key(kind)}_train", round(float(np.mean(seen)), 1), unit="%")
            if kind == "attention":
                kept[name] = runs[0]
                if task == 20:
                    wrong, kitchen = np.sum([mistakes(run, d) for run, d in zip(runs, data, strict=True)], axis=0)
                    results.metric("task_20_mistakes", int(wrong))
                    results.metric("task_20_kitchen", int(kitchen))
                    print(f"task 20: {kitchen} of {wrong} mistakes ask why somebody went to the kitchen")
    results.metric("seeds", seeds, unit="seeds")
    results.metric("seeds_of_long_stories", min(seeds, 3), unit="seeds")
    return found, kept


def key(kind: str) -> str:
    return kind.replace("-", "_")


def parameters(model) -> int:
    """How many numbers the optimizer changes."""
    return sum(p.numel() for p in model.parameters())


def draw_compare(found: dict[str, dict[str, list[float]]]) -> plt.Figure:
    """A dot for each seed."""
    figure, axis = plt.subplots(figsize=(8.6, 3.8))
    for k, (kind, marker) in enumerate(zip(KINDS, "os^D", strict=True)):
        for i, by_kind in enumerate(found.values()):
            values = by_kind[kind]
            place = np.full(len(values), i + 0.16 * (k - 1.5))
            axis.scatter(
                place, values, 26, color=COLORS[k], marker=marker, label=NAMES[kind] if i == 0 else None, zorder=3
            )
    axis.set_xticks(range(len(found)), [name if "task" not in name else f"bAbI {name}" for name in found])
    axis.set(ylabel="right, %", ylim=(0, 104), title="With attention and without, the same number of parameters")
    axis.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return figure


# ---------------------------------------------------------------- what was looked at


def draw_reversal(run: Run, results: Results) -> plt.Figure:
    """The weights for one sequence, after training and before."""
    x, y = sequences(1, 77)
    before = train_reversal("attention", 0, steps=1).model.weights(x)[0, 0].numpy()
    after = run.model.weights(x)[0, 0].numpy()
    mirrored = after[range(LENGTH), range(LENGTH - 1, -1, -1)]
    results.metric("reversal_map_mean", round(float(mirrored.mean()), 3))
    results.metric("reversal_map_lowest", round(float(mirrored.min()), 3))
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.1))
    for axis, weights, title in zip(axes, (before, after), ("after one step", "after 200 steps"), strict=True):
        axis.imshow(weights, vmin=0, vmax=1, cmap="Blues")
        axis.set_xticks(range(LENGTH), x[0].tolist())
        axis.set_yticks(range(LENGTH), y[0].tolist())
        axis.set(title=title, xlabel="symbol looked at", ylabel="symbol to be answered")
        axis.grid(False)
    return figure


def looked_at(model: Answerer, data: Stories, i: int) -> np.ndarray:
    """The weights (hops, S) of question i, of the sentences that there are."""
    weights: list[shared.Tensor] = []
    with shared.no_grad():
        model(shared.tensor(data.test.facts[i : i + 1]), shared.tensor(data.test.questions[i : i + 1]), weights)
    return np.stack([w[0].mean(dim=0)[0].numpy() for w in weights])[:, -len(data.texts[i].facts) :]


def on_supporting(model: Answerer, data: Stories, hop: int, fact: int) -> float:
    """The mean weight of one hop on the sentence that supports the answer, over the test questions."""
    found = []
    for i, asked in enumerate(data.texts[:300]):
        weights = looked_at(model, data, i)[hop]
        place = asked.supporting[fact] - len(asked.facts) + len(weights)
        found.append(weights[place] if place >= 0 else 0.0)
    return float(np.mean(found))


def moved_often(data: Stories) -> list[int]:
    """Questions about somebody who moved three times and was not the last to move."""
    found = []
    for i, asked in enumerate(data.texts):
        who = asked.question.split()[-1].rstrip("?")
        moves = [fact.startswith(who) for fact in asked.facts]
        if sum(moves) >= 3 and not any(moves[-2:]) and len(moves) <= 8:
            found.append(i)
    return found


def mistakes(run: Run, data: Stories) -> tuple[int, int]:
    """How many answers of task 20 are wrong, and how many of these to the question why somebody went to the kitchen."""
    with shared.no_grad():
        logits = run.model(shared.tensor(data.test.facts), shared.tensor(data.test.questions))
    wrong = np.flatnonzero(logits.argmax(-1).numpy() != data.test.answers)
    kitchen = [i for i in wrong if data.texts[i].question.endswith("go to the kitchen?")]
    return len(wrong), len(kitchen)


def draw_story(model: Answerer, data: Stories, which: list[int], title: str) -> plt.Figure:
    """Stories line by line, with a column of weights for each hop."""
    hops = model.hops
    shape = {"figsize": (5.6 * len(which), 0.31 * max(len(data.texts[i].facts) for i in which) + 1.5)}
    figure, axes = plt.subplots(1, len(which), squeeze=False, **shape)
    for axis, i in zip(axes[0], which, strict=True):
        asked, weights = data.texts[i], looked_at(model, data, i)
        axis.imshow(
            weights.T, vmin=0, vmax=1, cmap="Blues", aspect="auto", extent=(-0.5, hops - 0.5, len(asked.facts), 0)
        )
        for row, fact in enumerate(asked.facts):
            mark = "  *" if row in asked.supporting else ""
            axis.text(-0.6, row + 0.5, fact + mark, ha="right", va="center", fontsize=9)
            for hop in range(hops):
                value = weights[hop, row]
                if value >= 0.05:
                    colour = "white" if value > 0.6 else "black"
                    axis.text(hop, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
        with shared.no_grad():
            logits = model(shared.tensor(data.test.facts[i : i + 1]), shared.tensor(data.test.questions[i : i + 1]))
        said = data.names[int(logits.argmax(-1).item())]
        axis.set_title(
            f"{asked.question} {said}" + ("" if said == asked.answer else f" (wrong: {asked.answer})"), fontsize=10
        )
        axis.set_xticks(range(hops), [f"turn {h + 1}" for h in range(hops)] if hops > 1 else ["weight"])
        axis.set_yticks([])
        axis.grid(False)
    figure.suptitle(title, fontsize=11)
    return figure


# ---------------------------------------------------------------- learnt together


def learn_together(results: Results, questions: int, steps: int, seeds: int) -> tuple[Run, Stories]:
    """Task 2 alone and with task 1, 10,000 questions of each: with attention, and feed-forward."""
    kept = None
    for name, numbers, kind, count in (
        ("alone_attention", (2,), "attention", 1),
        ("together_attention", (1, 2), "attention", seeds),
        ("together_feed_forward", (1, 2), "feed-forward", 1),
    ):
        data = together(numbers, questions)
        runs = [train_babi(data, kind, seed, steps, **TOGETHER) for seed in range(count)]
        record(results, name, runs)
        if name == "together_attention":
            kept = runs[0], data[-1]
            results.metric("together_task_1", round(100 * accuracy(runs[0].model, data[0].test), 1), unit="%")
            for hop in (0, 1):
                for fact in (0, 1):
                    share = on_supporting(runs[0].model, data[-1], hop, fact)
                    results.metric(f"together_turn_{hop + 1}_fact_{fact + 1}", round(share, 2))
                    print(f"turn {hop + 1}, supporting fact {fact + 1}: {share:.2f}")
    results.metric("together_questions", questions)
    results.metric("together_steps", steps, unit="steps")
    assert kept is not None
    return kept


def full(results: Results, seeds: int) -> None:
    """The published files; tasks 1, 2 and 3 together."""
    try:
        for task, hops in HOPS.items():
            data = stories(task, real=True)
            for kind in KINDS:
                runs = [train_babi(data, kind, seed, hops=hops) for seed in range(seeds)]
                record(results, f"full_real_{task}_{key(kind)}", runs)
    except DatasetUnavailable as error:
        print(error)
    data = together((1, 2, 3), 10000)
    settings = {**TOGETHER, "hops": 3}
    runs = [train_babi(data, "attention", 0, 6000, **settings)]
    record(results, "full_three_together", runs)
    results.metric("full_three_task_2", round(100 * accuracy(runs[0].model, data[1].test), 1), unit="%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each short training (%(default)s)")
    parser.add_argument("--together", type=int, default=2, help="seeds of the long one (%(default)s)")
    parser.add_argument("--full", action="store_true", help="the published files and task 3 together, instead")
    options = parser.parse_args()
    use_style()
    results = Results(__file__, seed=0)
    if options.full:
        full(results, 3)
        results.save(keep=lambda name: not name.startswith("full_"))
        return
    found, kept = compare(results, options.seeds)
    results.metric("chance_reversal", 100 / SYMBOLS, unit="%")
    results.figure(
        draw_compare(found),
        "with_and_without",
        alt="Accuracy on reversal and bAbI's tasks: with attention all of reversal and task 1 is right, without it far "
        "less; on task 20 all models are near 90% or above, and on tasks 2 and 3 all are low.",
    )
    results.figure(
        draw_reversal(kept["reversal"], results),
        "reversal_map",
        alt="Attention weights for one sequence: nearly even after one step, on the diagonal from the lower left to "
        "the upper right after training.",
    )
    data = stories(1)
    share = on_supporting(kept["task 1"].model, data, 0, 0)
    results.metric("task_1_on_supporting", round(share, 2))
    results.figure(
        draw_story(kept["task 1"].model, data, moved_often(data)[:2], "Task 1: what the question looks at"),
        "task_1_maps",
        alt="Two stories of task 1 with the weight of each sentence; most of it lies on the last sentence about the "
        "person that is asked for.",
    )
    run, data = learn_together(results, 10000, 3000, options.together)
    held = next(i for i, q in enumerate(data.texts) if 8 <= len(q.facts) <= 12 and q.supporting[0] < q.supporting[1])
    put = next(i for i, q in enumerate(data.texts) if 8 <= len(q.facts) <= 12 and q.supporting[0] > q.supporting[1])
    results.figure(
        draw_story(run.model, data, [held, put], "Task 2, learnt together with task 1: two turns"),
        "task_2_maps",
        alt="Two stories of task 2 with the weights of two turns: the first turn looks at the sentence in which the "
        "thing was got or dropped, the second at a move of the person named there.",
    )
    results.save(keep=lambda name: name.startswith("full_"))


if __name__ == "__main__":
    main()
