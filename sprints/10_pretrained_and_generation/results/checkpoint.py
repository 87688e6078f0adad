"""Note 01: a file byte by byte, GPT-2 tensor by tensor, loading measured, one bit flipped, a wrong vocabulary.

python sprints/10_pretrained_and_generation/results/checkpoint.py    half a minute, 0.5 GB of disk for a while
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from kept import FOLDER, kept_model, validation_text
from matplotlib.patches import Rectangle
from sentence import UNSURE

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared.data import sequential_windows
from shared.models import GPT, GPTConfig, load_pretrained, save_pretrained
from shared.models.hugging_face import weights_of
from shared.models.tensor_file import read_places
from shared.text import CharVocabulary
from shared.training import evaluate_loss

PART = 20_000  # characters of the validation text, where a loss is compared with a loss
KINDS = ("token table", "positions", "attention", "feed-forward", "masks")
TINTS = {
    "token table": COLORS["orange"],
    "positions": COLORS["purple"],
    "attention": COLORS["blue"],
    "feed-forward": COLORS["green"],
    "masks": "0.6",
}

# ---------------------------------------------------------------- a file of six numbers


def six_scores() -> bytes:
    """The scores of the six words as a safetensors file: length of the header, header, numbers."""
    header = json.dumps({"scores": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}, separators=(",", ":"))
    return struct.pack("<Q", len(header)) + header.encode() + struct.pack("<6f", *UNSURE)


def byte_grid(content: bytes) -> plt.Figure:
    """Every byte of the file, 16 in a row, coloured by what it is for; printable ones of the header as characters."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    figure, axis = plt.subplots(figsize=(8.6, 3.9))
    for i, byte in enumerate(content):
        row, column = divmod(i, 16)
        kind = "length" if i < 8 else "header" if i < end else "numbers"
        shade = {"length": COLORS["orange"], "header": COLORS["sky"], "numbers": COLORS["green"]}[kind]
        if kind == "numbers" and (i - end) // 4 % 2:
            shade = COLORS["yellow"]
        axis.add_patch(Rectangle((column, row), 1, 1, facecolor=shade, alpha=0.45, edgecolor="white"))
        text = chr(byte) if kind == "header" else f"{byte:02x}"
        axis.text(column + 0.5, row + 0.45, text, ha="center", va="center", fontsize=9, family="monospace")
        if kind == "numbers" and (i - end) % 4 == 0:
            value = f"{UNSURE[(i - end) // 4]:g}".replace("-", "−")
            axis.text(column + 2, row + 0.83, value, ha="center", va="center", fontsize=8, color="0.25")
    rows = math.ceil(len(content) / 16)
    for row in range(rows):
        axis.text(-0.3, row + 0.52, str(16 * row), ha="right", va="center", fontsize=8, color="0.4")
    axis.set(xlim=(-1.4, 16.1), ylim=(rows + 0.1, -0.1), aspect="equal")
    axis.axis("off")
    return figure


# ---------------------------------------------------------------- tensor by tensor


def kind_of(name: str) -> str:
    """Which part of the model a tensor of Hugging Face's belongs to; norms are counted with what follows them."""
    if "wte" in name:
        return "token table"
    if "wpe" in name:
        return "positions"
    return "attention" if ".attn." in name or "ln_1" in name else "feed-forward"


def segments(config: GPTConfig, masks: bool = False) -> list[tuple[str, int]]:
    """(kind, bytes) of each tensor of a model of that config, table first; with the causal masks of old files."""
    found = []
    for weight in weights_of(config):
        if weight.theirs == "lm_head.weight":
            continue
        found.append((kind_of(weight.theirs), 4 * math.prod(weight.shape)))
        if masks and weight.theirs.endswith("attn.c_proj.bias"):
            found.append(("masks", 4 * config.block_size**2))
    return found


