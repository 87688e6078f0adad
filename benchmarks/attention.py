"""Causal self-attention of 16 sequences of 256 tokens, 6 heads of 64: forward and backward.

`python benchmarks/attention.py --lengths 64 256 1024 4096` compares the libraries at other lengths, 4096 tokens each:
milliseconds, and megabytes by which one forward and backward raise the peak of the process over its inputs.
"""

import json
import resource
import subprocess
import sys

import timing

TITLE = "causal attention, 16 × 6 heads, 256 tokens, 64 wide, forward and backward"
TARGET = 0.5


def attend(library, batch, heads, length, width):
    t, attention = library.tensor, library.functional.scaled_dot_product_attention
    q, k, v = (t.randn(batch, heads, length, width).requires_grad_() for _ in range(3))
    gradient = t.randn(batch, heads, length, width)

    def run():
        q.grad = k.grad = v.grad = None
        attention(q, k, v, is_causal=True).backward(gradient)

    return run


def build(library):
    return attend(library, 16, 6, 256, 64)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def at_length(name, length, threads, seconds):
    """One library at one length, in this process."""
    library = timing.load(name, threads)
    attend(library, 1, 6, 32, 64)()  # what is loaded or compiled once
    run = attend(library, 4096 // length, 6, length, 64)
    before = peak()
    run()
    grown = peak() - before
    print(json.dumps({**timing.measure(run, seconds, warm_up=1), "grown_mb": round(grown, 1)}))


def compare(lengths, threads, seconds):
    print(f"{'length':>6} {'ours':>10} {'PyTorch':>10} {'ratio':>6} {'ours MB':>8} {'PyTorch MB':>10}")
    for length in lengths:
        found = {}
        for name in ("shared", "torch"):
            command = [sys.executable, __file__, "--one", name, str(length), str(threads), str(seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
        clock = "cpu_ms" if threads == 1 else "wall_ms"
        ours, theirs = found["shared"], found["torch"]
        print(
            f"{length:6} {ours[clock]:7.4g} ms {theirs[clock]:7.4g} ms {ours[clock] / theirs[clock]:6.2f} "
            f"{ours['grown_mb']:8.1f} {theirs['grown_mb']:10.1f}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        at_length(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    elif sys.argv[1:2] == ["--lengths"]:
        compare([int(n) for n in sys.argv[2:]], threads=1, seconds=1.5)
    else:
        timing.main(build)
