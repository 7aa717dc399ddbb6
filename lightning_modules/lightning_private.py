"""What Lightning, W&B's logger and transformers do not offer in their public interface, all in one place.

Tested with lightning 2.6.6, wandb 0.31.0 and transformers 5.23.0; `tests/lightning_modules/test_lightning_private.py`
compares with what is installed. No other file uses a private name of these libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

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


def drop_anonymous(logger: WandbLogger) -> None:
    """Do not give W&B the option ``anonymous``: Lightning always does, and W&B warns that it is deprecated."""
    logger._wandb_init.pop("anonymous", None)


def commit_of(config: Any) -> str | None:
    """The commit on the hub that a configuration was read from; transformers 5 does not keep it, which gives None."""
    commit: str | None = getattr(config, "_commit_hash", None)
    return commit
