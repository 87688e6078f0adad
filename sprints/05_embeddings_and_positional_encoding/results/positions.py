"""Note 03: two sentences of the same words, clocks, who bit whom, and positions beyond those that were trained.

python sprints/05_embeddings_and_positional_encoding/results/positions.py     half a minute on one core
"""

from __future__ import annotations

import argparse
import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Arc
from order import ANIMALS, Reader, sentences, share_right, train_reader
from sentence import DOG_BITES, MAN_BITES, TABLE, canvas, ids, table, write_grid

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn, optim
from shared.nn import functional as F
from shared.nn.positional import sinusoidal_encoding
from shared.ops.rotary import apply_rotary, rotary_tables

TRAINED, LENGTH, WIDTH = 64, 256, 64  # positions trained on, positions asked about, numbers in a position's vector


# ---------------------------------------------------------------- drawings


def same_bag() -> plt.Figure:
    """The vectors of the two sentences, row by row, and their equal sums."""
    figure, axis = plt.subplots(figsize=(8.2, 3.9))
    canvas(axis, 14.6, 7.2)
    for left, sentence in ((1.8, DOG_BITES), (9.4, MAN_BITES)):
        words, rows = sentence.split(), [TABLE[i] for i in ids(sentence).tolist()]
        for r, (word, row) in enumerate(zip(words, rows, strict=True)):
            strong = {"dog": COLORS["blue"], "man": COLORS["green"]}.get(word, "0.9")
            write_grid(axis, [row], (left, r + 0.9), [[1.0] * 4], strong=strong)
            axis.text(left - 0.2, r + 1.42, f"{r}  {word}", ha="right", va="center", fontsize=11)
        write_grid(axis, [table()[ids(sentence)].sum(0).tolist()], (left, 6.2), strong="0.9")
        axis.text(left - 0.2, 6.72, "sum", ha="right", va="center", fontsize=11, weight="bold")
        axis.text(left + 1.5, 0.4, sentence, ha="center", va="center", fontsize=11.5, weight="bold")
    return figure


