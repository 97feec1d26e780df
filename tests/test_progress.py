"""Progress: bars on a terminal, a line a minute in a log, JSON for programs."""

import io
import itertools

import pytest

from rsprune.runners import NoProgress, ProgressLines, show_progress
from rsprune.runners import progress as module
from rsprune.runners.progress import describe_seconds


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves on by ten seconds whenever it is looked at."""
    ticks = itertools.count(0, 10)
    monkeypatch.setattr(module.StageTimer, "seconds", property(lambda timer: next(ticks)))


def report(stage, total, done, steps):
    out = io.StringIO()
    lines = ProgressLines(out)
    lines.start(stage, total, done)
    for images in steps:
        lines.advance(images)
    lines.finish()
    return out.getvalue().splitlines()


def test_a_log_has_a_line_a_minute_with_speed_and_time_left(clock):
    lines = report("embed", 10_000, 400, [100] * 40)
    assert len(lines) > 3
    assert all(line.startswith("embed: ") and " of 10,000 images, " in line for line in lines[:-1])
    assert all(" images/s, " in line and line.endswith(" left") for line in lines[:-1])
    done = [int(line.split()[1].replace(",", "")) for line in lines[:-1]]
    assert done == sorted(done)
    assert 400 < done[0] < done[-1] <= 4400
    assert lines[-1].startswith("embed: done in ")


def test_a_short_stage_writes_nothing():
    assert report("entropy", 10, 0, [5, 5]) == []


def test_notes_reach_the_log(capsys):
    with show_progress(True) as progress:
        assert isinstance(progress, ProgressLines)
        progress.note("a worker died")
    assert capsys.readouterr().err == "a worker died\n"


def test_nothing_is_shown_for_false_and_an_own_progress_is_itself():
    with show_progress(False) as progress:
        assert type(progress) is NoProgress
    own = NoProgress()
    with show_progress(own) as progress:
        assert progress is own


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (9.6, "10 s"), (60, "1 min"), (200, "3 min 20 s"), (7290, "2 h 1 min"), (90000, "1 d 1 h")],
)
def test_times_are_read_by_people(seconds, text):
    assert describe_seconds(seconds) == text
