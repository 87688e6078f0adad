"""Notes 04 and 05: what depends on what in a block; parameters and multiplications, by formula and counted; time.

python sprints/07_transformer_block/results/blocks.py      about 20 seconds of one core; parity where torch is installed
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sentence import SENTENCE

import shared
from course.plotting import COLORS, use_style
from course.results import Results
from shared import Tensor, nn

# ---------------------------------------------------------------- counting


def parameters_by_formula(d: int, d_ff: int, decoder: bool = False) -> int:
    """Of a block: 4d² + 4d for each attention, 2 d d_ff + d_ff + d for the feed-forward network, 2d for each norm."""
    attentions = 2 if decoder else 1
    return attentions * (4 * d * d + 4 * d) + (2 * d * d_ff + d_ff + d) + (attentions + 1) * 2 * d


def multiplications_by_formula(length: int, d: int, d_ff: int) -> dict[str, int]:
    """Of an encoder block for one sequence: of the projections, of scores and weighted sums, and feed-forward."""
    return {"projections": 4 * length * d * d, "scores": 2 * length**2 * d, "feed-forward": 2 * length * d * d_ff}


def count_multiplications(module: nn.Module, *inputs: Any, **options: Any) -> dict[str, int]:
    """The multiplications of all matrix products in one pass, by the name of the module that makes them.

    A linear layer makes `in_features` for each number that it puts out. An attention makes, besides its projections,
    L · S · d_model for the scores and as many for the weighted sums, whatever a mask hides.
    """
    found: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict, out: Tensor) -> None:
            if isinstance(module, nn.Linear):
                found[name] = out.numel() * module.in_features
            else:
                batch, length, width = args[0].shape
                source = kwargs.get("key")
                source_length = length if source is None else source.shape[1]
                if source is not None:  # its three projections do not go through in_proj's forward
                    found[f"{name}.in_proj"] = batch * (length + 2 * source_length) * width**2
                found[f"{name}.scores"] = 2 * batch * length * source_length * width

        return hook

    counted = (nn.Linear, nn.MultiHeadAttention)
    modules = [(name, m) for name, m in module.named_modules() if isinstance(m, counted)]
    handles = [m.register_forward_hook(note(name), with_kwargs=True) for name, m in modules]
    with shared.no_grad():
        module(*inputs, **options)
    for handle in handles:
        handle.remove()
    return found


def check_counts(results: Results) -> None:
    """Formula and count for one block of each kind, GPT-2's width."""
    d, d_ff, length = 768, 3072, 1024
    encoder, decoder = nn.EncoderBlock(d, 12, d_ff), nn.DecoderBlock(d, 12, d_ff)
    for name, block, is_decoder in (("encoder", encoder, False), ("decoder", decoder, True)):
        counted = sum(p.numel() for p in block.parameters())
        assert counted == parameters_by_formula(d, d_ff, is_decoder), (name, counted)
        results.metric(f"{name}_768_parameters", counted)
    feed_forward = sum(p.numel() for p in encoder.feed_forward.parameters())
    results.metric("feed_forward_parameter_share", round(feed_forward / counted_of(encoder), 3))
    small = nn.EncoderBlock(64, 4, 256, dropout=0.0)
    made = count_multiplications(small, shared.randn(1, 10, 64))
    formula = multiplications_by_formula(10, 64, 256)
    assert sum(made.values()) == sum(formula.values()), (made, formula)
    results.metric("small_block_multiplications", sum(made.values()))
    at = multiplications_by_formula(length, d, d_ff)
    results.metric("gpt2_block_gflop", round(2 * sum(at.values()) / 1e9, 1), unit="GFLOP")
    results.metric("gpt2_block_scores_share", round(at["scores"] / sum(at.values()), 3))
    print(f"parameters and multiplications agree with the formulas; {made}")


def counted_of(module: nn.Module) -> int:
    """How many parameters."""
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------- PyTorch as oracle


