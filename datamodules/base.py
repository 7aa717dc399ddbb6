"""The base of all datamodules: pairs to train on, collections to search."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.pairs import Pair, PairBatch, PairDataset, TextBatch, sides_of, text_batches
from datamodules.sampler import PairLoader, PairSampler, Position
from retrieval.collection import Collection
from retrieval.errors import InputError


class PairsDataModule(LightningDataModule):
    """Training pairs and evaluation collections of one dataset.

    A dataset is a subclass with two hooks, `load_pairs` and `load_collections`. Texts are read in `setup`, not
    before. Use a trainer with ``use_distributed_sampler=False``: pairs and texts are shared out over the ranks here.

    A checkpoint holds the place in the training data; a run resumed from it goes on with exactly the batch that
    would have come next, with any number of workers. (The loader alone could not: Lightning drops a loader's
    state where `configure_optimizers` asks for the number of steps.)

    Args:
        batch_size: pairs in a training batch of one device.
        eval_batch_size: texts in a batch of an evaluation dataloader.
        num_workers: worker processes of each dataloader; 0 reads in the main process, which is enough for texts.
        seed: gives the order of the pairs, and the subset for limit_pairs.
        limit_pairs: train on a random subset of this many pairs; all of them by default.
        bucket: batch pairs of similar length together, which saves most of the padding; see `PairSampler`.
        temperature: with several languages, 1 samples them by their size, more evens them out; see
            `datamodules.mixture`.
    """

    pairs: list[Pair]
    """The training pairs, after `setup`."""
    collections: dict[str, Collection]
    """``dev``, ``test`` and, where there is one, ``english`` (the English twin of ``test``), after `setup`.

    With several languages: ``dev/sw``, ``test/sw``, ``dev/so`` and so on."""

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        limit_pairs: int | None = None,
        bucket: bool = True,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("limit_pairs", 1 if limit_pairs is None else limit_pairs, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed, self.limit_pairs = num_workers, seed, limit_pairs
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}, expected a number above 0, such as 1 or 3")
        self.bucket, self.temperature = bucket, temperature
        self._resumed = Position()
        self._is_loaded = False

    def load_pairs(self) -> list[Pair]:
        """Hook: read the training pairs. Called once, by `setup`, before `load_collections`."""
        raise NotImplementedError

    def load_collections(self) -> dict[str, Collection]:
        """Hook: read the collections ``dev`` and ``test``, and ``english`` where there is one. Called once."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002
        """Read pairs and collections, the first time.

        Raises:
            InputError: there is no pair, or a collection without queries, documents or relevant documents.
        """
        self._resumed = Position()
        if self._is_loaded:
            return
        pairs = self.load_pairs()
        if not pairs:
            raise InputError("found no training pair, expected at least one")
        collections = self.load_collections()
        for collection in collections.values():
            _check_collection(collection)
        self.pairs, self.collections = self._limited(pairs), collections
        self._is_loaded = True

    def _limited(self, pairs: list[Pair]) -> list[Pair]:
        if self.limit_pairs is None:
            return pairs
        if self.limit_pairs > len(pairs):
            warnings.warn(f"limit_pairs is {self.limit_pairs}, but there are {len(pairs)} pairs only", stacklevel=3)
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(pairs), generator=generator)[: self.limit_pairs]
        return [pairs[index] for index in sorted(chosen.tolist())]

    def teacher_texts(self) -> list[str]:
        """Every text that the teacher will be asked for, each once, in an order that does not change.

        These are the sources of the pairs, the teacher's side of all collections, and the student's side of
        ``test``, which the teacher reads for the undistilled row of the results.
        """
        texts = dict.fromkeys(pair.source for pair in self.pairs)
        for collection in self.collections.values():
            for reader in ("teacher", "student") if collection.split == "test" else ("teacher",):
                for _, side in sides_of(collection, reader):
                    texts.update(dict.fromkeys(side.values()))
        return list(texts)

    def train_dataloader(self) -> DataLoader[PairBatch]:
        """Batches of training pairs, from the place where the run is."""
        # UTF-8 bytes stand for tokens; what is padded is the longer side.
        lengths = [max(len(pair.source.encode()), len(pair.target.encode())) for pair in self.pairs]
        sampler = PairSampler(
            len(self.pairs), self.batch_size, self.seed, *self._rank(), lengths=lengths if self.bucket else None
        )
        return PairLoader(PairDataset(self.pairs), sampler, self.num_workers, self._position)

    def val_dataloader(self) -> DataLoader[TextBatch]:
        """What the student reads of ``dev``."""
        return self._text_dataloader("dev")

    def test_dataloader(self) -> DataLoader[TextBatch]:
        """What the student reads of ``test``."""
        return self._text_dataloader("test")

    def _text_dataloader(self, name: str) -> DataLoader[TextBatch]:
        collections = [each for each in self.collections.values() if each.split == name]
        batches = text_batches(collections, self.eval_batch_size, *self._rank())
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(batches, batch_size=None, num_workers=self.num_workers, generator=generator)  # type: ignore[arg-type]

    def _rank(self) -> tuple[int, int]:
        """This process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _position(self) -> Position:
        """Where the run is: what was loaded until the trainer is set up, then what the trainer has counted."""
        batches_in_epoch = self.trainer.num_training_batches if self.trainer is not None else float("inf")
        if self.trainer is None or batches_in_epoch == float("inf"):
            return self._resumed
        done: int = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return Position(*divmod(done, int(batches_in_epoch)))

    def state_dict(self) -> dict[str, Any]:
        """The place in the training data, for a checkpoint."""
        if self.trainer is None or self.trainer.num_training_batches in (0, float("inf")):
            return {}
        position = self._position()
        per_epoch = PairSampler(len(self.pairs), self.batch_size, 0, *self._rank())
        return {"epoch": position.epoch, "batches": position.batches, "batches_in_epoch": len(per_epoch)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the place in a checkpoint.

        Raises:
            InputError: the checkpoint was written in mid-epoch with other pairs, batch size or number of devices.
        """
        if not state_dict:
            return
        now = len(PairSampler(len(self.pairs), self.batch_size, 0, *self._rank()))
        then = state_dict["batches_in_epoch"]
        if state_dict["batches"] and now != then:
            raise InputError(
                f"cannot resume in mid-epoch: an epoch had {then} batches when the checkpoint was written, and has "
                f"{now} now; use the same data, batch_size and number of devices"
            )
        self._resumed = Position(state_dict["epoch"], state_dict["batches"])


def _check_collection(collection: Collection) -> None:
    """Raise InputError where there is nothing to search, or nothing to find."""
    for what, found in (
        ("query", collection.queries),
        ("document", collection.documents),
        ("relevant document", [1 for grades in collection.qrels.values() for grade in grades.values() if grade > 0]),
    ):
        if not found:
            raise InputError(f"the collection {collection.name!r} has no {what}, expected at least one")
    if {collection.query_side, collection.document_side} == {"teacher"} and collection.split != "english":
        raise ValueError(
            f"collection {collection.name!r}: the teacher reads queries and documents, so nothing is left for the "
            "student; set query_side or document_side to 'student'"
        )
