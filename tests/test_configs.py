"""Every YAML file in configs/ goes through the real command line."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONFIGS = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs" / "hardware").glob("*.yaml")])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_is_accepted(config: Path, script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = script("train.py", "--data", "starter", "--config", config, "--print_config")
    assert done.status == 0, done.err
    assert "class_path" in done.out
