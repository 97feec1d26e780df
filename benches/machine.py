"""What a timing depends on."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rsprune
from benches.harness import THREADS

PACKAGES = [
    *("numpy", "torch", "faiss-cpu", "scikit-learn", "pandas", "polars"),
    *("pillow", "opencv-python-headless", "simplejpeg", "scikit-image", "timm"),
]


def describe() -> str:
    """CPU, memory, versions and commit, as Markdown lines."""
    features = ", ".join(name for name, present in rsprune.cpu_features().items() if present is True)
    versions = ", ".join(f"{name} {installed}" for name in PACKAGES if (installed := _version(name)))
    return "\n".join(
        [
            f"- {cpu()}, {THREADS} threads, {_memory_gb():.0f} GB of memory, {platform.system()} {platform.release()}",
            f"- instructions that rsprune can use: {features}",
            f"- rsprune {rsprune.__version__}, commit {_commit()}",
            f"- Python {platform.python_version()}, {versions}",
        ]
    )


def slug() -> str:
    """The machine as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", f"{cpu()} {THREADS} threads".lower()).strip("-")


def cpu() -> str:
    """The CPU by its model name, or where a hypervisor hides that, by family and model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = about.get("model name", platform.machine())
    return name if any(c.isdigit() for c in name) else f"{name} family {about['cpu family']} model {about['model']}"


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if git("status", "--porcelain", "-uno") else "")
