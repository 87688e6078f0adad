"""Note 06: what a training forgets when its checkpoint does; other people's names; a trained sorter, opened and spoilt.

python sprints/08_gpt2_assembly/results/checkpoint.py      about 40 seconds of one core; the sorter where it can be had
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn
from shared.models import (
    GPT,
    GPTConfig,
    config_to_hugging_face,
    from_hugging_face,
    load_sorter,
    look_inside,
    look_inside_block,
    next_token_loss,
    reference_activations,
    sort_letters,
)
from shared.optim.lr_scheduler import LambdaLR
from shared.training import load_checkpoint, save_checkpoint

# ---------------------------------------------------------------- a training that is interrupted

STEPS, CUT, WARM = 300, 150, 30
FORGOTTEN = ("nothing", "the optimizer's moments", "the schedule", "the random states", "all but the weights")


class Run:
    """A small GPT in training on characters of Shakespeare: model, optimizer, schedule, generator of windows."""

    def __init__(self, train: Tensor, held: Tensor, seed: int):
        shared.manual_seed(seed)
        self.train, self.held, self.seed = train, held, seed
        self.model = GPT(GPTConfig.preset("toy", dropout=0.1))
        self.optimizer = self.model.configure_optimizers(lr=3e-3)
        self.scheduler = self.new_schedule()
        self.windows = shared.Generator()
        self.windows.manual_seed(seed)
        self.losses: dict[int, float] = {}  # of the batch
        self.held_losses: dict[int, float] = {}

    def new_schedule(self) -> LambdaLR:
        """A warm-up, then half a cosine down to nothing."""
        return LambdaLR(
            self.optimizer,
            lambda step: min((step + 1) / WARM, 0.5 + 0.5 * math.cos(math.pi * min(1, step / STEPS))),
        )

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds besides the model and the optimizer."""
        return {"scheduler": self.scheduler, "data": [self.windows], "config": self.model.config}

    def batch(self) -> tuple[Tensor, Tensor]:
        """16 random windows of 32 characters, and the characters that follow them."""
        starts = shared.randint(0, len(self.train) - 33, (16, 1), generator=self.windows)
        windows = self.train[starts + shared.arange(33)]
        return windows[:, :-1], windows[:, 1:]

    def go_on(self, first: int, last: int) -> None:
        """Takes the steps first + 1 … last; every fifth measures the held-out windows."""
        for step in range(first + 1, last + 1):
            inputs, targets = self.batch()
            loss = next_token_loss(self.model(inputs), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.losses[step] = loss.item()
            if step % 5 == 0:
                self.held_losses[step] = self.measure()

    def measure(self) -> float:
        """The loss on 256 windows that are always the same."""
        self.model.eval()
        with shared.no_grad():
            windows = self.held[: 256 * 33].reshape(256, 33)
            loss = next_token_loss(self.model(windows[:, :-1]), windows[:, 1:]).item()
        self.model.train()
        return loss

    def forget(self, what: str) -> None:
        """Throws away a part of what was loaded."""
        if what in ("the optimizer's moments", "all but the weights"):
            self.optimizer.state.clear()
        if what in ("the schedule", "all but the weights"):
            for group in self.optimizer.param_groups:
                group["lr"] = 3e-3
                group.pop("initial_lr", None)
            self.scheduler = self.new_schedule()
        if what in ("the random states", "all but the weights"):
            shared.manual_seed(self.seed)
            self.windows.manual_seed(self.seed)


def interrupted(results: Results, seed: int) -> plt.Figure:
    """The held-out loss after going on from a checkpoint, with everything and with parts of it forgotten."""
    text = shared.data.load("tinyshakespeare")
    train, held = (shared.tensor([part.chars.index(c) for c in part.text[:200_000]]) for part in text)
    whole = Run(train, held, seed)
    with tempfile.TemporaryDirectory() as folder:
        whole.go_on(0, CUT)
        path = save_checkpoint(folder, whole.model, whole.optimizer, CUT, **whole.parts)
        sizes(results, path, whole.model)
        whole.go_on(CUT, STEPS)
        curves = {}
        for what in FORGOTTEN:
            run = Run(train, held, seed + 1)  # drawn otherwise: what is not loaded would show
            run.seed = seed
            assert load_checkpoint(folder, run.model, run.optimizer, **run.parts) == CUT
            run.forget(what)
            run.go_on(CUT, STEPS)
            curves[what] = run
            batch_gap = max(abs(run.losses[s] - whole.losses[s]) for s in run.losses)
            held_gap = {s: run.held_losses[s] - whole.held_losses[s] for s in run.held_losses}
            worst = max(held_gap, key=lambda s: held_gap[s])
            key = what.replace("the ", "").replace("'s", "").replace(" ", "_")
            results.metric(f"forgot_{key}_batch_gap", round(batch_gap, 3), unit="nats")
            results.metric(f"forgot_{key}_worst", round(held_gap[worst], 3), unit="nats")
            results.metric(f"forgot_{key}_worst_after", worst - CUT, unit="steps")
            results.metric(f"forgot_{key}_end", round(held_gap[STEPS], 3), unit="nats")
            print(f"forgot {what}: batch {batch_gap:.3f}, held-out +{held_gap[worst]:.3f} at step {worst}", flush=True)
        assert curves["nothing"].losses == {s: v for s, v in whole.losses.items() if s > CUT}
    results.metric("resume_steps", STEPS)
    results.metric("resume_cut", CUT)
    results.metric("resume_loss", round(whole.held_losses[STEPS], 3), unit="nats")
    figure, axis = plt.subplots(figsize=(7.6, 4.2))
    axis.plot([CUT, STEPS], [0, 0], color="0.25", linewidth=3, label="nothing forgotten")
    looks = zip(FORGOTTEN[1:], ("orange", "green", "sky", "vermillion"), ("--", "-.", ":", "-"), strict=True)
    for what, colour, line in looks:
        points = {CUT: 0.0} | {s: v - whole.held_losses[s] for s, v in curves[what].held_losses.items()}
        axis.plot(list(points), list(points.values()), line, color=COLORS[colour], label=f"forgotten: {what}")
    axis.set(
        title=f"Going on from step {CUT}", xlabel="step", ylabel="held-out loss, less that of\nthe unbroken run (nats)"
    )
    axis.legend(fontsize=9)
    return figure


def sizes(results: Results, path: Path, model: GPT) -> None:
    """How large the files of a checkpoint are, and that the table at both ends is written once."""
    from safetensors import safe_open

    with safe_open(path / "model.safetensors", "numpy") as file:
        names = list(file.keys())
    assert "token_embedding.weight" in names and "lm_head.weight" not in names
    parameters = model.num_parameters()
    results.metric("checkpoint_parameters", parameters)
    results.metric("checkpoint_tensors", len(names))
    for name in ("model.safetensors", "training.safetensors"):
        size = os.path.getsize(path / name)
        results.metric(f"checkpoint_{name.split('.')[0]}_bytes_per_parameter", round(size / parameters, 2))
        print(f"  {name}: {size:,} bytes for {parameters:,} parameters")


# ---------------------------------------------------------------- transformers


def parity(results: Results, seed: int) -> bool:
    """Logits and gradients beside those of Hugging Face's GPT2LMHeadModel, from its weights; False without it."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        print("torch and transformers are not installed: no comparison")
        return False
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = GPTConfig(vocab_size=1000, block_size=64, n_layer=4, n_head=4, n_embd=128, dropout=0.0)
    theirs = GPT2LMHeadModel(GPT2Config(**config_to_hugging_face(config)))
    ids = np.random.default_rng(seed).integers(0, 1000, (2, 65))
    ours = GPT(config)
    ours.load_state_dict(
        from_hugging_face({name: shared.tensor(x.numpy()) for name, x in theirs.state_dict().items()}, config)
    )
    logits, reference = ours(shared.tensor(ids[:, :-1])), theirs(torch.tensor(ids[:, :-1])).logits
    next_token_loss(logits, shared.tensor(ids[:, 1:])).backward()
    torch.nn.functional.cross_entropy(reference.flatten(0, 1), torch.tensor(ids[:, 1:]).flatten()).backward()
    grads = from_hugging_face({n: shared.tensor(p.grad.numpy()) for n, p in theirs.named_parameters()}, config)
    named = {"logits": (logits.detach(), shared.tensor(reference.detach().numpy()))}
    named["gradients"] = tuple(  # of all parameters, one after the other
        shared.cat([grad.flatten() for grad in grads])
        for grads in zip(*[(p.grad, grads[name]) for name, p in ours.named_parameters()], strict=True)
    )
    for name, (a, b) in named.items():
        difference = float((a - b).abs().max()) / float(b.abs().max())
        results.metric(f"parity_{name}", float(f"{difference:.1e}"))
        print(f"  {name}: largest difference to transformers {difference:.1e} of the largest value")
    results.metric("parity_tensors", len(grads))
    return True


# ---------------------------------------------------------------- the sorter

WORDS = ["".join(word) for word in itertools.product("ABC", repeat=6)]


def right(model: GPT) -> int:
    """How many of the 729 words the model sorts."""
    return sum(made == "".join(sorted(word)) for made, word in zip(sort_letters(model, WORDS), WORDS, strict=True))


def reproduced(results: Results, sorter: GPT) -> None:
    """The largest difference to the stored activations, step by step."""
    theirs = reference_activations()
    ours, worst = look_inside(sorter, theirs["ids"]), 0.0
    for name, value in ours.items():
        seen = np.isfinite(theirs[name].numpy())  # scores that the mask hides are −∞ in both
        assert (np.isfinite(value.numpy()) == seen).all()
        difference = float(np.abs(value.numpy()[seen] - theirs[name].numpy()[seen]).max())
        print(f"  {name:10} {str(tuple(value.shape)):16} {difference:.1e}")
        worst = max(worst, difference)
        if name in ("ln1", "attSm", "gelu", "block0", "block1", "block2", "ln_f", "lm_head"):
            results.metric(f"sorter_{name}_difference", float(f"{difference:.1e}"))
    results.metric("sorter_steps", len(ours))
    results.metric("sorter_logits_difference", float(f"{worst:.1e}"))
    results.metric("sorter_parameters", sorter.num_parameters())
    results.metric("sorter_sorted", right(sorter))
    results.metric("sorter_words", len(WORDS))
    assert worst < 1e-5


def _exact_gelu(model: GPT) -> None:
    for block in model.blocks:
        block.feed_forward.activation = nn.GELU()


def _square_transposed(model: GPT) -> None:
    for block in model.blocks:
        block.self_attention.out_proj.weight.copy_(block.self_attention.out_proj.weight.t().clone())


def _no_last_norm(model: GPT) -> None:
    model.norm = nn.Identity()


def _no_positions(model: GPT) -> None:
    model.positions.weight.zero_()


def _late_positions(model: GPT) -> None:
    model.positions.weight[1:] = model.positions.weight[:-1].clone()


def _queries_and_keys(model: GPT) -> None:
    for block in model.blocks:
        for tensor in (block.self_attention.in_proj.weight, block.self_attention.in_proj.bias):
            q, k, v = [part.clone() for part in tensor.chunk(3, 0)]
            tensor.copy_(shared.cat([k, q, v], 0))


def _post_norm(model: GPT) -> None:
    for block in model.blocks:
        block.norm_first = False


def _no_mask(model: GPT) -> None:
    for block in model.blocks:
        forward = block.forward
        block.forward = lambda x, mask=None, is_causal=False, cache=None, forward=forward: forward(
            x, mask, False, cache
        )


SPOILT: dict[str, Callable[[GPT], None]] = {
    "exact_gelu": _exact_gelu,
    "square_transposed": _square_transposed,
    "no_last_norm": _no_last_norm,
    "late_positions": _late_positions,
    "no_positions": _no_positions,
    "queries_and_keys": _queries_and_keys,
    "post_norm": _post_norm,
    "no_mask": _no_mask,
}


def spoilt(results: Results, sorter: GPT) -> None:
    """One detail wrong at a time: how far the logits move, and how many words are still sorted."""
    ids = reference_activations()["ids"]
    with shared.no_grad():
        before = sorter(ids).numpy()
    for name, spoil in SPOILT.items():
        model = load_sorter()
        with shared.no_grad():
            spoil(model)
            moved = float(np.abs(model(ids).numpy() - before).max())
        count = right(model)
        results.metric(f"spoilt_{name}_moved", float(f"{moved:.2g}"))
        results.metric(f"spoilt_{name}_sorted", count)
        print(f"  {name:18} logits move by {moved:9.2g}, {count} of {len(WORDS)} words sorted")


def without_heads(results: Results) -> None:
    """How many words are sorted when one head's result is left out."""
    for i, h in np.ndindex(3, 3):
        model = load_sorter()
        with shared.no_grad():
            model.blocks[i].self_attention.out_proj.weight[:, 16 * h : 16 * h + 16] = 0
        results.metric(f"without_head_{i}_{h}", right(model))
        print(f"  without head {h} of block {i}: {right(model)} of {len(WORDS)}")


def attention_weights(sorter: GPT, words: list[str], block: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(ids (N, 11) of words and their sorted letters, attention weights (N, 3, 11, 11) of one block)."""
    rows = [["ABC".index(c) for c in (word + "".join(sorted(word)))[:11]] for word in words]
    with shared.no_grad():
        x = sorter.positions(sorter.token_embedding(shared.tensor(rows)))
        for earlier in sorter.blocks[:block]:
            x = earlier(x)
        return np.array(rows), look_inside_block(sorter.blocks[block], x)["attSm"].numpy()


def watch(results: Results, sorter: GPT, word: str = "CBABBC", head: int = 2) -> plt.Figure:
    """One head of the first block while it sorts: on one word, and on average over all."""
    _, weights = attention_weights(sorter, [word])
    letters = (word + "".join(sorted(word)))[:11]
    figure, (left, right_axis) = plt.subplots(1, 2, figsize=(10, 4.7), width_ratios=(1.5, 1))
    left.imshow(np.where(np.tri(11, dtype=bool), weights[0, head], np.nan), cmap="cividis", vmin=0, vmax=0.7)
    left.add_patch(Rectangle((-0.45, 4.55), 5.92, 5.9, fill=False, edgecolor=COLORS["orange"], linewidth=2))
    left.set(title=f"{word}, then sorted", xlabel="looks at", ylabel="after")
    left.set_xticks(range(11), letters)
    left.set_yticks(range(11), letters)
    left.grid(False)
    ids, weights = attention_weights(sorter, WORDS)
    answers = np.array([["ABC".index(c) for c in sorted(word)] for word in WORDS])  # (N, 6): what comes next
    table = np.zeros((3, 3))
    for wanted, key in np.ndindex(3, 3):
        # the mean weight of one letter of the word that is `key`, where the answer is `wanted`
        here = (answers[:, :, None] == wanted) & (ids[:, None, :6] == key)
        table[wanted, key] = weights[:, head, 5:, :6][here].mean()
        results.metric(f"attention_{'ABC'[wanted]}_to_{'ABC'[key]}", round(float(table[wanted, key]), 3))
    right_axis.imshow(table, cmap="cividis", vmin=0, vmax=table.max() * 1.2)
    for (i, j), value in np.ndenumerate(table):
        dark = value > 0.6 * table.max() * 1.2
        right_axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="black" if dark else "white")
    right_axis.set(title="all 729 words, mean weight", xlabel="of a letter of the word", ylabel="when the answer is")
    right_axis.set_xticks(range(3), "ABC")
    right_axis.set_yticks(range(3), "ABC")
    right_axis.grid(False)
    print(table.round(3))
    return figure


def main() -> None:
    """Trains, opens, spoils, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    use_style()
    results = Results(__file__, seed=options.seed)
    results.figure(
        interrupted(results, options.seed),
        "resumed",
        alt="The held-out loss of four trainings that go on from step 150 without part of their state, less "
        "that of the unbroken run: all of them leave zero, where the one that forgot nothing stays.",
    )
    missing = [] if parity(results, options.seed) else ["parity_"]
    try:
        sorter = load_sorter()
    except shared.data.DatasetUnavailable as error:
        print(f"without the sorter: {error}")
        missing += ["sorter_", "spoilt_", "without_head_", "attention_"]
        results.save(keep=lambda name: name.startswith(tuple(missing)))
        return
    reproduced(results, sorter)
    spoilt(results, sorter)
    without_heads(results)
    results.figure(
        watch(results, sorter),
        "sorting",
        alt="Left: attention weights of one head over a word and its sorted letters; after the word's last letter the "
        "head looks at the A, later at the Cs. Right: the mean weight by answer and letter.",
    )
    results.save(keep=lambda name: name.startswith(tuple(missing)))


if __name__ == "__main__":
    main()
