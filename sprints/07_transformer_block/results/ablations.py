"""Note 06: one part left out of each block of the small language model, each at the best of three rates; no mask.

python sprints/07_transformer_block/results/ablations.py        about two and a half minutes of one core
"""

from __future__ import annotations

import argparse
import math

import matplotlib.pyplot as plt
from language_model import Corpus, LanguageModel, bigram_nats, bigrams, corpus, model_nats, train

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn

PARTS = ("attention", "feed-forward", "residual", "norm", "positions")
RATES = (2e-3, 5e-3, 1.25e-2)
WIDTH, LENGTH, BATCH = 64, 64, 8


class Without(nn.EncoderBlock):
    """A pre-norm encoder block in which one part is left out."""

    def __init__(self, part: str, d_model: int, num_heads: int):
        super().__init__(d_model, num_heads, 4 * d_model, dropout=0.0, activation="gelu", norm_first=True)
        self.part, self.blind = part, part == "mask"
        for name, used in (("self_attention", "attention"), ("feed_forward", "feed-forward")):
            if part == used:
                setattr(self, name, None)
        if part == "norm":
            self.norm1 = self.norm2 = nn.Identity()

    def add_and_norm(self, x: Tensor, part: nn.Module, norm: nn.Module) -> Tensor:
        made = part(norm(x))
        return made if self.part == "residual" else x + made

    def forward(self, x: Tensor, is_causal: bool = True) -> Tensor:
        """As in `EncoderBlock`; without the mask a position sees those after it, in training."""
        if self.self_attention is not None:
            attend = lambda y: self.self_attention(y, is_causal=not self.blind)  # noqa: E731
            x = self.add_and_norm(x, attend, self.norm1)
        return x if self.feed_forward is None else self.add_and_norm(x, self.feed_forward, self.norm2)


def without(part: str, text: Corpus, args: argparse.Namespace, lr: float) -> tuple[LanguageModel, float]:
    """A model trained with `part` left out of all blocks, and its nats on the validation part."""
    shared.manual_seed(args.seed)
    model = LanguageModel(
        text.vocab_size,
        WIDTH,
        num_layers=4,
        max_len=LENGTH,
        make_block=lambda: Without(part, WIDTH, 4),
        positions=part != "positions",
    )
    if part == "norm":
        model.norm = nn.Identity()
    train(model, text.train, args.steps, LENGTH, BATCH, lr, args.seed)
    return model, model_nats(model, text.valid)


def ablations(text: Corpus, args: argparse.Namespace, baseline: float, results: Results) -> plt.Figure:
    """Perplexity without each part, at three rates, the best of which counts; the bigrams' as a line."""
    best, others = [], []
    for row, part in enumerate(("nothing", *PARTS)):
        key = f"without_{part.replace('-', '_')}"
        tried = [without(part, text, args, lr) for lr in RATES]
        chosen = min(range(len(RATES)), key=lambda i: tried[i][1] if math.isfinite(tried[i][1]) else math.inf)
        for i, (model, _) in enumerate(tried):
            perplexity = min(math.exp(min(model_nats(model, text.test), math.log(1000))), 1000)
            if not math.isfinite(perplexity):
                perplexity = 1000
            results.metric(f"{key}_perplexity_{i}", round(perplexity, 2))
            (best if i == chosen else others).append((row, perplexity))
        results.metric(f"{key}_perplexity", round(best[-1][1], 2))
        results.metric(f"{key}_rate", RATES[chosen])
        print(f"  without {part}: perplexity {best[-1][1]:.2f} at {RATES[chosen]:g}; others {others[-2:]}", flush=True)
    results.metric("ablation_steps", args.steps, unit="steps")
    figure, axis = plt.subplots(figsize=(7.4, 4.0))
    names = ["all parts", *(f"no {part}" for part in PARTS)]
    axis.barh(names, [value for _, value in best], color=[COLORS[0]] + [COLORS[4]] * len(PARTS))
    for row, value in best:
        axis.text(value * 1.02, row, f"{value:.2f}", va="center")
    axis.axvline(math.exp(baseline), color="0.2", linestyle="--", linewidth=1.2)
    axis.text(math.exp(baseline) + 0.2, 5.35, "bigrams", va="top", fontsize=9)
    axis.set_xlim(0, 1.12 * max(value for _, value in best))
    axis.invert_yaxis()
    axis.set(title="One part left out of each block", xlabel="perplexity on the test part (less is better)")
    return figure


def forgotten_mask(text: Corpus, args: argparse.Namespace, results: Results) -> None:
    """A model trained without the causal mask: its loss, and what it is worth where the future is not there."""
    model, _ = without("mask", text, args, RATES[1])
    seen = model_nats(model, text.test)
    for block in model.blocks:
        block.blind = False
    honest = model_nats(model, text.test)
    results.metric("no_mask_perplexity_seen", round(math.exp(seen), 3))
    results.metric("no_mask_perplexity_honest", round(math.exp(honest), 1))
    print(f"  without the mask: perplexity {math.exp(seen):.3f}; with it afterwards {math.exp(honest):.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="of each training (default: 500)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seed)
    text = corpus()
    baseline = bigram_nats(bigrams(text.train, text.vocab_size), text.test)
    results.figure(
        ablations(text, args, baseline, results),
        "lm_ablations",
        alt="Bars of perplexity with all parts and with one part left out of each block, and the bigrams' perplexity "
        "as a dashed line, which the model without attention does not get below.",
    )
    forgotten_mask(text, args, results)
    results.save()


if __name__ == "__main__":
    main()
