"""A run that is killed, told to end, or let down by the disk at any moment ends with the same bytes afterwards."""

import errno
import functools
import os
import random
import shutil
import signal
import time

import pytest
import typer

from faulty_system import READS, SHORT, WRITES, kill, needs_linux, run
from rsprune.cli.common import guarded
from small_runs import artefacts, picture, small_prune, write_tar

pytestmark = needs_linux

#: The long forms disturb each so many-th call; RSPRUNE_FAULTS_STEP=1 all of them.
STEP = int(os.environ.get("RSPRUNE_FAULTS_STEP", "7"))


def prune(folder, out, runner):
    """What a command does: an exit code, and one line on standard error."""

    def work():
        pool, reference = str(folder / "pool-*.tar"), folder / "ref.tar"
        small_prune(pool, reference, out, k=3, runner=runner, workers=2, threads=1)

    try:
        guarded(work)()
    except typer.Exit as end:
        return end.exit_code
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards with a damaged image in each, a reference, and the run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("interrupted")
    for s in range(2):
        members = {f"{s}-{i:02d}.jpg": picture(100 * s + i) for i in range(12)}
        write_tar(folder / f"pool-{s}.tar", members | {f"{s}-05.jpg": b"no image"})
    write_tar(folder / "ref.tar", {f"r{i}.jpg": picture(900 + i) for i in range(8)})
    assert run(functools.partial(prune, folder, folder / "whole", "local"), folder / "log").code == 0
    return folder


class Disturbed:
    """Runs one after another into one folder, each disturbed at one of its calls below a folder or from it on."""

    def __init__(self, folder, tmp_path, runner):
        self.folder, self.out, self.log, self.runner = folder, tmp_path / "run", tmp_path / "log", runner
        self.expected = artefacts(folder / "whole")

    def run(self, answer=lambda call, number, main: 0, calls=WRITES, below=None):
        """Run; ``answer`` is asked of the calls, with their number and the first process. Return how many they were."""
        count, main = 0, None
        places = tuple(map(str, below if isinstance(below, tuple) else (below or self.out,)))

        def asked(call):
            nonlocal count, main
            main = main or call.process
            if not call.path.startswith(places):
                return 0
            count += 1
            return answer(call, count - 1, main)

        return run(functools.partial(prune, self.folder, self.out, self.runner), self.log, asked, calls), count

    def signalled(self, number, moment):
        """Run, and send a signal; True if there was such a moment."""
        sent = []

        def answer(call, at, main):
            if at == moment:
                sent.append(time.perf_counter())
                kill(main, number)

        ended, total = self.run(answer)
        where = (number, moment, ended)
        assert not sent or time.perf_counter() - sent[0] < 10, where
        if total <= moment:
            assert (ended.code, ended.said) == (0, ""), where
        elif number == signal.SIGKILL:
            assert ended.code == -signal.SIGKILL, where
        else:
            assert ended.code == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], where
            assert ended.said.strip().count("\n") == 0, where
            assert temporaries(self.out) == [], where
        return total > moment

    def let_down(self, number, moment):
        """Run, and let the disk fail from a moment on; True if there was such a moment."""
        ended, total = self.run(lambda call, at, main: number if at >= moment and call.name in DISKS[number] else 0)
        where = (errno.errorcode[number], moment, ended)
        if ended.code != 0:  # there may have been nothing left to write
            assert ended.code == 1, where
            assert ended.said.count("\n") == 1, where
            assert ended.said.startswith(f"error: {self.out}"), where
            assert os.strerror(number) in ended.said, where
            assert "the same command goes on" in ended.said, where
        if not {"unlink", "rename"} & DISKS[number]:
            assert temporaries(self.out) == [], where
        return total > moment

    def goes_on(self):
        """Assert that an undisturbed run goes on to the same bytes."""
        ended, _ = self.run()
        assert (ended.code, ended.said) == (0, "")
        assert artefacts(self.out) == self.expected


def temporaries(folder):
    return sorted(folder.rglob("*.writing")) if folder.exists() else []


#: By error number, the calls below the run folder that give it from some moment on: of a full disk those that make
#: files or write, of a read-only one those that remove files, too, and of a lost one all.
DISKS = {
    errno.ENOSPC: {"write", "pwrite64", "writev", "mkdir"},
    errno.EDQUOT: {"write", "pwrite64", "writev", "mkdir", "openat"},
    errno.EIO: {"write", "pwrite64", "writev", "fsync"},
    errno.EROFS: {"mkdir", "openat", "rename", "unlink", "unlinkat"},
    errno.ESTALE: {name for name, _ in WRITES.values()},
    errno.ENOTCONN: {name for name, _ in WRITES.values()},
}
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
RUNNERS = ["local", "processes"]


@pytest.mark.parametrize(("runner", "steps"), [("local", 9), pytest.param("processes", 9, marks=pytest.mark.slow)])
def test_a_run_that_is_disturbed_again_and_again(folder, tmp_path, runner, steps):
    disturbed, rng = Disturbed(folder, tmp_path, runner), random.Random(7)
    disturbances = [*SIGNALS, *DISKS]
    rng.shuffle(disturbances)
    for number in disturbances[:steps]:
        (disturbed.let_down if number in DISKS else disturbed.signalled)(number, rng.randrange(60))
    disturbed.goes_on()


def test_reads_that_give_half_of_what_was_asked_for(folder, tmp_path):
    """A signal or a network disk may cut any read short: nothing comes of it."""
    disturbed, below = Disturbed(folder, tmp_path, "local"), (folder, tmp_path)
    ended, count = disturbed.run(lambda call, *_: SHORT if call.name != "openat" else 0, READS, below)
    assert (ended.code, ended.said) == (0, "")
    assert count > 100
    assert artefacts(disturbed.out) == disturbed.expected


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", [30, pytest.param(STEP, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_images_that_are_not_given_from_some_moment_on(folder, tmp_path, number, step):
    """No image goes into quarantine for what the disk says: the run ends, in one line, or has read all it needs."""
    disturbed, below, moment, ended = Disturbed(folder, tmp_path, "local"), folder / "pool-", 0, None
    while ended is None or ended.code != 0:
        answer = functools.partial(lambda first, call, at, main: number if at >= first else 0, moment)
        ended, _ = disturbed.run(answer, READS, below)
        if ended.code != 0:
            assert (ended.code, ended.said.count("\n")) == (1, 1), (moment, ended)
            assert os.strerror(number) in ended.said, (moment, ended)
            assert "pool-" in ended.said, (moment, ended)
        assert temporaries(disturbed.out) == [], moment
        moment += step
    assert moment > step
    disturbed.goes_on()


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda one: one.name)
def test_a_signal_at_every_write(folder, tmp_path, number, runner):
    disturbed, moment = Disturbed(folder, tmp_path, runner), 0
    while disturbed.signalled(number, moment):
        disturbed.goes_on()
        shutil.rmtree(disturbed.out)
        moment += STEP
    assert moment > 100


@pytest.mark.slow
@pytest.mark.parametrize("number", DISKS, ids=errno.errorcode.get)
def test_a_disk_that_fails_at_every_write(folder, tmp_path, number):
    disturbed, moment = Disturbed(folder, tmp_path, "local"), 0
    while disturbed.let_down(number, moment):
        disturbed.goes_on()
        shutil.rmtree(disturbed.out)
        moment += STEP
    assert moment > 100
