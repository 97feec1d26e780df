"""SIGTERM, which schedulers send, at any moment of a command: 143, one line, and no unfinished file."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from rsprune import interrupts
from rsprune.temporaries import unfinished
from small_runs import artefacts, picture, write_tar

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards that take about a second, and what an undisturbed command makes of them."""
    folder = tmp_path_factory.mktemp("signals")
    pictures = [picture(i) for i in range(40)]
    for s in range(4):
        write_tar(folder / f"pool-{s}.tar", {f"{s}-{i:04d}.jpg": pictures[i % 40] for i in range(200)})
    return folder


def words(folder, out, *more):
    return [sys.executable, "-m", "rsprune", "entropy", str(folder / "pool-*.tar"), "-o", out, "-q", "-j", "1", *more]


PROCESSES = ["processes", "--workers", "2"]


@pytest.mark.parametrize(
    ("runner", "moments"),
    [
        (["local"], 2),
        pytest.param(["local"], 10, marks=pytest.mark.slow),
        pytest.param(PROCESSES, 10, marks=pytest.mark.slow),
    ],
)
def test_sigterm_at_moments_of_a_command(folder, tmp_path, runner, moments):
    begun = time.perf_counter()
    subprocess.run(words(folder, tmp_path / "whole", "--runner", *runner), check=True)
    seconds = time.perf_counter() - begun
    for moment in range(moments):
        process = subprocess.Popen(
            words(folder, tmp_path / "run", "--runner", *runner),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        time.sleep(seconds * (moment + random.Random(moment).random()) / moments)
        process.send_signal(signal.SIGTERM)
        sent = time.perf_counter()
        _, said = process.communicate(timeout=60)
        assert time.perf_counter() - sent < 10
        # What has not loaded NumPy yet ends as any program does; what was done at that moment ends well.
        assert process.returncode in (143, 0, -signal.SIGTERM), said
        if process.returncode == 143:
            assert len(said.strip().splitlines()) == 1
        else:
            assert said == ""
        assert not list(tmp_path.rglob("*.writing"))
    subprocess.run(words(folder, tmp_path / "run", "--runner", *runner), check=True)
    assert artefacts(tmp_path / "run") == artefacts(tmp_path / "whole")


LATE = """
import os, signal, sys, threading, time
from pathlib import Path
from rsprune.interrupts import orderly_end
from rsprune.temporaries import unfinished

def end(number):
    while True:  # a clean-up that never comes back
        time.sleep(0.1)

with orderly_end(end, grace=0.3, late="ended\\n"), unfinished(Path(sys.argv[1])) as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_that_does_not_come_to_its_end_is_ended(tmp_path):
    done = subprocess.run([sys.executable, "-c", LATE, tmp_path / "x"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (143, "ended\n")
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_signal_counts(tmp_path):
    """What is removed on the way out is not left there because somebody presses Ctrl-C twice."""
    seen = []

    def end(number):
        seen.append(number)
        for again in interrupts.SIGNALS:
            os.kill(os.getpid(), again)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)

    def work():
        with interrupts.orderly_end(end), unfinished(tmp_path / "x") as path:
            path.write_text("half")
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen == [signal.SIGINT]
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before
