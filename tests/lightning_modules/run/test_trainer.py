from __future__ import annotations

import csv
import json
import sys
import warnings
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch
import yaml

from datamodules.pairs import PairBatch
from lightning_modules.run import trainer
from lightning_modules.run.trainer import Checkpoint, WholeCheckpoints, default_precision
from lightning_modules.step_values import FiniteValues, NotFiniteError, effective_rank, sound

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
    monkeypatch.setattr(trainer, "validates_next", lambda _: False)
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
    content["state_dict"]["distillation.detector.standings"] = torch.full((3,), torch.nan)  # of pairs not seen yet
    WholeCheckpoints().save_checkpoint(content, path)
    assert torch.load(path)["global_step"] == 3
    before = path.read_bytes()

    def fails_half_way(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.torch, "save", fails_half_way)
    with pytest.raises(OSError, match="No space"):
        WholeCheckpoints().save_checkpoint(content, path)

    def stops_in_the_middle(content, file):
        raise RuntimeError("[enforce fail] unexpected pos 704 vs 598")

    monkeypatch.setattr(trainer.torch, "save", stops_in_the_middle)
    with pytest.raises(OSError, match=r"the checkpoint cannot be written .*unexpected pos"):
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


def test_a_full_disk_ends_a_run_in_one_line_and_leaves_the_last_checkpoint(script, tiny_config, tmp_path, monkeypatch):
    save = WholeCheckpoints.save_checkpoint

    def full(self, checkpoint, path, storage_options=None):
        if checkpoint["global_step"] > 3:
            raise OSError(28, "No space left on device", str(path))
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", full)
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run", "--logger", "none"]
    done = script("train.py", *words, "--checkpoint_every", "3")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    on = f"to go on: train.py --resume {last.parents[1]}"
    line = f"train.py: stopped: {last}: No space left on device, after step 6; {on}"
    assert (done.status, done.err.splitlines()[-1]) == (1, line)
    assert torch.load(last, weights_only=True)["global_step"] == 3


def test_no_checkpoint_lies_between_a_batch_and_its_validation(script, tiny_config, tmp_path):
    """A run that goes on from there would leave the validation out. Validations are after step 5 and at the end."""
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run", "--logger", "none"]
    seen = []

    class Watched(WholeCheckpoints):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            history = next(state["history"] for state in checkpoint["callbacks"].values() if "history" in state)
            seen.append((checkpoint["global_step"], [point["step"] for point in history]))
            super().save_checkpoint(checkpoint, path, storage_options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_modules.cli.cli.WholeCheckpoints", Watched)
        done = script("train.py", *words, "--checkpoint_every", "5", "--trainer.val_check_interval", "5",
                      "--trainer.max_epochs", "1")  # fmt: skip
    assert done.status == 0, done.err
    assert seen == [(step, list(range(5, step + 1, 5))) for step, _ in seen]
    assert {step for step, _ in seen} == {5, 10}


@pytest.mark.parametrize(
    ("vectors", "rank"), [(torch.eye(4), 3), (torch.ones(4, 6), 0), ([[0.0, 1], [0, 2], [0, 5]], 1)]
)
def test_effective_rank(vectors, rank):
    assert effective_rank(torch.as_tensor(vectors)).item() == pytest.approx(rank, abs=1e-5)


def test_effective_rank_is_of_the_covariance():
    vectors = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.eigvalsh(torch.cov(vectors.T).double())
    expected = values.sum().square() / values.square().sum()
    assert effective_rank(vectors).item() == pytest.approx(expected.item(), rel=1e-5)
    assert effective_rank(vectors[:3]).item() <= 2 + 1e-5


def test_a_mean_that_is_not_sound_is_warned_of_once():
    warned = set()
    means = {"train/info/effective_rank": torch.tensor(1.5), "train/info/mix/ot_violation": torch.tensor(0.2),
             "train/info/gradient_norm": torch.tensor(3.0), "train/loss": torch.tensor(1e9)}  # fmt: skip
    with pytest.warns(UserWarning, match="expected") as records:
        assert sound(means, warned) is means
    assert len(records) == 2
    assert "train/info/effective_rank is 1.5, expected 2 to inf: the student gives" in str(records[0].message)
    assert "train/info/mix/ot_violation is 0.2, expected 0 to 0.05: plans miss" in str(records[1].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sound(means, warned)


def test_health_is_in_the_curves(script, tiny_config, tmp_path):
    words = ["--config", tiny_config, "--strategy", "mse", "--output", tmp_path, "--name", "run", "--logger", "csv"]
    done = script("train.py", *words, "--trainer.log_every_n_steps", "5", "--student.max_length", "3")
    assert done.status == 0, done.err
    names = [f"train/info/{name}" for name in ("gradient_norm", "effective_rank", "truncated")]
    for point in json.loads((tmp_path / "run" / "history.json").read_text()):
        assert all(point[name] > 0 for name in names)
        assert point["train/info/truncated"] < 1
        assert point["train/info/effective_rank"] < 10
    with (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert len(rows) == 4
    assert all(float(row[name]) > 0 for row in rows for name in names)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_are_looked_at_before_the_strategy_has_them(value):
    batch = PairBatch(["the cat"], ["paka"], torch.tensor([7]))
    check = FiniteValues().check
    check(torch.ones(1, 3), "student's output", batch, 0)
    expected = "the student's output of step 1 is not finite; its batch is 7: 'the cat' / 'paka'$"
    with pytest.raises(NotFiniteError, match=expected):
        check(torch.tensor([[1.0, value, 0.0]]), "student's output", batch, 0)
