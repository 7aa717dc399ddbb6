"""A run that was killed in mid-epoch, and resumed, ends as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parent.parent
EVERY, PER_EPOCH, EPOCHS = 2, 10, 3
SLOW_STRATEGY = """
import os, time
from strategies.mse import MSE

class SlowMSE(MSE):
    def forward(self, student, teacher):
        time.sleep(float(os.environ.get("SLOW_SECONDS", "0")))
        return super().forward(student, teacher)
"""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, tiny_config) -> Iterator[list[str]]:
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow_strategy.py").write_text(SLOW_STRATEGY)
    config = yaml.safe_load(tiny_config.read_text())
    config["trainer"]["max_epochs"] = EPOCHS
    config["evaluation"]["metrics"] = ["ndcg@10", "map"]
    path = folder / "slow.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name, value in (("PYTHONPATH", str(folder)), ("OMP_NUM_THREADS", "1"), ("WANDB_MODE", "offline")):
            patch.setenv(name, value)
        yield ["--config", str(path), "--strategy", "slow_strategy.SlowMSE", "--checkpoint_every", str(EVERY)]


@pytest.fixture(scope="module")
def run(script) -> Callable[..., str]:
    def run(*words: object) -> str:
        done = script("train.py", *words)
        assert done.status == 0, done.err
        return str(done.err)

    return run


def step_of(path: Path) -> int:
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])
    except (OSError, EOFError, RuntimeError):  # not there yet, or being written
        return -1


def kill_after(step: int, arguments: list[str], *more: object, folder: Path) -> int:
    """Start a run, kill it once a checkpoint of that step or a later one is there; give the step."""
    command = [sys.executable, str(ROOT / "train.py"), *arguments, *map(str, more)]
    # W&B's service of this process would hold on to the run of a process that was killed.
    variables = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    variables["SLOW_SECONDS"] = "0.2"
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while (found := step_of(folder / "checkpoints" / "last.ckpt")) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "metrics.json").exists()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, arguments, run) -> Path:
    output = tmp_path_factory.mktemp("whole")
    run(*arguments, "--output", output, "--name", "run", "--logger", "none")
    return output / "run"


def curves(folder: Path) -> list[dict[str, float]]:
    """What is drawn; a resumed run does not know diagnostics that were logged before it."""
    points = json.loads((folder / "history.json").read_text())
    return [{name: value for name, value in point.items() if "/info/" not in name} for point in points]


def assert_same(folder: Path, whole: Path) -> None:
    for name in ("metrics.json", "per_query.json", "test.pooled.run"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert curves(folder) == curves(whole)
    best, expected = (torch.load(each / "checkpoints" / "best.ckpt", weights_only=True) for each in (folder, whole))
    assert best["global_step"] == expected["global_step"]
    for name, value in expected["state_dict"].items():
        if isinstance(value, torch.Tensor):
            assert best["state_dict"][name].equal(value), name


@pytest.mark.slow
def test_same_seed_same_metrics_other_seed_others(whole, arguments, run, tmp_path):
    words = [*arguments, "--output", tmp_path, "--logger", "none"]
    run(*words, "--name", "run")
    assert_same(tmp_path / "run", whole)
    run(*words, "--name", "other", "--seed_everything", "1")
    assert (tmp_path / "other" / "metrics.json").read_bytes() != (whole / "metrics.json").read_bytes()


@pytest.mark.slow
def test_killed_twice_and_resumed(whole, arguments, run, tmp_path):
    folder = tmp_path / "run"
    words = [*arguments, "--output", tmp_path, "--name", "run", "--logger", "wandb,csv"]
    first = kill_after(4, words, folder=folder)
    assert first % PER_EPOCH != 0, "the kill must be in mid-epoch"
    identity = (folder / "wandb_id").read_text()
    second = kill_after(14, words, "--resume", folder=folder)
    assert second % PER_EPOCH != 0
    err = run("--resume", folder, "--trust")  # the config of the folder is enough
    assert f"epoch {EPOCHS}/{EPOCHS}  step {PER_EPOCH * EPOCHS}" in err
    assert "epoch 1/" not in err
    assert_same(folder, whole)
    assert (folder / "wandb_id").read_text() == identity
    parts = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(parts) == 3
    assert all(part.name.endswith(identity) for part in parts)
    assert {path.name for path in (folder / "csv").iterdir()} == {"version_0", "version_1", "version_2"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    environment = json.loads((folder / "environment.json").read_text())
    assert "--resume" not in environment["command"]
    assert ["--resume" in part["command"] for part in environment["resumed"]] == [True, True]


@pytest.mark.slow
def test_a_resumed_run_keeps_its_best_checkpoint_in_a_moved_folder(arguments, run, tmp_path):
    """The best epoch was before the kill: its score in the checkpoint is put beyond reach."""
    folder, moved = tmp_path / "run", tmp_path / "moved"
    kill_after(12, arguments, "--output", tmp_path, "--name", "run", "--logger", "none", folder=folder)
    folder.rename(moved)
    best, last = (moved / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    before = best.read_bytes()
    content = torch.load(last, weights_only=True)
    state = next(state for state in content["callbacks"].values() if state.get("monitor"))
    state["best_model_score"] = state["kth_value"] = torch.tensor(2.0)
    state["best_k_models"] = {path: torch.tensor(2.0) for path in state["best_k_models"]}
    torch.save(content, last)
    run("--resume", moved, "--trust")
    assert best.read_bytes() == before
    assert sorted(path.name for path in best.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert json.loads((moved / "metrics.json").read_text())["test"]


@pytest.mark.slow
def test_resume_before_the_first_checkpoint_starts_again(whole, arguments, run, tmp_path):
    (tmp_path / "run").mkdir()
    err = run(*arguments, "--output", tmp_path, "--name", "run", "--resume", "--logger", "none")
    assert "no checkpoint was written yet, so the run starts again" in err
    assert_same(tmp_path / "run", whole)
