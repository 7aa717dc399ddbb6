"""What Lightning and W&B's logger do not offer in their public interface, all in one place.

Tested with lightning 2.6.6 and wandb 0.31.0; `tests/lightning_modules/test_lightning_private.py`
compares with what is installed. No other file uses a private name of these libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.loggers import WandbLogger

    from datamodules.base import PairsDataModule


def data_of(trainer: Trainer) -> PairsDataModule:
    """The datamodule of a run; Lightning's `Trainer` has the attribute, but does not declare it."""
    return cast("PairsDataModule", trainer.datamodule)  # type: ignore[attr-defined]


def batches_started(trainer: Trainer) -> int:
    """Training batches that were started, of all epochs and of the parts of the run before it was resumed.

    ``trainer.global_step`` counts optimiser steps, and the batch index of a hook starts again in each epoch.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def validates_next(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that ends: a run resumed from a checkpoint of here would leave it out."""
    loop = trainer.fit_loop
    return loop._data_fetcher is not None and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def drop_anonymous(logger: WandbLogger) -> None:
    """Do not give W&B the option ``anonymous``: Lightning always does, and W&B warns that it is deprecated."""
    logger._wandb_init.pop("anonymous", None)
