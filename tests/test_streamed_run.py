"""train.py on a folder whose files stay on disk: broken off in mid-epoch, it goes on as if it had not been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

FAILING_STRATEGY = """
import os
from strategies.ot import OptimalTransport

class Failing(OptimalTransport):
    def __init__(self) -> None:
        super().__init__(marginals="idf")
        self.calls = 0

    def forward(self, student, teacher):
        self.calls += 1
        if self.calls > int(os.environ.get("CALLS", "1000")):
            raise RuntimeError("broken off")
        return super().forward(student, teacher)
"""


@pytest.fixture
def words(tmp_path: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "failing_strategy.py").write_text(FAILING_STRATEGY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    config = yaml.safe_load(tiny_config.read_text())
    config["data"]["init_args"] |= {"stream": True, "shuffle_buffer": 40, "vocabulary_sample": 90}
    teacher = config["model"]["teacher"]
    config["model"]["teacher"] = {
        "class_path": "lightning_modules.teachers.cached.CachedTeacher",
        "init_args": {"teacher": teacher},
    }
    path = tmp_path / "stream.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", str(path), "--strategy", "failing_strategy.Failing", "--checkpoint_every", "2",
           "--logger", "none", "--output", str(tmp_path)]  # fmt: skip


@pytest.mark.slow
def test_a_streamed_run_resumes_in_mid_epoch(
    script: Callable[..., object], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = script("train.py", *words, "--name", "whole")
    assert done.status == 0, done.err
    segments = list((tmp_path / "cache" / "teacher").rglob("segment-*"))
    assert len(segments) == 1  # the documents and test queries, before training
    for calls, more in (("4", ["--name", "run"]), ("9", ["--name", "run", "--resume"])):
        monkeypatch.setenv("CALLS", calls)
        with pytest.raises(RuntimeError, match="broken off"):
            script("train.py", *words, *more)
    monkeypatch.delenv("CALLS")
    done = script("train.py", "--resume", tmp_path / "run", "--trust")
    assert done.status == 0, done.err
    assert "epoch 2/2  step 20" in done.err
    for name in ("metrics.json", "test.pooled.run"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "whole")
    )
    assert all(value.equal(theirs[name]) for name, value in ours.items() if isinstance(value, torch.Tensor))
    assert list((tmp_path / "cache" / "teacher").rglob("segment-*")) == segments


@pytest.mark.parametrize("name", ["pairs.tsv", "queries.tsv", "documents.tsv"])
def test_a_bad_line_of_a_streamed_file(
    script: Callable[..., object], words: list[str], tsv_folder: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for path in tsv_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    lines = (folder / name).read_text().splitlines()
    (folder / name).write_text("\n".join([*lines[:3], "no tab here", *lines[3:]]))
    done = script("train.py", *words, "--name", "run", "--data.root", folder)
    assert done.status == 2
    assert f"{folder / name}:4: found 1 column, expected 2: " in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_two_ranks_train_as_one_with_batches_twice_as_large(
    process: Callable[..., object],
    script: Callable[..., object],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = yaml.safe_load((tmp_path / "stream.yaml").read_text())
    config["model"]["student"]["init_args"]["dropout"] = 0.0
    weights = []
    for name, devices, batch_size in (("one", 1, 10), ("two", 2, 5)):
        config["data"]["init_args"]["batch_size"] = batch_size
        (tmp_path / "stream.yaml").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / f"cache-{name}"))  # both ranks want the index at once
        more = ["--strategy", "mse", *words[4:], "--name", name, "--trainer.devices", devices]
        done = (process if devices == 2 else script)("train.py", *words[:2], *more)
        assert done.status == 0, done.err
        checkpoint = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 20
        weights.append(checkpoint["state_dict"])
    far = {
        key: (weights[1][key] - value).abs().max().item()
        for key, value in weights[0].items()
        # Attention does not depend on the keys' bias, so its gradient is rounding noise.
        if isinstance(value, torch.Tensor) and value.numel() and not key.endswith("key.bias")
    }
    assert len(far) > 20
    assert max(far.values()) < 1e-5, far
