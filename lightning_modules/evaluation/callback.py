"""Retrieval evaluation as a callback: encode collections whole, search, score, and log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, get_args

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from foundations.checks import check_choice
from foundations.errors import InputError
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.encoding import EncodedTexts, StudentEncoder, encode
from lightning_modules.evaluation.hybrid import Hybrid, is_of_texts, lexical_runs, stored_weights
from lightning_modules.evaluation.large import LargeCollections
from lightning_modules.evaluation.ranking import rank
from lightning_modules.lightning_private import data_of
from lightning_modules.students.base import TextSide
from lightning_modules.teachers.base import Encoder, Teacher
from lightning_modules.teachers.whitened import WhitenedTeacher
from retrieval.collection import Collection, Run, Side
from retrieval.index.bm25 import BM25
from retrieval.index.shards import Shards
from retrieval.metrics import DEFAULT_METRICS, SUMMARIES, parse_metric
from retrieval.results import Result, named
from retrieval.views import check_metrics, score_views, with_plain
from strategies.functional import Marginals

_SIDES: tuple[TextSide, ...] = get_args(TextSide)


class RetrievalEvaluation(Callback):
    """Ranks the collections of the datamodule, and logs ``dev/map``, ``test/map`` and so on.

    A validation encodes those of ``dev`` with the weights of the moment, a test those of ``test``, always whole: how
    many batches the trainer was told to validate (``limit_val_batches``, ``fast_dev_run``, ``overfit_batches``) makes
    no difference, unless it is none.

    After a test, `results` also has the rows to compare with: ``undistilled``, the teacher as it is reading both
    sides of the test collection, and ``teacher``, the teacher (in the whitened space, if that was chosen) on the
    English twin of it, where there is one; of texts also ``bm25``, which reads the queries as they are,
    ``bm25_english``, and ``hybrid``, the student and BM25. With several
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
        token_weights: how much each token of a query counts in MaxSim: all the same (``uniform``), by the norm of its
            vector (``norm``), or by its inverse document frequency in the training texts (``idf``). None is ``norm``
            in the hybrid score, and ``uniform`` elsewhere.
        bm25: let BM25 search the test as well, for the rows to compare with; not of more than shard_texts documents.

    Raises:
        ValueError: no such metric, or a number is out of range.
    """

    def __init__(
        self,
        metrics: Sequence[str] = DEFAULT_METRICS,
        k: int = 100,
        shard_texts: int = 200_000,
        undistilled: bool = True,
        token_weights: Marginals | None = None,
        bm25: bool = True,
    ) -> None:
        self.metrics, self.k, self.undistilled = [str(parse_metric(metric)) for metric in metrics], k, undistilled
        self.token_weights, self.bm25 = token_weights, bm25
        check_choice("token_weights", token_weights or "uniform", get_args(Marginals))
        self.large = LargeCollections(shard_texts)
        if not self.metrics:
            raise ValueError("metrics is empty, expected at least one: the best checkpoint is chosen by the first")
        if "rsum" in self.metrics and k < 10:
            raise ValueError(f"k is {k}, but rsum needs the first 10 of each query")
        self.results: dict[str, Result] = {}
        self._engine: tuple[Mapping[str, str], BM25] | None = None
        self._by_teacher: dict[tuple[str, TextSide, bool], tuple[Mapping[str, str], EncodedTexts | Shards]] = {}

    @property
    def monitor_mode(self) -> Literal["min", "max"]:
        """Whether the best checkpoint has the smallest or the largest value of the first metric."""
        return "min" if self.metrics[0] == "median_rank" else "max"

    def query_weights(self, score: str) -> Marginals:
        """How much each token of a query counts under a score: see ``token_weights``."""
        stored = stored_weights(self.large.folder)[1] or "norm" if score == "hybrid" else "uniform"
        return self.token_weights or stored

    def check(self, collections: Mapping[str, Collection], score: str = "pooled") -> None:
        """Look whether all collections can be scored.

        Raises:
            InputError: a metric or the score does not fit one of them, or one with views is too large.
        """
        for collection in collections.values():
            check_metrics(self.metrics, collection)
            if score == "hybrid" and not is_of_texts(collection):
                raise InputError(
                    f"score is hybrid, but the collection {collection.name!r} has images, which BM25 cannot read"
                )
            reasons = {"its views need": collection.views, "median_rank needs": "median_rank" in self.metrics}
            reasons["score hybrid needs"] = score == "hybrid"
            reason = next((reason for reason, holds in reasons.items() if holds), None)
            if reason is not None and self.large.has(collection):
                raise InputError(
                    f"the collection {collection.name!r} has {len(collection.documents):,} documents, and {reason} all "
                    f"of them in memory: raise evaluation.shard_texts above {self.large.most:,}"
                )

    def teacher_sides(self, collections: Mapping[str, Collection]) -> Iterator[tuple[TextSide, Mapping[str, str]]]:
        """The texts that the teacher of a run will be asked for, and what it reads them as; not those of shards.

        Args:
            collections: of the datamodule.
        """
        for collection in collections.values():
            is_undistilled = self.undistilled and collection.split == "test"
            readers: tuple[Side, ...] = ("teacher", "student") if is_undistilled else ("teacher",)
            for reader in readers:
                for side in _SIDES:
                    is_large = side == "documents" and self.large.has(collection)
                    if collection.reader(side) == reader and not is_large:
                        yield side, collection.texts(side)

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Look whether the metrics fit the collections."""
        self.check(data_of(trainer).collections, pl_module.score)
        # A loop over the one empty batch has no half of it; see `PairsDataModule.val_dataloader`.
        for limit in ("limit_val_batches", "limit_test_batches"):
            if 0 < getattr(trainer, limit) < 1:
                setattr(trainer, limit, 1.0)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Encode, rank and log ``dev``."""
        self._evaluate(trainer, pl_module, "dev")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Encode, rank and log ``test``, and the rows to compare with."""
        self._evaluate(trainer, pl_module, "test")
        rows = {"test": "undistilled", "english": "teacher"} if self.undistilled else {"english": "teacher"}
        for collection in data_of(trainer).collections.values():
            if collection.split in rows:
                readers: dict[TextSide, Side] = dict.fromkeys(_SIDES, "teacher")
                row = named(rows[collection.split], collection.language)
                teacher = pl_module.teacher if collection.split == "test" else pl_module.teacher_in_space
                self.results[row] = self._result(trainer, pl_module, collection, readers, teacher)
            if collection.split == "english":
                self._add_lexical(collection, lambda hybrid: {"bm25_english": hybrid.search_words(self.k)})

    def _evaluate(self, trainer: Trainer, module: DistillationModule, split: str) -> None:
        by_language: list[dict[str, float]] = []
        for name, collection in data_of(trainer).collections.items():
            if collection.split == split:
                readers: dict[TextSide, Side] = {side: module.reader_of(collection, side) for side in _SIDES}
                self.results[name] = self._result(trainer, module, collection, readers, module.teacher_in_space)
                means = with_plain(self.metrics[0], self.results[name].means, collection)
                self._log(module, name, means, bar=not collection.language)
                by_language += [means] if collection.language else []
        if by_language:
            common = [metric for metric in by_language[0] if all(metric in means for means in by_language)]
            self._log(module, split, {metric: fmean(means[metric] for means in by_language) for metric in common})
        self.large.clean()

    def _log(self, module: DistillationModule, name: str, means: dict[str, float], bar: bool = True) -> None:
        # Every rank has all vectors, hence the same values; there is nothing to reduce.
        for metric, value in means.items():
            module.log(f"{name}/{metric}", value, prog_bar=bar and metric == self.metrics[0])

    def _result(
        self,
        trainer: Trainer,
        module: DistillationModule,
        collection: Collection,
        readers: Mapping[TextSide, Side],
        teacher: Teacher,
    ) -> Result:
        encoders = {"student": StudentEncoder.within(trainer, module), "teacher": teacher}
        queries, documents = (
            self._encoded(trainer, module, collection, side, encoders[readers[side]]) for side in _SIDES
        )
        assert isinstance(queries, EncodedTexts)
        if collection.split == "test" and "student" in readers.values():
            self._add_lexical(collection, lambda hybrid: lexical_runs(hybrid, queries, documents, module.score, self.k))
        hybrid = self._hybrid(collection) if module.score == "hybrid" else None
        return rank(queries, documents, collection, self.metrics, module.score, self.k, hybrid)

    def _hybrid(self, collection: Collection) -> Hybrid:
        """BM25 beside vectors; that of the last documents is kept, as dev and test often have the same."""
        if self._engine is None or self._engine[0] is not collection.documents:
            self._engine = collection.documents, BM25(collection.documents)
        return Hybrid(self._engine[1], collection.queries, stored_weights(self.large.folder)[0])

    def _add_lexical(self, collection: Collection, search: Callable[[Hybrid], dict[str, Run]]) -> None:
        """Add the rows that BM25 has a part in, where there are texts that it can hold in memory."""
        metrics = [metric for metric in self.metrics if metric not in SUMMARIES]
        if not self.bm25 or not metrics or not is_of_texts(collection):
            return
        if self.large.has(collection):
            rank_zero_warn(
                f"no rows of BM25: the collection {collection.name!r} has {len(collection.documents):,} documents, "
                f"more than evaluation.shard_texts, {self.large.most:,}"
            )
            return
        try:
            hybrid = self._hybrid(collection)
        except ValueError as error:
            rank_zero_warn(f"no rows of BM25: {error}")
            return
        for row, run in search(hybrid).items():
            scores = score_views(collection, {"": run}, metrics, lambda _: {})
            result = Result(scores.means, scores.per_query, {row: run})
            self.results[named(row, collection.language)] = result

    def _encoded(
        self, trainer: Trainer, module: DistillationModule, collection: Collection, side: TextSide, encoder: Encoder
    ) -> EncodedTexts | Shards:
        """One side of a collection; what the teacher makes of the same texts is kept, since it does not change."""
        key, texts = (collection.name, side, isinstance(encoder, WhitenedTeacher)), collection.texts(side)
        if isinstance(encoder, Teacher) and key in self._by_teacher and self._by_teacher[key][0] is texts:
            return self._by_teacher[key][1]
        tokens, batch_size = module.score != "pooled", data_of(trainer).eval_batch_size
        encoded: EncodedTexts | Shards
        if side == "documents" and self.large.has(collection):
            encoded = self.large.encode(encoder, collection, tokens=tokens, batch_size=batch_size)
        else:
            asks = side == "queries" or any(view.transposed for view in collection.views)
            kind = self.query_weights(module.score) if asks else "uniform"
            encoded = encode(encoder, texts, side, tokens=tokens, batch_size=batch_size, token_weights=kind)
        if isinstance(encoder, Teacher):
            self._by_teacher[key] = texts, encoded
        return encoded
