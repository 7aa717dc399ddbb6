from __future__ import annotations

import subprocess
import sys

import pytest

from foundations import progress
from foundations.progress import delayed_progress

SLOW = """
import sys, time
from foundations import progress
progress.LOG_SECONDS = 0.3
with progress.delayed_progress("read", 10, delay=float(sys.argv[1])) as advance:
    for _ in range(10):
        time.sleep(0.1)
        advance(1)
"""


@pytest.fixture
def clock(monkeypatch):
    """The time, as a list of one number; 31 s pass between one look and the next."""
    now = [0.0]

    def look() -> float:
        now[0] += 31
        return now[0]

    monkeypatch.setattr(progress.time, "monotonic", look)
    return now


@pytest.mark.parametrize(("delay", "least", "most"), [("0", 2, 4), ("inf", 0, 0)])
def test_a_process_without_a_terminal_writes_lines_as_it_goes(delay, least, most):
    done = subprocess.run([sys.executable, "-c", SLOW, delay], capture_output=True, text=True, check=True, timeout=60)
    lines = done.stderr.splitlines()
    assert least <= len(lines) <= most
    assert done.stdout == ""
    shares = [int(line.removeprefix("read: ").partition("%")[0]) for line in lines]
    assert shares == sorted(set(shares))


def test_a_line_has_the_share_and_the_times(clock, capsys):
    with delayed_progress("encode", 4) as advance:
        for _ in range(4):
            advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "encode: 25%, 31 s so far, about 93 s to go",
        "encode: 50%, 62 s so far, about 62 s to go",
        "encode: 75%, 93 s so far, about 31 s to go",
        "encode: 100%, 124 s so far",
    ]


def test_work_within_work_is_silent_and_quick_work_too(clock, capsys):
    with delayed_progress("outer", 2) as outer:
        outer(1)
        with delayed_progress("inner", 1) as inner:
            inner(1)
        outer(1)
    with delayed_progress("later", 1) as later:
        later(1)
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["outer", "outer", "later"]
    clock[0] = 0
    with delayed_progress("quick", 2, delay=40) as quick:
        quick(1)
    assert capsys.readouterr().err == ""
    assert progress._live == []