def strips(results: Results) -> plt.Figure:
    """Two files as strips, each tensor as wide as its share of the bytes; and the shares in numbers."""
    kept = GPTConfig(vocab_size=65, block_size=128, n_layer=4, n_head=6, n_embd=192)
    rows = [
        ("the kept model", "kept", segments(kept)),
        ("GPT-2", "gpt2", segments(GPTConfig.preset("gpt2"), masks=True)),
    ]
    figure, axes = plt.subplots(2, 1, figsize=(8.6, 3.4))
    for axis, (title, short, parts) in zip(axes, rows, strict=True):
        total, left = sum(size for _, size in parts), 0.0
        for kind, size in parts:
            width = 100 * size / total
            edge = 0.6 if width > 0.4 else 0.0
            axis.barh(0, width, left=left, color=TINTS[kind], edgecolor="white", linewidth=edge)
            left += width
        for kind in KINDS:
            share = sum(size for name, size in parts if name == kind) / total
            results.metric(f"share_{short}_{kind.replace(' ', '_').replace('-', '_')}", round(share, 4))
        axis.set(title=f"{title}, {total / 1e6:.1f} MB", xlim=(0, 100), yticks=[])
        axis.grid(visible=False)
        results.metric(f"bytes_{short}", total, unit="bytes")
    axes[1].set_xlabel("share of the file's bytes (%), tensors in the order of the blocks")
    handles = [Rectangle((0, 0), 1, 1, color=TINTS[kind]) for kind in KINDS]
    figure.legend(handles, KINDS, loc="outside lower center", ncols=5)
    weights = sum(size for kind, size in rows[1][2] if kind != "masks")
    results.metric("bytes_gpt2_weights", weights, unit="bytes")
    results.metric("bytes_gpt2_masks", sum(size for kind, size in rows[1][2] if kind == "masks"), unit="bytes")
    results.metric("tensors_gpt2", len(rows[1][2]))
    print(f"  GPT-2: {weights:,} bytes of weights, {sum(s for _, s in rows[1][2]) - weights:,} of masks")
    return figure


def kept_file(results: Results) -> None:
    """Length, header and tensors of the kept model's file, and whether they are those that the config asks for."""
    path = FOLDER / "model.safetensors"
    places = read_places(path)
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    numbers = sum(math.prod(place.shape) for place in places.values())
    results.metric("kept_file_bytes", path.stat().st_size, unit="bytes")
    results.metric("kept_header_bytes", length, unit="bytes")
    results.metric("kept_tensors", len(places))
    results.metric("kept_numbers", numbers)
    assert path.stat().st_size == 8 + length + 4 * numbers, "bytes that belong to no tensor"
    print(f"  the kept file: {len(places)} tensors, {numbers:,} numbers, a header of {length} bytes")


# ---------------------------------------------------------------- loading


def memory() -> dict[str, float]:
    """MB of this process by kind, from Linux: its own (anon), and pages of files (file). Empty elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split()[:2] for line in lines if line.startswith(("RssAnon", "RssFile")))
    return {name.removeprefix("Rss").rstrip(":").lower(): int(kilobytes) / 1e3 for name, kilobytes in pairs}


def measured(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What an action returns, and its seconds by the clock and by how many MB the process grew, of each kind."""
    before, start = memory(), time.perf_counter()
    made = action()
    seconds = time.perf_counter() - start
    return made, {"seconds": seconds} | {kind: megabytes - before[kind] for kind, megabytes in memory().items()}


def load_once(way: str, folder: str) -> None:
    """In a process of its own, whose memory nobody has used: opens the model in one way, and prints what it took."""
    print(json.dumps(measured(lambda: load_pretrained(folder, mapped=way == "mapped"))[1]))


def loading(results: Results, times: int = 3) -> None:
    """A GPT-2 124M at random weights: saved, then opened by a map, and read into memory at once."""
    folder = tempfile.mkdtemp()
    try:
        save_pretrained(GPT(GPTConfig.preset("gpt2")), folder)  # the system has the file in memory from here on
        results.metric("gpt2_file_bytes", (Path(folder) / "model.safetensors").stat().st_size, unit="bytes")
        for way in ("mapped", "read"):
            command = [sys.executable, __file__, "--load", way, folder]
            runs = [json.loads(subprocess.check_output(command)) for _ in range(times)]
            best = {name: min(run[name] for run in runs) for name in runs[0]}
            print(f"  GPT-2, {way}:", {name: round(value, 3) for name, value in best.items()})
            results.metric(f"load_{way}_milliseconds", round(1000 * best["seconds"]), unit="ms")
            results.metric(f"load_{way}_own_mb", round(best.get("anon", 0.0)), unit="MB")
    finally:
        shutil.rmtree(folder)


