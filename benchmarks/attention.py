"""Causal self-attention of 16 sequences of 256 tokens, 6 heads of 64: forward and backward.

`python benchmarks/attention.py --output benchmarks/results/cpu_attention.json` compares the libraries at lengths of 64
to 4096, 4096 tokens each: times, and megabytes by which one forward and backward raise the peak of the process over its
inputs.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import run
import timing

TITLE = "causal attention, 16 × 6 heads, 256 tokens, 64 wide, forward and backward"
TARGET = 0.5
LENGTHS = [64, 128, 256, 512, 1024, 2048, 4096]


def attend(library, batch, heads, length, width):
    t, attention = library.tensor, library.functional.scaled_dot_product_attention
    q, k, v = (t.randn(batch, heads, length, width).requires_grad_() for _ in range(3))
    gradient = t.randn(batch, heads, length, width)

    def step():
        q.grad = k.grad = v.grad = None
        attention(q, k, v, is_causal=True).backward(gradient)

    return step


def build(library):
    return attend(library, 16, 6, 256, 64)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def at_length(name, length, threads, seconds):
    """One library at one length, in this process."""
    library = timing.load(name, threads)
    attend(library, 1, 6, 32, 64)()  # what is loaded or compiled once
    step = attend(library, 4096 // length, 6, length, 64)
    before = peak()
    step()
    grown = round(peak() - before, 1)
    print(json.dumps({**timing.measure(step, seconds, warm_up=1), "grown_mb": grown, "version": library.version}))


def compare(length, pairs, threads, seconds):
    """A row of the table, as run.py makes them; memory is what attention adds to the process."""
    ours, theirs = [], []
    for _ in range(pairs):
        for name, results in (("shared", ours), ("torch", theirs)):
            command = [sys.executable, __file__, "--one", name, str(length), str(threads), str(seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=run.without_coretype())
            results.append(json.loads(done.stdout.splitlines()[-1]))
    clock = "cpu_ms" if threads == 1 else "wall_ms"
    title = f"causal attention, {4096 // length} × 6 heads, {length} tokens, 64 wide, forward and backward"
    row = run.row(title, TARGET if length == 256 else None, clock, ours, theirs)
    for ours_or_torch, results in (("ours", ours), ("torch", theirs)):
        row[f"{ours_or_torch}_peak_mb"] = statistics.median(r["grown_mb"] for r in results)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS, help="powers of two up to 4096")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs per length (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads for both libraries (default: 1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds measured per run (default: 1)")
    parser.add_argument("--output", type=Path, help="where the JSON goes (default: nowhere)")
    args = parser.parse_args()
    rows = []
    print(f"{'length':>6} {'ours':>10} {'PyTorch':>10} {'ratio':>6} {'ours MB':>8} {'PyTorch MB':>10}")
    for length in args.lengths:
        row = compare(length, args.pairs, args.threads, args.seconds)
        rows.append(row)
        print(
            f"{length:6} {row['ours_ms']:7.4g} ms {row['torch_ms']:7.4g} ms {row['ratio']:6.2f} "
            f"{row['ours_peak_mb']:8.1f} {row['torch_peak_mb']:10.1f}",
            flush=True,
        )
    if args.output:
        report = {**run.environment(args.threads), "memory": "Memory added, ours / PyTorch", "rows": rows}
        del report["openblas_coretype"]  # stated in cpu.json; here it is always unset
        run.write(args.output, report)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        at_length(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    elif "--library" in sys.argv:
        timing.main(build)
    else:
        main()
