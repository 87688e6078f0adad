"""A whole training on TinyShakespeare, by our trainer and by an equal loop in PyTorch: its time, and its loss.

    python benchmarks/train_shakespeare.py --threads 2 --output benchmarks/results/cpu_training.json

The setting is sprints/09_train_gpt2/results/presets/cpu.toml, nanoGPT's for a CPU: 2,000 updates, measured every 250 on
20 batches of each text. Each library runs in a process of its own, the two in turn; the clock starts before the first
update and stops after the last measurement, compiled kernels and all. PyTorch's side is nanogpt.py and nanoGPT's loop.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import run
import timing

PRESET = run.HERE.parent / "sprints" / "09_train_gpt2" / "results" / "presets" / "cpu.toml"
TARGET = 0.65


def prepare(folder):
    """The text's characters as ids for both libraries, train.npy and val.npy; returns how many there are."""
    import numpy as np

    import shared

    train, val = shared.data.load("tinyshakespeare", progress=False)
    for name, part in (("train", train), ("val", val)):
        np.save(folder / f"{name}.npy", np.asarray(part.ids))
    return len(train.chars)


def ours(settings, sizes, folder, seed):
    """The losses measured on the validation text, by update."""
    import numpy as np

    import shared
    from shared.models import GPT, GPTConfig
    from shared.training import LMConfig, Trainer

    shared.manual_seed(seed)
    parts = [np.load(folder / f"{name}.npy") for name in ("train", "val")]
    config = LMConfig.from_dict({**settings, "seed": seed, "checkpoint_interval": 0})
    log = Trainer(GPT(GPTConfig(**sizes)), *parts, config, progress=False).train()
    return {row["step"]: row["val_loss"] for row in log.rows if "val_loss" in row}


def theirs(settings, sizes, folder, seed):
    """The same, with nanoGPT's loop."""
    import numpy as np
    import torch
    from nanogpt import GPT
    from torch.nn import functional as F

    torch.manual_seed(seed)
    texts = {name: torch.from_numpy(np.load(folder / f"{name}.npy").astype(np.int64)) for name in ("train", "val")}
    model, config = GPT(SimpleNamespace(**sizes)), SimpleNamespace(**settings)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.max_lr, betas=tuple(config.betas), fused=True)

    def batch(name):
        starts = torch.randint(len(texts[name]) - sizes["block_size"], (config.batch_size,))
        rows = torch.stack([texts[name][i : i + sizes["block_size"] + 1] for i in starts])
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def loss_of(inputs, targets):
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def measure(name):
        model.eval()
        loss = statistics.fmean(loss_of(*batch(name)).item() for _ in range(config.eval_batches))
        model.train()
        return loss

    def rate(step):
        if step < config.warmup_steps:
            return config.max_lr * (step + 1) / (config.warmup_steps + 1)
        done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
        return config.min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (config.max_lr - config.min_lr)

    losses = {}
    for step in range(config.steps + 1):
        if step % config.eval_interval == 0 or step == config.steps:
            measure("train")
            losses[step] = measure("val")
        if step == config.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = loss_of(*batch("train"))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        loss.item()  # nanoGPT looks at it now and then, our trainer at each
    return losses


def one(args):
    """One library in this process: a line of JSON."""
    settings = tomllib.loads(PRESET.read_text(encoding="utf-8"))
    training = settings["training"] | ({"steps": args.steps} if args.steps else {})
    sizes = settings["model"] | {"vocab_size": args.vocab_size}
    library = timing.load(args.one, args.threads)
    wall, cpu = time.perf_counter(), time.process_time()
    losses = (ours if args.one == "shared" else theirs)(training, sizes, args.folder, args.seed)
    result = {"wall_ms": 1e3 * (time.perf_counter() - wall), "cpu_ms": 1e3 * (time.process_time() - cpu)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**result, "peak_mb": round(peak, 1), "version": library.version, "val_loss": losses}))


def start(library, folder, vocab_size, seed, args):
    """One library in a process of its own: what it printed."""
    command = [sys.executable, __file__, "--one", library, "--folder", str(folder), "--vocab-size", str(vocab_size)]
    command += ["--seed", str(seed), "--threads", str(args.threads)]
    command += ["--steps", str(args.steps)] if args.steps else []
    names = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
    )  # read by NumPy's import
    env = run.without_coretype() | dict.fromkeys(names, str(args.threads))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{library} failed:\n{done.stderr}")
    result = json.loads(done.stdout.splitlines()[-1])
    last = list(result["val_loss"].values())[-1]
    print(f"seed {seed} {library:7} {result['wall_ms'] / 1e3:7.1f} s  validation loss {last:.4f}", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="trainings of each library, seeds 1337 … (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads for both libraries (default: 2)")
    parser.add_argument("--steps", type=int, help="updates (default: the preset's 2,000)")
    parser.add_argument("--output", type=Path, help="where the JSON goes (default: nowhere)")
    for name in ("--one", "--folder", "--vocab-size", "--seed"):  # for the processes it starts
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        args.folder, args.vocab_size, args.seed = Path(args.folder), int(args.vocab_size), int(args.seed)
        one(args)
        return
    results = {"shared": [], "torch": []}
    with tempfile.TemporaryDirectory() as folder:
        vocab_size = prepare(Path(folder))
        for seed in range(1337, 1337 + args.pairs):
            for library, found in results.items():
                found.append(start(library, folder, vocab_size, seed, args))
    clock = "cpu_ms" if args.threads == 1 else "wall_ms"
    title = "GPT 4 layers, 128 wide, trained on TinyShakespeare: nanoGPT's 2,000 updates for a CPU"
    row = run.row(title, TARGET, clock, results["shared"], results["torch"])
    print(f"{row['ours_ms'] / 1e3:.1f} s, PyTorch {row['torch_ms'] / 1e3:.1f} s, ratio {row['ratio']:.2f}")
    if args.output and not args.steps:
        curves = {library: [result["val_loss"] for result in found] for library, found in results.items()}
        report = {**run.environment(args.threads), "rows": [row], "val_loss": curves}
        del report["openblas_coretype"]  # the processes run without it
        run.write(args.output, report)


if __name__ == "__main__":
    main()
