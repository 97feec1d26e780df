"""Run comparisons and print their table.

Every suite has a process of its own, so that none finds the memory, the threads or the environment of another.
"""

import argparse
import datetime
import importlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import rsprune
from benches import harness, machine

RECORD = Path(__file__).parent / "record"


@dataclass(frozen=True)
class Suite:
    """A module with `comparisons()`, and the environment that its process gets."""

    module: str
    environment: dict[str, str] = field(default_factory=dict)
    by_name_only: bool = False


# No library may use more than AVX2.
AVX2 = {
    "RSPRUNE_CPU": "avx2",
    "OPENBLAS_CORETYPE": "Haswell",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "FAISS_SIMD_LEVEL": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX",
}
SUITES = {
    "entropy": Suite("entropy"),
    "preprocess": Suite("preprocess"),
    "preprocess-avx2": Suite("preprocess", AVX2),
    "assign": Suite("assign"),
    "assign-avx2": Suite("assign", AVX2),
    "scaling": Suite("scaling"),
    "select": Suite("select"),
    "kmeans": Suite("kmeans"),
    "embed": Suite("embed"),
    # Threads that wait in a loop take whole cores from each other where others work, too.
    "dit": Suite("dit", {"OMP_WAIT_POLICY": "passive"}),
    "strategies": Suite("strategies", by_name_only=True),  # takes minutes
    "disk": Suite("disk", by_name_only=True),  # needs 22 GB of disk
    "storage": Suite("storage"),
    "gpu": Suite("gpu", by_name_only=True),
    "embed-gpu": Suite("embed", {"RSPRUNE_BENCH_DEVICE": "cuda"}, by_name_only=True),
    "dit-gpu": Suite("dit", {"RSPRUNE_BENCH_DEVICE": "cuda"}, by_name_only=True),
}


def main() -> None:
    default = [name for name, suite in SUITES.items() if not suite.by_name_only]
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SUITES)}; by default {', '.join(default)}")
    parser.add_argument("--rounds", type=int, default=5, help="that are timed, after one that warms up")
    parser.add_argument("--record", action="store_true", help="add the tables to benches/record/<machine>/<date>.md")
    parser.add_argument("--here", action="store_true", help="run one suite in this process: what the others start")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SUITES):
        parser.error(f"no such comparison: {', '.join(sorted(unknown))}")
    if options.here:
        print_rows(options.names[0], options.rounds)
        return
    now = datetime.datetime.now(datetime.timezone.utc)
    text = f"# {now:%Y-%m-%d %H:%M} UTC\n\n{machine.describe()}\n- medians of {options.rounds} rounds in turns\n"
    print(text, flush=True)
    for name in options.names or default:
        table = f"\n## {name}\n\n" + run_suite(name, options.rounds)
        text += table
    if options.record:
        path = RECORD / machine.slug() / f"{now:%Y-%m-%d}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text + "\n")


def run_suite(name: str, rounds: int) -> str:
    """The table of a suite, which is printed as it grows."""
    environment = clean_environment() | SUITES[name].environment
    command = [sys.executable, "-m", "benches", name, "--here", "--rounds", str(rounds)]
    print(f"\n## {name}\n", flush=True)
    text = ""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            text += line
    if process.returncode:
        sys.exit(f"{name} failed")
    return text


def clean_environment() -> dict[str, str]:
    """The environment, without what would slow a peer down, and with the fastest kernels that each one has."""
    tuned = ("OPENBLAS_", "MKL_", "OMP_", "KMP_", "GOMP_", "DNNL_", "ATEN_", "FAISS_", "NPY_", "RSPRUNE_CPU")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(tuned)}
    environment["OMP_NUM_THREADS"] = environment["POLARS_MAX_THREADS"] = str(harness.THREADS)
    if rsprune.cpu_features().get("avx512f"):
        # An OpenBLAS that is older than the CPU, such as faiss's, falls back to SSE.
        environment["OPENBLAS_CORETYPE"] = "SkylakeX"
    return environment


def print_rows(name: str, rounds: int) -> None:
    """Run the comparisons of one suite."""
    comparisons = importlib.import_module(f"benches.{SUITES[name].module}").comparisons()
    harness.use_threads(harness.THREADS)
    print(harness.HEADER, flush=True)
    for comparison in comparisons:
        print(harness.run(comparison, rounds).row(), flush=True)
    print(f"\n{harness.libraries()}", flush=True)


if __name__ == "__main__":
    main()
