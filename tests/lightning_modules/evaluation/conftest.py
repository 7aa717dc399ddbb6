from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer

from datamodules.base import PairsDataModule
from datamodules.pairs import Pair, make_pairs
from lightning_modules.evaluation.callback import RetrievalEvaluation
from retrieval.collection import Collection


class GivenData(PairsDataModule):
    """A datamodule with given collections."""

    def __init__(self, *given: Collection, **options: Any) -> None:
        super().__init__(**options)
        self.given = given

    def load_pairs(self) -> list[Pair]:
        return make_pairs([("the cat", "paka"), ("water is life", "maji ni uhai")])

    def load_collections(self) -> dict[str, Collection]:
        return {collection.name: collection for collection in self.given}


@pytest.fixture
def evaluate():
    """A function that tests or validates a module with a trainer, and gives what was logged."""

    def evaluate(
        callback: RetrievalEvaluation, module: LightningModule, *given: Collection, test: bool = True, **options: Any
    ) -> dict[str, float]:
        trainer = Trainer(
            accelerator="cpu", logger=False, callbacks=[callback], enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False, **options,
        )  # fmt: skip
        run = trainer.test if test else trainer.validate
        run(module, datamodule=GivenData(*given, eval_batch_size=2, remove_leaks=False), verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    return evaluate