def clocks() -> plt.Figure:
    """The binary digits of a position, and the waves that replace them."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0), width_ratios=(1, 2.2))
    bits = (np.arange(16)[:, None] >> np.arange(4)) & 1
    left.imshow(bits, cmap="Greys", aspect="auto", vmin=0, vmax=1.6)
    for p in range(16):
        for b in range(4):
            left.text(b, p, bits[p, b], ha="center", va="center", fontsize=9)
    left.set(title="Binary digits", xlabel="digit (its value)", ylabel="position", xticks=range(4))
    left.set_xticklabels([1, 2, 4, 8])
    picture = right.imshow(sinusoidal_encoding(64, 32).numpy(), cmap="RdBu", aspect="auto", vmin=-1, vmax=1)
    right.set(title="Sines and cosines, d = 32", xlabel="number in the vector", ylabel="position")
    figure.colorbar(picture, ax=right, label="value")
    for axis in (left, right):
        axis.grid(False)
    return figure


def rotation() -> plt.Figure:
    """The fast and the slow clock of d = 4, with the shift by two positions as an angle."""
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 4.3))
    for axis, frequency, places, title in (
        (axes[0], 1.0, range(6), "Fast clock: ω = 1"),
        (axes[1], 0.01, range(0, 600, 100), "Slow clock: ω = 0.01"),
    ):
        axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.6"))
        step = places[1] - places[0]
        for p in places:
            x, y = math.cos(p * frequency), math.sin(p * frequency)
            axis.plot([0, x], [0, y], color="0.75", linewidth=1)
            axis.plot(x, y, "o", color=COLORS[0], markersize=5)
            axis.text(1.14 * x, 1.14 * y, f"{p}", ha="center", va="center", fontsize=10)
        for start, radius, colour in ((0, 0.45, COLORS[3]), (step, 0.6, COLORS[1]), (3 * step, 0.75, COLORS[2])):
            first, last = math.degrees(start * frequency), math.degrees((start + 2 * step) * frequency)
            axis.add_patch(Arc((0, 0), 2 * radius, 2 * radius, theta1=first, theta2=last, color=colour, linewidth=2.5))
            axis.plot([], [], color=colour, linewidth=2.5, label=f"{start} to {start + 2 * step}")
        axis.set(title=title, xlim=(-1.3, 1.3), ylim=(-1.75, 1.3), aspect="equal", xlabel="cosine", ylabel="sine")
        axis.legend(loc="lower center", ncols=3, fontsize=8, handlelength=1.0, columnspacing=1.0)
        axis.grid(False)
    return figure


def dots(results: Results) -> plt.Figure:
    """Dot products of two positions against their distance, for three widths, from two starting points."""
    figure, axis = plt.subplots(figsize=(7.2, 3.6))
    distances = np.arange(-60, 61)
    for width, colour in ((4, COLORS[1]), (64, COLORS[0]), (512, COLORS[2])):
        encoding = sinusoidal_encoding(400, width, dtype=shared.float64).numpy()
        from_100, from_300 = (encoding[p + distances] @ encoding[p] / (width / 2) for p in (100, 300))
        assert np.allclose(from_100, from_300)
        axis.plot(distances, from_100, color=colour, label=f"d = {width}")
        results.metric(f"dot_{width}_at_1", round(float(from_100[61]), 3))
        results.metric(f"dot_{width}_at_30", round(float(from_100[90]), 3))
    axis.set(
        title="How alike two positions are", xlabel="distance q − p", ylabel="PE(p) · PE(q) / (d/2)", ylim=(-0.35, 1.05)
    )
    axis.legend()
    return figure


# ---------------------------------------------------------------- who bit whom


def who_bit_whom(seeds: list[int], results: Results) -> plt.Figure:
    """Loss while a small network learns who did it, with and without positions, before and after the sum."""
    (x, y), (held_x, held_y) = sentences()
    results.metric("who_sentences", len(x))
    results.metric("who_held_out", len(held_x))
    results.metric("who_seeds", len(seeds))
    cases = (
        ("none", "no positions", lambda: None, True, "-"),
        ("summed", "positions, but summed at once", lambda: nn.PositionalEncoding(16, 0.0, max_len=8), False, "--"),
        ("sines", "sines, then each word by itself", lambda: nn.PositionalEncoding(16, 0.0, max_len=8), True, "-"),
        ("learned", "learned, then each word by itself", lambda: nn.LearnedPositionalEncoding(16, 0.0, 8), True, "-."),
    )
    figure, axis = plt.subplots(figsize=(7.6, 3.9))
    for (key, name, positions, each_word, style), colour in zip(cases, (3, 1, 0, 2), strict=True):
        losses, right = [], []
        for seed in seeds:
            shared.manual_seed(seed)
            model = Reader(positions(), each_word)
            losses.append(train_reader(model, x, y))
            right.append((share_right(model, x, y), share_right(model, held_x, held_y)))
        axis.semilogy(np.mean(losses, axis=0), style, color=COLORS[colour], label=name)
        trained, held = np.mean(right, axis=0)
        results.metric(f"who_{key}_loss", round(float(np.mean(losses, axis=0)[-1]), 4), unit="nats")
        results.metric(f"who_{key}_trained", round(100 * float(trained), 1), unit="%")
        results.metric(f"who_{key}_held_out", round(100 * float(held), 1), unit="%")
        print(f"{name:34} loss {np.mean(losses, 0)[-1]:.4f} nats, right {trained:.3f}, held out {held:.3f}", flush=True)
    axis.axhline(math.log(2), color="0.3", linestyle=":", linewidth=1.2)
    axis.text(300, 0.75, "ln 2", ha="right", va="bottom", color="0.3")
    axis.set(title=f"Who bit whom? One of {len(ANIMALS)} animals", xlabel="step", ylabel="cross-entropy (nats)")
    axis.legend(loc="upper right", bbox_to_anchor=(1, 0.83))
    return figure


# ---------------------------------------------------------------- beyond the trained positions


class Previous(nn.Module):
    """A score for each pair of positions: (n, n), high where the second is the one before the first, if it learns.

    `kind`: "sines" and "learned" multiply the positions' vectors by two matrices, and those by each other; "rotary"
    turns two learned vectors by the positions' angles; "by hand" has sines, and the rotation by one step in place
    of learned matrices.
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        if kind == "rotary":
            self.query, self.key = nn.Parameter(shared.randn(WIDTH)), nn.Parameter(shared.randn(WIDTH))
            self.cos, self.sin = rotary_tables(LENGTH, WIDTH)
        elif kind == "by hand":
            self.cos, self.sin = rotary_tables(shared.tensor([1]), WIDTH)
        else:
            self.query, self.key = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        if kind == "learned":
            self.vectors = nn.Parameter(0.02 * shared.randn(LENGTH, WIDTH))
        elif kind != "rotary":
            self.vectors = sinusoidal_encoding(LENGTH, WIDTH)

    def forward(self, n: int) -> Tensor:
        if self.kind == "rotary":
            q, k = (
                apply_rotary(shared.ones(n, 1) * vector, self.cos[:n], self.sin[:n])
                for vector in (self.query, self.key)
            )
        elif self.kind == "by hand":
            # (sin, cos) pairs, turned forwards by one step: the hand of a clock is (cos, sin), hence −sin.
            k, q = apply_rotary(self.vectors[:n], self.cos, -self.sin, interleaved=True), self.vectors[:n]
        else:
            q, k = self.query(self.vectors[:n]), self.key(self.vectors[:n])
        return q @ k.transpose(0, 1) / WIDTH**0.5