# ---------------------------------------------------------------- damage that no error tells


def bits_per_character(model: GPT, ids: list[int]) -> float:
    """The loss on ids in windows of 128, in bits."""
    return evaluate_loss(model, sequential_windows(np.array(ids, np.uint16), 16, 128)) / math.log(2)


def one_bit(text: str, results: Results) -> None:
    """Each bit of one number of the file flipped in turn: the loss afterwards. The loader sees a good file each time.

    The number is the first one of the first block's feed-forward matrix.
    """
    _, tokenizer = kept_model()
    ids = tokenizer.encode(text[:5000])
    right = bits_per_character(kept_model()[0], ids)
    print(f"  undamaged {right:.4f} bits per character")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in FOLDER.iterdir():
            shutil.copy(file, folder)
        path = folder / "model.safetensors"
        place = read_places(path)["transformer.h.0.mlp.c_fc.weight"]
        content = path.read_bytes()
        (number,) = struct.unpack("<f", content[place.start : place.start + 4])
        results.metric("flipped_number", round(number, 4))
        for bit in (0, 22, 23, 29, 30, 31):
            damaged = bytearray(content)
            damaged[place.start + bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            (now,) = struct.unpack("<f", damaged[place.start : place.start + 4])
            with np.errstate(all="ignore"):
                loss = bits_per_character(load_pretrained(folder), ids)
            finite = math.isfinite(loss)
            results.metric(f"flipped_bit_{bit}_value", float(f"{now:.4g}"))
            results.metric(f"flipped_bit_{bit}_added", round(loss - right, 4) if finite else "not finite", unit="bits")
            print(f"  bit {bit:2}: {number:.4g} becomes {now:.4g}, {loss - right:+.4f} bits")


def wrong_vocabulary(text: str, results: Results) -> None:
    """The loss on real text whose ids come from a vocabulary that misses a character or has them in another order."""
    model, tokenizer = kept_model()
    part = "".join(c for c in text[:PART] if c not in "$3")
    vocabularies = {
        "right": tokenizer,
        "without_dollar": CharVocabulary([c for c in tokenizer.itos if c != "$"]),
        "by_frequency": CharVocabulary(sorted(tokenizer.itos, key=lambda c: -text.count(c))),
    }
    for name, vocabulary in vocabularies.items():
        bits = bits_per_character(model, vocabulary.encode(part))
        results.metric(f"vocabulary_{name}_bits", round(bits, 2), unit="bits")
        print(f"  vocabulary {name}: {bits:.2f} bits; {vocabulary.decode(tokenizer.encode('To be, or not to be'))!r}")
    results.metric("knowing_nothing_bits", round(math.log2(tokenizer.vocab_size), 2), unit="bits")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--load", nargs=2, metavar=("WAY", "FOLDER"), help="open one model, and print what it took")
    options = parser.parse_args()
    if options.load:
        load_once(*options.load)
        return
    use_style()
    shared.manual_seed(options.seed)
    results = Results(__file__, seed=options.seed)
    content = six_scores()
    results.metric("six_file_bytes", len(content), unit="bytes")
    results.metric("six_header_bytes", struct.unpack("<Q", content[:8])[0], unit="bytes")
    results.figure(
        byte_grid(content),
        "file_bytes",
        alt="A grid of bytes, sixteen in a row: eight with the header's length, then the header, readable as JSON, "
        "then six groups of four bytes, one for each number.",
    )
    results.figure(
        strips(results),
        "tensors",
        alt="Two strips, one for each file, cut into tensors: the kept model's is nearly all attention and "
        "feed-forward in four equal blocks, GPT-2's begins with a token table of more than a quarter, and each of its "
        "twelve blocks has a small grey mask.",
    )
    kept_file(results)
    loading(results)
    text = validation_text()
    one_bit(text, results)
    wrong_vocabulary(text, results)
    results.save()


if __name__ == "__main__":
    main()
