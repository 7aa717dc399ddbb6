"""An installed copy does what the repository does: the wheel has the defaults, and nothing that it should not have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("datamodules", "foundations", "lightning_modules", "potstill", "retrieval", "strategies", "studies")


def run(*words: object, folder: Path, python_path: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(python_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built without the network from a copy of the repository, so that no old build is in it."""
    copy, folder = tmp_path_factory.mktemp("copy") / "potstill", tmp_path_factory.mktemp("wheel")
    copy.mkdir()
    for name in (*PACKAGES, "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run("-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", folder,
        folder=copy, python_path=copy)  # fmt: skip
    return next(folder.glob("potstill-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    run("-m", "pip", "install", "--target", folder, "--no-deps", "--no-index", "-q", wheel,
        folder=folder, python_path=folder)  # fmt: skip
    return folder


@pytest.mark.slow
def test_what_is_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{name}/py.typed" for name in PACKAGES} <= set(names)
    for name in PACKAGES:
        files = [path for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".j2")]
        expected = {path.relative_to(ROOT).as_posix() for path in files}
        assert expected <= set(names)
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {name.removeprefix("potstill/") for name in names if name.endswith(".yaml")} == configs


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--strategy mse --data.language sw", "--config configs/contextual.yaml"])
def test_an_installed_copy_has_the_same_defaults(installed, tmp_path, words):
    words = [*words.split(), "--print_config"]
    expected = run(ROOT / "train.py", *words, folder=ROOT, python_path=ROOT)
    assert run("-m", "potstill", "train", *words, folder=tmp_path, python_path=installed) == expected
    assert "max_epochs: null" not in expected  # Lightning's, where base.yaml is not read


@pytest.mark.slow
def test_the_console_script(installed, tmp_path):
    script = installed / "bin" / "potstill"
    assert run(script, "--version", folder=tmp_path, python_path=installed) == "potstill 0.1.0\n"
    assert "  train " in run(script, "--help", folder=tmp_path, python_path=installed)
    for name in ("evaluate", "export", "compare", "baseline", "search", "sweep", "report"):
        assert f"usage: potstill {name}" in run(script, name, "--help", folder=tmp_path, python_path=installed)
    words = ("sweep", "--config", "configs/sweeps/noise.yaml", "--dry_run")
    assert "to run" in run(script, *words, folder=tmp_path, python_path=installed)
