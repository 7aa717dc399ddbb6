"""train.py under torchrun, as the docs start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_torchrun_gives_what_lightnings_launcher_gives(process, tiny_config, tmp_path):
    words = [
        "train.py", "--config", tiny_config, "--strategy", "contrastive", "--logger", "none", "--output", tmp_path,
        "--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp",
        "--trainer.max_epochs", "2",
    ]  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, *map(str, words), "--name", "torchrun"], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test queries, mean") == 1
    done = process(*words, "--name", "launcher")
    assert done.status == 0, done.err
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("torchrun", "launcher"))
    assert first == second
    assert first["test"]["map"] > 0
    runs = [(tmp_path / name / "test.pooled.run").read_bytes() for name in ("torchrun", "launcher")]
    assert runs[0] == runs[1]
