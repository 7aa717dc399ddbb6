from __future__ import annotations

from types import SimpleNamespace

import pytest

from lightning_modules.run import checkpoints
from lightning_modules.run.checkpoints import Checkpoint


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock.now)
    return clock


@pytest.mark.parametrize(("share", "expected"), [(None, [10, 20, 30, 40, 50, 60]), (0.1, [10, 40])])
def test_slow_checkpoints_are_rarer(tmp_path, monkeypatch, clock, share, expected):
    """A step takes a second and a checkpoint three, so that one may come every 30 seconds after the first."""
    saved = []

    def save(self, trainer, *_):
        if trainer.global_step % 10 == 0:
            saved.append(trainer.global_step)
            clock.now += 3

    monkeypatch.setattr(checkpoints.ModelCheckpoint, "on_train_batch_end", save)
    checkpoint = Checkpoint(tmp_path, "last", 10, share)
    for step in range(1, 61):
        clock.now += 1
        strategy = SimpleNamespace(broadcast=lambda value: value)
        checkpoint.on_train_batch_end(SimpleNamespace(global_step=step, strategy=strategy), None, None, None, 0)
    assert saved == expected


def test_the_first_rank_decides(tmp_path, monkeypatch, clock):
    checkpoint = Checkpoint(tmp_path, "last", 1, 0.5)
    saved = []
    monkeypatch.setattr(checkpoints.ModelCheckpoint, "on_train_batch_end", lambda *_: saved.append(clock.now))
    checkpoint.took = 100.0
    for now, answer in ((1.0, True), (2.0, False)):
        clock.now = now
        strategy = SimpleNamespace(broadcast=lambda _, answer=answer: answer)
        checkpoint.on_train_batch_end(SimpleNamespace(global_step=1, strategy=strategy), None, None, None, 0)
    assert saved == [2.0]
