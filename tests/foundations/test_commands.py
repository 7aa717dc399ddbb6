"""Scripts report bad input in one line, with exit status 2."""

import sys

import pytest

from foundations.commands import Parser, run_main
from foundations.errors import InputError


def wrong(_):
    raise InputError("no such file", "x.tsv", 3)


def test_bad_input_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as exit_:
        run_main("train.py", wrong)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "train.py: error: x.tsv:3: no such file\n"


def test_an_interrupt_is_status_130(capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_:
        run_main("train.py", interrupted)
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "train.py: interrupted\n"


def test_a_script_gets_the_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--data", "x"])
    seen = []
    run_main("train.py", seen.extend)
    assert seen == ["--data", "x"]


def test_options_are_not_abbreviated():
    parser = Parser("x.py")
    parser.add_argument("--metrics")
    with pytest.raises(InputError, match=r"unrecognized arguments: --metric map \(see --help\)"):
        parser.parse_args(["--metric", "map"])
