"""``python -m potstill``: the commands under one name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from potstill import __version__
from potstill.__main__ import COMMANDS, potstill

ROOT = Path(__file__).parent.parent


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "potstill", *words], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_all_commands(words, capsys):
    assert potstill(words) is None
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in out
        assert (ROOT / f"{name}.py").is_file()


def test_version(capsys):
    potstill(["--version"])
    assert capsys.readouterr().out == f"potstill {__version__}\n"


def test_a_command_has_its_own_name_in_help_and_errors():
    done = run("evaluate")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("potstill evaluate: error: expected either a run folder")
    assert run("evaluate", "--help").stdout.startswith("usage: potstill evaluate ")


def test_an_unknown_command():
    done = run("trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("potstill: error: unknown command 'trian', did you mean 'train'?\ncommands: train, ")


def test_help_imports_nothing_heavy():
    code = "import sys; from potstill.__main__ import potstill; potstill([])\n"
    code += "print(sorted({'torch', 'numpy', 'lightning', 'jsonargparse'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.endswith("\n[]\n")
