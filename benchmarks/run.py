"""Runs every workload against PyTorch and writes benchmarks/results/cpu.json; `course docs` makes the table of it.

Each library runs in a process of its own, the two in turn, several pairs; what is compared is the median of the
pairs' ratios of CPU time, on one thread unless said otherwise. On a GPU it is the wall clock, which stops when the GPU
has finished, and the results go to benchmarks/results/gpu.json.

    python benchmarks/run.py                     # all workloads, five pairs each
    python benchmarks/run.py mlp_step --pairs 9              # shown, and with --update put into the table
    python benchmarks/run.py --device cuda
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORKLOADS = (
    # training steps
    *("mlp_step", "cnn_step", "transformer_block", "transformer_block_small", "gpt_cpu", "gpt_384", "gpt2_124m"),
    # operations
    *("tiny_add", "tiny_chain", "conv_layer", "max_pool", "batch_norm", "layer_norm", "layer_norm_wide"),
    *("relu", "gelu", "gelu_erf", "silu", "dropout", "softmax", "log_softmax", "cross_entropy"),
    *("attention", "attention_small"),
    *("embedding_backward", "embedding_small", "adamw_step", "adamw_gpt", "clip_grad"),
    # generation
    *("gpt2_generate", "gpt2_first_token", "gpt2_load"),
)
# What the design sets targets for, but needs parts that later sprints build: (workload, target, sprint).
PLANNED = (
    ("GPT-2 124M, generation with int8 weights, against PyTorch's dynamic int8", 0.80, 14),
    ("LSTM language model, hidden 256, seq 64, batch 32, train step", 1.00, 16),
)


def describe(name: str) -> tuple[str, float, int | None]:
    """The title and target a workload file states, and its number of threads, where it has one of its own."""
    sys.path.insert(0, str(HERE))
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TITLE, module.TARGET, getattr(module, "THREADS", None)


CORETYPE = "OPENBLAS_CORETYPE"  # an old name in it halves the speed of OpenBLAS on a machine with AVX-512


def without_coretype() -> dict[str, str]:
    """The environment, but that OpenBLAS chooses its kernels itself."""
    return {name: value for name, value in os.environ.items() if name != CORETYPE}


def once(
    name: str, library: str, threads: int, seconds: float, coretype: str | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """One process, one library: what the workload printed. OpenBLAS chooses its kernels itself unless told which."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--library", library, "--threads", str(threads)]
    command += ["--device", device]
    env = without_coretype() | ({CORETYPE: coretype} if coretype else {})
    done = subprocess.run([*command, "--seconds", str(seconds)], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{name} with {library} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, pairs: int, threads: int, seconds: float, device: str = "cpu") -> dict[str, Any]:
    """A row of the table: medians over pairs, the ratio of times, its spread (quartiles)."""
    title, target, own_threads = describe(name)
    threads = own_threads or threads
    found = os.environ.get(CORETYPE) if device == "cpu" else None
    ours, theirs, as_found = [], [], []
    for _ in range(pairs):
        ours.append(once(name, "shared", threads, seconds, device=device))
        theirs.append(once(name, "torch", threads, seconds, device=device))
        if found:
            as_found.append(once(name, "shared", threads, seconds, found))
    clock = "cpu_ms" if threads == 1 and device == "cpu" else "wall_ms"
    found_ms = {"as_found_ms": round(statistics.median(r[clock] for r in as_found), 4)} if as_found else {}
    return row(title, target, clock, ours, theirs) | {"threads": threads} | found_ms


