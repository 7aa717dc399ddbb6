"""Retrieval evaluation as a callback: encode a collection once, merge by id over the ranks, search, score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, get_args

import torch.distributed as dist
from lightning.pytorch import Callback, Trainer

from datamodules.pairs import TextBatch
from foundations.errors import InputError
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.encoding import EncodedTexts, encode_with_teacher
from lightning_modules.evaluation.large import LargeCollections
from lightning_modules.evaluation.ranking import rank
from lightning_modules.students.base import TextSide
from retrieval.collection import Collection
from retrieval.index.shards import Shards
from retrieval.metrics import DEFAULT_METRICS, parse_metric
from retrieval.results import Result, named
from retrieval.views import check_metrics, with_plain


class RetrievalEvaluation(Callback):
    """Ranks the collections with what the student encoded, and logs ``dev/map``, ``test/map`` and so on.

    After a test, `results` also has the two rows to compare with: ``undistilled``, the teacher reading both sides
    of the test collection, and ``teacher``, the teacher on the English twin of it, where there is one. With several
    languages, the logs have ``dev/sw/map``, ``dev/so/map`` and their mean ``dev/map``; `results` has ``test/sw``, ...
    With views, metrics have the view's name before them: ``dev/text_to_image/success@1``; the first metric is logged
    without it as well, ``dev/success@1``, the mean over the views.

    Args:
        metrics: what to compute; see `retrieval.metrics.parse_metric`. The first chooses the best checkpoint.
        k: documents to retrieve for each query.
        shard_texts: documents up to which a collection is held in memory; those of a larger one are encoded into
            files, spread over the ranks, and searched in blocks.
        undistilled: let the teacher read the student's side of the test as well, for the row to compare with. For
            millions of foreign documents that takes as long as encoding them with the student.

    Raises:
        ValueError: no such metric, or a number is out of range.
    """

    def __init__(
        self,
        metrics: Sequence[str] = DEFAULT_METRICS,
        k: int = 100,
        shard_texts: int = 200_000,
        undistilled: bool = True,
    ) -> None:
        self.metrics, self.k, self.undistilled = list(metrics), k, undistilled
        self.large = LargeCollections(shard_texts)
        for metric in self.metrics:
            parse_metric(metric)
        if not self.metrics:
            raise ValueError("metrics is empty, expected at least one: the best checkpoint is chosen by the first")
        if "rsum" in self.metrics and k < 10:
            raise ValueError(f"k is {k}, but rsum needs the first 10 of each query")
        self.results: dict[str, Result] = {}
        self._parts: dict[tuple[str, str], list[EncodedTexts]] = defaultdict(list)
        self._read_by_teacher: dict[tuple[str, str], EncodedTexts | Shards] = {}

    @property
    def monitor_mode(self) -> Literal["min", "max"]:
        """Whether the best checkpoint has the smallest or the largest value of the first metric."""
        return "min" if self.metrics[0] == "median_rank" else "max"

    def check(self, collections: Mapping[str, Collection]) -> None:
        """Look whether all collections can be scored.

        Raises:
            InputError: a metric does not fit one of them, or one with views is too large.
        """
        for collection in collections.values():
            check_metrics(self.metrics, collection)
            needs_all = collection.views or "median_rank" in self.metrics
            if needs_all and self.large.has(collection):
                raise InputError(
                    f"the collection {collection.name!r} has {len(collection.documents):,} documents, and "
                    f"{'its views need' if collection.views else 'median_rank needs'} all of them in memory: raise "
                    f"evaluation.shard_texts above {self.large.most:,}"
                )

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """See `introduce`."""
        self.introduce(trainer.datamodule)  # type: ignore[attr-defined]

    def introduce(self, data: Any) -> None:
        """Tell the datamodule what not to give, and look whether the metrics fit the collections.

        Args:
            data: the datamodule, after its setup.

        Raises:
            InputError: see `check`.
        """
        data.shard_texts, data.undistilled = self.large.most, self.undistilled
        self.check(data.collections)

    def forget(self) -> None:
        """Forget all results, and what the teacher read: the collections are others now."""
        self.results.clear()
        self._read_by_teacher.clear()

    def on_validation_epoch_start(self, *_: Any) -> None:
        """Forget what was encoded with older weights."""
        self._parts.clear()

    def on_test_epoch_start(self, *_: Any) -> None:
        """Forget what was encoded with other weights."""
        self._parts.clear()

    def on_validation_batch_end(self, _: Trainer, __: Any, outputs: Any, batch: TextBatch, *___: Any) -> None:
        """Keep the vectors of a batch."""
        self._parts[batch.collection, batch.side].append(EncodedTexts.from_embeddings(batch.ids, outputs))

    def on_test_batch_end(self, _: Trainer, __: Any, outputs: Any, batch: TextBatch, *___: Any) -> None:
        """Keep the vectors of a batch."""
        self._parts[batch.collection, batch.side].append(EncodedTexts.from_embeddings(batch.ids, outputs))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Rank and log."""
        self._evaluate(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Rank and log, the two rows to compare with as well."""
        self._evaluate(trainer, pl_module)
        collections: dict[str, Collection] = trainer.datamodule.collections  # type: ignore[attr-defined]
        rows = {"test": "undistilled", "english": "teacher"} if self.undistilled else {"english": "teacher"}
        for collection in collections.values():
            row = named(rows.get(collection.split, ""), collection.language)
            if collection.split in rows and row not in self.results:  # the teacher does not change
                self.results[row] = self._rank_with_teacher(trainer, pl_module, collection)

    def _evaluate(self, trainer: Trainer, module: DistillationModule) -> None:
        parts = _merged_over_ranks(dict(self._parts))
        by_language: dict[str, list[dict[str, float]]] = defaultdict(list)
        names = {name for name, _ in parts}
        for name, collection in trainer.datamodule.collections.items():  # type: ignore[attr-defined]
            if name not in names:
                continue
            sides: dict[TextSide, EncodedTexts | Shards] = {
                side: self._side(trainer, module, collection, side, parts.get((name, side)))
                for side in get_args(TextSide)
            }
            result = self._rank(sides, collection, module.score)
            self.results[name] = result
            logged = with_plain(self.metrics[0], result.means, collection)
            if collection.language:
                by_language[collection.split].append(logged)
            self._log(module, name, logged, bar=not collection.language)
        for split, means in by_language.items():
            common = [metric for metric in means[0] if all(metric in each for each in means)]
            average = {metric: fmean(each[metric] for each in means) for metric in common}
            self._log(module, split, average, bar=True)
        self._parts.clear()
        self.large.clean(trainer)

    def _side(
        self,
        trainer: Trainer,
        module: DistillationModule,
        collection: Collection,
        side: TextSide,
        found: EncodedTexts | None,
    ) -> EncodedTexts | Shards:
        """One side of a collection, encoded by whoever reads it; ``found`` is what the student encoded in batches."""
        if found is None:
            return self._teacher_reads(trainer, module, collection, side)
        if side == "documents" and self.large.has(collection):
            return self.large.read(trainer, module, collection, "student")
        return found

    def _log(self, module: DistillationModule, name: str, means: dict[str, float], bar: bool) -> None:
        # Every rank has all vectors, hence the same values; there is nothing to reduce.
        for metric, value in means.items():
            module.log(f"{name}/{metric}", value, prog_bar=bar and metric == self.metrics[0])

    def _rank_with_teacher(self, trainer: Trainer, module: DistillationModule, collection: Collection) -> Result:
        sides = {side: self._teacher_reads(trainer, module, collection, side) for side in get_args(TextSide)}
        return self._rank(sides, collection, module.score)

    def _rank(self, sides: Mapping[TextSide, EncodedTexts | Shards], collection: Collection, score: str) -> Result:
        queries = sides["queries"]
        assert isinstance(queries, EncodedTexts)
        return rank(queries, sides["documents"], collection, self.metrics, score, self.k)

    def _teacher_reads(
        self, trainer: Trainer, module: DistillationModule, collection: Collection, side: TextSide
    ) -> EncodedTexts | Shards:
        """What the teacher makes of one side; the teacher does not change, so this is done once."""
        key = (collection.name, side)
        if key in self._read_by_teacher:
            return self._read_by_teacher[key]
        if side == "documents" and self.large.has(collection):
            self._read_by_teacher[key] = self.large.read(trainer, module, collection, "teacher")
        else:
            texts = collection.queries if side == "queries" else collection.documents
            self._read_by_teacher[key] = encode_with_teacher(module.teacher, texts, module.score != "pooled", side)
        return self._read_by_teacher[key]


def _merged_over_ranks(parts: dict[tuple[str, str], list[EncodedTexts]]) -> dict[tuple[str, str], EncodedTexts]:
    """The texts of all ranks, each once: the ranks' shares were padded by repeating."""
    gathered: list[Any] = [parts]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, parts)
    merged: dict[tuple[str, str], list[EncodedTexts]] = defaultdict(list)
    for share in gathered:
        for key, encoded in share.items():
            merged[key].extend(encoded)
    return {key: EncodedTexts.concatenate(encoded) for key, encoded in merged.items()}
