"""``python -m potstill``: the commands under one name."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_modules.names import SHORT_NAMES
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
        assert (ROOT / f"{name}.py").is_file() == (name not in ("list", "doctor"))


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


def test_list_has_all_names(capsys):
    potstill(["list"])
    out = capsys.readouterr().out
    for names in SHORT_NAMES.values():
        assert all(re.search(rf"^  {name} +\w", out, re.M) for name in names)
    for path in (ROOT / "configs").glob("*.yaml"):
        assert (f"\n  {path.name} " in out) == (path.name != "base.yaml")
    assert "\n  starter/minilm            sentence-transformers/all-MiniLM-L6-v2, apache-2.0\n" in out


def test_doctor(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "packages" / "cache"))
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/npm")
    assert potstill(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"torch {version('torch')}\n" in out
    assert f"cache       {tmp_path / 'packages' / 'cache'}  0.0 GiB in use, " in out
    assert out.endswith("\nall is there\n")
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**30))
    assert potstill(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "\nfault       1.0 GiB are free at " in out
    assert "\nfault       npm is not there" in out
