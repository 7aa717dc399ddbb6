"""What Potstill uses of private interfaces is there in the versions that are installed."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger

from lightning_modules import lightning_private
from lightning_modules.lightning_private import batches_started, data_of, drop_anonymous, validates_next


def test_the_versions_are_those_of_the_docstring():
    text = str(lightning_private.__doc__)
    constraints = Path(__file__).parents[2].joinpath("constraints.txt").read_text()
    for package in ("lightning", "wandb"):
        named = re.search(rf"{package} (\d+\.\d+\.\d+)", text)
        assert named is not None, package
        pinned = re.search(rf"^{package}==(\S+)", constraints, re.MULTILINE)
        assert pinned is None or named[1] == pinned[1], f"{package}: test again, and change the docstring"
        if named[1] != version(package):
            pytest.skip(f"{package} {version(package)} is installed")


def test_a_trainer_counts_batches_and_knows_its_data():
    trainer = Trainer(logger=False, barebones=True)
    assert batches_started(trainer) == 0
    trainer.fit_loop.epoch_loop.batch_progress.increment_ready()
    assert batches_started(trainer) == 1
    assert data_of(trainer) is None
    data = SimpleNamespace()
    trainer.datamodule = data  # type: ignore[attr-defined]
    assert data_of(trainer) is data


def test_a_validation_follows_where_lightning_says_so(monkeypatch):
    trainer = Trainer(logger=False, barebones=True)
    assert not validates_next(trainer), "there is no data yet"
    monkeypatch.setattr(trainer.fit_loop, "_data_fetcher", object())
    for answer in (True, False):
        monkeypatch.setattr(trainer.fit_loop.epoch_loop, "_should_check_val_fx", lambda _, answer=answer: answer)
        assert validates_next(trainer) is answer


def test_wandb_is_not_given_the_deprecated_option(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    assert "anonymous" in logger._wandb_init, "Lightning does not give it any longer: drop_anonymous can go"
    drop_anonymous(logger)
    assert "anonymous" not in logger._wandb_init
