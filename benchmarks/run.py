"""Runs every workload against PyTorch and writes benchmarks/results/cpu.json; `course docs` makes the table of it.

Each library runs in a process of its own, the two in turn, several pairs; what is compared is the median of the
pairs' ratios of CPU time, on one thread unless said otherwise.

    python benchmarks/run.py                     # all workloads, five pairs each
    python benchmarks/run.py mlp_step --pairs 9
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
WORKLOADS = ("tiny_add", "tiny_chain", "mlp_step", "cnn_step", "conv_layer", "max_pool", "adam_step")


def describe(name: str) -> tuple[str, float]:
    """The title and target a workload file states."""
    sys.path.insert(0, str(HERE))
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TITLE, module.TARGET


def once(name: str, library: str, threads: int, seconds: float) -> dict[str, Any]:
    """One process, one library: what the workload printed."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--library", library, "--threads", str(threads)]
    done = subprocess.run([*command, "--seconds", str(seconds)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} with {library} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, pairs: int, threads: int, seconds: float) -> dict[str, Any]:
    """A row of the table: medians over pairs, the ratio of CPU times, its spread (quartiles)."""
    title, target = describe(name)
    ours, theirs = [], []
    for _ in range(pairs):
        ours.append(once(name, "shared", threads, seconds))
        theirs.append(once(name, "torch", threads, seconds))
    clock = "cpu_ms" if threads == 1 else "wall_ms"
    ratios = sorted(a[clock] / b[clock] for a, b in zip(ours, theirs, strict=True))
    spread = [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]]

    def median(results: list[dict[str, Any]], key: str) -> float:
        return round(statistics.median(r[key] for r in results), 4)

    return {
        "workload": title,
        "threads": threads,
        "clock": clock,
        "ours_ms": median(ours, clock),
        "torch_ms": median(theirs, clock),
        "ratio": round(statistics.median(ratios), 3),
        "target": target,
        "spread": [round(s, 3) for s in spread],
        "ours_peak_mb": median(ours, "peak_mb"),
        "torch_peak_mb": median(theirs, "peak_mb"),
        "pairs": pairs,
        "versions": {"shared": ours[0]["version"], "torch": theirs[0]["version"]},
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def blas_core() -> str:
    """The kernels OpenBLAS chose, as threadpoolctl reports them."""
    import numpy  # noqa: F401  (loads the BLAS that is to be described)
    from threadpoolctl import threadpool_info

    return ", ".join(
        f"{p['internal_api']} {p['version']} ({p.get('architecture')})"
        for p in threadpool_info()
        if p["user_api"] == "blas"
    )


def environment(threads: int) -> dict[str, Any]:
    """What the figures depend on: machine, versions, date."""
    import numba
    import numpy

    return {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "blas": blas_core(),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE", "unset"),
        "versions": {"numpy": numpy.__version__, "numba": numba.__version__},
        "threads": threads,
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []], help="which ones (default: all)")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs per workload (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads for both libraries (default: 1)")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds measured per run (default: 1.5)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "cpu.json", help="where the JSON goes")
    args = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        raise SystemExit(
            "The benchmarks compare with PyTorch, which is not installed: pip install 'sprint-to-gpt[parity]'"
        )
    rows = []
    print(f"{'workload':55} {'ours':>10} {'PyTorch':>10} {'ratio':>7} {'target':>7}")
    for name in args.workloads or WORKLOADS:
        row = compare(name, args.pairs, args.threads, args.seconds)
        rows.append(row)
        print(
            f"{row['workload']:55} {row['ours_ms']:7.4g} ms {row['torch_ms']:7.4g} ms "
            f"{row['ratio']:7.2f} {row['target']:7.2f}",
            flush=True,
        )
    if args.workloads:
        print("(some of the workloads: nothing written)")
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    report = {**environment(args.threads), "rows": rows}
    report["versions"] |= rows[0]["versions"]
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    temporary = args.output.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, args.output)
    print(f"written to {args.output.name}")


if __name__ == "__main__":
    main()