def find_previous(kind: str, seed: int, steps: int) -> tuple[np.ndarray, Previous]:
    """For each position from 1 on, whether of all positions up to itself the one before has the highest score."""
    shared.manual_seed(seed)
    model, target = Previous(kind), shared.arange(TRAINED - 1)
    if list(model.parameters()):
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(TRAINED)[1:], target).backward()
            optimizer.step()
    with shared.no_grad():
        scores = model(LENGTH).numpy()
    return np.array([scores[p, : p + 1].argmax() == p - 1 for p in range(1, LENGTH)]), model


def describe_winners(key: str, models: list[Previous], results: Results) -> None:
    """Who wins beyond the trained positions: how often a trained one, by how much the right one, and who in its place.

    A whole turn of the fastest clock is 2π positions: of winners that are wrong, the share is noted that stand within
    0.7 of a number of whole turns before the right one (0.22 would by chance).
    """
    trained, margins, wrong = [], [], []
    for model in models:
        with shared.no_grad():
            scores = model(LENGTH).numpy()
        for p in range(TRAINED, LENGTH):
            row = scores[p, : p + 1]
            winner = int(row.argmax())
            trained.append(winner < TRAINED)
            margins.append((p, row[p - 1] - np.delete(row, p - 1).max()))
            if winner != p - 1:
                turns = (p - 1 - winner) / (2 * math.pi)
                wrong.append(winner < p - 1 and abs(turns - round(turns)) * 2 * math.pi < 0.7)
    results.metric(f"previous_{key}_winner_trained", round(100 * float(np.mean(trained)), 1), unit="%")
    for label, part in (("next", [m for p, m in margins if p < 128]), ("far", [m for p, m in margins if p >= 128])):
        results.metric(f"previous_{key}_margin_{label}", round(float(np.mean(part)), 2))
    if wrong:
        results.metric(f"previous_{key}_wrong_by_turns", round(100 * float(np.mean(wrong)), 1), unit="%")


