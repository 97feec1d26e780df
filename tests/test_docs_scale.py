"""What docs/scale.md shows works. Its `sbatch` is one that runs the tasks of a job at once, side by side."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ray_nodes import three_nodes
from small_runs import artefacts, picture, small_prune, write_tar

ROOT = Path(__file__).parent.parent

# What the page leaves to the defaults, in small.
SMALL = ["--keep-embeddings", "--entropy-keep", "0.5", "--k", "3", "--encoder", "colours"]


def commands(section: str) -> list[str]:
    page = (ROOT / "docs" / "scale.md").read_text()
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


# A job runs in a copy of the script, as SLURM has it; one that waits for a job that has failed never begins.
SBATCH = """#!/bin/bash
array=0 first=0 last=0
here=$(dirname "$0")
job=$(($(ls "$here/jobs" | wc -l) + 1))
while [[ $1 == --* ]]; do
    case $1 in
        --array=*) array=1 first=${1#*=} last=${1#*-*-*-}; first=${first%-*} ;;
        --dependency=afterok:*) [[ $(cat "$here/jobs/${1##*:}") == 0 ]] || exit 1 ;;
    esac
    shift
done
cp "$1" "$here/script-$job"
shift
for task in $(seq $first $last); do
    if [[ $array == 1 ]]; then
        export SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_MIN=$first SLURM_ARRAY_TASK_MAX=$last
        export SLURM_ARRAY_TASK_COUNT=$((last - first + 1))
    fi
    SLURM_CPUS_PER_TASK=1 bash "$here/script-$job" "$@" > "$here/log-$job-$task" 2>&1 &
    tasks+=($!)
done
code=0
for one in "${tasks[@]}"; do wait $one || code=$?; done
echo $code > "$here/jobs/$job"
echo $job
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch, colours):
    (tmp_path / "bin" / "jobs").mkdir(parents=True)
    for name, text in {"sbatch": SBATCH, "rsprune": f'#!/bin/bash\nexec {sys.executable} -m rsprune "$@"\n'}.items():
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
    return tmp_path / "bin"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """What the page takes for granted: `pool-*.tar` and `aid.tar`."""
    folder = tmp_path_factory.mktemp("images")
    for shard in range(2):
        members = {f"{shard}-{i:02d}.jpg": picture(100 * shard + i) for i in range(10 + shard)}
        write_tar(folder / f"pool-{shard}.tar", members)
    write_tar(folder / "aid.tar", {f"r{i}.jpg": picture(9_000 + i) for i in range(8)})
    return folder


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    run = small_prune(
        f"{images}/pool-*.tar", images / "aid.tar", tmp_path_factory.mktemp("run") / "run", keep=0.15, k=3
    )
    return artefacts(run.path)


@pytest.mark.parametrize("section", ["One node", "Any scheduler: parts"])
def test_the_commands_of_a_section_make_a_run(section, images, expected, cluster, command, tmp_path, monkeypatch):
    monkeypatch.chdir(images)
    for line in commands(section):
        done = command(*shlex.split(line.replace("--workers 4", "--workers 1"))[1:], *SMALL, "--out", tmp_path / "run")
        assert done.returncode == 0, done.stderr
    assert "3 of 21 images kept" in done.stdout
    assert artefacts(tmp_path / "run") == expected


def test_the_jobs_of_the_script_make_a_run(images, expected, cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(images)
    [line] = commands("SLURM")
    words = shlex.split(line.replace("examples/slurm.sh", str(ROOT / "examples" / "slurm.sh")))
    done = subprocess.run(
        ["env", *words, *SMALL, "--out", tmp_path / "a run"], capture_output=True, text=True, timeout=120
    )
    logs = {path.name: path.read_text() for path in sorted(cluster.glob("log-*"))}
    assert done.returncode == 0, (done.stderr, logs)
    assert "jobs 1, 2 and 3" in done.stdout
    assert list(logs) == ["log-1-1", "log-1-2", "log-2-1", "log-2-2", "log-3-0"]
    assert "3 of 21 images kept" in logs["log-3-0"]
    assert artefacts(tmp_path / "a run") == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file.*/dev/null:ResourceWarning")  # what Ray's processes write to
def test_the_command_for_ray_makes_a_run(images, expected, cluster, command, tmp_path, monkeypatch):
    monkeypatch.chdir(images)
    [line] = commands("Ray")
    with three_nodes():
        done = command(*shlex.split(line)[1:], *SMALL, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "3 of 21 images kept" in done.stdout
    assert artefacts(tmp_path / "run") == expected
