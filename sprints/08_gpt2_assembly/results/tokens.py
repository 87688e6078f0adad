"""Note 02: characters, words and byte pairs on Shakespeare; merges of the sentence; GPT-2's own vocabulary.

python sprints/08_gpt2_assembly/results/tokens.py      about 20 seconds of one core; fetches 1.5 MB
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Collection

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch
from sentence import SENTENCE

import shared
from course.plotting import COLORS, canvas, use_style
from course.results import Results
from shared.text import (
    ByteLevelBPE,
    apply_merges,
    byte_ids,
    count_pairs,
    merge_pair,
    most_frequent_pair,
    split_pieces,
    split_words,
)

SIZES = (257, 300, 400, 500, 700, 1000, 2000, 3000, 5000, 7000, 10000)
LARGEST = SIZES[-1]
DOG = {  # one event in six languages: English, German, Spanish, Russian, Hindi, Japanese
    "english": "The dog bit the man.",
    "german": "Der Hund biss den Mann.",
    "spanish": "El perro mordió al hombre.",
    "russian": "Собака укусила мужчину.",
    "hindi": "कुत्ते ने आदमी को काटा।",
    "japanese": "犬が男を噛んだ。",
}
PROBES = {
    "emoji": "🐕",
    "family": "👨‍👩‍👧",
    "year": " 2019",
    "number": "1234567",
    "commas": "1,234,567",
    "shout": "DON'T",
    "say": "don't",
}


def shakespeare() -> tuple[str, str]:
    """The first 90% of the characters, to learn from, and the rest."""
    train, held = shared.data.load("tinyshakespeare")
    return train.text, held.text


# ---------------------------------------------------------------- the sentence, merge by merge


def merging(sentence: str = SENTENCE) -> list[tuple[str, int, list[list[str]]]]:
    """After each merge of one sentence: the token that it made, how often the pair stood there, and all pieces."""
    words = [byte_ids(piece) for piece in split_pieces(sentence)]
    spelled = {byte_ids(character)[0]: character for character in sentence}
    steps = [("", 0, [[spelled[i] for i in ids] for ids in words])]
    while (pair := most_frequent_pair(counts := count_pairs(words, [1] * len(words)))) is not None:
        new_id = 255 + len(steps)
        spelled[new_id] = spelled[pair[0]] + spelled[pair[1]]
        words = [merge_pair(ids, pair, new_id) for ids in words]
        steps.append((spelled[new_id], counts[pair], [[spelled[i] for i in ids] for ids in words]))
    learned = ByteLevelBPE.train(sentence, 255 + len(steps), special_tokens=())
    assert [token.decode() for token in learned.tokens[256:]] == [made for made, _, _ in steps[1:]]
    return steps


def draw_merging(steps: list[tuple[str, int, list[list[str]]]]) -> plt.Figure:
    """One row for each merge: the sentence in boxes, the token just made filled."""
    figure, axis = plt.subplots(figsize=(9.2, 5.6))
    width = len(SENTENCE)
    for r, (made, count, pieces) in enumerate(steps):
        x = 0.0
        label = f"{r}. “{made.replace(' ', '␣')}”, {count}×" if r else "bytes"
        axis.text(-0.4, r + 0.5, label, ha="right", va="center", fontsize=10)
        for piece in pieces:
            for token in piece:
                colour = COLORS["orange"] if token == made else COLORS["sky"] if len(token) > 1 else "white"
                box = FancyBboxPatch(
                    (x + 0.1, r + 0.16), len(token) - 0.2, 0.68, boxstyle="round,pad=0.02,rounding_size=0.15"
                )
                box.set(facecolor=colour, edgecolor="0.45", alpha=0.75)
                axis.add_patch(box)
                for k, character in enumerate(token):
                    shown = character.replace(" ", "␣")
                    axis.text(x + k + 0.5, r + 0.53, shown, ha="center", va="center", fontsize=10)
                x += len(token)
        tokens = sum(map(len, pieces))
        axis.text(width + 0.5, r + 0.5, str(tokens), ha="left", va="center", fontsize=10)
    axis.text(width + 0.5, -0.35, "tokens", ha="left", va="center", fontsize=10)
    canvas(axis, width, len(steps))
    axis.set(xlim=(-4.6, width + 2.6), ylim=(len(steps) + 0.1, -0.8), aspect="auto")
    return figure


# ---------------------------------------------------------------- Shakespeare


def baselines(results: Results, train: str, held: str) -> int:
    """The number of different words; how long the held part is in characters and words, and how much is unknown."""
    results.metric("train_characters", len(train))
    results.metric("held_characters", len(held))
    results.metric("characters_distinct", len(set(train)))
    assert set(held) <= set(train)
    counts, words = Counter(split_words(train)), split_words(held)
    results.metric("held_words", len(words))
    results.metric("words_distinct", len(counts))
    results.metric("words_once_share", round(sum(n == 1 for n in counts.values()) / len(counts), 3))
    unknown = sum(word not in counts for word in words) / len(words)
    results.metric("held_unknown_share", round(unknown, 4))
    results.metric("held_unknown_kinds", len(set(words) - set(counts)))
    kept = {word for word, _ in counts.most_common(1000)}
    results.metric("held_unknown_share_1000", round(sum(word not in kept for word in words) / len(words), 3))
    print(f"words: {len(counts):,} kinds, of the held part {unknown:.1%} unknown")
    return len(counts)


def learn(results: Results, train: str) -> ByteLevelBPE:
    """10,000 tokens by the `tokenizers` library, the first 1,000 by ours too; the least time of three of each."""
    learned = {}
    for name, fast in (("train_seconds_1000", False), ("train_seconds_1000_fast", True)):
        times = []
        for _ in range(3):
            started = time.process_time()
            learned[fast] = ByteLevelBPE.train(train, 1000, fast=fast)
            times.append(time.process_time() - started)
        results.metric(name, round(min(times), 2), unit="s")
        print(f"{name}: {min(times):.2f} s")
    ours = learned[False]
    assert ours == learned[True]
    large = ByteLevelBPE.train(train, LARGEST, fast=True)
    assert list(large.merges)[:743] == list(ours.merges)
    pieces = Counter(split_pieces(train))
    results.metric("train_pieces", sum(pieces.values()))
    results.metric("train_pieces_distinct", len(pieces))
    spelled = [large.tokens[256 + k].decode() for k in range(20)]
    print("first merges:", " ".join(token.replace(" ", "␣").replace("\n", "⏎") for token in spelled))
    for at in (100, 300, 1000, 3000, 9999 - 256):
        tokens = [large.tokens[256 + at - k].decode(errors="replace") for k in range(1, 9)]
        print(f"  up to merge {at}: {tokens}")
    return large


def compression(results: Results, large: ByteLevelBPE, held: str, kinds: int, gpt2: ByteLevelBPE | None) -> plt.Figure:
    """Characters per token of the held part against the size of the vocabulary; `kinds` is how many words there are."""
    merges, lengths = list(large.merges), []
    for size in SIZES:
        tokenizer = ByteLevelBPE(merges[: size - 257])
        ids = tokenizer.encode(held)
        assert tokenizer.decode(ids) == held
        lengths.append(len(held) / len(ids))
        results.metric(f"characters_per_token_{size}", round(lengths[-1], 3))
        used = len(set(ids))
        print(f"  {size:6} tokens: {lengths[-1]:.2f} characters per token, {used} of them used in the held part")
    words = split_words(held)
    figure, axis = plt.subplots(figsize=(7.4, 4.2))
    axis.semilogx(SIZES, lengths, "o-", color=COLORS["blue"], label="byte pairs learned from the first 90%")
    axis.plot(65, 1, "s", color=COLORS["black"], label="characters")
    axis.plot(kinds, len(held) / len(words), "D", color=COLORS["vermillion"], label="words and marks (spaces are lost)")
    results.metric("characters_per_word", round(len(held) / len(words), 3))
    if gpt2 is not None:
        ids = gpt2.fast().encode(held).ids
        assert ids == gpt2.encode(held)
        axis.plot(50257, len(held) / len(ids), "^", color=COLORS["green"], label="GPT-2's, learned from web pages")
        results.metric("gpt2_characters_per_token", round(len(held) / len(ids), 3))
        results.metric("gpt2_used_in_held", len(set(ids)))
    axis.set(
        title="Characters per token, unseen Shakespeare",
        xlabel="tokens in the vocabulary",
        ylabel="characters per token",
        ylim=(0.8, 4.6),
    )
    axis.legend(fontsize=9, loc="upper left")
    return figure


def speed(results: Results, large: ByteLevelBPE, held: str) -> None:
    """Millions of characters per second, our encoder and the compiled one; both remember pieces."""
    tokenizer = ByteLevelBPE(list(large.merges)[:743])
    fast = tokenizer.fast()
    for name, encode in (("ours", tokenizer.encode), ("fast", lambda text: fast.encode(text).ids)):
        started = time.process_time()
        encode(held)
        seconds = time.process_time() - started
        results.metric(f"encode_{name}", round(len(held) / seconds / 1e6, 2), unit="million")
        print(f"  encoding, {name}: {len(held) / seconds / 1e6:.2f} million characters per second")


# ---------------------------------------------------------------- by rank or by length


def longest_match(piece: bytes, tokens: Collection[bytes]) -> list[bytes]:
    """The piece cut from the left, each time the longest token that fits."""
    found, start = [], 0
    while start < len(piece):
        end = max(e for e in range(start + 1, len(piece) + 1) if piece[start:e] in tokens)
        found.append(piece[start:end])
        start = end
    return found


def rank_or_length(results: Results, tokenizer: ByteLevelBPE, held: str, name: str) -> None:
    """Of the distinct pieces of the held part: for how many the two differ, and how many tokens each makes."""
    known = set(tokenizer.tokens[: 256 + len(tokenizer.merges)])
    differ, ranked, longest, examples = 0, 0, 0, []
    pieces = sorted(set(split_pieces(held)))
    for piece in pieces:
        ids = apply_merges(byte_ids(piece), tokenizer.merges)
        by_rank, by_length = [tokenizer.tokens[i] for i in ids], longest_match(piece.encode(), known)
        ranked, longest = ranked + len(by_rank), longest + len(by_length)
        if by_rank != by_length:
            differ += 1
            examples.append((by_rank, by_length))
    results.metric(f"{name}_longest_differs", round(differ / len(pieces), 4))
    results.metric(f"{name}_longest_tokens", round(longest / ranked, 4))
    print(f"  {name}: {differ} of {len(pieces)} pieces differ, {longest} tokens by length, {ranked} by rank")
    for by_rank, by_length in examples[:: max(1, len(examples) // 8)]:
        print("   ", b"|".join(by_rank).decode(), "  by length", b"|".join(by_length).decode())


# ---------------------------------------------------------------- GPT-2's vocabulary


def oddities(results: Results, gpt2: ByteLevelBPE, large: ByteLevelBPE) -> None:
    """What GPT-2 makes of spaces, numbers, other languages and emoji; ours of 1,000 tokens beside it."""
    ours = ByteLevelBPE(list(large.merges)[:743])
    for name, text in (DOG | PROBES).items():
        ids = gpt2.encode(text)
        assert gpt2.decode(ids) == text and ids == gpt2.fast().encode(text).ids
        results.metric(f"gpt2_tokens_{name}", len(ids))
        results.metric(f"ours_tokens_{name}", len(ours.encode(text)))
        results.metric(f"characters_{name}", len(text))
        results.metric(f"bytes_{name}", len(text.encode()))
        tokens = [gpt2.tokens[i] for i in ids]
        print(
            f"  {name:9} {len(text):3} characters, {len(text.encode()):3} bytes, GPT-2 {len(ids):3}:", b"|".join(tokens)
        )
    for name, text in (("dog", "dog"), ("space_dog", " dog"), ("Dog", "Dog"), ("glitch", " SolidGoldMagikarp")):
        (only,) = gpt2.encode(text)
        results.metric(f"gpt2_id_{name}", only)
        print(f"  {text!r} is token {only}")
    spaced = sum(token.startswith(b" ") for token in gpt2.tokens[:-1])
    results.metric("gpt2_spaced_share", round(spaced / gpt2.vocab_size, 3))
    whole = [token for token in gpt2.tokens[:-1] if _is_text(token)]
    results.metric("gpt2_not_text", len(gpt2.tokens) - 1 - len(whole))
    years = [year for year in range(1800, 2100) if len(gpt2.encode(f" {year}")) == 1]
    results.metric("gpt2_years", len(years))
    print("  years in one token:", len(years), "the others:", [y for y in range(1900, 2050) if y not in years])


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


def main() -> None:
    """Learns, measures and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    use_style()
    results = Results(__file__)
    steps = merging()
    for made, count, pieces in steps:
        print(f"{made!r:8} {count}  {'|'.join(token for piece in pieces for token in piece)}")
    results.figure(
        draw_merging(steps),
        "merging",
        alt="Thirteen rows: the sentence as nineteen bytes, and after each of twelve merges; he and the come first, "
        "and at the end it is five tokens, four of which begin with a space.",
    )
    train, held = shakespeare()
    kinds = baselines(results, train, held)
    large = learn(results, train)
    try:
        gpt2 = ByteLevelBPE.gpt2(progress=False)
    except shared.data.DatasetUnavailable as error:
        gpt2 = None
        print(f"without GPT-2's vocabulary: {error}")
    results.figure(
        compression(results, large, held, kinds, gpt2),
        "compression",
        alt="Characters per token on unseen Shakespeare rise with the size of the vocabulary, from 1 for bytes to more "
        "than 3 at 10,000 tokens, ever more slowly; GPT-2's 50,257 tokens lie between 5,000 and 7,000 of our own.",
    )
    speed(results, large, held)
    rank_or_length(results, ByteLevelBPE(list(large.merges)[:743]), held, "ours")
    if gpt2 is not None:
        rank_or_length(results, gpt2, held, "gpt2")
        oddities(results, gpt2, large)
    results.save(keep=(lambda name: "gpt2" in name) if gpt2 is None else None)


if __name__ == "__main__":
    main()