def row(
    title: str, target: float | None, clock: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> dict[str, Any]:
    """Medians over pairs of results, and the spread of their ratios."""
    ratios = sorted(a[clock] / b[clock] for a, b in zip(ours, theirs, strict=True))
    spread = [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]]

    def median(results: list[dict[str, Any]], key: str) -> float:
        return round(statistics.median(r[key] for r in results if key in r), 4)

    return {
        "workload": title,
        "clock": clock,
        "ours_ms": median(ours, clock),
        "torch_ms": median(theirs, clock),
        "ratio": round(statistics.median(ratios), 3),
        "target": target,
        "spread": [round(s, 3) for s in spread],
        **{
            f"{name}_peak_mb": median(r, "peak_mb")
            for name, r in (("ours", ours), ("torch", theirs))
            if "peak_mb" in r[0]
        },
        "pairs": len(ours),
        "versions": {"shared": ours[0]["version"], "torch": theirs[0]["version"]},
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


BLAS = """
import numpy
from threadpoolctl import threadpool_info
found = [p for p in threadpool_info() if p["user_api"] == "blas"]
print(", ".join(f"{p['internal_api']} {p['version']} ({p.get('architecture')})" for p in found))
"""


def blas_core() -> str:
    """The kernels OpenBLAS chooses by itself, as threadpoolctl reports them."""
    command = [sys.executable, "-c", BLAS]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=without_coretype()).stdout.strip()


def environment(threads: int) -> dict[str, Any]:
    """What the figures depend on: machine, versions, date."""
    import numba
    import numpy

    return {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "blas": blas_core(),
        "openblas_coretype": os.environ.get(CORETYPE, "unset"),
        "versions": {"numpy": numpy.__version__, "numba": numba.__version__},
        "threads": threads,
        "date": datetime.date.today().isoformat(),
    }


GPU = """
import cupy, torch
print(torch.cuda.get_device_name(), cupy.__version__, cupy.cuda.runtime.runtimeGetVersion(), torch.version.cuda)
"""


def gpu_environment() -> dict[str, Any]:
    """What figures on a GPU depend on besides: the GPU and the versions of CuPy and CUDA."""
    done = subprocess.run([sys.executable, "-c", GPU], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"This needs an NVIDIA GPU that both CuPy and PyTorch see:\n{done.stderr.strip()}")
    name, cupy, ours, theirs = done.stdout.strip().rsplit(maxsplit=3)
    major, minor = divmod(int(ours), 1000)
    return {"gpu": name, "cupy": cupy, "cuda": {"shared": f"{major}.{minor // 10}", "torch": theirs}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []], help="which ones (default: all)")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs per workload (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads for both libraries (default: 1)")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds measured per run (default: 1.5)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (default: cpu)")
    parser.add_argument("--update", action="store_true", help="put the named workloads into the table that is there")
    parser.add_argument("--output", type=Path, help="where the JSON goes (default: results/cpu.json or gpu.json)")
    args = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        raise SystemExit(
            "The benchmarks compare with PyTorch, which is not installed: pip install 'sprint-to-gpt[parity]'"
        )
    gpu = gpu_environment() if args.device == "cuda" else {}
    output = args.output or HERE / "results" / ("gpu.json" if gpu else "cpu.json")
    rows = []
    print(f"{'workload':55} {'ours':>10} {'PyTorch':>10} {'ratio':>7} {'target':>7}")
    for name in args.workloads or WORKLOADS:
        row = compare(name, args.pairs, args.threads, args.seconds, args.device)
        rows.append(row)
        print(
            f"{row['workload']:55} {row['ours_ms']:7.4g} ms {row['torch_ms']:7.4g} ms "
            f"{row['ratio']:7.2f} {row['target']:7.2f}"
            + (f"   with {CORETYPE} as found: {row['as_found_ms']:.4g} ms" if "as_found_ms" in row else ""),
            flush=True,
        )
    if args.workloads and not args.update:
        print("(some of the workloads: nothing written; --update puts them into the table)")
        return
    if args.workloads:
        rows = updated(json.loads(output.read_text())["rows"], rows)
    planned = [{"workload": title, "target": target, "sprint": sprint} for title, target, sprint in PLANNED]
    report = {**environment(args.threads), **gpu, "rows": rows, "planned": planned}
    write(output, report)
    print(f"written to {output.name}")


def updated(rows: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows` with the `new` ones in place of those of the same title, in the order of WORKLOADS."""
    found = {row["workload"]: row for row in [*rows, *new]}
    titles = [describe(name)[0] for name in WORKLOADS]
    return [found[title] for title in titles if title in found]


def write(output: Path, report: dict[str, Any]) -> None:
    """The measurements as JSON, replaced at once; versions of both libraries are those of the first row."""
    report["versions"] |= report["rows"][0]["versions"]
    output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    temporary = output.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, output)


if __name__ == "__main__":
    main()