def beyond(seeds: list[int], steps: int, results: Results) -> plt.Figure:
    """How often the position before is found, by position, trained on the first 64."""
    figure, axis = plt.subplots(figsize=(7.6, 3.9))
    kinds = ("learned", "sines", "by hand", "rotary")
    names = ("learned vectors", "sines, learned matrices", "sines, the rotation by hand", "rotary, learned vectors")
    edges = np.arange(0, LENGTH + 1, 16)
    for kind, name, style, colour in zip(kinds, names, ("s-", "o-", "^--", "D:"), (3, 0, 2, 1), strict=True):
        runs = [find_previous(kind, seed, steps) for seed in seeds]
        found = np.mean([hits for hits, _ in runs], axis=0)
        shares = [found[max(a - 1, 0) : b - 1].mean() for a, b in zip(edges[:-1], edges[1:], strict=True)]
        axis.plot(edges[:-1] + 8, 100 * np.array(shares), style, markersize=5, color=COLORS[colour], label=name)
        key = kind.replace(" ", "_")
        for label, part in (
            ("trained", found[: TRAINED - 1]),
            ("next", found[TRAINED - 1 : 127]),
            ("far", found[127:]),
        ):
            results.metric(f"previous_{key}_{label}", round(100 * float(part.mean()), 1), unit="%")
        describe_winners(key, [model for _, model in runs], results)
        print(f"{name:28} {[round(float(s), 2) for s in shares]}", flush=True)
        if kind == "learned":
            shared.manual_seed(seeds[-1])
            moved = (runs[-1][1].vectors - Previous(kind).vectors).abs().amax(dim=1)
            results.metric("previous_moved_trained", float(f"{moved[:TRAINED].min().item():.3g}"))
            results.metric("previous_moved_beyond", float(moved[TRAINED:].max().item()))
            print(
                f"trained vectors moved by at least {moved[:TRAINED].min().item():.3g}, others by at most "
                f"{moved[TRAINED:].max().item():.3g}"
            )
    results.metric("previous_seeds", len(seeds))
    results.metric("previous_steps", steps, unit="steps")
    axis.axvline(TRAINED, color="0.3", linestyle="--", linewidth=1)
    axis.text(TRAINED + 3, 4, "not trained from here on", color="0.3", fontsize=9)
    axis.set(title="Find the position before", xlabel="position", ylabel="found (%)", ylim=(-4, 104), xlim=(0, LENGTH))
    axis.legend(loc="center right", bbox_to_anchor=(1, 0.35))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="(default: 0 1 2 3 4)")
    parser.add_argument("--steps", type=int, default=300, help="of the last experiment (default: %(default)s)")
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seeds[0])
    results.figure(
        same_bag(),
        "same_bag",
        alt="The five vectors of the dog bit the man and of the man bit the dog: the rows of dog and man have changed "
        "places, and the sum of the rows is 4, 4, 0, 1 in both.",
    )
    results.figure(
        clocks(),
        "clocks",
        alt="Left, the binary digits of 0 to 15: the first flips at every position, the next every two, then four and "
        "eight. Right, the encoding of 64 positions: waves that are fast at the left and ever slower to the right.",
    )
    results.figure(
        rotation(),
        "shift_is_a_rotation",
        alt="Two clock faces. On the fast one the positions 0 to 5 lie an angle of 1 apart, on the slow one the "
        "positions 0, 100 and so on do. Arcs from 0 to 2, 1 to 3 and 3 to 5, and on the slow clock from 0 to 200 and "
        "so on, span the same angle.",
    )
    results.figure(
        dots(results),
        "position_dots",
        alt="The dot product of two positions against their distance, for widths 4, 64 and 512: 1 at distance 0, the "
        "same to both sides. At width 4 it swings, at the larger ones it falls off with small ripples.",
    )
    results.figure(
        who_bit_whom(args.seeds, results),
        "who_bit_whom",
        alt="Loss against training step. Without positions, and with positions where all is summed at once, it stays "
        "at ln 2. With positions and a hidden layer for each word it falls to nearly zero.",
    )
    results.figure(
        beyond(args.seeds, args.steps, results),
        "beyond",
        alt="How often the position before is found, by position from 0 to 255, trained up to 63. All find it there. "
        "Beyond, learned vectors never do, sines with learned matrices often, and the two rotations always.",
    )
    results.save()


if __name__ == "__main__":
    main()