def parity(results: Results, seed: int) -> None:
    """The largest difference to PyTorch's layer, from the same state dict; PyTorch's own count of operations."""
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: no comparison")
        return
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    for norm_first in (False, True):
        theirs = torch.nn.TransformerEncoderLayer(64, 4, 256, 0.0, batch_first=True, norm_first=norm_first)
        block = nn.EncoderBlock(64, 4, 256, 0.0, norm_first=norm_first)
        names = {"self_attn.in_proj_": "self_attention.in_proj.", "self_attn.": "self_attention."}
        state = {}
        for key, value in theirs.state_dict().items():
            for old, new in names.items():
                key = key.replace(old, new)
            key = f"feed_forward.{key}" if key.startswith("linear") else key
            state[key] = shared.tensor(value.numpy())
        block.load_state_dict(state)
        x = torch.randn(3, 10, 64)
        ours, reference = block(shared.tensor(x.numpy())).detach().numpy(), theirs(x).detach().numpy()
        difference = float(abs(ours - reference).max())
        results.metric(f"torch_difference_{'pre' if norm_first else 'post'}_norm", float(f"{difference:.1e}"))
        print(f"norm_first={norm_first}: largest difference to PyTorch {difference:.1e}")
    theirs = torch.nn.TransformerEncoderLayer(64, 4, 256, 0.0, batch_first=True)
    counts = {}
    for name, backends in (("fused", []), ("plain", [SDPBackend.MATH])):
        with sdpa_kernel(backends) if backends else contextlib.nullcontext():
            with FlopCounterMode(display=False) as counter:
                theirs(torch.randn(1, 10, 64))
        counts[name] = counter.get_total_flops()
        results.metric(f"torch_small_block_flops_{name}", counts[name])
    print("PyTorch counts", counts, "operations, multiplications and additions")


# ---------------------------------------------------------------- what depends on what


def influence(function: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Row i, column j: the length of the gradient of output i (along one random direction) by input j."""
    width, rows = x.shape[-1], []
    direction = shared.randn(width)
    for i in range(function(x).shape[1]):
        x.grad = None
        (function(x)[0, i] * direction).sum().backward()
        rows.append(np.linalg.norm(x.grad.numpy()[0], axis=1))
    return np.array(rows)


def dependence(seed: int) -> plt.Figure:
    """Which output depends on which input: encoder, padded encoder, causal block, and a decoder's memory."""
    shared.manual_seed(seed)
    words = SENTENCE.split()
    x = shared.randn(1, 5, 16, requires_grad=True)
    memory = shared.randn(1, 5, 16, requires_grad=True)
    encoder = nn.EncoderBlock(16, 2, 64, 0.0, norm_first=True)
    decoder = nn.DecoderBlock(16, 2, 64, 0.0, norm_first=True)
    real = shared.tensor([True] * 3 + [False] * 2)
    target = shared.randn(1, 5, 16)
    panels = (
        ("encoder block", lambda t: encoder(t), x),
        ("encoder block,\nlast two words are padding", lambda t: encoder(t, mask=real[None, None, None]), x),
        ("decoder block by its own\ntokens (or: is_causal)", lambda t: decoder(t, memory.detach()), x),
        (
            "decoder block by memory,\nits last two are padding",
            lambda t: decoder(target, t, memory_mask=real[None, None, None]),
            memory,
        ),
    )
    figure, axes = plt.subplots(1, 4, figsize=(11.5, 4.0), sharey=True, layout="constrained")
    for axis, (title, function, start) in zip(axes, panels, strict=True):
        table = influence(function, start)
        axis.imshow(np.where(table > 0, np.log10(np.maximum(table, 1e-3)), np.nan), cmap="cividis", vmin=-2.2, vmax=1)
        for i, j in np.ndindex(table.shape):
            if table[i, j] == 0:
                axis.text(j, i, "0", ha="center", va="center", color="0.35")
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(5), words, rotation=45)
        axis.set_yticks(range(5), words)
        axis.set(xlabel="input")
        axis.grid(False)
    axes[0].set_ylabel("output")
    return figure


# ---------------------------------------------------------------- time


def milliseconds(function: Callable[[], Any], least: float = 0.15) -> float:
    """The median CPU time of a call, over at least five calls and `least` seconds, after one that does not count."""
    function()
    times: list[float] = []
    while len(times) < 5 or sum(times) < least:
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return 1000 * statistics.median(times)


