"""Runs that a signal ends, in this process: with a checkpoint after a whole step, and they go on as if nothing was."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_modules.run.signals import Ended, EndOnSignal

SIGNALLING = """
import os, signal
from lightning.pytorch import Callback
from strategies.mse import MSE

def send(place):
    number, _, at = os.environ.get("SIGNAL", "0@").partition("@")
    if at == str(place):
        signal.raise_signal(int(number))

class Signalling(MSE):
    calls = 0

    def forward(self, student, teacher):
        self.calls += 1
        send(self.calls)
        return super().forward(student, teacher)

class InValidation(Callback):
    def on_validation_start(self, trainer, pl_module):
        send(f"validation {trainer.global_step}")
"""


@pytest.fixture
def words(tmp_path: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "signalling.py").write_text(SIGNALLING)
    monkeypatch.syspath_prepend(tmp_path)
    return ["--config", str(tiny_config), "--strategy", "signalling.Signalling", "--checkpoint_every", "100",
            "--trainer.callbacks+=signalling.InValidation", "--logger", "none", "--output", str(tmp_path)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "place", "step"),
    [
        (signal.SIGTERM, "3", 3),
        (signal.SIGINT, "10", 10),
        (signal.SIGTERM, "validation 10", 10),
        (signal.SIGTERM, "validation 20", 20),
    ],
    ids=["in an epoch", "at its end", "in a validation", "in the last one"],
)
def test_it_ends_after_a_step_and_goes_on_as_if_nothing_was(
    script: Callable,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    place: str,
    step: int,
) -> None:
    assert script("train.py", *words, "--name", "whole").status == 0
    handler = signal.getsignal(number)
    monkeypatch.setenv("SIGNAL", f"{number:d}@{place}")
    done = script("train.py", *words, "--name", "run")
    assert done.status == 128 + number
    why = "interrupted" if number == signal.SIGINT else "SIGTERM"
    line = f"train.py: stopped: {why} after step {step}; to go on: train.py --resume {tmp_path / 'run'} --trust"
    assert done.err.splitlines()[-1] == line
    assert signal.getsignal(number) is handler
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == step
    monkeypatch.delenv("SIGNAL")
    done = script("train.py", "--resume", tmp_path / "run", "--trust")
    assert done.status == 0, done.err
    for name in ("metrics.json", "history.json", "test.pooled.run"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True) for name in ("run", "whole")
    )
    assert ours["global_step"] == theirs["global_step"]
    assert all(v.equal(ours["state_dict"][k]) for k, v in theirs["state_dict"].items() if isinstance(v, torch.Tensor))


def test_a_job_of_slurm_is_queued_again(
    script: Callable, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $* > {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "job", "SLURM_ARRAY_JOB_ID": "6",
           "SLURM_ARRAY_TASK_ID": "2", "PATH": str(tmp_path), "SIGNAL": f"{signal.SIGUSR1:d}@4"}  # fmt: skip
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    done = script("train.py", *words, "--name", "run")
    assert done.status == 128 + signal.SIGUSR1, done.err
    assert (tmp_path / "asked").read_text() == "requeue 6_2\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert torch.load(tmp_path / "run-7" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_before_the_first_step_it_ends_at_once_and_later_at_the_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda *arguments: sent.append(arguments))
    signals = EndOnSignal()
    with signals.handling(), pytest.raises(Ended) as ended:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.status == 143
    signals = EndOnSignal()
    signals.waits = True
    with signals.handling():
        signal.raise_signal(signal.SIGTERM)
        assert not sent
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert [number for _, number in sent] == [signal.SIGTERM]


def test_a_copy_of_the_signal_is_not_a_second_one_where_there_are_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda *arguments: sent.append(arguments))

    class Trainer:
        world_size = 2
        strategy = type("Strategy", (), {"launcher": None})

    signals = EndOnSignal()
    signals.setup(Trainer())  # type: ignore[arg-type]
    signals.waits = True
    with signals.handling():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert not sent
        signals.time -= 3
        signal.raise_signal(signal.SIGTERM)
    assert len(sent) == 1


@pytest.mark.slow
def test_all_ranks_end_after_the_same_step(words: list[str], tmp_path: Path, process: Callable) -> None:
    """The signal goes to one rank, which tells no other but at the end of a step."""
    more = ["--name", "run", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = process(
        "train.py", *words, *more, environment={"SIGNAL": f"{signal.SIGTERM:d}@3", "PYTHONPATH": str(tmp_path)}
    )
    assert done.status == 143, done.err
    assert "Traceback" not in done.err
    assert "SIGTERM after step 3; to go on" in done.err
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (content["global_step"], len(content["train_means"])) == (3, 2)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())
