"""A resumed run sees the same batches as an uninterrupted one, with a real trainer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.base import PairsDataModule
from datamodules.pairs import Pair, make_pairs
from foundations.errors import InputError
from retrieval.collection import Collection

PAIRS, BATCH = 23, 4
PER_EPOCH = PAIRS // BATCH


class ToyData(PairsDataModule):
    def __init__(self, **options: Any) -> None:
        super().__init__(english="none", **options)

    def load_pairs(self) -> list[Pair]:
        return make_pairs((f"source {i}", f"target {i}") for i in range(PAIRS))

    def load_collections(self) -> dict[str, Collection]:
        return {
            name: Collection(name, {"q": "which 1?"}, {"d": "source 1", "e": "source 2"}, {"q": {"d": 1}})
            for name in ("dev", "test")
        }


class Recorder(lightning.LightningModule):
    """Records the ids of each batch, and what it draws from the global generator."""

    def __init__(self, reads_steps: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.reads_steps = reads_steps
        self.seen: list[tuple[int, ...]] = []
        self.noise: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append(tuple(batch.ids.tolist()))
        self.noise.append(torch.rand(1).item())  # as dropout would
        return ((self.weight - batch.ids.float().mean()) ** 2).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert batch == 0  # the callback of the evaluation encodes the collections

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.reads_steps:  # sets up the dataloader before the loops are restored
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.Adam(self.parameters(), lr=0.1)


def fit(folder: Path, workers: int = 0, reads_steps: bool = False, ckpt: Path | None = None, **options: Any):
    model, data = Recorder(reads_steps), ToyData(batch_size=BATCH, num_workers=workers, seed=3)
    checkpoint = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, monitor=None, every_n_train_steps=1)
    options = {"max_epochs": 3, "callbacks": [checkpoint]} | options
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, use_distributed_sampler=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*not resumable.*")
        trainer.fit(model, datamodule=data, ckpt_path=str(ckpt) if ckpt else None, weights_only=None)
    return model, trainer


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    model, _ = fit(folder)
    return folder, model


def test_uninterrupted_epochs_are_whole_permutations(whole_run) -> None:
    _, model = whole_run
    assert len(model.seen) == 3 * PER_EPOCH
    epochs = [sum(model.seen[e * PER_EPOCH : (e + 1) * PER_EPOCH], ()) for e in range(3)]
    assert all(len(set(epoch)) == PER_EPOCH * BATCH for epoch in epochs)
    assert len(set(epochs)) == 3


@pytest.mark.parametrize("reads_steps", [False, True])
@pytest.mark.parametrize("step", range(1, 3 * PER_EPOCH))
def test_resume_after_each_step(whole_run, tmp_path: Path, step: int, reads_steps: bool) -> None:
    folder, whole = whole_run
    model, trainer = fit(tmp_path, reads_steps=reads_steps, ckpt=folder / f"step={step}.ckpt", callbacks=[])
    assert model.seen == whole.seen[step:]
    assert trainer.current_epoch == 3
    assert trainer.global_step == 3 * PER_EPOCH


@pytest.mark.parametrize("step", [2, PER_EPOCH, PER_EPOCH + 3])
def test_resume_with_workers(whole_run, tmp_path: Path, step: int) -> None:
    folder, whole = whole_run
    model, _ = fit(tmp_path, workers=2, reads_steps=True, ckpt=folder / f"step={step}.ckpt", callbacks=[])
    assert model.seen == whole.seen[step:]


@pytest.mark.parametrize("reads_steps", [False, True])
def test_resume_from_the_end_of_an_epoch(whole_run, tmp_path: Path, reads_steps: bool) -> None:
    _, whole = whole_run
    at_end = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    fit(tmp_path, callbacks=[at_end])
    model, _ = fit(tmp_path, reads_steps=reads_steps, ckpt=tmp_path / "epoch=0.ckpt", callbacks=[])
    assert model.seen == whole.seen[PER_EPOCH:]


def test_resume_from_a_validation_in_mid_epoch(whole_run, tmp_path: Path) -> None:
    _, whole = whole_run
    at_validation = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, save_on_train_epoch_end=False)
    fit(tmp_path, callbacks=[at_validation], val_check_interval=2)
    model, _ = fit(tmp_path, ckpt=tmp_path / "step=7.ckpt", callbacks=[], val_check_interval=2)
    assert model.seen == whole.seen[7:]


def test_resume_after_max_steps_with_more_steps(whole_run, tmp_path: Path) -> None:
    _, whole = whole_run
    last = ModelCheckpoint(tmp_path, save_last=True, save_top_k=0, every_n_train_steps=1)
    first, _ = fit(tmp_path, callbacks=[last], max_epochs=-1, max_steps=7)
    assert first.seen == whole.seen[:7]
    model, _ = fit(tmp_path, ckpt=tmp_path / "last.ckpt", callbacks=[], max_epochs=-1, max_steps=12)
    assert model.seen == whole.seen[7:12]


def test_limit_train_batches(tmp_path: Path) -> None:
    whole, _ = fit(tmp_path, limit_train_batches=3)
    model, _ = fit(tmp_path, ckpt=tmp_path / "step=5.ckpt", callbacks=[], limit_train_batches=3)
    assert model.seen == whole.seen[5:]
    assert len(whole.seen) == 9


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loaders_leave_the_global_generator_alone(tmp_path: Path, workers: int) -> None:
    torch.manual_seed(0)
    drawn = [torch.rand(1).item() for _ in range(3 * PER_EPOCH)]
    torch.manual_seed(0)
    model, _ = fit(tmp_path, workers=workers, callbacks=[])
    assert model.noise == drawn


def test_a_second_run_with_the_same_datamodule_starts_anew(whole_run, tmp_path: Path) -> None:
    folder, whole = whole_run
    data = ToyData(batch_size=BATCH, seed=3)
    for ckpt, expected in ((folder / "step=7.ckpt", whole.seen[7:]), (None, whole.seen)):
        model = Recorder(reads_steps=True)
        trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=3,
            enable_checkpointing=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(model, datamodule=data, ckpt_path=ckpt, weights_only=None)
        assert model.seen == expected


def test_another_batch_size_in_mid_epoch_is_refused(whole_run) -> None:
    folder, _ = whole_run
    data = ToyData(batch_size=BATCH // 2, seed=3)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=3, use_distributed_sampler=False
    )
    with pytest.raises(InputError, match="5 batches when the checkpoint was written, and has 11 now"):
        trainer.fit(Recorder(), datamodule=data, ckpt_path=folder / "step=7.ckpt", weights_only=None)