def norm_in_steps(x: Tensor) -> Tensor:
    """Layer norm without scale and shift, one operation on arrays after the other."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / ((centred**2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()


def times(results: Results, seed: int) -> plt.Figure:
    """Forward and backward of a block's parts for 2,048 tokens, cut into sequences of 32 to 2,048."""
    shared.manual_seed(seed)
    d, heads, tokens = 256, 4, 2048
    block = nn.EncoderBlock(d, heads, 4 * d, 0.0, activation="gelu", norm_first=True)
    lengths = [32, 64, 128, 256, 512, 1024, 2048]
    names = ("projections", "scores", "feed-forward", "norms and sums")
    measured: dict[str, list[float]] = {name: [] for name in names}

    attention = block.self_attention

    def both(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
        grad = shared.ones(*function(x).shape)
        return milliseconds(lambda: function(x).backward(grad))

    for length in lengths:
        x = shared.randn(tokens // length, length, d, requires_grad=True)
        whole = both(attention, x)
        linear = both(lambda t: attention.out_proj(attention.in_proj(t)[..., :d]), x)
        measured["projections"].append(linear)
        measured["scores"].append(max(whole - linear, 0.0))
        measured["feed-forward"].append(both(block.feed_forward, x))
        measured["norms and sums"].append(both(lambda t: t + block.norm1(t) + block.norm2(t), x))
        print(f"  length {length}: " + ", ".join(f"{n} {v[-1]:.1f} ms" for n, v in measured.items()), flush=True)
    x = shared.randn(1, tokens, d, requires_grad=True)
    causal = both(lambda t: attention(t, is_causal=True), x) - measured["projections"][-1]
    results.metric("causal_scores_share", round(causal / measured["scores"][-1], 2))
    x = shared.randn(tokens // 256, 256, d, requires_grad=True)
    step = both(block, x)
    formula = {k: v * tokens // 256 for k, v in multiplications_by_formula(256, d, 4 * d).items()}
    rate = 3 * 2 * sum(formula.values()) / (step / 1000) / 1e9
    fused, plain = both(block.norm1, x), both(norm_in_steps, x)
    results.metric("norm_fused_ms", round(fused, 2), unit="ms")
    results.metric("norm_in_steps_ms", round(plain, 2), unit="ms")
    results.metric("norm_in_steps_factor", round(plain / fused, 0))
    print(f"layer norm {fused:.2f} ms, in single operations {plain:.2f} ms")
    a, b = shared.randn(tokens, d), shared.randn(d, 4 * d)
    with shared.no_grad():
        product = 2 * tokens * d * 4 * d / (milliseconds(lambda: a @ b) / 1000) / 1e9
    results.metric("block_milliseconds", round(step, 1), unit="ms")
    results.metric("block_gflops", round(rate, 0), unit="GFLOP/s")
    results.metric("product_gflops", round(product, 0), unit="GFLOP/s")
    results.metric("block_share_of_product", round(rate / product, 2))
    for length in (64, 2048):
        at = lengths.index(length)
        total = sum(v[at] for v in measured.values())
        for name, values in measured.items():
            results.metric(f"{name.replace(' ', '_').replace('-', '_')}_ms_{length}", round(values[at], 1), unit="ms")
        results.metric(f"scores_time_share_{length}", round(measured["scores"][at] / total, 2))
        results.metric(f"norms_time_share_{length}", round(measured["norms and sums"][at] / total, 3))
    print(f"block at 256: {step:.1f} ms, {rate:.0f} GFLOP/s; a product {product:.0f} GFLOP/s")

    figure, (left, right) = plt.subplots(1, 2, figsize=(10.6, 4.2))
    shares = [multiplications_by_formula(n, d, 4 * d) for n in lengths]
    for i, name in enumerate(names[:3]):
        left.plot(lengths, [100 * s[name] / sum(s.values()) for s in shares], "o-", color=COLORS[i], label=name)
    left.axvline(6 * d, color="0.3", linestyle="--", linewidth=1)
    left.text(6 * d * 0.93, 3, "T = 6 D", ha="right")
    left.set(title="Multiplications by formula", ylabel="share (%)", ylim=(0, 85))
    for i, name in enumerate(names):
        right.plot(lengths, measured[name], "o-", color=COLORS[i], label=name)
    right.set(
        title="Time of 2,048 tokens, forward and backward",
        ylabel="CPU time (ms)",
        ylim=(0, 1.25 * max(map(max, measured.values()))),
    )
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(lengths, [str(n) for n in lengths])
        axis.set_xlabel("length T of a sequence")
        axis.legend(loc="upper left", ncols=2, fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_style()
    results = Results(__file__, seed=args.seed)
    check_counts(results)
    results.figure(
        dependence(args.seed),
        "block_dependence",
        alt="Four 5 by 5 tables of which output depends on which input: all on all in the encoder block; two columns "
        "empty but for the diagonal with padding; a lower triangle in the decoder block; all rows but two columns "
        "of the memory.",
    )
    results.figure(
        times(results, args.seed),
        "block_costs",
        alt="Left: the share of multiplications by part against the length; the scores' meets that of the feed-forward "
        "network at T = 4 D and passes a half at T = 6 D. Right: measured time of the parts, flat but for the scores.",
    )
    parity(results, args.seed)
    results.save()


if __name__ == "__main__":
    main()
