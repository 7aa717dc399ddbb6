from __future__ import annotations

import csv
import json
import sys
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch
import yaml

from datamodules.pairs import PairBatch
from lightning_modules.run import trainer
from lightning_modules.run.trainer import Checkpoint, WholeCheckpoints, default_precision
from lightning_modules.step_values import FiniteValues, NotFiniteError

TRANSFORMER = "lightning_modules.students.transformer.TransformerEncoder"
STATIC = "lightning_modules.students.static.StaticEncoder"


@pytest.fixture
def hardware(monkeypatch):
    def make(cuda: bool = False, cuda_bf16: bool = False, **cpu: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda_bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)

    return make


def test_bfloat16_where_the_hardware_multiplies_it(hardware):
    hardware(avx512_bf16=True)
    assert default_precision("auto", TRANSFORMER) == "bf16-mixed"
    assert default_precision("auto", STATIC) == "32-true"
    assert default_precision("cpu", TRANSFORMER) == "bf16-mixed"
    hardware(avx512_f=True)
    assert default_precision("auto", TRANSFORMER) == "32-true"
    hardware(cuda=True, cuda_bf16=True)
    assert default_precision("auto", STATIC) == default_precision("gpu", TRANSFORMER) == "bf16-mixed"
    assert default_precision("cpu", TRANSFORMER) == "32-true"
    hardware(cuda=True, avx512_bf16=True)
    assert default_precision("auto", TRANSFORMER) == "32-true"


def test_the_choice_is_written_down_and_can_be_overruled(hardware, script, tiny_config, tmp_path):
    hardware(avx512_bf16=True)
    common = ["--config", tiny_config, "--output", tmp_path, "--strategy=mse", "--trainer.max_steps=1", "--logger=none"]
    for name, option, expected in (("chosen", ["--trainer.precision=null"], "bf16-mixed"), ("given", [], "32-true")):
        done = script("train", *common, "--name", name, "--student=transformer", *option)
        assert done.status == 0, done.err
        config = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        assert config["trainer"]["precision"] == expected


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(trainer.time, "monotonic", lambda: clock.now)
    return clock


@pytest.mark.parametrize(("share", "expected"), [(None, [10, 20, 30, 40, 50, 60]), (0.1, [10, 40])])
def test_slow_checkpoints_are_rarer(tmp_path, monkeypatch, clock, share, expected):
    """A step takes a second and a checkpoint three, so that one may come every 30 seconds after the first."""
    saved = []

    def save(self, trainer, *_):
        if trainer.global_step % 10 == 0:
            saved.append(trainer.global_step)
            clock.now += 3

    monkeypatch.setattr(trainer.ModelCheckpoint, "on_train_batch_end", save)
    checkpoint = Checkpoint(tmp_path, "last", 10, share)
    for step in range(1, 61):
        clock.now += 1
        strategy = SimpleNamespace(broadcast=lambda value: value)
        checkpoint.on_train_batch_end(SimpleNamespace(global_step=step, strategy=strategy), None, None, None, 0)
    assert saved == expected


def test_the_first_rank_decides(tmp_path, monkeypatch, clock):
    checkpoint = Checkpoint(tmp_path, "last", 1, 0.5)
    saved = []
    monkeypatch.setattr(trainer.ModelCheckpoint, "on_train_batch_end", lambda *_: saved.append(clock.now))
    checkpoint.took = 100.0
    for now, answer in ((1.0, True), (2.0, False)):
        clock.now = now
        strategy = SimpleNamespace(broadcast=lambda _, answer=answer: answer)
        checkpoint.on_train_batch_end(SimpleNamespace(global_step=1, strategy=strategy), None, None, None, 0)
    assert saved == [2.0]


RECORDING = """
from strategies.mse import MSE

class Recording(MSE):
    losses = []

    def forward(self, student, teacher):
        terms = super().forward(student, teacher)
        self.losses.append(float(sum(terms.values()).detach()))
        return terms
"""


def test_a_point_of_a_curve_is_the_mean_since_the_last_one(script, tiny_config, tmp_path, monkeypatch):
    """Epochs of ten steps, lines of the loggers every four: no step counts twice, and none is left out."""
    (tmp_path / "recording.py").write_text(RECORDING)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--config", tiny_config, "--strategy", "recording.Recording", "--output", tmp_path, "--name", "run"]
    done = script("train.py", *words, "--logger", "csv", "--trainer.log_every_n_steps", 4)
    assert done.status == 0, done.err
    losses = sys.modules["recording"].Recording.losses
    assert len(losses) == 20
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    means = [fmean(losses[:10]), fmean(losses[10:])]
    for name in ("train/loss", "train/pooled"):
        assert [point[name] for point in history] == pytest.approx(means, rel=1e-5)
    assert [f"train/loss {mean:.4f}" in done.err for mean in means] == [True, True]
    with (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [int(row["step"]) for row in rows] == [3, 7, 11, 15, 19]
    expected = [fmean(losses[start : start + 4]) for start in range(0, 20, 4)]
    assert [float(row["train/loss"]) for row in rows] == pytest.approx(expected, rel=1e-5)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """Whatever stops the writing, and with nothing left in the temporary folder."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    path, save = tmp_path / "checkpoints" / "last.ckpt", torch.save
    content = {"global_step": 3, "state_dict": {"weight": torch.ones(3), "rows": torch.zeros(2, dtype=torch.int64)}}
    WholeCheckpoints().save_checkpoint(content, path)
    assert torch.load(path)["global_step"] == 3
    before = path.read_bytes()

    def fails_half_way(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.torch, "save", fails_half_way)
    with pytest.raises(OSError, match="No space"):
        WholeCheckpoints().save_checkpoint(content, path)
    monkeypatch.setattr(trainer.torch, "save", save)
    content["state_dict"]["weight"][1] = torch.inf
    with pytest.raises(NotFiniteError, match="the weights weight after step 3 are not finite"):
        WholeCheckpoints().save_checkpoint(content, path)
    assert path.read_bytes() == before
    (path.parent / ".unfinished-last.ckpt-killed").mkdir()
    content["state_dict"]["weight"][1] = 2
    WholeCheckpoints().save_checkpoint(content, path)
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]
    assert not any((tmp_path / "tmp").iterdir())


BROKEN = """
from strategies.mse import MSE

class Broken(MSE):
    calls = 0

    def forward(self, student, teacher):
        self.calls += 1
        return {name: term / (self.calls < 4) for name, term in super().forward(student, teacher).items()}
"""


def test_a_run_stops_where_its_loss_is_not_finite(script, tiny_config, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--config", tiny_config, "--strategy", "broken.Broken", "--output", tmp_path, "--name", "run"]
    done = script("train.py", *words, "--checkpoint_every", "2", "--logger", "none")
    assert done.status == 1, done.err
    assert "train.py: stopped: the loss of step 4 is not finite; its batch is " in done.err
    assert " more: ids [" in done.err
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert f"the last checkpoint is {last} at step 2" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_are_looked_at_before_the_strategy_has_them(value):
    batch = PairBatch(["the cat"], ["paka"], torch.tensor([7]))
    check = FiniteValues().check
    check(torch.ones(1, 3), "student's output", batch, 0)
    expected = "the student's output of step 1 is not finite; its batch is 7: 'the cat' / 'paka'$"
    with pytest.raises(NotFiniteError, match=expected):
        check(torch.tensor([[1.0, value, 0.0]]), "student's output", batch, 0)
