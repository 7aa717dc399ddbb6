"""Every YAML file in configs/ goes through the real command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_is_accepted(config: Path) -> None:
    name = "starter_help" if config.stem == "starter_help" else "starter"
    arguments = ["--data", name, "--config", str(config), "--print_config"]
    done = subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "class_path" in done.stdout
