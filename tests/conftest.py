"""Settings and fixtures that tests of several modules share."""

import functools
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

# Networks as small as those of the tests lose time, and on a busy machine much of it, by sharing their work among
# threads. PyTorch and BLAS read this when they are imported; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Deterministic and quick by default; HYPOTHESIS_PROFILE=deep digs.
settings.register_profile(
    "quick", max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_addoption(parser):
    parser.addoption("--bless", action="store_true", help="write golden/messages.txt anew (tests/test_messages.py)")


@pytest.fixture(scope="session", autouse=True)
def patience():
    """Tests count the lines that a command writes: none says that a busy machine is waited for."""
    from rsprune import waiting

    patch = pytest.MonkeyPatch()
    patch.setattr(waiting, "PATIENCE", 60.0)
    yield
    patch.undo()


class Done(NamedTuple):
    """What a command left when it ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def command():
    """Run a command in this process, as importing what it needs takes longer than most of them: command(*words)."""
    from typer import testing

    from rsprune.cli.app import app

    # The commands are built once: their signatures are evaluated each time, which takes longer than to run one.
    patch = pytest.MonkeyPatch()
    patch.setattr(testing, "_get_command", functools.cache(testing._get_command))

    def run(*words):
        environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
        done = testing.CliRunner().invoke(app, [str(word) for word in words], env=environment)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    yield run
    patch.undo()


@pytest.fixture(scope="session")
def embedded_run(tmp_path_factory):
    """90 images, three of them unreadable, and 40 reference images, all embedded; beside it ``classes.csv``."""
    import rsprune
    from small_runs import Colours, picture, write_tar

    folder = tmp_path_factory.mktemp("compare")
    for shard in range(2):
        members = {f"{shard}-{i:03d}.jpg": picture(1000 * shard + i) for i in range(45)}
        members[f"{shard}-007.jpg"] = b""
        write_tar(folder / f"pool-{shard}.tar", members)
    write_tar(folder / "reference.tar", {f"r{i}.jpg": picture(9000 + i) for i in range(40)})
    rsprune.prune(
        str(folder / "pool-*.tar"),
        reference=str(folder / "reference.tar"),
        keep=0.2,
        entropy_keep=1.0,
        k=4,
        encoder=Colours(),
        keep_embeddings=True,
        out=folder / "run",
        progress=False,
    )
    lines = ["name,kind", *(f"{s}-{i:03d},{'even' if i % 2 == 0 else 'odd'}" for s in range(2) for i in range(45))]
    (folder / "classes.csv").write_text("\n".join(lines))
    return folder / "run"


@pytest.fixture
def plugin_package(tmp_path_factory, monkeypatch):
    """Make another package, found by its entry points here and in child processes.

    ``plugin_package(module, source, {"rsprune.sources": {"name": "attribute"}})`` returns its folder.
    """
    made = []

    def make(module, source, entry_points):
        folder = tmp_path_factory.mktemp(module)
        metadata = folder / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (folder / f"{module}.py").write_text(source)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = []
        for group, members in entry_points.items():
            lines += [f"[{group}]", *(f"{name} = {module}:{attribute}" for name, attribute in members.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        made.append(module)
        return folder

    yield make
    for module in made:
        sys.modules.pop(module, None)


ENCODER = f"""
import sys
from pathlib import Path
sys.path.append({str(Path(__file__).parent)!r})
from small_runs import Colours
def build(*words, **settings):
    return Colours()
"""


@pytest.fixture
def colours(plugin_package):
    """The encoder of `small_runs` by its name, here and in child processes."""
    plugin_package("colours_by_name", ENCODER, {"rsprune.encoders": {"colours": "build"}})
    return "colours"
